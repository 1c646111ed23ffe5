"""Packed bits with an exact count, and a note of which pages of them were ever written.

Positions are bits or words, ranges (first, end); ``blockemu.bitmaps.bitmap`` knows what they
stand for.
"""

from collections.abc import Iterator

import numpy as np

from blockemu.bitmaps.bitpages import HUGE, Contents, empty, expect
from blockemu.bitmaps.bitwords import FULL, STEP, Positions, Words, changes, popcount, steps
from blockemu.images.lengths import turns
from blockemu.records import replace

SMALL = 1024  # bits that are handled as one Python integer, faster than numpy up to about here
NEAR = 1024  # words of which it takes too long to ask which pages of them may be set
FEW = 1024  # runs of pages that are looked at one by one


class Bits:
    """Bits in words, least significant first, one for each ``1 << shift`` of ``length``.

    ``count`` is the number of bits set, always exact; ``size`` the number of bits.
    """

    __slots__ = (
        "_held",
        "_page",
        "_summary",
        "_touched",
        "bits",
        "count",
        "length",
        "shift",
        "size",
        "words",
    )
    bits: memoryview  # the bytes of ``words``
    words: Words  # at least one; what lies beyond ``size`` bits is zero
    count: int
    length: int
    size: int

    def __init__(self, length: int, shift: int) -> None:
        self.shift = shift
        self._install(empty(length, shift))

    def _install(self, contents: Contents) -> None:
        self.length = contents.length
        self.size = -(-contents.length >> self.shift)
        self.words, self.count = contents.words, contents.count
        self.bits = contents.words.view(np.uint8).data
        self._held, self._page, self._touched = contents, contents.page, contents.pages
        self._summary = None if contents.pages is None else contents.pages.data

    def _contents(self) -> Contents:
        return replace(self._held, length=self.length, count=self.count)

    def _spans(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the runs of words that may be other than zero."""
        end = self.words.size if end is None else end
        if self._touched is None or end - first <= NEAR:
            pages = self._summary and self._summary[first >> self._page : self._page_count(end)]
            if first < end and (pages is None or 1 in pages.tobytes()):
                yield first, end
            return
        base = first >> self._page
        touched = self._touched[base : self._page_count(end)]
        if not touched.any():
            return
        turned = turns(touched)
        if turned.size > 2 * FEW:  # what lies close together comes in one go
            near = np.flatnonzero(turned[2::2] - turned[1:-1:2] < turned[-1] // FEW)
            turned = np.delete(turned, np.concatenate((near * 2 + 1, near * 2 + 2)))
        for start, stop in ((turned.reshape(-1, 2) + base) << self._page).tolist():
            yield max(first, start), min(end, stop)

    def _parts(self, step: int, align: int) -> Iterator[tuple[int, int]]:
        """Yield what ``_spans`` yields, begun at multiples of ``align``, ``step`` at a time."""
        for first, end in self._spans():
            yield from steps(first - first % align, end, step)

    def _assign(self, first: int, end: int, value: bool) -> None:
        if end > self.size:
            raise IndexError(end << self.shift)
        if end - first <= SMALL:
            self._assign_small(first, end, value)
            return
        start, stop = -(-first // 64), end // 64
        if first & 63:
            self._assign_small(first, start * 64, value)
        if end & 63:
            self._assign_small(stop * 64, end, value)
        if value:
            if stop - start >= HUGE:
                expect(self._held.memory, start, stop)
            part = self.words[start:stop]
            self.count += part.size * 64 - popcount(part)
            part[:] = FULL
            self._touch(start, stop)
            return
        for a, b in self._spans(start, stop):
            self.count -= popcount(self.words[a:b])
            self.words[a:b] = 0
        if self._touched is not None:
            self._touched[
                self._page_count(start) : max(self._page_count(start), stop >> self._page)
            ] = 0

    def _assign_small(self, first: int, end: int, value: bool) -> None:
        low, high = first >> 3, (end + 7) >> 3
        mask = ((1 << (end - first)) - 1) << (first & 7)
        old = int.from_bytes(self.bits[low:high], "little")
        new = old | mask if value else old & ~mask
        if new != old:
            self.bits[low:high] = new.to_bytes(high - low, "little")
            self.count += new.bit_count() - old.bit_count()
            if self._touched is not None and value:
                self._touched[first >> (self._page + 6) : ((end - 1) >> (self._page + 6)) + 1] = 1

    def _or(self, at: int, new: Words, *, clean: bool = False) -> None:
        """Set what is set in ``new``, from word ``at`` on, and count it; ``clean``: none is yet."""
        current = self.words[at : at + new.size]
        new = new[: current.size]
        if at + new.size == self.words.size and self.size & 63:
            new = new.copy()
            new[-1] &= np.uint64((1 << (self.size & 63)) - 1)
        if self._touched is not None:
            where = np.flatnonzero(new != 0)
            if where.size << 3 < new.size:  # touches no more memory than it must
                values = new[where]
                if not clean:
                    old = current[where]
                    self.count -= popcount(old)
                    values |= old
                current[where] = values
                self.count += popcount(values)
                self._touched[(where + at) >> self._page] = 1
                return
            if new.size == STEP:
                expect(self._held.memory, at, at + STEP)
        fresh = new if clean else new & ~current
        gained = popcount(fresh)
        if gained:
            current |= fresh
            self.count += gained
            self._touch(at, at + new.size)

    def _page_count(self, words: int) -> int:
        """Return the number of pages that so many words lie on."""
        return -(-words >> self._page)

    def _touch(self, first: int, end: int) -> None:
        """Note that words may be other than zero."""
        if self._touched is not None:
            self._touched[first >> self._page : self._page_count(end)] = 1

    def _next_set(self, bit: int, end: int) -> int | None:
        word = bit >> 6
        head = int(self.words[word]) >> (bit & 63)
        if head:
            found = bit + (head & -head).bit_length() - 1
            return found if found < end else None
        for first, stop in self._spans(word + 1, -(-end // 64)):
            live = self.words[first:stop].view(np.bool_)  # any byte but zero counts as true
            at = int(live.argmax())
            if live[at]:
                byte = self.bits[first * 8 + at]
                found = (first * 8 + at) * 8 + (byte & -byte).bit_length() - 1
                return found if found < end else None
        return None

    def _next_clear(self, bit: int, end: int) -> int | None:
        word, stop = bit >> 6, -(-end // 64)
        head = ~int(self.words[word]) >> (bit & 63) << (bit & 63) & FULL
        step = 16
        while not head:
            word += 1
            if word >= stop:
                return None
            open_ = self.words[word : min(stop, word + step)] != FULL
            at = int(open_.argmax())
            if open_[at]:
                word += at
                head = ~int(self.words[word]) & FULL
            else:
                word += open_.size - 1
                step = min(step * 4, STEP)
        found = word * 64 + (head & -head).bit_length() - 1
        return found if found < end else None

    def _areas(self, first: int, end: int) -> tuple[Positions, Positions]:
        """Return the runs of set bits in a range."""
        found: list[Positions] = []
        for start, stop in self._spans(first >> 6, -(-end // 64)):
            before = 0
            for a, b in steps(start, stop):
                found.append(changes(self.words[a:b], before) + a * 64)
                before = int(self.words[b - 1]) >> 63
            if before:
                found.append(np.array([stop * 64], np.int64))
        turns = np.concatenate(found) if found else np.empty(0, np.int64)
        starts, ends = turns[0::2], turns[1::2]
        low, high = np.searchsorted(ends, first, "right"), np.searchsorted(starts, end)
        return np.maximum(starts[low:high], first), np.minimum(ends[low:high], end)
