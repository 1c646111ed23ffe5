"""What a bitmap holds: its words and, if they are many, which pages of them were written to."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from blockemu.bitmaps.bitwords import STEP, Positions, Words, popcount
from blockemu.images.distinct import distinct
from blockemu.images.lengths import turns
from blockemu.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUMMARY_FROM = 1 << 26  # bits from which pages are noted
PAGE = 9  # log2 of the words in a page: one of the machine's, unless that would be too many pages
MOST_PAGES = 1 << 21
HUGE = 1 << 18  # words in a huge page of the machine's memory
MOST_HUGE = 1 << 9  # of them in a bitmap: each might cut its memory into pieces, which are few


@record(frozen=True)
class Contents:
    """What a bitmap held at some moment, to be given back to it if need be.

    ``pages``: 1 where a page may have a bit set, None where that is not noted; ``page``: log2 of
    the words in one; ``grid``: the words of all pages, a row each; ``memory``: where they are.
    """

    length: int
    words: Words
    pages: NDArray[np.uint8] | None
    count: int
    page: int
    grid: Words
    memory: mmap.mmap | None = None


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
    return Contents(
        length, grid.reshape(-1)[:count], np.zeros(rows, np.uint8), 0, page, grid, memory
    )


def merge(into: Contents, other: Contents) -> int:
    """Set what is set in ``other``, of the same size, and return how many bits are set then.

    Only the pages that ``other`` has written to are looked at.  Both must note them.
    """
    assert into.pages is not None
    assert other.pages is not None
    expect_pages(into, other.pages)
    pages = np.flatnonzero(other.pages)
    step, count = max(1, STEP >> into.page), into.count
    for at in range(0, pages.size, step):
        some = pages[at : at + step]
        rows = _rows(some)
        new = other.grid[rows]
        if into.count:
            old = into.grid[rows]
            new = new | old
            count += popcount(new.reshape(-1)) - popcount(old.reshape(-1))
        into.grid[rows] = new
    into.pages[:] |= other.pages
    return count if into.count else other.count


def used_parts(held: Contents, per: int) -> Positions:
    """Return which parts, of ``per`` words each and no less than a page's, have any bit set."""
    assert held.pages is not None
    pages, step = np.flatnonzero(held.pages), max(1, STEP >> held.page)
    found = [np.empty(0, np.int64)]
    for at in range(0, pages.size, step):
        some = pages[at : at + step]
        found.append(some[np.bitwise_or.reduce(held.grid[_rows(some)], axis=1) != 0])
    return distinct(np.concatenate(found) // (per >> held.page))


def gather(held: Contents, parts: Positions, into: Words) -> None:
    """Copy parts to rows of ``into``, each of as many words as a part, no less than a page's.

    Pages that nothing was written to are not looked at: the machine would have to get memory for
    them, which takes longer than all the rest.
    """
    assert held.pages is not None
    per = into.shape[1] >> held.page
    pages = parts[:, None] * per + np.arange(per)
    within = pages < held.pages.size
    some = within & (held.pages[np.where(within, pages, 0)] != 0)
    into[:] = 0
    into.reshape(*pages.shape, -1)[some] = held.grid[pages[some]]


def _rows(some: Positions) -> Positions | slice:
    """Return an index of rows that makes a view if they are in a row, else copies."""
    first, end = int(some[0]), int(some[-1]) + 1
    return slice(first, end) if end - first == some.size else some


def expect(memory: mmap.mmap | None, first: int, end: int) -> None:
    """Get ready for most of a range of words to be set: have it in huge pages where it is new.

    To get them and to give them back takes far less than it does with 512 small ones for each
    (``make bench``: merge and clear at 1 Gi bits).  Huge pages that the range has a part of count
    as well.
    """
    if memory is None or len(memory) >> 3 > HUGE * MOST_HUGE:
        return
    start = first - first % HUGE << 3
    with suppress(OSError):  # as above
        memory.madvise(
            mmap.MADV_HUGEPAGE, start, min(len(memory), -(-end // HUGE) * HUGE << 3) - start
        )


def expect_pages(contents: Contents, pages: NDArray[np.uint8]) -> None:
    """Get ready for the pages to be set that are not 0 in ``pages``, as ``expect`` does."""
    per = max(1, HUGE >> contents.page)
    filled = np.add.reduceat(pages, np.arange(0, pages.size, per), dtype=np.int64) * 2 >= per
    for first, end in (turns(filled).reshape(-1, 2) * per << contents.page).tolist():
        expect(contents.memory, first, end)


_NORESERVE = 0x4000  # MAP_NORESERVE, which Python's mmap does not name
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
