"""Internal snapshots: a snapshot is an L1 table; clusters are shared until one of both changes.

A cluster of the active disk that a snapshot refers to as well has no copied flag, so a write takes
a new one.  What each operation does, in the order in which it reaches the disk:

======  ==========================================================================================
create  the copy of the L1 table, as it is; refcounts up; flags off in L2 and L1 tables; the
        snapshot table with it; the header that points to that
apply   refcounts up of what the snapshot has; the active L1 table; refcounts down of what was there
delete  the snapshot table without it; the header that points to that; refcounts down; flags on
======  ==========================================================================================

A crash between any two of these leaves leaks, or flags that are off where they might be on, at
worst; before the flags go off they may be on though the refcount is two, which does no harm either
as long as no snapshot refers to the cluster.
"""

import errno
import os
import re
import struct
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.drivers.qcow2.freed import I64, Discard
from blockemu.drivers.qcow2.image import Image, c_hex
from blockemu.drivers.qcow2.writeback import Writeback
from blockemu.edge import MAX_LENGTH
from blockemu.errors import HostError
from blockemu.images.distinct import distinct
from blockemu.images.errors import FormatError
from blockemu.images.qcow2.constants import (
    COMPRESSED,
    COPIED,
    MAX_L1_BYTES,
    MAX_SNAPSHOTS,
    OFFSET,
)
from blockemu.images.qcow2.errors import TableTooLarge
from blockemu.images.qcow2.header import SNAPSHOTS_AT, check_table
from blockemu.images.qcow2.snapshots import Snapshot, pack_snapshots
from blockemu.images.qcow2.tables import Table, compressed_extents
from blockemu.os_errors import os_error
from blockemu.records import replace

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.resize import Resizer
    from blockemu.drivers.qcow2.zeroer import Zeroer

BATCH: Final = 1 << 20  # bytes of L2 tables looked at in one go
_OFFSET, _COPIED, _COMPRESSED = np.uint64(OFFSET), np.uint64(COPIED), np.uint64(COMPRESSED)
_NUMBER: Final = re.compile(r"\s*\+?(\d+)")


class NoSuchSnapshot(HostError):
    """No snapshot has this id and name."""

    template = "Can't find the snapshot"


class SnapshotNotFound(HostError):
    """No snapshot to be shown has this id and name."""

    template = "Can't find snapshot"


class NotLoaded(HostError):
    """(why): the L1 table of a snapshot that is to be shown cannot be read or used."""

    template = "{}"


class StepFailed(HostError):
    """(what, why): deleting went wrong halfway."""

    template = "{}: {}"


class Snapshots:
    """The snapshots of one image; nothing else is in flight while they change."""

    def __init__(
        self, image: Image, writeback: Writeback, zeroer: "Zeroer", resizer: "Resizer"
    ) -> None:
        self.image = image
        self.writeback = writeback
        self.zeroer = zeroer
        self.resizer = resizer

    def find(self, ident: str | None, name: str | None) -> Snapshot | None:
        """Return the first snapshot with an id, a name, or both."""
        for s in self.image.snapshots:
            if ident in (None, s.id) and name in (None, s.name):
                return s
        return None

    def at_hand(self, ident: str | None, name: str | None) -> Snapshot:
        """Return the first snapshot with an id, a name, or both.

        Raises:
            NoSuchSnapshot: there is none.

        """
        found = self.find(ident, name)
        if found is None:
            raise NoSuchSnapshot(errno=errno.ENOENT)
        return found

    async def create(self, wanted: Snapshot) -> Snapshot:
        """Take a snapshot; its id, size and place in ``wanted`` do not matter yet.

        Raises:
            OSError: it cannot be taken.

        """
        image = self.image
        if len(image.snapshots) >= MAX_SNAPSHOTS:
            raise os_error(errno.EFBIG)
        self._check_data_file()
        await self.writeback.settle_all()
        l1 = image.mapping.l1.copy()
        place = await self._allocate(len(l1) * 8)
        new = replace(
            wanted, id=self._new_id(), l1_table_offset=place, l1_size=len(l1),
            disk_size=image.length,
        )  # fmt: skip
        # If one of these fails, the table is leaked, as by QEMU: a check may find it.
        await image.check_overlap(place, len(l1) * 8, frozenset())
        await image.file.pwrite(place, l1.byteswap().tobytes())
        await self._share(l1)
        try:
            await self._set_flags()
            await self.write_table([*image.snapshots, new])
        except BaseException:
            await self._unshare(l1)
            self._free(place, len(l1) * 8, Discard.ALWAYS)
            raise
        await self._drop_state(wanted.vm_state_size)
        return new

    async def apply(self, snapshot: Snapshot) -> None:
        """Make the active disk what it was.

        Raises:
            OSError: that cannot be done.

        """
        image = self.image
        self._check_data_file()
        self.report_l1(snapshot)
        await self.writeback.settle_all()
        if snapshot.disk_size != image.length:
            await self.resizer.truncate(snapshot.disk_size, exact=True, prealloc="off", zero=False)
        await self.resizer.grow_l1(snapshot.l1_size)
        await self.writeback.settle_all()
        mapping, old = image.mapping, image.mapping.l1
        l1 = np.zeros(len(old), np.uint64)
        l1[: snapshot.l1_size] = await self._l1(snapshot) & ~_COPIED
        await self._share(l1)
        try:
            await self.writeback.flush(accurate=True)
            guarded = frozenset({"active L1 table"})
            await image.check_overlap(mapping.l1_offset, len(l1) * 8, guarded)
            await image.file.pwrite(mapping.l1_offset, l1.byteswap().tobytes())
            await image.file.flush()
        except BaseException:
            await self._unshare(l1)
            raise
        mapping.replace(l1, mapping.l1_offset)
        image.freed.ranges += 1
        image.node.changed()
        await self._unshare(old)
        await self._set_flags()
        await self.writeback.flush(accurate=True)

    async def delete(self, snapshot: Snapshot) -> None:
        """Let a snapshot go.

        Raises:
            OSError: that cannot be done; it may be gone all the same, and clusters leaked.

        """
        image = self.image
        try:
            self._check_l1(snapshot)
        except FormatError as e:
            raise NotLoaded(e, errno=errno.EINVAL) from e
        await self.writeback.settle_all()
        l1 = await self._l1(snapshot)
        try:
            await self.write_table([s for s in image.snapshots if s is not snapshot])
        except OSError as e:
            raise _step("Failed to remove snapshot from snapshot list", e) from e
        try:
            await self._unshare(l1)
        except OSError as e:
            raise _step("Failed to free the cluster and L1 table", e) from e
        self._free(snapshot.l1_table_offset, snapshot.l1_size * 8, Discard.SNAPSHOT)
        await self.writeback.settle_all()
        try:
            await self._set_flags()
            await self.writeback.flush(accurate=True)
        except OSError as e:
            raise _step("Failed to update snapshot status in disk", e) from e

    async def show(self, ident: str | None, name: str | None) -> None:
        """Let the disk, which is read-only, read as it was (qcow2_snapshot_load_tmp).

        Raises:
            SnapshotNotFound: there is none with this id and name.
            NotLoaded: its L1 table is of no use.

        """
        snapshot = self.find(ident, name)
        if snapshot is None:
            raise SnapshotNotFound(errno=errno.ENOENT)
        try:
            self._check_l1(snapshot)
            l1 = await self._l1(snapshot)
        except FormatError as e:
            raise NotLoaded(e, errno=errno.EINVAL) from e
        except OSError as e:
            raise NotLoaded(
                "Failed to read l1 table for snapshot", errno=e.errno or errno.EIO
            ) from e
        self.image.mapping.replace(l1, snapshot.l1_table_offset)
        self.image.node.changed()

    async def write_table(self, table: list[Snapshot]) -> None:
        """Write the table to a new place, and have the header point there.

        Raises:
            OSError: it is as it was.

        """
        image, header = self.image, self.image.header
        try:
            data = pack_snapshots(table)
        except FormatError as e:
            raise os_error(errno.EFBIG) from e
        place = await self._allocate(len(data))
        try:
            await self.writeback.flush(accurate=True)
            await image.check_overlap(place, len(data), frozenset())
            if data:
                await image.file.pwrite(place, data)
            await image.file.flush()
            await image.file.pwrite(SNAPSHOTS_AT, struct.pack(">IQ", len(table), place))
            await image.file.flush()
        except BaseException:
            self._free(place, len(data), Discard.ALWAYS)
            raise
        await self._free_now(header.snapshots_offset, image.snapshot_bytes)
        header.nb_snapshots, header.snapshots_offset = len(table), place
        image.snapshots, image.snapshot_bytes = table, len(data)
        await self.guard()

    async def guard(self) -> None:
        """Find the L2 tables of snapshots, if these are to be guarded."""
        image = self.image
        image.overlap.forget()
        found = [np.zeros(0, np.int64)]
        image.overlap.unusable = 0
        if "inactive L2 table" in image.settings.overlap_check:
            for snapshot in image.snapshots:
                try:
                    hosts = (await self._l1(snapshot) & _OFFSET).astype(np.int64)
                except FormatError as e:
                    large = isinstance(e, TableTooLarge)
                    image.overlap.unusable = errno.EFBIG if large else errno.EINVAL
                    break
                except OSError as e:
                    image.overlap.unusable = e.errno or errno.EIO
                    break
                found.append(hosts[hosts != 0] >> image.geometry.cluster_bits)
        image.overlap.inactive_l2 = distinct(np.concatenate(found))

    # Clusters

    async def _share(self, l1: Table) -> None:
        """Count one more reference to all that an L1 table refers to.

        Raises:
            OSError: EINVAL, a refcount would be too large; EIO, a table is at no cluster.  All
                counts are as they were.

        """
        done: list[I64] = []
        try:
            async for clusters in self._clusters(l1):
                await self.image.refcounts.add(clusters, self.image.file)
                done.append(clusters)
        except BaseException:
            for clusters in done:
                self.image.freed.add(clusters, Discard.NEVER)
            raise

    async def _unshare(self, l1: Table) -> None:
        """Count one reference less."""
        async for clusters in self._clusters(l1):
            self.image.freed.add(clusters, Discard.SNAPSHOT)
        await self.writeback.settle_all()

    async def _clusters(self, l1: Table) -> AsyncIterator[I64]:
        """Yield the clusters that an L1 table refers to: L2 tables, and what these refer to."""
        image, size = self.image, self.image.geometry.cluster_size
        bits, width = image.geometry.cluster_bits, image.geometry.entry_size // 8
        index = np.flatnonzero(l1)
        hosts = (l1[index] & _OFFSET).astype(np.int64)
        unfit = np.flatnonzero(hosts & size - 1)
        if len(unfit):
            host, where = int(hosts[unfit[0]]), int(index[unfit[0]])
            raise await image.corrupt(
                f"L2 table offset {host:#x} unaligned (L1 index: {c_hex(where)})"
            )
        step = max(1, BATCH >> bits)
        for at in range(0, len(hosts), step):
            some = hosts[at : at + step]
            raw = np.empty(len(some) * size // 8, np.uint64)
            breaks = (np.flatnonzero(some[1:] - some[:-1] != size) + 1).tolist()
            for a, b in zip([0, *breaks], [*breaks, len(some)], strict=True):
                part = raw[a * size // 8 : b * size // 8]
                await image.file.pread(int(some[a]), part.data.cast("B"))
            entries = raw.byteswap(inplace=True)[::width]
            yield np.concatenate((some >> bits, await self._data(entries, some)))

    async def _data(self, entries: Table, hosts: I64) -> I64:
        """Return the clusters that L2 entries refer to, once for each reference."""
        image, geometry = self.image, self.image.geometry
        packed = entries & _COMPRESSED != 0
        plain = np.flatnonzero(~packed & (entries & _OFFSET != 0))
        offsets = (entries[plain] & _OFFSET).astype(np.int64)
        unfit = np.flatnonzero(offsets & geometry.cluster_size - 1)
        if len(unfit):
            table, index = divmod(int(plain[unfit[0]]), geometry.l2_size)
            raise await image.corrupt(
                f"Cluster allocation offset {int(offsets[unfit[0]]):#x} unaligned "
                f"(L2 offset: {int(hosts[table]):#x}, L2 index: {c_hex(index)})"
            )
        clusters: I64 = offsets >> geometry.cluster_bits
        if not packed.any():
            return clusters
        start, length = compressed_extents(entries[packed], geometry)
        first, last = start >> geometry.cluster_bits, start + length - 1 >> geometry.cluster_bits
        return np.concatenate((clusters, first, last[last != first]))

    async def _set_flags(self) -> None:
        """Set the copied flags of the active tables by what the refcounts say."""
        image, mapping = self.image, self.image.mapping
        bits, file = image.geometry.cluster_bits, image.file
        for index in np.flatnonzero(mapping.l1 & _OFFSET).tolist():
            entry = int(mapping.l1[index])
            own = np.array([(entry & OFFSET) >> bits])
            if bool((await image.refcounts.counts(own, file))[0] == 1) != bool(entry & COPIED):
                mapping.set_l1(index, entry ^ COPIED)
            entries = (await image.table(index)).entries
            at = np.flatnonzero((entries & _COMPRESSED == 0) & (entries & _OFFSET != 0))
            clusters = (entries[at] & _OFFSET).astype(np.int64) >> bits
            alone = await image.refcounts.counts(clusters, file) == 1
            wrong = alone != (entries[at] & _COPIED != 0)
            if wrong.any():
                entries[at[wrong]] ^= _COPIED
                mapping.dirty.add(index)
                if mapping.crowded():
                    await self.writeback.flush(accurate=True)

    async def _allocate(self, length: int) -> int:
        """Take clusters in a row for a table; return where they are, 0 if none are needed."""
        count = self.image.geometry.clusters(length)
        if not count:
            return 0
        return await self.image.take_row(count) << self.image.geometry.cluster_bits

    def _free(self, offset: int, length: int, reason: Discard) -> None:
        geometry = self.image.geometry
        if length:
            count = geometry.clusters(length)
            self.image.freed.add_range(offset >> geometry.cluster_bits, count, reason)

    async def _free_now(self, offset: int, length: int) -> None:
        """Let go of a table; where its refcounts cannot be read it is leaked, and that is told."""
        image = self.image
        if not length:
            return
        await image.tell("cluster_free")
        first = offset >> image.geometry.cluster_bits
        try:
            last = first + image.geometry.clusters(length) - 1
            for index in range(first // image.refcounts.per, last // image.refcounts.per + 1):
                await image.refcounts.block(index, image.file)
        except OSError as e:
            why = os.strerror(e.errno or errno.EIO)
            print(f"qcow2_free_clusters failed: {why}", file=sys.stderr, flush=True)
            return
        self._free(offset, length, Discard.SNAPSHOT)

    async def _drop_state(self, size: int) -> None:
        """Drop a machine's state, which the snapshot has now: the next need not share it."""
        image, bits = self.image, self.image.geometry.table_bits
        start = image.node.vm_state_offset
        end = start + (image.geometry.clusters(size) << image.geometry.cluster_bits)
        end = min(end, len(image.mapping.l1) << bits)
        if end > start:
            await self.zeroer.drop(start, end, Discard.NEVER)

    # Helpers

    def _new_id(self) -> str:
        numbers = (_NUMBER.match(s.id) for s in self.image.snapshots)
        return str(max((int(n[1]) for n in numbers if n), default=0) + 1)

    def _check_data_file(self) -> None:
        if self.image.geometry.data_file:
            raise os_error(errno.ENOTSUP)

    def report_l1(self, snapshot: Snapshot) -> None:
        """Tell the user if a snapshot's L1 table cannot be where it is said to be.

        Raises:
            OSError: EFBIG or EINVAL, it cannot.

        """
        try:
            self._check_l1(snapshot)
        except FormatError as e:
            self.image.node.services.report(str(e))
            raise os_error(errno.EFBIG if isinstance(e, TableTooLarge) else errno.EINVAL) from e

    def _check_l1(self, snapshot: Snapshot) -> None:
        check_table(
            self.image.geometry, snapshot.l1_table_offset, snapshot.l1_size, 8, MAX_L1_BYTES,
            "Snapshot L1 table",
        )  # fmt: skip

    async def _l1(self, snapshot: Snapshot) -> Table:
        """Return a snapshot's L1 table.

        Raises:
            OSError: it cannot be read.

        """
        self._check_l1(snapshot)
        if snapshot.l1_table_offset + snapshot.l1_size * 8 > MAX_LENGTH:
            raise os_error(errno.EIO)
        raw = memoryview(bytearray(snapshot.l1_size * 8))
        await self.image.file.pread(snapshot.l1_table_offset, raw)
        return np.frombuffer(raw, np.uint64).byteswap()


def _step(what: str, error: OSError) -> StepFailed:
    code = error.errno or errno.EIO
    return StepFailed(what, os.strerror(code), errno=code)
