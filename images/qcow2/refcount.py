"""Refcount blocks: 1 to 64 bits a cluster, on disk big-endian or packed into bytes, low bits first.

In memory a block is an unsigned array, of one byte an entry where the disk has less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts: TypeAlias = "NDArray[Any]"  # uint8, uint16, uint32 or uint64
NEAR = 1024  # refcounts that are looked through soon
DTYPES = (np.uint8, np.uint8, np.uint8, np.uint8, np.uint16, np.uint32, np.uint64)


def empty_counts(order: int, count: int) -> Counts:
    """Return ``count`` refcounts of zero."""
    return np.zeros(count, DTYPES[order])


def unpack_counts(data: memoryview, order: int) -> Counts:
    """Return a block's refcounts as a new array."""
    raw = np.frombuffer(data, np.uint8)
    if order == 0:
        return np.unpackbits(raw, bitorder="little")
    if order < 3:
        width = 1 << order
        shifts = np.arange(0, 8, width, dtype=np.uint8)
        parts = (raw[:, None] >> shifts) & np.uint8((1 << width) - 1)
        return parts.reshape(-1)
    return raw.view(np.dtype(DTYPES[order]).newbyteorder(">")).astype(DTYPES[order])


def pack_counts(counts: Counts, order: int) -> bytes:
    """Return a block's bytes."""
    if order == 0:
        return np.packbits(counts, bitorder="little").tobytes()
    if order < 3:
        width = 1 << order
        shifts = np.arange(0, 8, width, dtype=np.uint8)
        parts = counts.reshape(-1, 8 // width) << shifts
        packed: Counts = np.bitwise_or.reduce(parts, axis=1)
        return packed.astype(np.uint8).tobytes()
    return counts.astype(counts.dtype.newbyteorder(">")).tobytes()


def first_free(block: Counts, local: int, want: int) -> tuple[int, int]:
    """Return where the first ``want`` free clusters in a row are, from ``local`` on, and how many.

    There may be fewer at the block's end: the row may go on in the next block.
    """
    if not block[local]:
        part = block[local : local + want]
        if want == 1 or not part.any():
            return local, len(part)
    for part in (block[local : local + NEAR], block[local:]):  # mostly there is one nearby
        used = np.flatnonzero(part)
        before = np.concatenate(([-1], used, [len(part)]))
        rows = before[1:] - before[:-1] - 1
        fits = rows >= want
        at = int(fits.argmax())
        if fits[at]:
            return local + int(before[at]) + 1, want
    return local + int(before[-2]) + 1, int(rows[-1])
