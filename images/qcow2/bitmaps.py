"""The directory of persistent bitmaps."""

from dataclasses import dataclass
from typing import Final

from blockemu.images.errors import FormatError
from blockemu.images.layout import U8, U16, U32, U64, Layout
from blockemu.images.qcow2.constants import MAX_BITMAP_DIRECTORY

IN_USE: Final = 1 << 0  # flags
AUTO: Final = 1 << 1
FLAGS_AT: Final = 12  # in an entry
_KNOWN_FLAGS = IN_USE | AUTO
_TRACKING = 1  # the only type
_MAX_TABLE, _MAX_BYTES = 0x8000000, 0x20000000
_MAX_NAME = 1023


class EmptyDirectory(FormatError):
    """The directory has no bytes."""

    template = "Requested bitmap directory size is zero"


class DirectoryTooBig(FormatError):
    """The directory is larger than QEMU would read."""

    template = "Requested bitmap directory size is too big"


class BrokenDirectory(FormatError):
    """An entry goes beyond the directory's end."""

    template = "Broken bitmap directory"


class WrongCount(FormatError):
    """(More, Less): not as many bitmaps as the header says."""

    template = "{} bitmaps found than specified in header extension"


class ExtraData(FormatError):
    """Extra data with a bitmap."""

    template = "Bitmap extra data is not supported"


class BadBitmap(FormatError):
    """An entry makes no sense: the bitmap's name."""

    template = "Bitmap '{}' doesn't satisfy the constraints"


class _Entry(Layout):
    table_offset: U64 = 0
    table_size: U32 = 0
    flags: U32 = 0
    type: U8 = 0
    granularity_bits: U8 = 0
    name_size: U16 = 0
    extra_size: U32 = 0


@dataclass(frozen=True, slots=True)
class StoredBitmap:
    """A bitmap in the image.

    ``at``: where its entry begins in the directory; ``table_size``: entries of 64 bits.
    """

    name: str
    table_offset: int
    table_size: int
    flags: int
    granularity_bits: int
    at: int

    @property
    def in_use(self) -> bool:
        """Whether what is stored is not up to date."""
        return bool(self.flags & IN_USE)


def check_directory_size(size: int) -> None:
    """Check the size before anything is read.

    Raises:
        FormatError: none, or too many bytes.

    """
    if not size:
        raise EmptyDirectory
    if size > MAX_BITMAP_DIRECTORY:
        raise DirectoryTooBig


def parse_directory(
    data: bytes | memoryview, count: int, length: int, cluster_size: int
) -> list[StoredBitmap]:
    """Read the directory of a disk of ``length`` bytes (after bitmap_list_load).

    Raises:
        FormatError: something is wrong with it.

    """
    found: list[StoredBitmap] = []
    at, end, fixed = 0, len(data), _Entry.CODEC.size
    while at < end:
        if at + fixed > end:
            raise BrokenDirectory
        if len(found) >= count:
            raise WrongCount("More")
        entry = _Entry.unpack(data, at)
        size = (fixed + entry.name_size + entry.extra_size + 7) & ~7
        if at + size > end:
            raise BrokenDirectory
        if entry.extra_size:
            raise ExtraData
        name = bytes(data[at + fixed : at + fixed + entry.name_size])
        text = name.split(b"\0")[0].decode(errors="surrogateescape")
        if not _makes_sense(entry, length, cluster_size):
            raise BadBitmap(text)
        found.append(
            StoredBitmap(
                text, entry.table_offset, entry.table_size, entry.flags,
                entry.granularity_bits, at,
            )
        )  # fmt: skip
        at += size
    if len(found) != count:
        raise WrongCount("Less")
    return found


def _makes_sense(entry: _Entry, length: int, cluster_size: int) -> bool:
    """After check_dir_entry, block/qcow2-bitmap.c."""
    stored = entry.table_size * cluster_size
    return (
        entry.table_size > 0
        and entry.table_offset > 0
        and not entry.table_offset % cluster_size
        and entry.table_size <= _MAX_TABLE
        and 9 <= entry.granularity_bits <= 31
        and not entry.flags & ~_KNOWN_FLAGS
        and entry.name_size <= _MAX_NAME
        and entry.type == _TRACKING
        and stored <= _MAX_BYTES
        and (bool(entry.flags & IN_USE) or length <= stored * 8 << entry.granularity_bits)
    )
