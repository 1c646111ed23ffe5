"""Columns of numbers that say where something begins: where each ends, and how long it is.

What numpy has for this lies in a module that takes longer to import than most runs of a tool need
for all else that they compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeVar

    from numpy.typing import NDArray

    Number = TypeVar("Number", bound=np.signedinteger)


def ends(starts: NDArray[Number], end: int) -> NDArray[Number]:
    """Return where each of some runs ends: where the next begins, the last one at ``end``."""
    found = np.empty_like(starts)
    found[:-1] = starts[1:]
    found[-1:] = end
    return found


def lengths(starts: NDArray[Number], end: int) -> NDArray[Number]:
    """Return how long each of some runs is, of which the last one ends at ``end``."""
    found = ends(starts, end)
    found -= starts
    return found


def turns(flags: NDArray[np.generic]) -> NDArray[np.intp]:
    """Return where runs of what is true begin and end, in turn."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    return np.flatnonzero(padded[1:] != padded[:-1])
