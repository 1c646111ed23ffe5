"""Clusters that were let go of, until they may be used again.

A freed cluster is used again only when

- the table that no longer points to it is on disk, so that a crash cannot bring the old pointer
  back on top of somebody else's data, and
- no request that may have looked the old pointer up is still under way.

So it waits here.  ``flush`` takes out what waits when it begins, and lowers the refcounts of what
is ready when the tables are written.  A refcount table is nothing that a request looks up: it waits
for the new one to be on disk, and for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

I64: TypeAlias = "NDArray[np.int64]"
_NO_EPOCH = -1  # before all requests
NONE: I64 = np.zeros(0, np.int64)


class Discard(Enum):
    """Why a cluster was freed: decides whether the file below hears of it."""

    NEVER = auto()
    ALWAYS = auto()
    REQUEST = auto()
    SNAPSHOT = auto()
    OTHER = auto()


class InFlight:
    """Counts the requests that may hold on to host offsets, by the epoch they began in."""

    __slots__ = ("_counts", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        self._counts: dict[int, int] = {}

    def enter(self) -> int:
        """Note that a request begins; return what to give to ``leave``."""
        epoch = self.epoch
        self._counts[epoch] = self._counts.get(epoch, 0) + 1
        return epoch

    def leave(self, epoch: int) -> None:
        """Note that a request is over."""
        left = self._counts[epoch] - 1
        if left:
            self._counts[epoch] = left
        else:
            del self._counts[epoch]

    def any_since(self, epoch: int) -> bool:
        """Tell whether a request from this epoch or before is under way."""
        return any(e <= epoch for e in self._counts)


class Freed:
    """What waits, in order: (epoch, reason, cluster indexes, one for each reference to drop)."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._waiting: list[tuple[int, Discard, I64]] = []
        self.count = 0  # clusters that wait
        self.sole = 0  # those let go of by their only user since ``cut`` was called last
        self.ranges = 0  # how often a range was freed; all metadata is

    def add(self, clusters: I64, reason: Discard) -> None:
        """Let go of clusters, by their index in the file."""
        if len(clusters):
            self._waiting.append((self._in_flight.epoch, reason, clusters))
            self.count += len(clusters)

    def add_range(self, first: int, count: int, reason: Discard) -> None:
        """Let go of clusters in a row."""
        self.ranges += 1
        self.add(np.arange(first, first + count, dtype=np.int64), reason)

    def add_table(self, first: int, count: int) -> None:
        """Let go of a refcount table."""
        self.ranges += 1
        clusters = np.arange(first, first + count, dtype=np.int64)
        self._waiting.append((_NO_EPOCH, Discard.OTHER, clusters))
        self.count += count

    def cut(self) -> Callable[[], list[tuple[Discard, I64]]]:
        """Draw a line under what waits now.

        The answer, called later, takes out what was above the line and nobody can still know of.
        """
        marked, epoch = len(self._waiting), self._in_flight.epoch
        self._in_flight.epoch += 1
        self.sole = 0

        def take() -> list[tuple[Discard, I64]]:
            nonlocal marked
            above, below = self._waiting[:marked], self._waiting[marked:]
            taken = [some for some in above if not self._in_flight.any_since(some[0])]
            left = [some for some in above if self._in_flight.any_since(some[0])]
            self._waiting, marked = left + below, len(left)
            self.count -= sum(len(clusters) for _, _, clusters in taken)
            return [(reason, clusters) for _, reason, clusters in taken]

        assert epoch >= 0
        return take
