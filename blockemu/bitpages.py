"""What a bitmap holds: its words and, if they are many, which pages of them were written to."""

import mmap
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blockemu.bitwords import Words

SUMMARY_FROM = 1 << 26  # bits from which pages are noted
PAGE = 9  # log2 of the words in a page: one of the machine's, unless that would be too many pages
MOST_PAGES = 1 << 21


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bitmap held at some moment, to be given back to it if need be.

    ``pages``: 1 where a page may have a bit set, None where that is not noted; ``page``: log2 of
    the words in one; ``grid``: the words of all pages, a row each.
    """

    length: int
    words: Words
    pages: NDArray[np.uint8] | None
    count: int
    page: int
    grid: Words


def empty(length: int, shift: int) -> Contents:
    """Return contents with no bit set, in memory that is not touched yet if it is much.

    Raises:
        OSError: there is no room for so many bits.

    """
    size = -(-length >> shift)
    count = max(1, -(-size // 64))
    if size < SUMMARY_FROM:
        words = np.zeros(count, np.uint64)
        return Contents(length, words, None, 0, PAGE, words)
    page = max(PAGE, (count // MOST_PAGES).bit_length())
    rows = -(-count >> page)
    # Neither numpy's own memory nor huge pages, of which each bit set would clear a whole one.
    memory = mmap.mmap(-1, rows << (page + 3), flags=_FLAGS)
    with suppress(OSError):  # a system without them
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    grid = np.frombuffer(memory, np.uint64).reshape(rows, -1)
    return Contents(length, grid.reshape(-1)[:count], np.zeros(rows, np.uint8), 0, page, grid)


_NORESERVE = 0x4000  # MAP_NORESERVE, which Python's mmap does not name
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
