"""Extents: values only."""

import random
from itertools import pairwise

import numpy as np
import pytest

from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO, Extents, KnownZeroes, refine

HELD = DATA | ALLOCATED


def extents(*rows, end):
    """Return extents of (start, status, host)."""
    start, status, host = zip(*rows, strict=True)
    return Extents(np.array(start), np.array(status, np.uint8), np.array(host), end)


def test_only_data_is_zero_where_the_file_has_a_hole():
    top = extents(
        (0, HELD, 1000),
        (100, 0, 1100),  # has a place, but the backing file shows through
        (200, ZERO | ALLOCATED, 1200),
        (300, HELD, NOWHERE),
        (400, HELD, 1300),
        end=500,
    )
    file = extents((1000, ZERO, NOWHERE), (1350, DATA, NOWHERE), end=1400)
    found = refine(top, file)
    assert found.start.tolist() == [0, 100, 200, 300, 400, 450]
    assert found.status.tolist() == [
        ZERO | ALLOCATED, 0, ZERO | ALLOCATED, HELD, ZERO | ALLOCATED, HELD,
    ]  # fmt: skip
    assert found.host.tolist() == [1000, 1100, 1200, NOWHERE, 1300, 1350]


@pytest.mark.parametrize("seed", range(40))
def test_zeroes_are_known_in_whole_units(seed):
    rng, unit = random.Random(seed), 8
    begin, end = 16, rng.choice((120, 125))
    cuts = sorted({begin, *rng.sample(range(begin, end), rng.randrange(30))})
    status = [rng.choice((0, DATA, ZERO, ZERO | ALLOCATED)) for _ in cuts]
    batch = extents(*((at, each, NOWHERE) for at, each in zip(cuts, status, strict=True)), end=end)
    zero = {at: bool(each & ZERO) for s, n, each, _ in batch for at in range(s, s + n)}
    whole = {
        at: all(zero[n] for n in range(at // unit * unit, min(at // unit * unit + unit, end)))
        for at in zero
    }
    known = KnownZeroes.of(batch, unit)

    firsts = sorted(rng.sample(range(begin, end - unit, unit), 4))
    starts = np.array(firsts)
    ends = np.array([*(rng.randrange(a + 1, b + 1) for a, b in pairwise(firsts)), end])
    found = {}
    for first, after, empty in zip(*known.cut(starts, ends), strict=True):
        assert first < after
        found |= dict.fromkeys(range(first, after), bool(empty))
    wanted = [n for a, b in zip(starts, ends, strict=True) for n in range(a, b)]
    assert found == {n: whole[n] for n in wanted}

    for at in wanted:
        state, length = known.at(at, end)
        assert bool(state) is whole[at]
        assert {whole[n] for n in range(at, at + length)} == {whole[at]}
        assert at + length == end or whole[at + length] is not whole[at]
