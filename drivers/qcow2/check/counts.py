"""Counting references to clusters: by whole runs, or one by one where one gets too many."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blockemu.check import CheckResult
from blockemu.drivers.qcow2.check.storage import Storage
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.tables import I64, Bools
from blockemu.os_errors import os_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST: Final = (1 << 31) - 1  # references that can be counted, whatever the image could
_FEW_RUNS: Final = 64
_WIDTHS: Final = (np.uint8, np.uint16, np.uint32)  # memory that is touched is what counting costs
_MASK64: Final = (1 << 64) - 1


class Counts:
    """References to the clusters of a file.

    ``clusters``: how many it has; ``counts``: the references to each, unsigned and as narrow as
    they can be.
    """

    def __init__(self, storage: Storage, geometry: Geometry, result: CheckResult) -> None:
        self.storage = storage
        self.geometry = geometry
        self.bits = geometry.cluster_bits
        self.result = result
        self.most = min(geometry.refcount_max, MOST)
        self.length = storage.length
        self.clusters = geometry.clusters(self.length)
        self.counts: NDArray[Any] = np.zeros(self.clusters, _WIDTHS[0])
        self._bound = 0  # no count is larger

    def hold(self, first: int, end: int) -> None:
        """Count one reference to each of some clusters that had none."""
        self.reach(end)
        self.counts[first:end] = 1
        self._bound = max(self._bound, 1)

    def add_range(self, offset: int, length: int) -> None:
        """Count one reference to a range of bytes, if it is inside the file.

        Raises:
            OSError: ENOMEM, since an offset that is negative as a signed number asks for all of it.

        """
        if length <= 0:
            return
        offset -= offset >> 63 << 64
        if offset + length - self.length >= self.geometry.cluster_size:
            self.wrong(beyond(offset, length))
            return
        first, last = offset >> self.bits, (offset + length - 1) >> self.bits
        if first < 0:
            self.result.check_errors += 1
            raise os_error(errno.ENOMEM)
        self.reach(last + 1)
        self._expect(1)
        part = self.counts[first : last + 1]
        over = part >= self.most
        part += ~over
        for cluster in (np.flatnonzero(over) + first).tolist():
            self.wrong(overflow(cluster << self.bits))

    def reach(self, clusters: int) -> None:
        """Count so many clusters: the file's last may be there in part only."""
        if clusters > self.clusters:
            more = np.zeros(clusters - self.clusters, self.counts.dtype)
            self.counts = np.concatenate((self.counts, more))
            self.clusters = clusters

    def add_runs(self, first: I64, length: I64) -> bool:
        """Count a reference to each cluster of some runs; False: one might get too many."""
        runs = len(first)
        if not runs:
            return True
        end = first + length
        apart = runs == 1 or bool((first[1:] >= end[:-1]).all())
        if not self._expect(1 if apart else runs):
            return False
        if runs <= _FEW_RUNS:
            for a, b in zip(first.tolist(), end.tolist(), strict=True):
                self.counts[a:b] += 1
            return True
        low, high, total = int(first.min()), int(end.max()), int(length.sum())
        if high - low <= 4 * total:
            span = high - low + 1
            steps = np.bincount(first - low, minlength=span)
            steps -= np.bincount(end - low, minlength=span)
            self.counts[low:high] += np.cumsum(steps[:-1]).astype(self.counts.dtype)
        else:
            np.add.at(self.counts, spread(first, length), 1)
        return True

    def add_in_order(self, clusters: I64) -> Bools:
        """Count references one after the other; tell which ones are too many."""
        self._expect(len(clusters))
        order = np.argsort(clusters, kind="stable")
        ranked = clusters[order]
        at = np.arange(len(ranked))
        begins = np.concatenate((np.ones(min(1, len(at)), np.bool_), ranked[1:] != ranked[:-1]))
        rank = at - np.maximum.accumulate(np.where(begins, at, 0))
        over = self.counts[ranked] + rank >= self.most
        np.add.at(self.counts, ranked[~over], 1)
        back = np.zeros(len(over), np.bool_)
        back[order] = over
        return back

    def _expect(self, more: int) -> bool:
        """Make counts wide enough for more references; False: one might get too many."""
        widest = int(np.iinfo(self.counts.dtype).max)
        if self._bound + more > min(widest, self.most):
            self._bound = int(self.counts.max(initial=0))
        self._bound += more
        bound = min(self._bound, self.most)
        if bound > widest:
            width = next(w for w in _WIDTHS if bound <= np.iinfo(w).max)
            self.counts = self.counts.astype(width)
        fits = self._bound <= self.most
        self._bound = bound
        return fits

    def wrong(self, text: str) -> None:
        """Tell of a corruption."""
        self.storage.say(text)
        self.result.corruptions += 1


def spread(first: I64, length: I64) -> I64:
    """Return all members of some runs, one run after the other."""
    total = int(length.sum())
    return np.repeat(first - (np.cumsum(length) - length), length) + np.arange(total)


def beyond(offset: int, length: int) -> str:
    """Return what is said of a reference to what the file does not have."""
    return (
        "ERROR: counting reference for region exceeding the end of the file by one cluster or "
        f"more: offset 0x{offset & _MASK64:x} size 0x{length:x}"
    )


def overflow(offset: int) -> str:
    """Return what is said of a cluster with more references than can be counted."""
    return (
        f"ERROR: overflow cluster offset=0x{offset:x}\n"
        "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a "
        "clean copy if the image cannot be opened for writing"
    )
