"""What the refcount blocks in the file say, and setting it right."""

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.references import BATCH, References
from blockemu.drivers.qcow2.check.storage import Storage, Structure
from blockemu.drivers.qcow2.freed import I64
from blockemu.drivers.qcow2.writeback import row_starts
from blockemu.images.distinct import distinct
from blockemu.images.qcow2.constants import REFTABLE_OFFSET
from blockemu.images.qcow2.refcount import DTYPES, Counts, pack_counts, unpack_counts
from blockemu.images.qcow2.tables import Table

LINES_AT_ONCE: Final = 1 << 12
CLUSTERS_AT_ONCE: Final = 1 << 17
LOOK_BACK: Final = 1 << 12


class OnDisk:
    """The refcounts in the file: of all its clusters at hand, of others when asked for.

    ``counts``: unsigned, and as long as none is above 255 of one byte, whatever the file has:
    memory that is touched is most of what a check of a large image takes (``make bench``: images).
    """

    def __init__(self, storage: Storage, structure: Structure) -> None:
        self.storage = storage
        self.structure = structure
        self.geometry = structure.geometry
        self.per = structure.geometry.counts_per_block
        self.counts: Counts = np.zeros(0, np.uint8)
        self._raw = np.empty(0, np.uint8)  # what is read, to be used again
        self.bad: dict[int, int] = {}  # blocks that cannot be read: an errno
        self._told: set[int] = set()

    async def load(self, clusters: int) -> None:
        """Load the refcounts of the file's clusters."""
        geometry = self.geometry
        blocks = -(-clusters // self.per)
        self.counts = np.zeros(blocks * self.per, np.uint8)
        self.bad = {}
        hosts = self._hosts()[:blocks]
        wrong = hosts & geometry.cluster_size - 1 != 0
        self.bad = dict.fromkeys(np.flatnonzero(wrong).tolist(), errno.EIO)
        at = np.flatnonzero((hosts != 0) & ~wrong)
        for first, count in self._rows(at, hosts):
            await self._load(first, count, int(hosts[first]))

    def _hosts(self) -> I64:
        found: I64 = (self.structure.reftable & np.uint64(REFTABLE_OFFSET)).astype(np.int64)
        return found

    def _rows(
        self, at: "np.ndarray[tuple[int], np.dtype[np.intp]]", hosts: I64
    ) -> Iterator[tuple[int, int]]:
        """Yield (first, count) of blocks that lie one after the other in table and file."""
        if not len(at):
            return
        size, most = self.geometry.cluster_size, max(1, BATCH >> self.geometry.cluster_bits)
        apart = (np.diff(at) != 1) | (np.diff(hosts[at]) != size)
        breaks = [0, *(np.flatnonzero(apart) + 1).tolist(), len(at)]
        for a, b in pairwise(breaks):
            for first in range(a, b, most):
                yield int(at[first]), min(most, b - first)

    async def _load(self, first: int, count: int, host: int) -> None:
        size, per = self.geometry.cluster_size, self.per
        if len(self._raw) < count * size:
            self._raw = np.empty(count * size, np.uint8)
        raw = self._raw[: count * size].data
        try:
            await self.storage.fill(host, raw)
        except OSError as e:
            if count == 1:
                self.bad[first] = e.errno or errno.EIO
                return
            for i in range(count):
                await self._load(first + i, 1, host + i * size)
            return
        counts = unpack_counts(raw, self.geometry.refcount_order)
        self.widen(int(counts.max()))
        self.counts[first * per : (first + count) * per] = counts

    def widen(self, most: int) -> None:
        """See that there may be counts as high as that."""
        if most > np.iinfo(self.counts.dtype).max:
            self.counts = self.counts.astype(DTYPES[self.geometry.refcount_order])

    async def write(self, clusters: I64) -> None:
        """Write back the blocks of clusters whose counts were changed."""
        hosts, order = self._hosts(), self.geometry.refcount_order
        for index in distinct(clusters // self.per).tolist():
            counts = self.counts[index * self.per : (index + 1) * self.per]
            data = pack_counts(counts.astype(DTYPES[order]), order)
            await self.storage.write(int(hosts[index]), data)

    async def tell_bad(self, index: int) -> None:
        """Tell that a block cannot be where the table says, once."""
        host = int(self.structure.reftable[index]) & REFTABLE_OFFSET
        if host & self.geometry.cluster_size - 1 and index not in self._told:
            self._told.add(index)
            shown = f"{index:#x}" if index else "0"
            await self.storage.corrupt(
                f"Refblock offset {host:#x} unaligned (reftable index: {shown})"
            )

    async def of(self, clusters: I64) -> tuple[Table, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
        """Return the refcounts of clusters anywhere, and which of them could be found out."""
        found, good = np.zeros(len(clusters), np.uint64), np.ones(len(clusters), np.bool_)
        inside = clusters < len(self.counts)
        found[inside] = self.counts[clusters[inside]]
        which = clusters // self.per
        for index in self.bad:
            mine = which == index
            if mine.any():
                await self.tell_bad(index)
                good[mine] = False
        hosts, size = self._hosts(), self.geometry.cluster_size
        for index in distinct(which[~inside & (which < len(hosts))]).tolist():
            mine, host = which == index, int(hosts[index])
            if not host:
                continue
            try:
                if host & size - 1:
                    await self.tell_bad(index)
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                raw = await self.storage.read(host, size)
            except OSError:
                good[mine] = False
                continue
            counts = unpack_counts(raw, self.geometry.refcount_order)
            found[mine] = counts[clusters[mine] - index * self.per]
        return found, good


async def compare(
    disk: OnDisk, references: References, result: CheckResult, fix: int
) -> tuple[int, bool]:
    """Compare refcounts with references, and set right what may be (compare_refcounts).

    Returns the last cluster in use, and whether the refcount structure must be rebuilt.
    """
    highest, rebuild, clusters = 0, False, references.clusters
    for start, end, code in _stretches(disk, clusters):
        if code:
            await disk.tell_bad(start // disk.per)
            why = os.strerror(code)
            for i in range(start, end):
                disk.storage.say(f"Can't get refcount for cluster {i}: {why}")
            result.check_errors += end - start
            continue
        have, want = disk.counts[start:end], references.counts[start:end]
        highest = max(highest, start + _last_used(have), start + _last_used(want))
        differ = have != want
        if differ.any():
            wrong = np.flatnonzero(differ)
            rebuild |= bool((have[wrong] == 0).any())
            await _mend(disk, references, result, fix, wrong + start)
    return highest, rebuild


def _last_used(counts: Counts) -> int:
    """Return the last index of a count that is not zero, less than none if there is none."""
    at = len(counts)
    while at > 0:
        used = np.flatnonzero(counts[max(0, at - LOOK_BACK) : at])
        if len(used):
            return max(0, at - LOOK_BACK) + int(used[-1])
        at -= LOOK_BACK
    return -(1 << 62)


def _stretches(disk: OnDisk, clusters: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first, end, errno) of clusters whose refcounts are known, or cannot be."""
    bad = sorted(disk.bad)
    start = 0
    while start < clusters:
        index = start // disk.per
        if bad and bad[0] == index:
            end = (index + 1) * disk.per
            yield start, min(end, clusters), disk.bad[bad.pop(0)]
        else:
            end = min(start + CLUSTERS_AT_ONCE, bad[0] * disk.per if bad else clusters)
            yield start, min(end, clusters), 0
        start = end


async def _mend(
    disk: OnDisk, references: References, result: CheckResult, fix: int, wrong: I64
) -> None:
    """Tell of clusters with wrong refcounts, and set those right that may be."""
    have, want = disk.counts[wrong].astype(np.uint64), references.counts[wrong].astype(np.uint64)
    leak = have > want
    fixed = (have != 0) & np.where(leak, bool(fix & Fix.LEAKS), bool(fix & Fix.ERRORS))
    for at in range(0, len(wrong), LINES_AT_ONCE):
        part = slice(at, at + LINES_AT_ONCE)
        rows = zip(
            wrong[part].tolist(), have[part].tolist(), want[part].tolist(), fixed[part].tolist(),
            strict=True,
        )  # fmt: skip
        lines = (
            f"{'Repairing' if mended else 'ERROR' if a < b else 'Leaked'} cluster {i} "
            f"refcount={a} reference={b}"
            for i, a, b, mended in rows
        )
        disk.storage.say("\n".join(lines))
    if fixed.any():
        disk.widen(int(want[fixed].max()))
        disk.counts[wrong[fixed]] = want[fixed].astype(disk.counts.dtype)
        if not disk.storage.broken:
            await disk.write(wrong[fixed])
            await _discard(disk, wrong[fixed & (want == 0)])
    result.leaks_fixed += int(np.count_nonzero(fixed & leak))
    result.corruptions_fixed += int(np.count_nonzero(fixed & ~leak))
    result.leaks += int(np.count_nonzero(~fixed & leak))
    result.corruptions += int(np.count_nonzero(~fixed & ~leak))


async def _discard(disk: OnDisk, clusters: I64) -> None:
    """Tell the file what is not used any more."""
    bits = disk.geometry.cluster_bits
    for first, count in row_starts(clusters):
        await disk.storage.discard(first << bits, count << bits)
