"""Blocks of disks in a stream, without I/O (migration/block.c).

A section is a row of words of eight bytes, an offset of the disk with flags in its lowest bits;
behind one for a block come the name of the disk and, unless it is all zeroes, the block itself.
"""

import struct
from typing import Final

from blockemu.migration.wire import counted

BLOCK: Final = 1 << 20  # bytes
SECTOR: Final = 512
DEVICE_BLOCK: Final = 0x01  # flags
END: Final = 0x02
PROGRESS: Final = 0x04
ZERO_BLOCK: Final = 0x08


def end() -> bytes:
    """Return the end of a section."""
    return struct.pack(">Q", END)


def progress(percent: int) -> bytes:
    """Return how much has been read of all disks."""
    return struct.pack(">Q", percent * SECTOR | PROGRESS)


def block(disk: str, offset: int, data: bytes | bytearray | None) -> bytes:
    """Return one block: what it holds, or None if that is zeroes."""
    flags = DEVICE_BLOCK if data is not None else DEVICE_BLOCK | ZERO_BLOCK
    head = struct.pack(">Q", offset | flags) + counted(disk)
    return head if data is None else head + bytes(data)
