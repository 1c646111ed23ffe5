"""Values without repetitions.

What numpy has for this imports its masked arrays, which takes longer than most runs of a tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeVar

    from numpy.typing import NDArray

    Number = TypeVar("Number", bound=np.generic)


def distinct(values: NDArray[Number]) -> NDArray[Number]:
    """Return each value once, ascending; shape (n,) in and out, of the same type."""
    if not len(values):
        return values
    ordered = np.sort(values)
    return ordered[_firsts(ordered)]


def counted(values: NDArray[Number]) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Return each value once, ascending, and how often it is there (int64 of the same shape)."""
    if not len(values):
        return values, np.zeros(0, np.int64)
    ordered = np.sort(values)
    firsts = _firsts(ordered)
    if firsts.all():
        return ordered, np.ones(len(ordered), np.int64)
    begins = np.concatenate((np.flatnonzero(firsts), [len(ordered)]))
    return ordered[begins[:-1]], begins[1:] - begins[:-1]


def _firsts(ordered: NDArray[Number]) -> NDArray[np.bool_]:
    """Mark where a value differs from the one before it."""
    firsts = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=firsts[1:])
    return firsts
