"""Values without repetitions, against Python's own counting."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blockemu.images.distinct import counted, distinct

VALUES = st.lists(st.integers(-5, 40))


@given(VALUES)
def test_each_value_is_there_once_in_order(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))


@given(VALUES)
def test_values_are_counted(values: list[int]) -> None:
    unique, times = counted(np.array(values, np.int64))
    assert dict(zip(unique.tolist(), times.tolist(), strict=True)) == Counter(values)
    assert unique.tolist() == sorted(set(values))


def test_the_type_is_kept() -> None:
    large = np.array([1 << 63, 1, 1 << 63], np.uint64)
    assert distinct(large).dtype == np.uint64
    assert distinct(large).tolist() == [1, 1 << 63]
