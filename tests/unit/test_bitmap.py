"""The bitmap engine at sizes and edges that the property test does not reach."""

import hashlib
import os

import numpy as np
import pytest

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.bitmaps.bitpages import SUMMARY_FROM
from blockemu.bitmaps.bitwords import STEP, fold, popcount, spread, steps

GIB = 1 << 30
TIB = 1 << 40


def resident() -> int:
    """Bytes of memory that this process has touched."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_range_marks_every_bit_it_touches() -> None:
    bitmap = Bitmap(1 << 20, 65536)
    bitmap.mark(65535, 2)
    bitmap.mark(5 * 65536, 65536)
    assert [bool(bitmap.get(at * 65536)) for at in range(7)] == [1, 1, 0, 0, 0, 1, 0]
    assert bitmap.count == 3


def test_marking_nothing_changes_nothing() -> None:
    bitmap = Bitmap(1 << 20, 512)
    for offset in (0, 1, 512, 700, 1 << 20):
        bitmap.mark(offset, 0)
    assert bitmap.count == 0
    assert not any(bitmap.bits)


@pytest.mark.parametrize(("offset", "length"), [(512, 1), (0, 513), (1 << 40, 1), (1, 1 << 40)])
def test_marking_beyond_the_end_is_refused_and_changes_nothing(offset: int, length: int) -> None:
    bitmap = Bitmap(512, 512)
    with pytest.raises(IndexError):
        bitmap.mark(offset, length)
    assert bitmap.count == 0
    assert not any(bitmap.bits)


def test_getting_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        Bitmap(1024, 512).get(1024)


@pytest.mark.parametrize(("offset", "length"), [(1, 511), (0, 511), (512, 1), (1024, 400)])
def test_a_reset_of_part_of_a_bit_is_refused(offset: int, length: int) -> None:
    bitmap = Bitmap(1500, 512)
    bitmap.mark(0, 1500)
    with pytest.raises(ValueError, match="in part"):
        bitmap.reset(offset, length)
    assert bitmap.count == 3


def test_the_last_bit_may_be_reset_to_the_unaligned_end() -> None:
    bitmap = Bitmap(1500, 512)
    bitmap.mark(0, 1500)
    bitmap.reset(1024, 476)
    assert bitmap.extents()[1].tolist() == [1024]


def test_a_bitmap_of_no_bytes_has_one_word_and_nothing_in_it() -> None:
    bitmap = Bitmap(0, 65536)
    assert bitmap.sha256() == hashlib.sha256(bytes(8)).hexdigest()
    assert bitmap.next_dirty(0) is None
    assert bitmap.next_zero(0) is None
    assert bitmap.next_dirty_area(0, 100) is None
    assert bitmap.extents()[0].size == 0
    assert bytes(bitmap.serialise(0, 0)) == b""


def test_runs_longer_than_a_step_stay_whole_and_are_found() -> None:
    bits = STEP * 64 * 2 + 12345
    bitmap = Bitmap(bits * 512, 512)
    areas = [(3, 64), (STEP * 64 - 1, STEP * 64 + 1), (STEP * 64 + 100, bits - 7), (bits - 1, bits)]
    for start, end in areas:
        bitmap.mark(start * 512, (end - start) * 512)
    starts, ends = bitmap.extents()
    assert list(zip((starts // 512).tolist(), (ends // 512).tolist(), strict=True)) == areas
    assert bitmap.count == sum(end - start for start, end in areas) == popcount(bitmap.words)
    assert bitmap.next_zero((STEP * 64 + 100) * 512) == (bits - 7) * 512
    assert bitmap.next_dirty(64 * 512) == (STEP * 64 - 1) * 512
    assert bitmap.next_zero(areas[2][0] * 512, 1 << 20) is None


def test_chunks_put_together_are_the_extents() -> None:
    bitmap = Bitmap(GIB, 4096)
    random = np.random.default_rng(1)
    for offset in random.integers(0, GIB - 100000, 2000).tolist():
        bitmap.mark(offset, 100000)
    step = 640
    pieces = [
        piece
        for starts, ends in bitmap.chunks(5000, GIB - 5000, step)
        for piece in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    assert all(a // 4096 // step == (b - 1) // 4096 // step for a, b in pieces)
    joined: list[tuple[int, int]] = []
    for a, b in pieces:
        if joined and joined[-1][1] == a:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    starts, ends = bitmap.extents(5000, GIB - 5000)
    assert joined == list(zip(starts.tolist(), ends.tolist(), strict=True))


def test_a_sparse_giant_touches_little_memory_whatever_is_asked_of_it() -> None:
    length = 512 * (1 << 30)  # 128 MiB of bits
    bitmap, other = Bitmap(length, 512), Bitmap(length, 512)
    assert bitmap.size > SUMMARY_FROM
    before = resident()
    random = np.random.default_rng(2)
    expected = sorted({int(at) // 512 for at in random.integers(0, length, 200)})
    for bit in expected:
        bitmap.mark(bit * 512, 1)
    other.merge(bitmap)
    assert (other.extents()[0] // 512).tolist() == expected
    assert other.count == bitmap.count == len(expected)
    assert other.next_dirty(0) == expected[0] * 512
    kept = other.contents()
    other.clear()
    other.restore(kept)
    assert other.next_dirty_area(expected[100] * 512, length) is not None
    other.resize(length + TIB)
    other.resize(length)
    assert other.copy().count == len(expected)
    assert resident() - before < 48 << 20


def test_a_thousand_bits_of_a_thousand_million_take_less_than_20_mib() -> None:
    before = resident()
    bitmap = Bitmap(1 << 46, 65536)
    for at in np.random.default_rng(3).integers(0, 1 << 46, 1000).tolist():
        bitmap.mark(at, 1)
    loaded = Bitmap(1 << 46, 65536)
    for part in bitmap.stored_parts(65536).tolist():
        covers = bitmap.serial_coverage(65536)
        data = bytes(bitmap.serialise(part * covers, covers))
        loaded.deserialise(part * covers, covers, data)
    assert loaded.count == bitmap.count == len(bitmap.extents()[0])
    assert resident() - before < 20 << 20


def test_what_is_dense_in_one_place_and_sparse_elsewhere_takes_little_memory() -> None:
    length, granularity = 64 * TIB, 65536
    source, target = Bitmap(length, granularity), Bitmap(length, granularity)
    dense = np.full(1 << 18, 1 << 63 | 1, np.uint64)  # one huge page of the machine's
    where = 3 * dense.nbytes * 8 * granularity
    source.deserialise(where, dense.nbytes * 8 * granularity, dense.view(np.uint8).data)
    for offset in np.random.default_rng(1).integers(0, length, 500).tolist():
        source.mark(offset, 1)
    before = resident()
    target.merge(source)
    copied = source.copy()
    assert resident() - before < 20 << 20
    assert target.count == copied.count == source.count == popcount(source.words)
    assert target.sha256() == copied.sha256() == source.sha256()


def test_a_merge_of_pages_in_a_row_and_of_such_that_are_not_loses_none() -> None:
    length = 512 * SUMMARY_FROM
    one, other = Bitmap(length, 512), Bitmap(length, 512)
    page = 512 << 15  # bytes of the disk
    for at in (0, 1, 2, 5, 300, 301, 302, 303, 2047):
        one.mark(at * page + 512 * at, 1024)
    for at in (1, 4, 5, 6, 302, 1000, 2047):
        other.mark(at * page + 512, 2048)
    both = one.words | other.words
    one.merge(other)
    assert (one.words == both).all()
    assert one.count == popcount(both)


def test_the_largest_disk_can_have_a_bitmap_and_what_can_not_is_refused() -> None:
    largest = (1 << 63) - (1 << 30)
    bitmap = Bitmap(largest, 65536)
    bitmap.mark(largest - 1, 1)
    bitmap.mark(1 << 40, 1)
    assert (bitmap.next_dirty(0), bitmap.count) == (1 << 40, 2)
    assert bitmap.next_dirty((1 << 40) + 65536) == largest - 65536
    with pytest.raises(OSError, match="Cannot allocate memory"):
        Bitmap(largest, 512)


def test_a_bitmap_that_grew_to_have_a_summary_merges_with_one_that_always_had_it() -> None:
    grown, other = Bitmap(512 * (SUMMARY_FROM - 64), 512), Bitmap(512 * SUMMARY_FROM, 512)
    grown.mark(0, 1)
    other.mark(512 * 5000, 1)
    grown.resize(512 * SUMMARY_FROM)
    other.merge(grown)
    grown.merge(other)
    assert grown.extents()[0].tolist() == other.extents()[0].tolist() == [0, 512 * 5000]


@pytest.mark.parametrize("bits", [SUMMARY_FROM // 4, SUMMARY_FROM])
def test_what_is_large_is_cleared_and_filled_like_any_other(bits: int) -> None:
    length = 512 * (bits + 100)
    bitmap = Bitmap(length, 512)
    bitmap.mark(512, length - 1024)
    assert bitmap.count == bitmap.size - 2 == popcount(bitmap.words)
    bitmap.reset(1 << 20, 1 << 30)
    assert bitmap.count == bitmap.size - 2 - (1 << 21) == popcount(bitmap.words)
    assert bitmap.next_dirty_area(1 << 20, length) == (
        (1 << 20) + (1 << 30),
        length - 512 - (1 << 20) - (1 << 30),
    )
    bitmap.clear()
    assert bitmap.count == popcount(bitmap.words) == 0
    assert bitmap.next_dirty(0) is None
    bitmap.mark(1 << 30, 512)
    bitmap.clear()
    assert bitmap.count == popcount(bitmap.words) == 0


@pytest.mark.parametrize("bits", [SUMMARY_FROM // 4, SUMMARY_FROM])
@pytest.mark.parametrize("share", [0.0001, 0.5])
def test_what_is_large_merges_what_is_sparse_or_dense(bits: int, share: float) -> None:
    random = np.random.default_rng(4)
    length = 512 * bits
    bitmaps = []
    for _ in range(2):
        words = random.integers(0, 1 << 63, bits // 64, dtype=np.uint64)
        words[random.random(words.size) > share] = 0
        bitmaps.append(Bitmap(length, 512))
        bitmaps[-1].deserialise(0, length, words.view(np.uint8).data)
    both = Bitmap(length, 512)
    both.merge(bitmaps[0])
    assert (both.words == bitmaps[0].words).all()
    assert both.count == bitmaps[0].count
    both.merge(bitmaps[1])
    assert (both.words == bitmaps[0].words | bitmaps[1].words).all()
    assert both.count == popcount(both.words)
    both.clear()
    assert both.count == popcount(both.words) == 0


def test_growing_across_the_limit_of_the_summary_keeps_the_bits() -> None:
    bitmap = Bitmap(512 * (SUMMARY_FROM - 64), 512)
    marked = [0, 512 * 5000, 512 * (SUMMARY_FROM - 65)]
    for offset in marked:
        bitmap.mark(offset, 512)
    bitmap.resize(512 * (SUMMARY_FROM + 64))
    bitmap.mark(512 * (SUMMARY_FROM + 63), 1)
    assert bitmap.extents()[0].tolist() == [*marked, 512 * (SUMMARY_FROM + 63)]
    bitmap.resize(512 * (SUMMARY_FROM - 64))
    assert bitmap.extents()[0].tolist() == marked
    assert bitmap.count == 3


def test_a_merge_over_sizes_that_differ_is_refused() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        Bitmap(1024, 512).merge(Bitmap(1023, 512))


def test_stored_bits_beyond_the_end_are_dropped() -> None:
    bitmap = Bitmap(70 * 512, 512)
    bitmap.deserialise(0, 70 * 512, b"\xff" * 16)
    assert bitmap.count == 70
    assert popcount(bitmap.words) == 70


def test_stored_bits_must_be_of_the_right_length_and_alignment() -> None:
    bitmap = Bitmap(200 * 512, 512)
    with pytest.raises(ValueError, match="wrong length"):
        bitmap.deserialise(0, 64 * 512, bytes(16))
    with pytest.raises(ValueError, match="in part"):
        bitmap.serialise(512, 64 * 512)
    with pytest.raises(ValueError, match="in part"):
        bitmap.serialise(0, 65 * 512)
    assert bitmap.serial_align == 64 * 512
    assert bitmap.serial_coverage(65536) == 65536 * 8 * 512
    assert bitmap.serial_size(64 * 512, 136 * 512) == 24


@pytest.mark.parametrize("by", range(15))
def test_fold_undoes_spread(by: int) -> None:
    words = np.random.default_rng(by).integers(0, 1 << 64, 8, np.uint64)
    wide = spread(words, by)
    assert wide.size == 8 << by
    assert popcount(wide) == popcount(words) << by
    assert np.array_equal(fold(wide, by), words)


def test_steps_end_at_multiples() -> None:
    assert list(steps(5, 25, 10)) == [(5, 10), (10, 20), (20, 25)]
    assert list(steps(5, 5)) == []
