"""The bitmap engine against a set of bit numbers."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from blockemu.bitmaps import bitpages, bits
from blockemu.bitmaps.bitmap import Bitmap

SHIFT = 9
MOST = 6000 << SHIFT  # bytes
fractions = st.floats(0, 1, allow_nan=False)


def areas_of(bits: set[int], shift: int, start: int, end: int) -> list[tuple[int, int]]:
    """The dirty areas of a range, found bit by bit."""
    found: list[tuple[int, int]] = []
    for bit in sorted(bits):
        low, high = max(bit << shift, start), min((bit + 1) << shift, end)
        if low >= high:
            continue
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return found


class Engine(RuleBasedStateMachine):
    """A bitmap and the set it must equal, through everything that can be done to it."""

    summary = False

    @initialize(length=st.integers(0, MOST), shift=st.integers(SHIFT, SHIFT + 8))
    def start(self, length: int, shift: int) -> None:
        self._patches = []
        if self.summary:
            few = (bitpages, "SUMMARY_FROM", 256), (bitpages, "PAGE", 1), (bits, "FEW", 2)
            for module, name, value in few:
                self._patches.append(patch.object(module, name, value))
                self._patches[-1].start()
        self.bitmap = Bitmap(length, 1 << shift)
        self.shift = shift
        self.bits: set[int] = set()

    def teardown(self) -> None:
        for patched in getattr(self, "_patches", ()):
            patched.stop()

    def _range(self, at: float, part: float) -> tuple[int, int]:
        length = self.bitmap.length
        offset = min(int(at * length), max(length - 1, 0))
        return offset, int(part * (length - offset))

    @rule(at=fractions, part=fractions | st.just(0.001))
    def mark(self, at: float, part: float) -> None:
        offset, length = self._range(at, part)
        self.bitmap.mark(offset, length)
        if length:
            self.bits |= set(range(offset >> self.shift, ((offset + length - 1) >> self.shift) + 1))

    @rule(at=fractions, part=fractions | st.just(0.001), to_end=st.booleans())
    def reset(self, at: float, part: float, to_end: bool) -> None:
        offset, length = self._range(at, part)
        offset = offset >> self.shift << self.shift
        end = self.bitmap.length if to_end else (offset + length) >> self.shift << self.shift
        self.bitmap.reset(offset, max(end - offset, 0))
        self.bits -= set(range(offset >> self.shift, -(-end >> self.shift)))

    @rule()
    def clear(self) -> None:
        self.bitmap.clear()
        self.bits = set()

    @rule(at=fractions)
    def take_and_restore(self, at: float) -> None:
        kept = self.bitmap.take()
        assert self.bitmap.count == 0
        assert not self.bitmap.words.any()
        if self.bitmap.length:
            self.bitmap.mark(min(int(at * self.bitmap.length), self.bitmap.length - 1), 1)
        self.bitmap.restore(kept)

    @rule(at=fractions)
    def contents_and_restore(self, at: float) -> None:
        kept = self.bitmap.contents()
        if self.bitmap.length:
            self.bitmap.mark(min(int(at * self.bitmap.length), self.bitmap.length - 1), 1)
        self.bitmap.restore(kept)

    @rule()
    def copy_is_apart(self) -> None:
        other = self.bitmap.copy()
        assert (other.count, other.sha256()) == (self.bitmap.count, self.bitmap.sha256())
        other.clear()

    @rule(length=st.integers(0, MOST))
    def resize(self, length: int) -> None:
        self.bitmap.resize(length)
        self.bits = {bit for bit in self.bits if bit << self.shift < length}

    @rule(
        marks=st.lists(st.tuples(fractions, fractions), max_size=5),
        shift=st.integers(SHIFT, SHIFT + 12),
    )
    def merge(self, marks: list[tuple[float, float]], shift: int) -> None:
        other = Bitmap(self.bitmap.length, 1 << shift)
        theirs: set[int] = set()
        for at, part in marks:
            offset, length = self._range(at, part * part * part)
            if length:
                other.mark(offset, length)
                theirs |= set(range(offset >> shift, ((offset + length - 1) >> shift) + 1))
        before = other.sha256()
        self.bitmap.merge(other)
        assert other.sha256() == before
        for bit in theirs:
            low, high = bit << shift, min((bit + 1) << shift, self.bitmap.length)
            self.bits |= set(range(low >> self.shift, ((high - 1) >> self.shift) + 1))

    @rule(step=st.integers(1, 20))
    def store_and_load(self, step: int) -> None:
        length, align = self.bitmap.length, self.bitmap.serial_align
        loaded = Bitmap(length, 1 << self.shift)
        if length:
            loaded.mark(0, length)
        for offset in range(0, length, step * align):
            part = min(step * align, length - offset)
            data = self.bitmap.serialise(offset, part)
            assert len(data) == self.bitmap.serial_size(offset, part)
            loaded.deserialise(offset, part, data)
        assert loaded.sha256() == self.bitmap.sha256()
        assert loaded.count == len(self.bits)

    @rule(size=st.sampled_from([8, 16, 64, 512]))
    def stored_in_parts(self, size: int) -> None:
        whole = bytes(self.bitmap.bits)
        whole += bytes(-len(whole) % size)
        parts = [whole[at : at + size] for at in range(0, len(whole), size)]
        found = self.bitmap.stored_parts(size)
        room = np.full(len(found) * size // 8 + 1, 7, np.uint64)
        assert found.tolist() == [i for i, part in enumerate(parts) if any(part)]
        assert bytes(self.bitmap.stored(found, size, room)) == b"".join(filter(any, parts))

    @rule(at=fractions, part=fractions, most=st.none() | st.integers(1, MOST))
    def look(self, at: float, part: float, most: int | None) -> None:
        offset, length = self._range(at, part)
        end = offset + length
        dirty = areas_of(self.bits, self.shift, offset, end)
        starts, ends = self.bitmap.extents(offset, end)
        assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == dirty
        area = self.bitmap.next_dirty_area(offset, end, most)
        if not dirty:
            assert area is None
            assert self.bitmap.next_dirty(offset, length) is None
        else:
            start, stop = dirty[0]
            assert self.bitmap.next_dirty(offset, length) == start
            assert area == (start, min(stop - start, most or MOST))
        zero = offset if not dirty or dirty[0][0] > offset else dirty[0][1]
        assert self.bitmap.next_zero(offset, length) == (zero if zero < end else None)
        if length:
            is_dirty = offset >> self.shift in self.bits
            turn = zero if is_dirty else dirty[0][0] if dirty else end
            assert self.bitmap.get(offset) is is_dirty
            assert self.bitmap.status(offset, length) == (is_dirty, turn - offset)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "bitmap"):
            return
        assert self.bitmap.count == len(self.bits)
        assert self.bitmap.dirty_bytes == len(self.bits) << self.shift
        packed = sum(1 << bit for bit in self.bits)
        assert bytes(self.bitmap.bits) == packed.to_bytes(self.bitmap.words.size * 8, "little")


class EngineWithSummary(Engine):
    """The same with a summary, at sizes that are small enough to think about."""

    summary = True


TestEngine = Engine.TestCase
TestEngineWithSummary = EngineWithSummary.TestCase
for case in (TestEngine, TestEngineWithSummary):
    case.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("others", range(9, 32))
@given(seed=st.integers(0, 1 << 32), full=st.booleans())
@settings(max_examples=4, deadline=None)
def test_merge_of_any_granularity_equals_marking_its_extents(
    others: int, seed: int, full: bool
) -> None:
    random = np.random.default_rng(seed)
    own = int(random.integers(9, 32))
    length = int(random.integers(1, 1 << (min(own, others) + 12)))
    source, merged, marked = (
        Bitmap(length, 1 << others),
        Bitmap(length, 1 << own),
        Bitmap(length, 1 << own),
    )
    for offset in random.integers(0, length, 40).tolist():
        source.mark(offset, int(min(random.integers(1, 1 << others), length - offset)))
    if full:
        source.mark(0, length)
    merged.merge(source)
    for start, end in zip(*source.extents(), strict=True):
        marked.mark(int(start), int(end - start))
    assert (merged.count, merged.sha256()) == (marked.count, marked.sha256())
