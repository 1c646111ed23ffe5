"""The log of the kernel's dm-log-writes: every write of a device, in order, with its data.

The log is made of sectors.  The first is the superblock; then come the entries, each a sector
that says what was written and, but for discards, the sectors that were.  All numbers are
little-endian (Documentation/admin-guide/device-mapper/log-writes.rst).
"""

import struct
from typing import Final, Self

from blockemu.records import record

MAGIC: Final = 0x6A736677736872
VERSION: Final = 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
KNOWN: Final = FLUSH | FUA | DISCARD | MARK

_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")
SUPER_SIZE: Final = _SUPER.size
ENTRY_SIZE: Final = _ENTRY.size


def is_sector_size(size: int) -> bool:
    """Tell whether a log may have sectors of so many bytes."""
    return size & (size - 1) == 0 and max(SUPER_SIZE, ENTRY_SIZE) <= size < 1 << 24


@record(frozen=True)
class Super:
    """The superblock; ``sector_size`` is bytes, and not checked."""

    entries: int
    sector_size: int
    magic: int = MAGIC
    version: int = VERSION

    def pack(self) -> bytes:
        """Return the whole sector."""
        head = _SUPER.pack(self.magic, self.version, self.entries, self.sector_size)
        return head.ljust(self.sector_size, b"\0")

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``SUPER_SIZE`` bytes."""
        magic, version, entries, sector_size = _SUPER.unpack(data)
        return cls(entries, sector_size, magic, version)


@record(frozen=True)
class Entry:
    """What was written: sectors of the device, by number and count."""

    sector: int
    count: int
    flags: int = 0

    def pack(self, sector_size: int) -> bytes:
        """Return the whole sector."""
        return _ENTRY.pack(self.sector, self.count, self.flags, 0).ljust(sector_size, b"\0")

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read ``ENTRY_SIZE`` bytes."""
        sector, count, flags, _ = _ENTRY.unpack(data)
        return cls(sector, count, flags)

    @property
    def data_sectors(self) -> int:
        """How many sectors of data follow the entry."""
        return 0 if self.flags & DISCARD else self.count
