"""Lengths of runs against what numpy says of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from blockemu.images.lengths import ends, lengths, turns


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_runs_end_where_the_next_begin(count: int) -> None:
    starts = np.sort(np.random.default_rng(count).integers(0, 100, count))
    assert lengths(starts, 100).tolist() == np.diff(starts, append=100).tolist()
    assert ends(starts, 100).tolist() == [*starts.tolist()[1:], 100][:count]
    assert ends(starts, 100).dtype == lengths(starts, 100).dtype == starts.dtype


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
def test_runs_of_what_is_true_begin_and_end_in_turn(seed: int, kind: type) -> None:
    rng = random.Random(seed)
    flags = np.array([rng.choice((0, 1)) for _ in range(rng.randrange(12))], kind)
    wanted = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    assert turns(flags).tolist() == wanted.tolist()
