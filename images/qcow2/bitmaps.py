"""Persistent bitmaps: their directory, and the tables that say where the bits are."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from blockemu.images.errors import FormatError
from blockemu.images.layout import U8, U16, U32, U64, Layout
from blockemu.images.qcow2.constants import MAX_BITMAP_DIRECTORY
from blockemu.images.qcow2.tables import Table
from blockemu.records import record

IN_USE: Final = 1 << 0  # flags
AUTO: Final = 1 << 1
ALL_ONES: Final = 1 << 0  # in a table's entry without an offset
CLUSTER: Final = 0x00FFFFFFFFFFFE00  # the offset in a table's entry
MIN_GRANULARITY_BITS: Final = 9
MAX_GRANULARITY_BITS: Final = 31
MAX_TABLE: Final = 0x8000000  # entries
MAX_BYTES: Final = 0x20000000  # of a bitmap
MAX_NAME: Final = 1023  # bytes
_KNOWN_FLAGS = IN_USE | AUTO
_TRACKING = 1  # the only type
_RESERVED = np.uint64(0xFF000000000001FE)


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


class BadEntry(Exception):
    """An entry that is to be written makes no sense."""


class BadTable(Exception):
    """A table has an entry that makes no sense."""


class _Entry(Layout):
    """A bitmap directory's entry, as far as it is of one size."""

    table_offset: U64 = 0
    table_size: U32 = 0
    flags: U32 = 0
    type: U8 = 0
    granularity_bits: U8 = 0
    name_size: U16 = 0
    extra_size: U32 = 0


@record(frozen=True)
class StoredBitmap:
    """A bitmap in the image; ``table_size`` is entries of 64 bits."""

    name: str
    table_offset: int
    table_size: int
    flags: int
    granularity_bits: int

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
        size = _rounded(entry.name_size + entry.extra_size)
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
                text, entry.table_offset, entry.table_size, entry.flags, entry.granularity_bits
            )
        )
        at += size
    if len(found) != count:
        raise WrongCount("Less")
    return found


def pack_directory(bitmaps: Iterable[StoredBitmap], length: int, cluster_size: int) -> bytes:
    """Return the directory of a disk of ``length`` bytes (after bitmap_list_store).

    Raises:
        BadEntry: it could not be read again, or would be too large.

    """
    parts = []
    for bitmap in bitmaps:
        name = encode_name(bitmap.name)
        entry = _Entry(
            table_offset=bitmap.table_offset,
            table_size=bitmap.table_size,
            flags=bitmap.flags,
            type=_TRACKING,
            granularity_bits=bitmap.granularity_bits,
            name_size=len(name),
        )
        if not _makes_sense(entry, length, cluster_size):
            raise BadEntry(bitmap.name)
        parts.append((entry.pack() + name).ljust(_rounded(len(name)), b"\0"))
    data = b"".join(parts)
    if not 0 < len(data) <= MAX_BITMAP_DIRECTORY:
        raise BadEntry
    return data


def entry_size(name: str) -> int:
    """Return how many bytes of the directory a bitmap takes."""
    return _rounded(len(encode_name(name)))


def encode_name(name: str) -> bytes:
    """Return a name as it is stored."""
    return name.encode(errors="surrogateescape")


def bytes_needed(length: int, granularity: int) -> int:
    """Return how many bytes the bits of a disk of ``length`` bytes take."""
    return -(-length // (8 * granularity))


def check_table(table: Table, cluster_size: int) -> None:
    """Check the entries of a table (after check_table_entry).

    Raises:
        BadTable: one makes no sense.

    """
    offsets = table & np.uint64(CLUSTER)
    wrong = (table & _RESERVED) | (offsets & np.uint64(cluster_size - 1))
    both = (offsets != 0) & (table & np.uint64(ALL_ONES) != 0)
    if wrong.any() or both.any():
        raise BadTable


def _rounded(more: int) -> int:
    """Return an entry's size, with a name and extra data; it overflows as QEMU's int does."""
    size = (_Entry.CODEC.size + more + 7) & 0xFFFFFFF8
    return size if size < 1 << 31 else size - (1 << 32)


def _makes_sense(entry: _Entry, length: int, cluster_size: int) -> bool:
    """After check_dir_entry, block/qcow2-bitmap.c."""
    stored = entry.table_size * cluster_size
    return (
        entry.table_size > 0
        and entry.table_offset > 0
        and not entry.table_offset % cluster_size
        and entry.table_size <= MAX_TABLE
        and MIN_GRANULARITY_BITS <= entry.granularity_bits <= MAX_GRANULARITY_BITS
        and not entry.flags & ~_KNOWN_FLAGS
        and entry.name_size <= MAX_NAME
        and entry.type == _TRACKING
        and stored <= MAX_BYTES
        and (bool(entry.flags & IN_USE) or length <= stored * 8 << entry.granularity_bits)
    )
