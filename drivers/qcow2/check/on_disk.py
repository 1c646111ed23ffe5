"""What the refcount blocks in the file say, and setting it right."""

import errno
import os
from collections.abc import Iterator
from typing import Final

import numpy as np

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.references import BATCH, References
from blockemu.drivers.qcow2.check.storage import Storage, Structure, rows
from blockemu.drivers.qcow2.writeback import row_starts
from blockemu.images.distinct import distinct
from blockemu.images.qcow2.constants import REFTABLE_OFFSET
from blockemu.images.qcow2.refcount import DTYPES, Counts, pack_counts, unpack_counts
from blockemu.images.qcow2.tables import I64, U8, Table
from blockemu.os_errors import os_error

LINES_AT_ONCE: Final = 1 << 12
CLUSTERS_AT_ONCE: Final = 1 << 17
LOOK_BACK: Final = 1 << 12


class OnDisk:
    """The refcounts in the file: of all its clusters at hand, of others when asked for.

    ``counts``: unsigned, of at least one byte.  They are those that were counted, the very array,
    as long as the file says the same, which saves a check most of its memory and makes the file's
    bytes all that need be compared (``make bench``: images).  ``differs`` tells which blocks of the
    file say something else, bool of shape (blocks,).
    """

    def __init__(self, storage: Storage, structure: Structure) -> None:
        self.storage = storage
        self.structure = structure
        self.geometry = structure.geometry
        self.per = structure.geometry.counts_per_block
        self.counts: Counts = np.zeros(0, np.uint8)
        self.differs = np.zeros(0, np.bool_)
        self._shared = False  # counts are somebody else's
        self._raw = np.empty(0, np.uint8)  # what is read, to be used again
        self._packed: tuple[Counts, U8] = np.zeros(0, np.uint8), np.zeros(0, np.uint8)
        self.bad: dict[int, int] = {}  # blocks that cannot be read: an errno
        self._told: set[int] = set()

    async def load(self, counted: Counts) -> None:
        """Load the refcounts of the file's clusters, of which so many references were counted."""
        blocks = -(-len(counted) // self.per)
        self.counts, self._shared = counted, True
        self.differs = np.zeros(blocks, np.bool_)
        hosts = np.zeros(blocks, np.int64)
        known = self._hosts()[:blocks]
        hosts[: len(known)] = known
        wrong = hosts & self.geometry.cluster_size - 1 != 0
        self.bad = dict.fromkeys(np.flatnonzero(wrong).tolist(), errno.EIO)
        there = (hosts != 0) & ~wrong
        for first, count in row_starts(np.flatnonzero(~there)):
            if counted[first * self.per : (first + count) * self.per].any():
                self._take(first, count, 0)
        most = max(1, BATCH >> self.geometry.cluster_bits)
        for begin, count in row_starts(np.flatnonzero(there)):
            for first in range(begin, begin + count, most):
                await self._load(first, hosts[first : min(first + most, begin + count)])

    def _hosts(self) -> I64:
        found: I64 = (self.structure.reftable & np.uint64(REFTABLE_OFFSET)).astype(np.int64)
        return found

    async def _load(self, first: int, hosts: I64) -> None:
        """Load some blocks that follow on one another in the table."""
        length = len(hosts) * self.geometry.cluster_size
        if len(self._raw) < length:
            self._raw = np.empty(length, np.uint8)
        raw = self._raw[:length]
        await self._fill(first, hosts, raw.data)
        if not np.array_equal(raw, self._expected(first, len(hosts))):
            self._take(first, len(hosts), unpack_counts(raw.data, self.geometry.refcount_order))

    async def _fill(self, first: int, hosts: I64, raw: memoryview) -> None:
        """Read some blocks; those that cannot be read are noted, and zeroes."""
        size = self.geometry.cluster_size
        for a, b in rows(hosts, size):
            part = raw[a * size : b * size]
            try:
                await self.storage.fill(int(hosts[a]), part)
            except OSError as e:
                if b - a == 1:
                    self.bad[first + a] = e.errno or errno.EIO
                    part[:] = bytes(size)
                    continue
                for i in range(a, b):
                    await self._fill(first + i, hosts[i : i + 1], raw[i * size : (i + 1) * size])

    def _expected(self, first: int, blocks: int) -> U8:
        """Return the bytes of some blocks if the file says what was counted (not to be changed)."""
        counted = self.counts[first * self.per : (first + blocks) * self.per]
        known, packed = self._packed
        if not np.array_equal(known, counted):  # mostly what is next to it has the same counts
            order = self.geometry.refcount_order
            padded = np.zeros(blocks * self.per, DTYPES[order])
            padded[: len(counted)] = counted
            packed = np.frombuffer(pack_counts(padded, order), np.uint8)
            self._packed = counted.copy(), packed
        return packed

    def _take(self, first: int, blocks: int, counts: "Counts | int") -> None:
        """Take over what the file says of some blocks, other than what was counted."""
        if self._shared:
            own = np.zeros(len(self.differs) * self.per, self.counts.dtype)
            own[: len(self.counts)] = self.counts
            self.counts, self._shared = own, False
        self.widen(int(np.max(counts)))
        self.counts[first * self.per : (first + blocks) * self.per] = counts
        self.differs[first : first + blocks] = True

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
                    raise os_error(errno.EIO)
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
        highest = max(highest, start + _last_used(want))
        if not disk.differs[start // disk.per : -(-end // disk.per)].any():
            continue
        highest = max(highest, start + _last_used(have))
        wrong = np.flatnonzero(have != want)
        if len(wrong):
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
