"""How often each cluster of the file is referred to, and what is wrong with who does so.

After calculate_refcounts and what it calls, block/qcow2-refcount.c: what is found, in which order,
and in which words.  L2 tables are looked at many at a time, as columns; only entries that something
is wrong with are looked at one by one, for there is a line to be printed about each.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.counts import MOST, Counts, beyond, overflow, spread
from blockemu.drivers.qcow2.check.storage import Storage, Structure, rows
from blockemu.images.distinct import distinct
from blockemu.images.errors import FormatError
from blockemu.images.lengths import lengths
from blockemu.images.qcow2.bitmaps import parse_directory
from blockemu.images.qcow2.constants import (
    ALL_ALLOCATED,
    ALL_ZERO,
    COMPRESSED,
    COPIED,
    MAX_L1_BYTES,
    OFFSET,
    READS_ZERO,
    REFTABLE_OFFSET,
    SUBCLUSTERS,
)
from blockemu.images.qcow2.tables import I64, Table, compressed_extents, run_starts
from blockemu.os_errors import os_error
from blockemu.records import field, record

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH: Final = 1 << 20  # bytes of L2 tables looked at in one go
L1_RESERVED: Final = 0x7F000000000001FF
L2_RESERVED: Final = 0x3F000000000001FE
REFTABLE_RESERVED: Final = 0x1FF
BITMAP_RESERVED: Final = 0xFF000000000001FE
_OFFSET, _COPIED, _COMPRESSED = np.uint64(OFFSET), np.uint64(COPIED), np.uint64(COMPRESSED)
_ZERO, _ALLOCATED, _NIL = np.uint64(READS_ZERO), np.uint64(ALL_ALLOCATED), np.uint64(0)
_SUBCLUSTERS = np.uint64(SUBCLUSTERS)


@record
class L2Batch:
    """Entries of some L2 tables, one table after the other; ``hosts``: where the tables lie."""

    raw: Table
    hosts: I64
    active: bool
    entries: Table = field(init=False)
    bitmaps: Table | None = field(init=False)

    def split(self, extended: bool) -> None:
        """Tell entries and bitmaps apart; both are views of ``raw``."""
        self.entries = self.raw[0::2] if extended else self.raw
        self.bitmaps = self.raw[1::2] if extended else None


class References(Counts):
    """Counts references anew.

    ``rebuild``: the refcount structure is beyond repair.
    ``all_copied``: each cluster of the active disk has the copied flag.
    """

    def __init__(
        self, storage: Storage, structure: Structure, result: CheckResult, fix: int
    ) -> None:
        super().__init__(storage, structure.geometry, result)
        self.structure = structure
        self.fix = fix
        self.rebuild = False
        self.all_copied = True

    async def count(self) -> None:
        """Walk all that the header points to.

        Raises:
            OSError: the check cannot go on.

        """
        at, header_size = self.structure, self.geometry.cluster_size
        self.add_range(0, header_size)
        await self._l1(at.l1_offset, len(at.l1), active=True)
        if self.geometry.data_file and at.snapshots:
            self.wrong(f"ERROR {len(at.snapshots)} snapshots in image with data file")
        for s in at.snapshots:
            where = f"ERROR snapshot {s.id} ({s.name})"
            if s.l1_table_offset & header_size - 1:
                self.wrong(
                    f"{where} l1_offset={s.l1_table_offset:#x}: L1 table is not cluster aligned; "
                    "snapshot table entry corrupted"
                )
            elif s.l1_size > MAX_L1_BYTES // 8:
                self.wrong(
                    f"{where} l1_size={s.l1_size:#x}: L1 table is too large; "
                    "snapshot table entry corrupted"
                )
            else:
                await self._l1(s.l1_table_offset, s.l1_size, active=False)
        self.add_range(at.snapshots_offset, at.snapshots_size)
        self.add_range(at.reftable_offset, len(at.reftable) * 8)
        if at.crypto is not None:
            self.add_range(*at.crypto)
        await self._stored_bitmaps()
        await self._refcount_blocks()

    # L1 tables and what they point to

    async def _l1(self, offset: int, size: int, *, active: bool) -> None:
        if not size:
            return
        self.add_range(offset, size * 8)
        l1 = await self._words(offset, size, "ERROR: I/O error in check_refcounts_l1")
        l1 = l1[l1 != 0]
        hosts: I64 = (l1 & _OFFSET).astype(np.int64)
        odd = (l1 & np.uint64(L1_RESERVED) != 0) | (hosts >= self.length)
        odd |= hosts & self.geometry.cluster_size - 1 != 0
        odd_at = np.concatenate((np.flatnonzero(odd), [len(hosts)]))
        at, step = 0, max(1, BATCH >> self.bits)
        while at < len(hosts):
            end = min(at + step, int(odd_at[odd_at.searchsorted(at)]))
            some = hosts[at:end]
            if len(some) and self.add_runs(some >> self.bits, np.ones(len(some), np.int64)):
                raw = await self._tables(some)
                if raw is not None:
                    await self._batch(L2Batch(raw, some, active))
                    at = end
                    continue
                np.subtract.at(self.counts, some >> self.bits, 1)
            await self._single(int(l1[at]), active=active)
            at += 1

    async def _single(self, entry: int, *, active: bool) -> None:
        """Look at one L1 entry that is unusual, and at its table."""
        if entry & L1_RESERVED:
            self.wrong(f"ERROR found L1 entry with reserved bits set: {entry:x}")
        host, size = entry & OFFSET, self.geometry.cluster_size
        self.add_range(host, size)
        if host & size - 1:
            self.wrong(
                f"ERROR l2_offset={host:x}: Table is not cluster aligned; L1 entry corrupted"
            )
        raw = await self._words(host, size // 8, "ERROR: I/O error in check_refcounts_l2")
        await self._batch(L2Batch(raw, np.array([host], np.int64), active))

    async def _tables(self, hosts: I64) -> Table | None:
        """Read L2 tables, those that lie in a row in one go; None if one cannot be read."""
        size = self.geometry.cluster_size
        raw = np.empty(len(hosts) * size // 8, np.uint64)
        data = raw.data.cast("B")
        try:
            for a, b in rows(hosts, size):
                await self.storage.fill(int(hosts[a]), data[a * size : b * size])
        except OSError:
            return None
        return raw.byteswap(inplace=True)

    async def _batch(self, batch: L2Batch) -> None:
        batch.split(self.geometry.extended)
        if batch.bitmaps is not None or not self._plain(batch):
            await self._any(batch)

    def _plain(self, batch: L2Batch) -> bool:
        """Count the clusters of tables by runs; False if something is unusual after all."""
        entries, geometry = batch.entries, self.geometry
        if not entries[0] and not entries.any():
            return True
        begins = run_starts(entries, geometry.cluster_size)
        first, length = entries[begins], lengths(begins, len(entries))
        odd = COMPRESSED | L2_RESERVED | (OFFSET & geometry.cluster_size - 1)
        if int(np.bitwise_or.reduce(first)) & odd:
            return False  # some first entry is; those that follow on it differ in the offset alone
        host = (first & _OFFSET).astype(np.int64)
        second = entries[np.minimum(begins + 1, len(entries) - 1)]
        if ((host == 0) & (length > 1) & (second != first)).any():
            return False
        has = host != 0
        if geometry.data_file:
            has |= (first & _COPIED != 0) & (first & _ZERO == 0)
        host, length = host[has], length[has]
        end = OFFSET if geometry.data_file else min(self.length, OFFSET)
        if (host + (length - 1 << self.bits) >= end).any():
            return False
        if not geometry.data_file and not self.add_runs(host >> self.bits, length):
            return False
        if batch.active:
            self.all_copied &= bool((first[has] & _COPIED != 0).all())
            self._fragments(begins[has], length, host)
        return True

    def _fragments(self, at: NDArray[np.intp], length: I64, host: I64) -> None:
        """Count clusters that do not follow on the one before, within each table."""
        bits = self.geometry.l2_bits
        self.result.allocated_clusters += int(length.sum())
        apart = host[1:] != host[:-1] + (length[:-1] << self.bits)
        apart &= at[1:] >> bits == at[:-1] + length[:-1] - 1 >> bits
        self.result.fragmented_clusters += int(np.count_nonzero(apart))

    async def _any(self, batch: L2Batch) -> None:
        """Count the clusters of tables of all kinds, entry by entry."""
        entries, geometry, size = batch.entries, self.geometry, self.geometry.cluster_size
        bitmaps = np.zeros(len(entries), np.uint64) if batch.bitmaps is None else batch.bitmaps
        packed = entries & _COMPRESSED != 0
        offset = (entries & _OFFSET).astype(np.int64)
        zero = (entries & _ZERO != 0) & (batch.bitmaps is None)
        has = ~packed & (offset != 0)
        if geometry.data_file:
            has |= ~packed & (entries & _COPIED != 0) & ~zero
        start, length = offset, np.full(len(entries), size)
        if packed.any():
            at, size_packed = compressed_extents(entries, geometry)
            start, length = np.where(packed, at, offset), np.where(packed, size_packed, length)
        used = has | packed
        outside = used & (start + length - self.length >= size) & (not geometry.data_file)
        both = has & (bitmaps >> _SUBCLUSTERS & bitmaps & _ALLOCATED != 0)
        odd = outside | both | (~packed & (entries & np.uint64(L2_RESERVED) != 0))
        odd |= has & (offset & size - 1 != 0)
        odd |= packed & ((entries & _COPIED != 0) | (bitmaps != 0) | geometry.data_file)
        odd |= ~used & ~zero & (bitmaps & _ALLOCATED != 0)
        lines: list[tuple[int, str]] = []
        for i in np.flatnonzero(odd).tolist():
            lines += [(i, text) for text in self._odd(batch, i)]
            if has[i] and offset[i] & size - 1 and await self._zeroed(batch, i, lines):
                has[i] = used[i] = False
            elif packed[i] and (geometry.data_file or bitmaps[i]):
                used[i] = False
            elif outside[i]:
                lines.append((i, beyond(int(start[i]), int(length[i]))))
        counted = used & ~outside & (not geometry.data_file)
        at = np.flatnonzero(counted)
        first, last = start[at] >> self.bits, (start[at] + length[at] - 1) >> self.bits
        if len(at):
            self.reach(int(last.max()) + 1)
        if not self.add_runs(first, last - first + 1):
            clusters, owner = spread(first, last - first + 1), np.repeat(at, last - first + 1)
            for k in np.flatnonzero(self.add_in_order(clusters)).tolist():
                lines.append((int(owner[k]), overflow(int(clusters[k]) << self.bits)))
        lines.sort(key=lambda line: line[0])
        for _, text in lines:
            self.storage.say(text)
            self.result.corruptions += not text.startswith("Repairing")
        if batch.active:
            self.all_copied &= bool((entries[has] & _COPIED != 0).all())
            at = np.flatnonzero(has)
            self._fragments(at, np.ones(len(at), np.int64), offset[at])
            compressed = int(np.count_nonzero(packed & used))
            self.result.allocated_clusters += compressed
            self.result.compressed_clusters += compressed
            self.result.fragmented_clusters += compressed

    def _odd(self, batch: L2Batch, i: int) -> Iterable[str]:
        """Yield what is wrong with one L2 entry in itself, but for its being unaligned."""
        entry, data_file = int(batch.entries[i]), self.geometry.data_file
        bitmap = 0 if batch.bitmaps is None else int(batch.bitmaps[i])
        if entry & COMPRESSED:
            if entry & COPIED:
                entry &= ~COPIED
                yield (
                    f"ERROR: coffset=0x{entry & self.geometry.compressed_offset:x}: "
                    "copied flag must never be set for compressed clusters"
                )
            index = i & self.geometry.l2_size - 1
            if data_file:
                yield f"ERROR compressed cluster {index} with data file, entry=0x{entry:x}"
            elif bitmap:
                yield (
                    f"ERROR compressed cluster {index} with non-zero subcluster allocation "
                    f"bitmap, entry=0x{entry:x}"
                )
            return
        if entry & L2_RESERVED:
            yield f"ERROR found l2 entry with reserved bits set: {entry:x}"
        if entry & OFFSET or (data_file and entry & COPIED):
            if bitmap >> SUBCLUSTERS & bitmap & ALL_ALLOCATED:
                yield (
                    f"ERROR offset={entry & OFFSET:x}: Allocated cluster has corrupted "
                    "subcluster allocation bitmap"
                )
        elif bitmap & ALL_ALLOCATED:
            yield "ERROR: Unallocated cluster has non-zero subcluster allocation map"

    async def _zeroed(self, batch: L2Batch, i: int, lines: list[tuple[int, str]]) -> bool:
        """Tell of a cluster that is at no cluster's place; make it zeroes if it may be."""
        entry = int(batch.entries[i])
        offset = entry & OFFSET
        bitmap = None if batch.bitmaps is None else int(batch.bitmaps[i])
        data = not entry & READS_ZERO if bitmap is None else bool(bitmap & ALL_ALLOCATED)
        if data:
            text = "Data cluster is not properly aligned; L2 entry corrupted."
            lines.append((i, f"ERROR offset={offset:x}: {text}"))
            return False
        text = "Preallocated cluster is not properly aligned; L2 entry corrupted."
        if not self.fix & Fix.ERRORS:
            lines.append((i, f"ERROR offset={offset:x}: {text}"))
            return False
        lines.append((i, f"Repairing offset={offset:x}: {text}"))
        new = [READS_ZERO] if bitmap is None else [0, (bitmap | bitmap << SUBCLUSTERS) & ALL_ZERO]
        width = len(new)
        batch.raw[i * width : (i + 1) * width] = new
        table, index = divmod(i, self.geometry.l2_size)
        at = int(batch.hosts[table]) + index * width * 8
        kind = "active L2 table" if batch.active else "inactive L2 table"
        data_bytes = batch.raw[i * width : (i + 1) * width].byteswap().tobytes()
        try:
            await self.storage.guard(at, width * 8, frozenset({kind}))
        except OSError:
            self._tell(lines)
            self.storage.say("ERROR: Overlap check failed")
            self.result.check_errors += 1
            raise
        try:
            await self.storage.write(at, data_bytes)
        except OSError as e:
            why = os.strerror(e.errno or errno.EIO)
            lines.append((i, f"ERROR: Failed to overwrite L2 table entry: {why}"))
            self.result.check_errors += 1
            return False
        self.result.corruptions_fixed += 1
        return True

    def _tell(self, lines: list[tuple[int, str]]) -> None:
        for _, text in lines:
            self.storage.say(text)

    # Bitmaps and refcount blocks

    async def _stored_bitmaps(self) -> None:
        """After qcow2_check_bitmaps_refcounts, block/qcow2-bitmap.c."""
        at, ext = self.structure, self.structure.bitmaps
        if ext is None:
            return
        self.add_range(ext.directory_offset, ext.directory_size)
        size = self.geometry.cluster_size
        try:
            raw = await self.storage.read(ext.directory_offset, ext.directory_size)
            stored = parse_directory(raw, ext.nb_bitmaps, at.length, size)
        except (OSError, FormatError):
            self.result.corruptions += 1
            raise os_error(errno.EINVAL) from None
        for bitmap in stored:
            self.add_range(bitmap.table_offset, bitmap.table_size * 8)
            table = await self._bitmap_table(bitmap.table_offset, bitmap.table_size)
            hosts = (table & _OFFSET).astype(np.int64)
            hosts = hosts[hosts != 0]
            for host in hosts[hosts >= self.length].tolist():
                self.add_range(host, size)
            inside = hosts[hosts < self.length] >> self.bits
            if not self.add_runs(inside, np.ones(len(inside), np.int64)):
                over = inside[self.add_in_order(inside)]
                for cluster in over.tolist():
                    self.wrong(overflow(cluster << self.bits))

    async def _bitmap_table(self, offset: int, entries: int) -> Table:
        raw = await self.storage.read(offset, entries * 8)
        table = np.frombuffer(raw, np.uint64).byteswap()
        bad = table & np.uint64(BITMAP_RESERVED) != 0
        hosts = table & _OFFSET
        bad |= (hosts != 0) & (table & _ZERO != 0)
        bad |= hosts & np.uint64(self.geometry.cluster_size - 1) != 0
        if bad.any():
            self.result.corruptions += 1
            raise os_error(errno.EINVAL)
        return table

    async def _refcount_blocks(self) -> None:
        """Count the refcount blocks, of which each must be counted once (check_refblocks)."""
        size, table = self.geometry.cluster_size, self.structure.reftable
        if self._blocks_are_fine():
            return
        for i in np.flatnonzero(table).tolist():
            entry = int(table[i])
            host = entry & REFTABLE_OFFSET
            if entry & REFTABLE_RESERVED:
                self._beyond_repair(f"ERROR refcount table entry {i} has reserved bits set")
            elif host & size - 1:
                self._beyond_repair(
                    f"ERROR refcount block {i} is not cluster aligned; "
                    "refcount table entry corrupted"
                )
            elif host >> self.bits >= self.clusters:
                await self._block_outside(i, host)
            elif host:
                self.add_range(host, size)
                count = int(self.counts[host >> self.bits])
                if count != 1:
                    self._beyond_repair(f"ERROR refcount block {i} refcount={count}")

    def _blocks_are_fine(self) -> bool:
        """Count the refcount blocks in one go; False if there is something about one of them."""
        table = self.structure.reftable
        hosts = table[table != 0]
        odd = hosts & np.uint64(self.geometry.cluster_size - 1) != 0
        odd |= hosts >> np.uint64(self.bits) >= np.uint64(self.clusters)
        if odd.any():
            return False
        clusters = distinct(hosts.astype(np.int64) >> self.bits)
        if len(clusters) < len(hosts) or self.counts[clusters].any():
            return False
        return self.add_runs(clusters, np.ones(len(clusters), np.int64))

    async def _block_outside(self, i: int, host: int) -> None:
        """Make the file long enough to have a refcount block, if it may be changed."""
        if not self.fix & Fix.ERRORS:
            self.wrong(f"ERROR refcount block {i} is outside image")
            return
        self.storage.say(f"Repairing refcount block {i} is outside image")
        try:
            await self._grow(host)
        except OSError as e:
            self.result.corruptions += 1
            self.rebuild = True
            why = os.strerror(e.errno or errno.EIO)
            self.storage.say(f"ERROR could not resize image: {why}")
            return
        self.result.corruptions_fixed += 1
        self.add_range(host, self.geometry.cluster_size)

    async def _grow(self, host: int) -> None:
        size = self.geometry.cluster_size
        if host > (1 << 63) - 1 - size:
            raise os_error(errno.EINVAL)
        try:
            await self.storage.grow(host + size)
        except OSError as e:
            self.storage.report(str(e) if e.errno is None else (e.strerror or str(e)))
            raise
        self.length = self.storage.length
        clusters = self.geometry.clusters(self.length)
        if clusters > MOST:
            self.result.check_errors += 1
            raise os_error(errno.ENOMEM)
        self.reach(clusters)

    # Helpers

    def _beyond_repair(self, text: str) -> None:
        self.wrong(text)
        self.rebuild = True

    async def _words(self, offset: int, count: int, failed: str) -> Table:
        try:
            raw = await self.storage.read(offset, count * 8)
        except OSError:
            self.storage.say(failed)
            self.result.check_errors += 1
            raise
        return np.frombuffer(raw, np.uint64).byteswap()
