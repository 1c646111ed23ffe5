"""The dirty bitmap engine: packed bits over a disk's bytes, with an exact count.

It knows no nodes and does no I/O.  The bits are one buffer, least significant first, which is the
form in which qcow2 stores them and over which QEMU computes its checksum.  A large bitmap also
notes which pages of the buffer were ever written: everything that looks at the whole of it skips
the others, and their memory is never touched, so a sparse bitmap costs what is set and not what
could be.

All offsets and lengths are bytes of the disk.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from blockemu.bitmaps.bitpages import Contents, empty, expect_pages, gather, merge, used_parts
from blockemu.bitmaps.bits import Bits
from blockemu.bitmaps.bitwords import STEP, Positions, Words, fold, popcount, spread, steps
from blockemu.images.distinct import distinct
from blockemu.records import replace

MASK = tuple(1 << i for i in range(8))


class Bitmap(Bits):
    """One bit for each ``1 << shift`` bytes of a disk of ``length`` bytes; the last may be partial.

    ``count`` is the number of bits set, always exact.  ``enabled`` says whether guest writes are to
    be marked; the engine itself does not look at it.  ``size`` is the number of bits.
    """

    __slots__ = ("_part", "_whole", "enabled")

    def __init__(self, length: int, granularity: int = 65536) -> None:
        super().__init__(length, granularity.bit_length() - 1)
        self._part, self._whole = granularity - 1, granularity
        self.enabled = True

    @property
    def granularity(self) -> int:
        """Bytes for each bit."""
        return 1 << self.shift

    @property
    def dirty_bytes(self) -> int:
        """What QEMU shows as count: bits set, times the granularity."""
        return self.count << self.shift

    # Setting and getting

    def mark(self, offset: int, length: int) -> None:
        """Set the bits of a byte range.  Raises IndexError beyond the end."""
        first = offset >> self.shift
        if (offset & self._part) + length > self._whole:
            self._assign(first, ((offset + length - 1) >> self.shift) + 1, True)
            return
        if not length:
            return
        old = self.bits[first >> 3]
        if old & MASK[first & 7]:
            return
        if first >= self.size:
            raise IndexError(offset)
        self.bits[first >> 3] = old | MASK[first & 7]
        self.count += 1
        if self._summary is not None:
            self._summary[first >> (self._page + 6)] = 1

    def reset(self, offset: int, length: int) -> None:
        """Clear the bits of a byte range, which must cover them wholly.

        Raises ValueError if it does not begin and end at a multiple of the granularity, or at the
        end of the disk.
        """
        end = offset + length
        part = self.granularity - 1
        if offset & part or (end & part and end != self.length):
            raise ValueError(f"{offset}+{length} covers bits in part")
        if length:
            self._assign(offset >> self.shift, -(-end >> self.shift), False)

    def get(self, offset: int) -> bool:
        """Tell whether a byte is dirty."""
        bit = offset >> self.shift
        if not 0 <= bit < self.size:
            raise IndexError(offset)
        return bool(self.bits[bit >> 3] & MASK[bit & 7])

    def clear(self) -> None:
        """Clear all bits."""
        if self._touched is not None:
            self._install(empty(self.length, self.shift))  # gives the memory back too
        elif self.count:
            self.words.fill(0)
            self.count = 0

    # Contents as a whole

    def take(self) -> Contents:
        """Clear all bits and return what was there, for ``restore``; costs next to nothing."""
        old = self._contents()
        self._install(empty(self.length, self.shift))
        return old

    def contents(self) -> Contents:
        """Return a copy of what is there, for ``restore``."""
        new = empty(self.length, self.shift)
        if new.pages is not None and self._touched is not None:
            expect_pages(new, self._touched)
            new.pages[:] = self._touched
        for first, end in self._spans():
            new.words[first:end] = self.words[first:end]
        return replace(new, count=self.count)

    def restore(self, contents: Contents) -> None:
        """Make the bitmap what it was; ``contents`` is used up by that."""
        self._install(contents)

    def copy(self) -> "Bitmap":
        """Return a bitmap of the same bits that shares nothing with this one."""
        other = Bitmap(0, self.granularity)
        other.enabled = self.enabled
        other._install(self.contents())
        return other

    def merge(self, other: "Bitmap") -> None:
        """Set each bit of whose bytes ``other`` has any dirty.

        The granularities may differ.  Raises ValueError unless both are over equally long disks.
        """
        if other.length != self.length:
            raise ValueError("bitmaps of different sizes")
        if not other.count or other is self:
            return
        by = self.shift - other.shift
        if by == 0 and self._touched is not None and other._touched is not None:
            self.count = merge(self._contents(), other._contents())
        elif by == 0 and not self.count:
            for first, end in other._spans():
                self.words[first:end] = other.words[first:end]
                self._touch(first, end)
            self.count = other.count
        elif by == 0:
            for first, end in other._parts(STEP, 1):
                self._or(first, other.words[first:end])
        elif by > 0:
            for first, end in other._parts(1 << max(16, by), 1 << by):
                part = other.words[first:end]
                if part.any():
                    missing = -part.size % (1 << by)
                    padded = np.concatenate((part, np.zeros(missing, np.uint64)))
                    self._or(first >> by, fold(padded, by))
        else:
            for first, end in other._parts(max(1, STEP >> -by), 1):
                part = other.words[first:end]
                if part.any():
                    self._or(first << -by, spread(part, -by))

    def resize(self, length: int) -> None:
        """Follow the disk to a new size; what is new is clean, what is gone is forgotten."""
        size = -(-length >> self.shift)
        if size < self.size:
            self._assign(size, self.size, False)
        if max(1, -(-size // 64)) == self.words.size:
            self.length, self.size = length, size
            return
        new = empty(length, self.shift)
        for first, end in self._spans(0, min(new.words.size, self.words.size)):
            new.words[first:end] = self.words[first:end]
            if new.pages is not None:
                new.pages[first >> new.page : -(-end >> new.page)] = 1
        self._install(replace(new, count=self.count))

    # Looking for something

    def next_dirty(self, offset: int, length: int | None = None) -> int | None:
        """Return the first dirty byte from ``offset`` on, within ``length`` if that is given."""
        end = self.length if length is None else min(self.length, offset + length)
        if offset >= end:
            return None
        bit = self._next_set(offset >> self.shift, -(-end >> self.shift))
        return None if bit is None else max(offset, bit << self.shift)

    def next_zero(self, offset: int, length: int | None = None) -> int | None:
        """Return the first clean byte from ``offset`` on, within ``length`` if that is given."""
        end = self.length if length is None else min(self.length, offset + length)
        if offset >= end:
            return None
        bit = self._next_clear(offset >> self.shift, -(-end >> self.shift))
        return None if bit is None else max(offset, bit << self.shift)

    def next_dirty_area(
        self, start: int, end: int, most: int | None = None
    ) -> tuple[int, int] | None:
        """Return offset and length of the first dirty area in a range, cut to ``most`` bytes."""
        end = min(end, self.length)
        found = self.next_dirty(start, end - start)
        if found is None:
            return None
        if most is not None:
            end = min(end, found + most)
        stop = self.next_zero(found, end - found)
        return found, (end if stop is None else stop) - found

    def status(self, offset: int, length: int) -> tuple[bool, int]:
        """Tell whether a byte is dirty, and for how many bytes, up to ``length``, that holds."""
        dirty = self.get(offset)
        turn = (self.next_zero if dirty else self.next_dirty)(offset, length)
        return dirty, (length if turn is None else turn - offset)

    def extents(self, start: int = 0, end: int | None = None) -> tuple[Positions, Positions]:
        """Return where the dirty areas of a range begin and end: two arrays of int64, in bytes."""
        nothing = np.empty(0, np.int64), np.empty(0, np.int64)
        return next(self.chunks(start, end, 1 << 62), nothing)

    def chunks(
        self, start: int = 0, end: int | None = None, step: int = STEP << 6
    ) -> Iterator[tuple[Positions, Positions]]:
        """Yield the dirty areas of a range as ``extents`` does, those of ``step`` bits at a time.

        An area that reaches from one part into the next comes as two.
        """
        end = self.length if end is None else min(end, self.length)
        if start >= end:
            return
        for first, stop in steps(start >> self.shift, -(-end >> self.shift), step):
            starts, ends = self._areas(first, stop)
            if starts.size:
                yield (
                    np.maximum(starts << self.shift, start),
                    np.minimum(ends << self.shift, end),
                )

    # Storing

    @property
    def serial_align(self) -> int:
        """Bytes of disk to whose multiples parts must be aligned: one word's, as in QEMU."""
        return 64 << self.shift

    def serial_coverage(self, size: int) -> int:
        """Return the bytes of disk whose bits take ``size`` bytes."""
        return size << (3 + self.shift)

    def serial_size(self, offset: int, length: int) -> int:
        """Return the bytes that the bits of a range take when stored: whole words."""
        first, end = self._serial(offset, length)
        return (end - first) * 8

    def serialise(self, offset: int, length: int) -> memoryview:
        """Return the bits of a range as they are stored: the live bytes, not a copy."""
        first, end = self._serial(offset, length)
        return self.bits[first * 8 : end * 8].toreadonly()

    def deserialise(self, offset: int, length: int, data: bytes | memoryview) -> None:
        """Take the bits of a range from where they were stored; what is beyond the end is dropped.

        Raises ValueError if ``data`` is not exactly ``serial_size`` bytes.
        """
        first, end = self._serial(offset, length)
        if len(data) != (end - first) * 8:
            raise ValueError("wrong length of stored bits")
        words = np.frombuffer(data, np.uint64)
        for start, stop in steps(first, end):
            if self.count:
                self._assign(start * 64, min(stop * 64, self.size), False)
            part = words[start - first : stop - first]
            if part.any():
                self._or(start, part, clean=True)

    def room(self, offset: int, length: int) -> memoryview | None:
        """Return the live bytes of a range without any bit set, to be filled from where they were
        stored; ``filled`` is to be called then.  None: they should not all be touched.
        """
        if self._touched is not None:
            return None
        first, end = self._serial(offset, length)
        return self.bits[first * 8 : end * 8]

    def filled(self, offset: int, length: int) -> None:
        """Take note of what was put into a ``room``; what is beyond the end is dropped."""
        first, end = self._serial(offset, length)
        if end == self.words.size and self.size & 63:
            self.words[-1] &= np.uint64((1 << (self.size & 63)) - 1)
        self.count += popcount(self.words[first:end])

    def stored_parts(self, size: int) -> Positions:
        """Return which parts of the stored bits, of ``size`` bytes each, have any set.

        ``size`` is a power of two and at least a word's.
        """
        if not self.count:  # memory that was never touched stays so
            return np.empty(0, np.int64)
        per = size // 8
        if self._touched is not None and per >> self._page:
            return used_parts(self._held, per)
        found = [np.empty(0, np.int64)]
        for first, end in self._parts(max(STEP, per), per):
            rows, rest = divmod(end - first, per)
            whole = self.words[first : end - rest].view(np.bool_)  # any byte but zero is true
            found.append(np.flatnonzero(whole.reshape(rows, size).any(axis=1)) + first // per)
            if rest and self.words[end - rest : end].any():
                found.append(np.array([end // per], np.int64))
        return distinct(np.concatenate(found))

    def stored(self, parts: Positions, size: int, room: Words) -> memoryview:
        """Return some parts of the stored bits in a row, each of ``size`` bytes.

        They are copied to ``room``, unless they lie in a row already.
        """
        per = size // 8
        if len(parts) and self._touched is None:
            first, last = int(parts[0]), int(parts[-1])
            if last - first + 1 == len(parts) and (last + 1) * per <= self.words.size:
                return self.bits[first * size : (last + 1) * size]
        rows = room[: len(parts) * per].reshape(-1, per)
        if self._touched is not None and per >> self._page:
            gather(self._held, parts, rows)
        else:
            whole = self.words[: self.words.size // per * per].reshape(-1, per)
            inside = int(np.searchsorted(parts, len(whole)))
            np.take(whole, parts[:inside], axis=0, out=rows[:inside], mode="clip")
            rows[inside:] = 0
            tail = self.words[whole.size :]
            rows[inside:, : tail.size] = tail
        return rows.view(np.uint8).reshape(-1).data

    def sha256(self) -> str:
        """Return the checksum that x-debug-block-dirty-bitmap-sha256 shows: of all whole words."""
        return hashlib.sha256(self.bits).hexdigest()

    def _serial(self, offset: int, length: int) -> tuple[int, int]:
        end = offset + length
        part = self.serial_align - 1
        reaches_last = self.size and (end - 1) >> self.shift == self.size - 1
        if offset & part or (end & part and not reaches_last):
            raise ValueError(f"{offset}+{length} covers words in part")
        return offset >> (self.shift + 6), -(-end >> (self.shift + 6))
