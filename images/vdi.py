"""VDI, VirtualBox's format: a header, a map of blocks, the blocks (after block/vdi.c).

Numbers are little-endian.  The map has an entry of 32 bits for each block of the disk: where the
block lies in the image, counted in blocks, or that it is nowhere and reads as zeroes.
"""

from typing import Annotated, Final

from blockemu.images.errors import FormatError
from blockemu.images.layout import U32, U64, Layout

SECTOR: Final = 512
BLOCK: Final = 1 << 20
SIGNATURE: Final = 0xBEDA107F
VERSION: Final = 0x00010001
DYNAMIC: Final = 1
STATIC: Final = 2
UNALLOCATED: Final = 0xFFFFFFFF
DISCARDED: Final = 0xFFFFFFFE  # the first number that is no place
MAX_BLOCKS: Final = 0x1FFFFF80
MAX_SIZE: Final = MAX_BLOCKS * BLOCK
NO_UUID: Final = bytes(16)
_TEXT: Final = b"<<< QEMU VM Virtual Disk Image >>>\n"


class SizeUnsupported(FormatError):
    """(size, most)."""

    template = "Unsupported VDI image size (size is {:#x}, max supported is {:#x})"


class BadSignature(FormatError):
    """(signature)."""

    template = "Image not in VDI format (bad signature {:08x})"


class BadVersion(FormatError):
    """(major, minor)."""

    template = "unsupported VDI image (version {}.{})"


class UnalignedMap(FormatError):
    """(offset)."""

    template = "unsupported VDI image (unaligned block map offset 0x{:x})"


class UnalignedData(FormatError):
    """(offset)."""

    template = "unsupported VDI image (unaligned data offset 0x{:x})"


class BadSectorSize(FormatError):
    """(size)."""

    template = "unsupported VDI image (sector size {} is not 512)"


class BadBlockSize(FormatError):
    """(size)."""

    template = "unsupported VDI image (block size {} is not 1048576)"


class MapTooSmall(FormatError):
    """(disk size, bytes that the map has room for)."""

    template = "unsupported VDI image (disk size {}, image bitmap has room for {})"


class HasLink(FormatError):
    """The image depends on another one."""

    template = "unsupported VDI image (non-NULL link UUID)"


class HasParent(FormatError):
    """The image depends on another one."""

    template = "unsupported VDI image (non-NULL parent UUID)"


class TooManyBlocks(FormatError):
    """(blocks, most)."""

    template = "unsupported VDI image (too many blocks {}, max is {})"


class Header(Layout, byte_order="<"):
    """The first sector; what is not named is not used."""

    text: Annotated[bytes, "64s"] = _TEXT
    signature: U32 = SIGNATURE
    version: U32 = VERSION
    header_size: U32 = 0x180
    image_type: U32 = DYNAMIC
    image_flags: U32 = 0
    description: Annotated[bytes, "256s"] = b""
    offset_bmap: U32 = SECTOR
    offset_data: U32 = SECTOR
    geometry: Annotated[bytes, "12s"] = b""
    sector_size: U32 = SECTOR
    unused1: U32 = 0
    disk_size: U64 = 0
    block_size: U32 = BLOCK
    block_extra: U32 = 0
    blocks_in_image: U32 = 0
    blocks_allocated: U32 = 0
    uuid_image: Annotated[bytes, "16s"] = NO_UUID
    uuid_last_snap: Annotated[bytes, "16s"] = NO_UUID
    uuid_link: Annotated[bytes, "16s"] = NO_UUID
    uuid_parent: Annotated[bytes, "16s"] = NO_UUID
    unused2: Annotated[bytes, "56s"] = b""

    @property
    def map_bytes(self) -> int:
        """Bytes of the map, in whole sectors."""
        return -(-self.blocks_in_image * 4 // SECTOR) * SECTOR


def check_size(size: int) -> None:
    """Raise SizeUnsupported for a disk that is too large."""
    if size > MAX_SIZE:
        raise SizeUnsupported(size, MAX_SIZE)


def parse_header(data: bytes | memoryview) -> Header:
    """Read and check the header; an odd disk size is rounded up to a sector.

    Raises:
        FormatError: it is not VDI, or of a kind that QEMU does not know; the first thing wrong.

    """
    header = Header.unpack(data)
    check_size(header.disk_size)
    header.disk_size = -(-header.disk_size // SECTOR) * SECTOR
    if header.signature != SIGNATURE:
        raise BadSignature(header.signature)
    if header.version != VERSION:
        raise BadVersion(header.version >> 16, header.version & 0xFFFF)
    if header.offset_bmap % SECTOR:
        raise UnalignedMap(header.offset_bmap)
    if header.offset_data % SECTOR:
        raise UnalignedData(header.offset_data)
    if header.sector_size != SECTOR:
        raise BadSectorSize(header.sector_size)
    if header.block_size != BLOCK:
        raise BadBlockSize(header.block_size)
    room = header.blocks_in_image * BLOCK
    if header.disk_size > room:
        raise MapTooSmall(header.disk_size, room)
    if header.uuid_link != NO_UUID:
        raise HasLink
    if header.uuid_parent != NO_UUID:
        raise HasParent
    if header.blocks_in_image > MAX_BLOCKS:
        raise TooManyBlocks(header.blocks_in_image, MAX_BLOCKS)
    return header


def new_header(size: int, *, static: bool, uuid: bytes, snapshot_uuid: bytes) -> Header:
    """Return the header of an image of ``size`` bytes; the UUIDs are 16 random bytes each.

    Raises:
        SizeUnsupported: the disk would be too large.

    """
    check_size(size)
    blocks = -(-size // BLOCK)
    header = Header(
        image_type=STATIC if static else DYNAMIC,
        disk_size=size,
        blocks_in_image=blocks,
        blocks_allocated=blocks if static else 0,
        uuid_image=uuid,
        uuid_last_snap=snapshot_uuid,
    )
    header.offset_data = header.offset_bmap + header.map_bytes
    return header
