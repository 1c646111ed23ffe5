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
Bytes: TypeAlias = "NDArray[np.uint8]"
Positions: TypeAlias = "NDArray[np.int64]"

STEP = 1 << 16  # words handled at a time, so that they and what is made of them stay in cache
FULL = (1 << 64) - 1
_UNSIGNED = {size: f"<u{size}" for size in (1, 2, 4, 8)}  # bytes: dtype
_SPARSE = 4  # one word in so many, or fewer, differs from the one before: only those are looked at


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
    differ = np.ones(words.size + 1, np.bool_)
    np.not_equal(words[1:], words[:-1], out=differ[1:-1])
    if np.count_nonzero(differ) * _SPARSE <= words.size:
        where = np.flatnonzero(differ[:-1])  # each begins words that are alike
        some = words[where]
        mixed = where[some + np.uint64(1) > np.uint64(1)]  # neither all zeroes nor all ones
        if differ[mixed + 1].all():  # no two of these are alike: within the others no bit differs
            return _within(where, _of_bytes(_turned(some, before).view(np.uint8)), 6)
    return _of_words(_turned(words, before))


def _turned(words: Words, before: int) -> Words:
    """Return which bits differ from the bit before them."""
    turned = words << np.uint64(1)
    turned[1:] |= words[:-1] >> np.uint64(63)
    turned[0] |= np.uint64(before)
    turned ^= words
    return turned


def _of_words(words: Words) -> Positions:
    """Return the positions of bits that are set."""
    some = words != 0
    if np.count_nonzero(some) * 4 > words.size * 3:
        return _of_bytes(words.view(np.uint8))
    where = np.flatnonzero(some)  # of words themselves it takes five times as long
    return _within(where, _of_bytes(words[where].view(np.uint8)), 6)


def _of_bytes(packed: Bytes) -> Positions:
    some = packed != 0
    if np.count_nonzero(some) * 2 > packed.size:
        return _of_bits(packed)
    where = np.flatnonzero(some)
    return _within(where, _of_bits(packed[where]), 3)


def _of_bits(packed: Bytes) -> Positions:
    return np.flatnonzero(np.unpackbits(packed, bitorder="little").view(np.bool_))


def _within(where: Positions, found: Positions, by: int) -> Positions:
    """Turn positions in words or bytes, of ``1 << by`` bits, that lie at ``where`` into bits'."""
    positions: Positions = (where[found >> by] << by) + (found & ((1 << by) - 1))
    return positions
