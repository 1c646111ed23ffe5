"""Dirty bitmaps in a stream: chunks of bits behind their headers, without I/O.

After migration/block-dirty-bitmap.c, which has the format in its head.  A chunk without the name
of its node or its bitmap is of the same as the one before.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.migration.wire import Input, Pull, counted

END: Final = 0x01
ZEROES: Final = 0x02
BITMAP_NAME: Final = 0x04
NODE_NAME: Final = 0x08
START: Final = 0x10
COMPLETE: Final = 0x20
BITS: Final = 0x40
MORE_FLAGS: Final = 0x80  # in the first and second byte: there are more bytes of flags

ENABLED: Final = 0x01  # flags of a bitmap
PERSISTENT: Final = 0x02
RESERVED: Final = 0xF8

CHUNK: Final = 1024  # bytes of bits that are sent at once
MOST_CHUNK: Final = 10 * CHUNK
ALIGN: Final = 32  # bytes: the bits sent are filled up to multiples of that
_SECTOR: Final = 512
_MOST_SECTORS: Final = (1 << 32) - 1
_FAR: Final = 1 << 54  # sectors: no disk is so large
_ZERO_CHUNK: Final = [("flags", "u1"), ("start", ">u8"), ("count", ">u4")]  # numpy's, once used


def aligned(size: int) -> int:
    """Return how many bytes are sent for so many bytes of bits."""
    return -(-size // ALIGN) * ALIGN


class Namer:
    """Says which bitmap chunks are of, where that is another than before."""

    def __init__(self) -> None:
        self._node: object = None
        self._bitmap: object = None

    def head(self, node: object, bitmap: object, names: tuple[str, str], flags: int) -> bytes:
        """Return the header of a chunk of ``bitmap``; ``names`` are its node's and its own."""
        parts = []
        if node is not self._node:
            self._node, flags = node, flags | NODE_NAME
            parts.append(counted(names[0]))
        if bitmap is not self._bitmap:
            self._bitmap, flags = bitmap, flags | BITMAP_NAME
            parts.append(counted(names[1]))
        return bytes([flags]) + b"".join(parts)


def start(granularity: int, flags: int) -> bytes:
    """Return what follows the header of a bitmap's first chunk."""
    return struct.pack(">IB", granularity, flags)


def chunk_bytes(bits: Bitmap) -> int:
    """Return how many bytes of a bitmap's bits are sent at once; the sectors fit 32 bits."""
    size = CHUNK
    while bits.serial_coverage(size) // _SECTOR > _MOST_SECTORS:
        size //= 2
    return max(size, 8)


class Chunks:
    """The chunks of one bitmap, to be sent in parts; those without a bit set in one go."""

    def __init__(self, bits: Bitmap) -> None:
        self._bits = bits
        self._size = chunk_bytes(bits)
        self._covers = bits.serial_coverage(self._size)  # bytes of disk
        self._total = -(-bits.length // _SECTOR) * _SECTOR
        self.count = -(-self._total // self._covers)

    def parts(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Yield chunks in order, up to ``most`` at once: the first one's flags, and the rest."""
        dirty = self._bits.stored_parts(self._size).tolist()
        at = 0
        for stop in [*dirty, self.count]:
            while at < stop:
                end = min(at + most, stop)
                yield BITS | ZEROES, self._zeroes(at, end)
                at = end
            if at < self.count:
                yield BITS, self._data(at)
                at += 1

    def _sectors(self, at: int) -> int:
        return (min((at + 1) * self._covers, self._total) - at * self._covers) // _SECTOR

    def _zeroes(self, first: int, end: int) -> bytes:
        """Return chunks without bits, but for the first one's flags."""
        rows = np.empty(end - first, _ZERO_CHUNK)
        rows["flags"] = BITS | ZEROES
        rows["start"] = np.arange(first, end, dtype=np.int64) * (self._covers // _SECTOR)
        rows["count"] = self._covers // _SECTOR
        rows["count"][-1] = self._sectors(end - 1)
        return rows.tobytes()[1:]

    def _data(self, at: int) -> bytes:
        start = at * self._covers
        data = self._bits.serialise(start, min(self._covers, self._bits.length - start))
        size = aligned(len(data))
        head = struct.pack(">QIQ", start // _SECTOR, self._sectors(at), size)
        return head + bytes(data).ljust(size, b"\0")


def read_flags(source: Input) -> Pull[int]:
    """Read the flags of a chunk, which take one, two or four bytes."""
    flags = yield from source.u8()
    if flags & MORE_FLAGS:
        flags = (flags << 8 | (yield from source.u8())) & 0xFF
        if flags & MORE_FLAGS:
            flags = (flags << 16 | (yield from source.u16())) & 0xFF
    return flags


def take_zeroes(source: Input) -> tuple[int, int] | None:
    """Read over all chunks without bits that have come, are in a row and of the same bitmap.

    Returns the bytes of disk that they are about, (offset, length), None if there is none.
    """
    size = np.dtype(_ZERO_CHUNK).itemsize
    whole = source.available // size
    if whole < 2:
        return None
    rows = np.frombuffer(source.ahead(min(whole, 4096) * size), _ZERO_CHUNK)
    start, count = rows["start"].astype(np.int64), rows["count"].astype(np.int64)
    same = (rows["flags"] == BITS | ZEROES) & (start >= 0) & (start <= _FAR)
    same[1:] &= start[1:] == start[:-1] + count[:-1]
    length = len(same) if same.all() else int(same.argmin())
    if length < 1:
        return None
    source.skip(length * size)
    first = int(start[0])
    end = int(start[length - 1] + count[length - 1])
    return first * _SECTOR, (end - first) * _SECTOR
