"""Packed bits as arrays of 64-bit words, least significant bit first: pure functions over them.

Bit ``i`` is bit ``i % 64`` of word ``i // 64``; in memory that is one long little-endian number,
which is also how qcow2 stores a dirty bitmap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Words: TypeAlias = "NDArray[np.uint64]"
Positions: TypeAlias = "NDArray[np.int64]"

STEP = 1 << 16  # words handled at a time, so that they and what is made of them stay in cache
FULL = (1 << 64) - 1
_UNSIGNED = {size: f"<u{size}" for size in (1, 2, 4, 8)}  # bytes: dtype
_DENSE = 4  # more than one word in so many has a bit: looking at each bit is faster


def steps(first: int, end: int, step: int = STEP) -> Iterator[tuple[int, int]]:
    """Cut a range into parts of at most ``step``, the first of them maybe shorter."""
    while first < end:
        stop = min(end, first - first % step + step)
        yield first, stop
        first = stop


def popcount(words: Words) -> int:
    """Return how many bits are set."""
    total = 0
    for at in range(0, words.size, STEP):
        total += int(np.bitwise_count(words[at : at + STEP]).sum(dtype=np.int64))
    return total


def fold(words: Words, by: int) -> Words:
    """Make one bit of each ``1 << by`` bits: set if any of them is.

    The number of words must be a multiple of ``1 << by``.
    """
    if by < 3:
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        groups = bits.view(_UNSIGNED[1 << by])
    elif by <= 6:
        groups = words.view(_UNSIGNED[1 << (by - 3)])
    else:
        groups = np.bitwise_or.reduce(words.reshape(-1, 1 << (by - 6)), axis=1)
    return np.packbits(groups != 0, bitorder="little").view(np.uint64)


def spread(words: Words, by: int) -> Words:
    """Make ``1 << by`` bits of each bit."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    if by < 3:
        return np.packbits(np.repeat(bits, 1 << by), bitorder="little").view(np.uint64)
    group = _UNSIGNED[1 << (min(by, 6) - 3)]
    filled = np.negative(bits.astype(group)).view(np.uint64)
    return filled if by <= 6 else np.repeat(filled, 1 << (by - 6))


def changes(words: Words, before: int) -> Positions:
    """Return the positions of bits that differ from the bit before them.

    ``before`` is the bit before the first.
    """
    turned = words << np.uint64(1)
    turned[1:] |= words[:-1] >> np.uint64(63)
    turned[0] |= np.uint64(before)
    turned ^= words
    where = np.flatnonzero(turned != 0)  # of words themselves it takes five times as long
    if where.size * _DENSE > words.size:
        return _positions(turned)
    found = _positions(turned[where])
    positions: Positions = (where[found >> 6] << 6) + (found & 63)
    return positions


def _positions(words: Words) -> Positions:
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return np.flatnonzero(bits.view(np.bool_))
