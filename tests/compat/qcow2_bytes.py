"""A qcow2 image's bytes, for tests that meddle with them."""

from __future__ import annotations

import struct
from pathlib import Path

MOST = 64 << 20  # bytes; files that a wrong entry made endless are sparse from there on
OFFSET = 0x00FFFFFFFFFFFE00  # of an L1 or L2 entry


class Bytes:
    """An image's bytes, read once; what is poked goes to the file too.  Offsets are in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.data = bytearray(file.read(MOST))

    def word(self, at: int) -> int:
        """Return the big-endian word of 64 bits at an offset."""
        return int(struct.unpack_from(">Q", self.data, at)[0])

    def poke(self, at: int, *values: int, code: str = "Q") -> None:
        """Put big-endian values, of the ``struct`` code, from an offset on."""
        packed = struct.pack(f">{len(values)}{code}", *values)
        self.data[at : at + len(packed)] = packed
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(packed)

    def cut(self, length: int) -> None:
        """Shorten the file."""
        self.path.write_bytes(self.data[:length])

    @property
    def cluster(self) -> int:
        """The size of a cluster."""
        return 1 << self.data[23]

    @property
    def l1(self) -> int:
        """Where the L1 table is."""
        return self.word(40)

    @property
    def l2(self) -> int:
        """Where the first L2 table is."""
        return self.word(self.l1) & OFFSET

    @property
    def reftable(self) -> int:
        """Where the refcount table is."""
        return self.word(48)

    @property
    def snapshots(self) -> int:
        """Where the table of internal snapshots is."""
        return self.word(64)
