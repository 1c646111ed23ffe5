"""Values without repetitions.

What numpy has for this imports its masked arrays, which takes longer than most runs of a tool.
"""

from typing import TypeVar

import numpy as np
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
    begins = np.flatnonzero(_firsts(ordered))
    return ordered[begins], np.diff(begins, append=len(ordered))


def _firsts(ordered: NDArray[Number]) -> NDArray[np.bool_]:
    """Mark where a value differs from the one before it."""
    firsts = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=firsts[1:])
    return firsts
