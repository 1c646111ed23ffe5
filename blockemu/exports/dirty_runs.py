"""Which parts of a disk a bitmap has dirty, as NBD clients may ask (qemu:dirty-bitmap).

Clients ask for 4 GiB at a time, whatever the bitmap looks like, so runs are looked for once for
many requests, and kept as they go over the wire (``make bench``: export).
"""

import struct
from bisect import bisect_left, bisect_right
from typing import Final

import numpy as np

from blockemu.dirty import DirtyBitmap

_RUN: Final = struct.Struct(">II")  # bytes, and 1 for dirty
_SIZE: Final = _RUN.size
_MANY: Final = 1 << 16  # runs that it is enough to look for at once
_LEAST, _MOST = 1 << 18, 1 << 26  # bits that are looked at for that


class DirtyRuns:
    """The runs of one bitmap that an export holds, so that nobody but a write changes it.

    A write to what is clean changes the number of dirty bits: if that is as it was, so is the rest.
    """

    def __init__(self, bitmap: DirtyBitmap) -> None:
        self._bits = bitmap.bits
        self._words = np.empty(0, np.uint64)  # whose runs are known, ...
        self._count = self._length = -1  # ... when so many were dirty, and of so long a disk,
        self._start = self._end = 0  # in this range:
        self._ahead = _LEAST
        self._turns = memoryview(b"").cast("q")  # offsets, from clean to dirty first
        self._wire = memoryview(b"")  # the runs between them; of longer ones only parts go out

    def body(self, offset: int, length: int, most: int) -> bytes:
        """Return the first runs of a range, at most so many, as a block status reply has them.

        Neighbours differ; beyond the bitmap's end nothing is dirty.
        """
        end = offset + length
        bits = self._bits
        if not (
            self._start <= offset
            and end <= self._end
            and bits.count == self._count
            and bits.words is self._words
            and bits.length == self._length
        ):
            self._look(offset, end)
        turns = self._turns
        low = bisect_right(turns, offset)
        high = bisect_left(turns, end, low)
        if low == high:
            return _RUN.pack(length, low & 1)
        first = _RUN.pack(turns[low] - offset, low & 1)
        if high - low >= most:
            return first + self._wire[low * _SIZE : (low + most - 1) * _SIZE]
        last = _RUN.pack(end - turns[high - 1], high & 1)
        return b"".join((first, self._wire[low * _SIZE : (high - 1) * _SIZE], last))

    def trim(self) -> None:
        """Forget what takes much room, since nobody asks just now."""
        if len(self._turns) > _MANY:
            self._count = -1
            self._turns, self._wire = memoryview(b"").cast("q"), memoryview(b"")

    def _look(self, offset: int, end: int) -> None:
        """Look for the runs of a range, and of what clients will ask for next."""
        bits = self._bits
        state = bits.count, bits.length
        if state != (self._count, self._length) or bits.words is not self._words:
            self._ahead = _LEAST
        elif len(self._turns) < _MANY // 4:
            self._ahead = min(self._ahead * 4, _MOST)
        elif len(self._turns) > _MANY:
            self._ahead = max(self._ahead // 4, _LEAST)
        self._words, (self._count, self._length) = bits.words, state
        self._start, self._end = offset, max(end, offset + (self._ahead << bits.shift))
        starts, ends = bits.extents(offset, self._end)
        turns = np.empty(2 * len(starts), np.int64)
        turns[0::2], turns[1::2] = starts, ends
        self._turns = turns.data
        wire = np.empty((max(len(turns) - 1, 0), 2), ">u4")
        wire[:, 0] = turns[1:] - turns[:-1]
        wire[0::2, 1] = 1
        wire[1::2, 1] = 0
        self._wire = wire.reshape(-1).view(np.uint8).data
