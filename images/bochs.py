"""Bochs' growing disk images: a header, a catalog, then extents (after block/bochs.c).

Numbers are little-endian.  The catalog has an entry of 32 bits for each extent of the disk: which
one it is of those in the file, or that it is nowhere.  An extent in the file is a bitmap with a bit
for each sector that was written, in whole sectors, and then the extent's sectors.
"""

from typing import Annotated, Final

from blockemu.images.errors import FormatError
from blockemu.images.layout import U32, Layout

SECTOR: Final = 512
UNALLOCATED: Final = 0xFFFFFFFF
MAX_CATALOG: Final = 0x100000
MAX_EXTENT: Final = 0x800000
HEADER_BYTES: Final = 512
_MAGIC: Final = b"Bochs Virtual HD Image"
_VERSION_1, _VERSION_2 = 0x00010000, 0x00020000


class NotBochs(FormatError):
    """Another format, or another kind of Bochs' images."""

    template = "Image not in Bochs format"


class CatalogTooLarge(FormatError):
    """More entries than any image has."""

    template = "Catalog size is too large"


class CatalogTooSmall(FormatError):
    """There is no entry for the disk's end."""

    template = "Catalog size is too small for this disk size"


class ExtentTooSmall(FormatError):
    """Less than a sector."""

    template = "Extent size must be at least 512"


class ExtentOdd(FormatError):
    """(size)."""

    template = "Extent size {} is not a power of two"


class ExtentTooLarge(FormatError):
    """(size)."""

    template = "Extent size {} is too large"


class Header(Layout, byte_order="<"):
    """The header; sizes in bytes but that of the catalog, in entries.

    In version 1 the disk's size begins where version 2 has a reserved word.
    """

    magic: Annotated[bytes, "32s"]
    type: Annotated[bytes, "16s"]
    subtype: Annotated[bytes, "16s"]
    version: U32
    header_size: U32
    catalog_entries: U32
    bitmap_size: U32
    extent_size: U32
    word: U32
    low: U32
    high: U32

    @property
    def is_known(self) -> bool:
        """Whether it is a growing image of a version that can be read."""
        texts = [raw.partition(b"\0")[0] for raw in (self.magic, self.type, self.subtype)]
        known = self.version in (_VERSION_1, _VERSION_2)
        return texts == [_MAGIC, b"Redolog", b"Growing"] and known

    @property
    def disk_size(self) -> int:
        """The disk's size, in whole sectors."""
        low, high = (self.word, self.low) if self.version == _VERSION_1 else (self.low, self.high)
        return (high << 32 | low) & -SECTOR

    @property
    def data_offset(self) -> int:
        """Where the first extent is in the file."""
        return self.header_size + self.catalog_entries * 4

    @property
    def bitmap_bytes(self) -> int:
        """What an extent's bitmap takes in the file."""
        return ((self.bitmap_size - 1 & 0xFFFFFFFF) // SECTOR + 1 & 0xFFFFFFFF) * SECTOR

    @property
    def stride(self) -> int:
        """Bytes from one extent in the file to the next."""
        return self.bitmap_bytes + self.extent_size


def parse_header(raw: bytes | memoryview) -> Header:
    """Read a header and check it before the catalog is read.

    Raises:
        FormatError: in QEMU's words.

    """
    header = Header.unpack(raw)
    if not header.is_known:
        raise NotBochs
    if header.catalog_entries > MAX_CATALOG:
        raise CatalogTooLarge
    return header


def check_sizes(header: Header) -> None:
    """Check what QEMU checks once it has the catalog.

    Raises:
        FormatError: in QEMU's words.

    """
    size = header.extent_size
    if size < SECTOR:
        raise ExtentTooSmall
    if size & size - 1:
        raise ExtentOdd(size)
    if size > MAX_EXTENT:
        raise ExtentTooLarge(size)
    if header.catalog_entries * size < header.disk_size:
        raise CatalogTooSmall
