"""Columns of L2 entries against looking at one entry after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockemu.images.qcow2.constants import COMPRESSED, COPIED, OFFSET
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.refcount import pack_counts, unpack_counts
from blockemu.images.qcow2.tables import (
    HAS_HOST,
    Run,
    compressed_extents,
    contiguous,
    kinds,
    runs,
    sub_range,
)

BITS = 16
PLAIN = Geometry(3, BITS, 4, extended=False, data_file=False)
EXTENDED = Geometry(3, BITS, 4, extended=True, data_file=False)
KINDS = range(7)

entries = st.lists(
    st.one_of(
        st.sampled_from([0, 1, COPIED | 0x50000, COPIED | 0x60000, 0x50000, COPIED | 0x50001]),
        st.integers(1, 5).map(lambda i: COPIED | i << BITS),
        st.sampled_from([1 << BITS, 1 << BITS | 1]),
        st.just(COMPRESSED | 0x12345),
    ),
    min_size=1,
    max_size=20,
)
bitmaps = st.one_of(
    st.sampled_from(
        [0, 0xFFFFFFFF, 0xFFFFFFFF << 32, 1, 1 << 31, 1 << 63, 0xFFFF << 32 | 0xFFFF0000]
    ),
    st.integers(0, (1 << 64) - 1),
)


def units(table: list[int], maps: list[int] | None) -> list[tuple[int, int, int]]:
    """Return (kind, host, copied) of each subcluster, by asking for each on its own."""
    out = []
    for i, entry in enumerate(table):
        for sub in range(1 if maps is None else 32):
            one = np.array([entry], np.uint64)
            bits = None if maps is None else np.array([maps[i]], np.uint64)
            subs = None if maps is None else np.array([sub], np.int64)
            kind = int(kinds(one, bits, subs, False)[0])
            step = (1 << BITS) // (1 if maps is None else 32)
            host = (entry & OFFSET) + sub * step if HAS_HOST[kind] else 0
            out.append((kind, host, entry & COPIED))
    return out


def spread(found: list[Run], step: int) -> list[tuple[int, int, int]]:
    """Return the same of each piece of ``step`` bytes of runs."""
    out = []
    for run in found:
        assert run.length > 0
        for at in range(0, run.length, step):
            host = run.host + at if HAS_HOST[run.kind] else 0
            out.append((run.kind, host, run.entry & COPIED))
    return out


def test_the_files_second_cluster_does_not_follow_on_none() -> None:
    for zero in 0, 1:
        table = np.array([zero, 1 << BITS | zero], np.uint64)
        assert len(runs(table, None, PLAIN, 0, 2 << BITS)) == 2


@given(entries, st.data())
def test_runs_are_what_one_sees_cluster_by_cluster(table: list[int], data: st.DataObject) -> None:
    size = len(table) << BITS
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    first, last = offset >> BITS, (offset + length - 1) >> BITS
    part = np.array(table[first : last + 1], np.uint64)
    found = runs(part, None, PLAIN, offset, length)
    assert found[0].start == offset
    assert sum(run.length for run in found) == length
    for a, b in pairwise(found):
        assert a.start + a.length == b.start
    for run in found:
        for at in run.start, run.start + run.length - 1:
            kind, host, _ = units([table[at >> BITS]], None)[0]
            assert run.kind == kind
            if HAS_HOST[kind]:
                assert run.host + at - run.start == host + (at & (1 << BITS) - 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, COPIED | 0x50000, 0x70000, COMPRESSED]), bitmaps),
        min_size=1,
        max_size=6,
    )
)
def test_runs_of_subclusters_are_what_one_sees_one_by_one(rows: list[tuple[int, int]]) -> None:
    table, maps = [row[0] for row in rows], [row[1] for row in rows]
    found = runs(
        np.array(table, np.uint64), np.array(maps, np.uint64), EXTENDED, 0, len(rows) << BITS
    )
    assert spread(found, (1 << BITS) // 32) == units(table, maps)


@given(st.integers(1, 5), st.data())
def test_a_range_of_subclusters_is_a_mask_for_each_cluster(count: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, count * 32))
    end = data.draw(st.integers(begin, count * 32))
    bits = [(int(word) >> i) & 1 for word in sub_range(count, begin, end) for i in range(32)]
    assert bits == [int(begin <= i < end) for i in range(count * 32)]


@given(st.integers(0, 6), st.data())
def test_refcounts_survive_packing(order: int, data: st.DataObject) -> None:
    most = (1 << (1 << order)) - 1
    counts = data.draw(st.lists(st.integers(0, most), min_size=8, max_size=8)) * 8
    raw = pack_counts(np.array(counts, unpack_counts(memoryview(bytes(64)), order).dtype), order)
    assert len(raw) == len(counts) * (1 << order) // 8
    again = unpack_counts(memoryview(bytearray(raw)), order)
    assert again.tolist() == counts


def test_refcounts_are_packed_low_bits_first_and_big_endian() -> None:
    assert pack_counts(np.array([1, 0, 0, 0, 0, 0, 0, 0], np.uint8), 0) == b"\x01"
    assert pack_counts(np.array([1, 2, 0, 3], np.uint8), 1) == b"\xc9"
    assert pack_counts(np.array([1, 15], np.uint8), 2) == b"\xf1"
    assert pack_counts(np.array([1], np.uint16), 4) == b"\0\1"


def test_a_compressed_cluster_ends_with_a_sector() -> None:
    entry = COMPRESSED | 2 << PLAIN.compressed_shift | 0x50123
    offset, length = compressed_extents(np.array([entry], np.uint64), PLAIN)
    assert (int(offset[0]), int(length[0])) == (0x50123, 3 * 512 - 0x123)


def test_contiguous_clusters_are_one_run() -> None:
    table = contiguous(0x50000, 9, BITS)
    (run,) = runs(table, None, PLAIN, 100, (9 << BITS) - 200)
    assert (run.start, run.length, run.host) == (100, (9 << BITS) - 200, 0x50000 + 100)
