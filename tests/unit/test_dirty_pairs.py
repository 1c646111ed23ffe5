"""What an NBD export says of a bitmap: runs that cover a range, of which neighbours differ."""

import random
from itertools import groupby
from types import SimpleNamespace
from typing import cast

import pytest

from blockemu.bitmap import Bitmap
from blockemu.dirty import DirtyBitmap
from blockemu.exports.requests import dirty_pairs


def pairs(bits: Bitmap, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of a range as the export has them."""
    bitmap = cast("DirtyBitmap", SimpleNamespace(bits=bits))
    return [(size, state) for size, state in dirty_pairs(bitmap, offset, length).tolist()]


def by_byte(bits: Bitmap, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of a range found by a look at each byte."""
    states = [int(bits.get(at)) for at in range(offset, offset + length)]
    return [(len([*run]), state) for state, run in groupby(states)]


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
