"""Where a buffer is zero, as ``-S`` wants it known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECTOR = 512


def is_zero(view: memoryview) -> bool:
    """Tell whether there are only zeroes; whole sectors."""
    words = np.frombuffer(view, np.uint64)
    return not words[: SECTOR // 8].any() and not words.any()


def all_data(view: memoryview, at: int, alignment: int) -> bool:
    """Tell whether each block begins with data, as most that have some do.

    Then ``pieces`` would yield but one, of data.
    """
    size = alignment * SECTOR
    whole = at % alignment == 0 and len(view) % size == 0
    return whole and bool(np.frombuffer(view, np.uint64)[:: size // 8].all())


def pieces(
    view: memoryview, least: int, at: int, alignment: int
) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, length, whether there is data) of what ``view`` divides into, in sectors.

    Fewer than ``least`` sectors of zeroes behind data count as data.  Pieces end on multiples of
    ``alignment``, a power of two, as counted from ``at`` before the view (after
    is_allocated_sectors_min, qemu-img.c).
    """
    count = len(view) // SECTOR
    blocks = _nonzero(view, alignment) if at % alignment == 0 and count % alignment == 0 else None
    if (blocks is not None and blocks.all()) or is_zero(view):
        yield 0, count, blocks is not None and bool(blocks.all())
        return
    sectors = _Sectors(_nonzero(view, 1), at, alignment)
    start = 0
    while start < count:
        size, data = sectors.with_short_zeroes(start, min(least, count - start))
        yield start, size, data
        start += size


def _nonzero(view: memoryview, sectors: int) -> NDArray[np.bool_]:
    """Tell of each block of so many sectors whether it has data."""
    words = np.frombuffer(view, np.uint64).reshape(-1, sectors * SECTOR // 8)
    data = words[:, 0] != 0  # mostly that is enough
    open_ = np.flatnonzero(~data)
    if len(open_) == len(words):
        return np.asarray(words.any(axis=1))
    data[open_] = words[open_].any(axis=1)
    return np.asarray(data)


class _Sectors:
    """Runs of sectors with and without data."""

    def __init__(self, data: NDArray[np.bool_], at: int, alignment: int) -> None:
        self._count = len(data)
        self._at = at
        self._alignment = alignment
        self._first = bool(data[0])
        self._turns = [*(np.flatnonzero(data[1:] != data[:-1]) + 1).tolist(), self._count]
        self._next = 0  # which turn is the next

    def with_short_zeroes(self, start: int, least: int) -> tuple[int, bool]:
        """Return the length of a piece and whether it is data, zeroes in between included."""
        size, data = self._run(start)
        if not data:
            return size, False
        used = seen = size
        while start + seen < self._count:
            size, data = self._run(start + seen)
            seen += size
            if data:
                used = seen
            elif size >= least:
                break
        return used, True

    def _run(self, start: int) -> tuple[int, bool]:
        """Return the length of a run, aligned at its end if it is not the last, and its kind."""
        turns = self._turns
        row = self._next
        while row and turns[row - 1] > start:
            row -= 1
        while turns[row] <= start:
            row += 1
        self._next = row
        data, end = self._first ^ bool(row & 1), turns[row]
        if end == self._count:
            return end - start, data
        tail = (self._at + end) & (self._alignment - 1)
        if tail and not data and end - start <= tail:
            data = True
        if tail:
            end = min(end + self._alignment - tail, self._count) if data else end - tail
        return end - start, data
