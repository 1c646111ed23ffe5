"""What an NBD export says of a bitmap: runs that cover a range, of which neighbours differ."""

import random
import struct
from copy import copy
from itertools import groupby
from types import SimpleNamespace
from typing import cast

import pytest

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.dirty import DirtyBitmap
from blockemu.exports.dirty_runs import DirtyRuns


def runs_of(bits: Bitmap) -> DirtyRuns:
    """Return what tells an export's clients of a bitmap."""
    return DirtyRuns(cast("DirtyBitmap", SimpleNamespace(bits=bits)))


def pairs(bits: Bitmap, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of a range as the export has them."""
    body = runs_of(bits).body(offset, length, MANY)
    return [(size, state) for size, state in struct.iter_unpack(">II", body)]


def by_byte(bits: Bitmap, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of a range found by a look at each byte."""
    states = [int(bits.get(at)) for at in range(offset, offset + length)]
    return [(len([*run]), state) for state, run in groupby(states)]


MANY = 1 << 30  # runs


@pytest.mark.parametrize("marks", [0, 1, 3, 20, 60])
def test_the_runs_are_those_of_the_bytes(marks: int) -> None:
    rng = random.Random(marks)
    for _ in range(30):
        length = rng.randrange(1, 150) * 512 - rng.choice((0, 100))
        bits = Bitmap(length, 512)
        for _ in range(marks):
            at = rng.randrange(length)
            bits.mark(at, min(length - at, rng.randrange(1, 2000)))
        offset = rng.randrange(length)
        for start, size in ((0, length), (offset, rng.randrange(1, length - offset + 1))):
            assert pairs(bits, start, size) == by_byte(bits, start, size)


def test_many_runs_may_begin_and_end_dirty_or_clean() -> None:
    bits = Bitmap(512 * 64, 512)
    for bit in range(0, 64, 2):
        bits.mark(bit * 512, 512)
    one, other = (512, 1), (512, 0)
    assert pairs(bits, 0, 512 * 64) == [one, other] * 32
    assert pairs(bits, 0, 512 * 63) == [one, other] * 31 + [one]
    assert pairs(bits, 512, 512 * 62) == [other, one] * 31
    assert pairs(bits, 512, 512 * 63) == [other, one] * 31 + [other]
    assert pairs(bits, 100, 512 * 20) == [(412, 1), *[other, one] * 9, other, (100, 1)]


def test_no_more_runs_are_told_than_asked_for() -> None:
    bits = Bitmap(512 * 64, 512)
    for bit in range(0, 64, 2):
        bits.mark(bit * 512, 512)
    for offset, length in ((0, 512 * 64), (100, 512 * 20), (512, 512)):
        whole = by_byte(bits, offset, length)
        for most in (1, 2, 3, 40, 64, MANY):
            body = runs_of(bits).body(offset, length, most)
            assert [*struct.iter_unpack(">II", body)] == whole[:most]


def test_what_is_remembered_is_forgotten_when_the_bitmap_changes() -> None:
    rng = random.Random(1)
    bits = Bitmap(512 * 1000, 512)
    runs = runs_of(bits)
    for _ in range(60):
        if rng.random() < 0.4:
            bits.mark(rng.randrange(1000) * 512, 512)
        elif rng.random() < 0.1:
            bits.resize(rng.randrange(200, 2000) * 512)
        offset = rng.randrange(bits.length)
        length = rng.randrange(1, min(bits.length - offset, 50_000) + 1)
        body = runs.body(offset, length, MANY)
        assert [*struct.iter_unpack(">II", body)] == by_byte(bits, offset, length)


@pytest.mark.parametrize("every", [2, 40, 5000])
def test_a_large_bitmap_is_told_window_by_window(every: int) -> None:
    """Dense ones are looked at in parts, sparse ones as a whole."""
    size = 1 << 19
    bits = Bitmap(size * 512, 512)
    for bit in range(0, size, every):
        bits.mark(bit * 512, 512)
    runs, whole = runs_of(bits), pairs(bits, 0, size * 512)
    told: list[tuple[int, int]] = []
    step = 1 << 22
    for offset in range(0, size * 512, step):
        body = runs.body(offset, step, MANY)
        for length, state in struct.iter_unpack(">II", body):
            if told and told[-1][1] == state:
                told[-1] = told[-1][0] + length, state
            else:
                told.append((length, state))
    assert told == whole


def test_a_client_goes_on_from_what_another_knows_and_both_see_later_writes() -> None:
    bits = Bitmap(512 * 200_000, 512)
    for bit in range(0, 200_000, 2):
        bits.mark(bit * 512, 512)
    first = runs_of(bits)
    first.body(0, bits.length, MANY)
    second = copy(first)
    first.trim()  # it is much
    bits.mark(1000 * 512 + 512, 512)
    for runs in (first, second, copy(first)):
        body = runs.body(999 * 512, 512 * 5, MANY)
        assert [*struct.iter_unpack(">II", body)] == [(512, 0), (512 * 3, 1), (512, 0)]
