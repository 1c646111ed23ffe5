"""Changing an image's options in place (after qcow2_amend_options).

What changes the tables works on the file alone, once all that was kept in memory is written there:
clusters beyond the end first, what points to them afterwards.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.create_options import Texts
from blockemu.drivers.qcow2 import refusals
from blockemu.drivers.qcow2.freed import I64
from blockemu.drivers.qcow2.image import Image, c_hex
from blockemu.images.distinct import distinct
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2.refcount import Counts, empty_counts, pack_counts
from blockemu.images.qcow2.tables import Table
from blockemu.optlist import is_on, number, size
from blockemu.records import record, replace

if TYPE_CHECKING:
    from blockemu.drivers.qcow2 import Qcow2

Tell = Callable[[int, int], None]  # (done, all there is to do), in units of its own
_LEVELS: Final = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_FULL_EXTRA: Final = 16  # bytes of a snapshot's extra data that version 3 wants


@record(frozen=True)
class Wishes:
    """What an image shall be like; None where that is not told, or is as it was."""

    version: int
    size: int
    backing_file: str | None
    backing_format: str | None
    data_file: str | None
    data_file_raw: bool
    lazy_refcounts: bool
    refcount_bits: int


def wishes(texts: Texts, image: Image) -> Wishes:
    """Read and check the options, in the order of QEMU's list of them.

    Raises:
        QmpError: one of them cannot be.

    """
    header = image.header
    if any(name.startswith("encrypt.") for name in texts):
        if not header.crypt_method:
            raise refusals.NotEncrypted
        if header.crypt_method != c.CRYPT_LUKS:
            raise refusals.OnlyLuksAmended
    version = header.version
    if "compat" in texts:
        if texts["compat"] not in _LEVELS:
            raise refusals.UnknownLevel(texts["compat"])
        version = _LEVELS[texts["compat"]]
    if "data_file" in texts and not header.has_data_file:
        raise refusals.HasNoDataFile
    raw = bool(header.autoclear_features & c.DATA_FILE_RAW)
    wants_raw = is_on(texts.get("data_file_raw"), default=raw)
    if wants_raw and not raw:
        raise refusals.RawTooLate
    bits = 1 << header.refcount_order
    if "refcount_bits" in texts:
        bits = number(texts["refcount_bits"]) or 0
        if not 0 < bits <= 64 or bits & bits - 1:
            raise refusals.BadRefcountWidth
    return Wishes(
        version=version,
        size=size(texts.get("size", "0")) or 0,
        backing_file=texts.get("backing_file"),
        backing_format=texts.get("backing_fmt"),
        data_file=texts.get("data_file"),
        data_file_raw=wants_raw,
        lazy_refcounts=is_on(texts.get("lazy_refcounts"), default=image.settings.lazy_refcounts),
        refcount_bits=bits,
    )


class Amender:
    """Amends one image; nothing else is in flight."""

    def __init__(self, node: Qcow2, tell: Tell) -> None:
        self.node = node
        self.image = node.image
        self.tell = tell

    async def amend(self, texts: Texts, *, force: bool = False) -> None:
        """Do all that is wished: what needs version 3 after the upgrade, the downgrade last.

        Raises:
            QmpError: in QEMU's words.

        """
        image, header = self.image, self.image.header
        wish = wishes(texts, image)
        if wish.version > header.version:
            await self._upgrade()
        keys = {k.removeprefix("encrypt."): v for k, v in texts.items() if k[:8] == "encrypt."}
        if keys:
            from blockemu.drivers.qcow2.encryption import amend_by_text  # late: seldom needed

            await amend_by_text(self.node.volume, keys, force=force)
        if wish.refcount_bits != 1 << header.refcount_order:
            if wish.version < 3 and wish.refcount_bits != 16:
                raise refusals.WidthNeedsLevel
            await self._change_refcounts(wish.refcount_bits.bit_length() - 1)
        header.autoclear_features &= ~c.DATA_FILE_RAW
        header.autoclear_features |= c.DATA_FILE_RAW if wish.data_file_raw else 0
        if wish.data_file is not None:
            image.extensions.data_file = wish.data_file or None
        with refusals.telling(refusals.HeaderNotAmended):
            await image.write_header()
        self._check_backing(wish)
        await self._set_lazy(wish)
        if wish.size:
            await self._resize(wish.size)
        if wish.version < header.version:
            await self._downgrade()

    def _check_backing(self, wish: Wishes) -> None:
        now = self.image.backing_file, self.image.extensions.backing_format
        wanted = wish.backing_file, wish.backing_format
        if wanted != (None, None) and wanted != now:
            raise refusals.CannotAmendBacking(hint="You can use 'qemu-img rebase' instead.\n")

    async def _set_lazy(self, wish: Wishes) -> None:
        image, header = self.image, self.image.header
        if wish.lazy_refcounts is image.settings.lazy_refcounts:
            return
        if wish.lazy_refcounts and wish.version < 3:
            raise refusals.LazyNeedsLevel
        if not wish.lazy_refcounts:
            await self._mark_clean()
        old = header.compatible_features
        header.compatible_features &= ~c.LAZY_REFCOUNTS
        header.compatible_features |= c.LAZY_REFCOUNTS if wish.lazy_refcounts else 0
        try:
            with refusals.telling(refusals.HeaderNotAmended):
                await image.write_header()
        except BaseException:
            header.compatible_features = old
            raise
        image.settings = replace(image.settings, lazy_refcounts=wish.lazy_refcounts)

    async def _mark_clean(self) -> None:
        """Make refcounts right on disk, and say so."""
        with refusals.telling(refusals.NotCleaned):
            await self.node.writeback.settle_all()
            if self.image.header.incompatible_features & c.DIRTY:
                self.image.header.incompatible_features &= ~c.DIRTY
                await self.image.write_header()

    async def _resize(self, length: int) -> None:
        """Give the disk a size; what is new reads as zeroes whatever the backing file holds."""
        below, old = self.node.backing, self.image.length
        zero = below is not None and length > old and below.fresh_length() > old
        with refusals.telling(refusals.NotAmended):
            await self.node.truncate(length, exact=True, zero=zero)

    # The version

    async def _upgrade(self) -> None:
        image, header = self.image, self.image.header
        self.tell(0, 2)
        if any(snapshot.extra_size < _FULL_EXTRA for snapshot in image.snapshots):
            with refusals.telling(refusals.SnapshotsNotUpdated):
                await self.node.snapshots.write_table(image.snapshots)
        self.tell(1, 2)
        await self._set_version(3)
        self.tell(2, 2)
        assert header.version == image.geometry.version

    async def _downgrade(self) -> None:
        """Go back to version 2, if nothing is in the way (qcow2_downgrade)."""
        image, header = self.image, self.image.header
        if header.refcount_order != 4:
            raise refusals.Level010NeedsWidth
        if header.has_data_file:
            raise refusals.DataFileNeedsVersion3
        for snapshot in image.snapshots:
            if snapshot.vm_state_size >> 32 or snapshot.disk_size != image.length:
                raise refusals.SnapshotsNeedVersion3
        await self._mark_clean()
        features = header.incompatible_features & ~c.COMPRESSION
        if features:
            raise refusals.FeaturesNeedVersion3(f"{features:#x}")
        header.compatible_features = header.autoclear_features = 0
        with refusals.telling(refusals.ZeroesNotExpanded):
            await self._expand_zeroes()
        if header.incompatible_features & c.COMPRESSION:
            if await self._has_compressed():
                raise refusals.ZstdNeedsVersion3
            header.incompatible_features &= ~c.COMPRESSION
            header.compression_type = c.ZLIB
        await self._set_version(2)

    async def _set_version(self, version: int) -> None:
        image, old = self.image, self.image.header.version
        image.header.version = version
        try:
            with refusals.telling(refusals.HeaderNotAmended):
                await image.write_header()
        except BaseException:
            image.header.version = old
            raise
        self.node.reshape()

    # Zero clusters

    async def _roots(self) -> AsyncIterator[Table]:
        """Yield the active L1 table, then the snapshots'."""
        yield self.image.mapping.l1
        for snapshot in self.image.snapshots:
            self.node.snapshots.report_l1(snapshot)
            yield await self._words(snapshot.l1_table_offset, snapshot.l1_size)

    async def _tables(self) -> AsyncIterator[tuple[int, Table | None]]:
        """Yield for each L1 entry where its L2 table lies and what is there.

        None: there is no such table, or it was there before.
        """
        image, seen = self.image, {0}
        async for l1 in self._roots():
            for index, host in enumerate((l1 & np.uint64(c.OFFSET)).tolist()):
                if host in seen:
                    yield host, None
                    continue
                if host & image.geometry.cluster_size - 1:
                    raise await image.corrupt(
                        f"L2 table offset {host:#x} unaligned (L1 index: {c_hex(index)})"
                    )
                seen.add(host)
                yield host, await self._words(host, image.geometry.cluster_size // 8)

    async def _words(self, offset: int, count: int) -> Table:
        raw = memoryview(bytearray(count * 8))
        await self.image.file.pread(offset, raw)
        return np.frombuffer(raw, ">u8").astype(np.uint64)

    async def _expand_zeroes(self) -> None:
        """Turn clusters that are zero by a flag into such that hold zeroes, or nothing."""
        image, done = self.image, 0
        total = len(image.mapping.l1) + sum(s.l1_size for s in image.snapshots)
        await self.node.writeback.settle_all()
        async for host, entries in self._tables():
            if entries is not None:
                await self._expand_table(host, entries)
            done += 1
            self.tell(done, total)
        image.mapping.replace(image.mapping.l1, image.mapping.l1_offset)
        await self.node.writeback.settle_all()
        image.node.changed()

    async def _expand_table(self, table: int, entries: Table) -> None:
        """Expand one table's.

        A cluster that others use as well, with what it held before, stays theirs; QEMU zeroes it.
        """
        image, bits = self.image, self.image.geometry.cluster_bits
        special = np.uint64(c.COMPRESSED | c.READS_ZERO)
        zero = np.flatnonzero((entries & special) == np.uint64(c.READS_ZERO))
        if not len(zero):
            return
        hosts = entries[zero] & np.uint64(c.OFFSET)
        unfit = np.flatnonzero(hosts & np.uint64((1 << bits) - 1))
        if len(unfit):
            host, where = int(hosts[unfit[0]]), int(zero[unfit[0]])
            raise await image.corrupt(
                f"Cluster allocation offset {host:#x} unaligned "
                f"(L2 offset: {table:#x}, L2 index: {c_hex(where)})"
            )
        file, users = image.file, await self._users(np.array([table >> bits]))
        clusters = (entries[zero] & np.uint64(c.OFFSET)).astype(np.int64) >> bits
        own = (clusters != 0) & (await self._users(clusters) == users[0])
        for host, count in _stretches(clusters[own]):
            await self._write_zeroes(host << bits, count << bits)
        entries[zero[own]] &= ~np.uint64(c.READS_ZERO)
        others, left = zero[~own], clusters[~own & (clusters != 0)]
        entries[others] = 0
        if image.backing is not None and len(others):
            copied = np.uint64(c.COPIED if users[0] == 1 else 0)
            entries[others] = await self._allocate_zeroes(len(others), int(users[0])) | copied
            await self.node.writeback.flush()
        await file.pwrite(table, entries.astype(">u8").tobytes())
        if len(left):
            await file.flush()
            await image.refcounts.drop(np.repeat(left, int(users[0])), file)

    async def _allocate_zeroes(self, count: int, users: int) -> Table:
        """Allocate clusters of zeroes with so many users each; return their host offsets."""
        image, bits = self.image, self.image.geometry.cluster_bits
        found: list[Table] = []
        while count:
            taken = image.refcounts.take(count)
            if taken is None:
                await image.ready()
                continue
            first, got, _ = taken
            clusters = np.arange(first, first + got, dtype=np.int64)
            for _ in range(users - 1):
                await self._share(clusters)
            await self._write_zeroes(first << bits, got << bits)
            found.append((clusters << bits).astype(np.uint64))
            count -= got
        return np.concatenate(found)

    async def _share(self, clusters: I64) -> None:
        """Count one more user of clusters that were just taken."""
        refcounts = self.image.refcounts
        for index in distinct(clusters // refcounts.per).tolist():
            block = await refcounts.block(index, self.image.file)
            assert block is not None
            counts = block.astype(np.int64)
            counts[clusters[clusters // refcounts.per == index] % refcounts.per] += 1
            refcounts.enter(index, counts)

    async def _users(self, clusters: I64) -> I64:
        """Return the refcounts of clusters."""
        refcounts, found = self.image.refcounts, np.zeros(len(clusters), np.int64)
        which = clusters // refcounts.per
        for index in distinct(which).tolist():
            block = await refcounts.block(index, self.image.file)
            if block is not None:
                mine = which == index
                found[mine] = block[clusters[mine] % refcounts.per].astype(np.int64)
        return found

    async def _write_zeroes(self, offset: int, length: int) -> None:
        await self.image.check_overlap(offset, length)
        await self.image.file.write_zeroes(offset, length)

    async def _has_compressed(self) -> bool:
        async for _, entries in self._tables():
            if entries is not None and (entries & np.uint64(c.COMPRESSED)).any():
                return True
        return False

    # Refcounts

    async def _change_refcounts(self, order: int) -> None:
        """Write refcounts of another width beyond the end of the file, and point there."""
        image, header = self.image, self.image.header
        await self.node.writeback.settle_all()
        counts = await self._all_counts()
        most = (1 << (1 << order)) - 1
        large = np.flatnonzero(counts > np.uint64(most))
        if len(large):
            first = int(large[0])
            offset = first << header.cluster_bits
            raise refusals.CountTooLarge(1 << order, f"{offset:#x}", int(counts[first]))
        old = header.refcount_order, image.refcounts.table, image.refcounts.table_offset
        end = image.geometry.clusters(image.file.fresh_length())
        self._drop_old(counts)
        table, place, clusters = await self._write_counts(counts, end, order)
        header.refcount_order = order
        image.refcounts.replace(table, place, clusters)
        try:
            with refusals.telling(refusals.NotSwitched):
                await image.file.flush()
                await image.write_header()
                await image.file.flush()
        except BaseException:
            header.refcount_order = old[0]
            image.refcounts.replace(old[1], old[2], end)
            raise
        self.node.reshape()

    async def _all_counts(self) -> Table:
        """Return the refcounts of all clusters that blocks tell of."""
        image, refcounts = self.image, self.image.refcounts
        found = np.zeros((refcounts.last_block + 1) * refcounts.per, np.uint64)
        for index in range(refcounts.last_block + 1):
            block = await refcounts.block(index, image.file)
            if block is not None:
                found[index * refcounts.per : (index + 1) * refcounts.per] = block
        used = np.flatnonzero(found)
        return found[: int(used[-1]) + 1 if len(used) else 0]

    def _drop_old(self, counts: Table) -> None:
        """Count the old table and its blocks no more."""
        refcounts, bits = self.image.refcounts, self.image.geometry.cluster_bits
        blocks = (refcounts.table & np.uint64(c.REFTABLE_OFFSET)).astype(np.int64) >> bits
        first = refcounts.table_offset >> bits
        table = np.arange(first, first + (len(refcounts.table) * 8 >> bits))
        gone = np.concatenate((blocks[blocks != 0], table))
        np.subtract.at(counts, gone[gone < len(counts)], np.uint64(1))

    async def _write_counts(self, counts: Table, end: int, order: int) -> tuple[Table, int, int]:
        """Write blocks and a table from cluster ``end`` on; return the table and its place.

        Last comes the number of clusters that the file has then.
        """
        image, bits = self.image, self.image.geometry.cluster_bits
        per, start = 1 << bits + 3 - order, max(end, len(counts))
        blocks = tables = 1
        walks = 0
        while True:
            walks = self._tell_walk(walks)
            total = start + blocks + tables
            wanted = -(-total // per)
            if wanted <= blocks and -(-blocks * 8 >> bits) <= tables:
                break
            blocks, tables = max(wanted, blocks), -(-(max(wanted, blocks) * 8) >> bits)
        walks = self._tell_walk(walks)
        new: Counts = empty_counts(order, blocks * per)
        new[: len(counts)] = counts.astype(new.dtype)
        new[start:total] = 1
        table = np.zeros(tables << bits - 3, np.uint64)
        table[:blocks] = np.arange(start, start + blocks, dtype=np.uint64) << np.uint64(bits)
        place = start + blocks << bits
        if tables << bits > c.MAX_REFTABLE_BYTES:
            raise refusals.CountsTooMany(errno=errno.EFBIG)
        with refusals.telling(refusals.CountsNotWritten):
            await image.file.pwrite(start << bits, pack_counts(new, order))
            await image.file.pwrite(place, table.astype(">u8").tobytes())
        self._tell_walk(walks, last=True)
        return table, place, total

    def _tell_walk(self, walks: int, *, last: bool = False) -> int:
        """Tell of one more walk over the refcounts, as QEMU has them; return how many there were.

        It walks until all that is new has its place, at least twice, and once to write: the sum is
        a guess at first, and progress may go back (qcow2_change_refcount_order).
        """
        total = walks + 1 if last else max(walks + 2, 3)
        self.tell(walks, total)
        self.tell(walks + 1, total)
        return walks + 1


def _stretches(clusters: I64) -> list[tuple[int, int]]:
    """Return the first and the number of clusters of each row of neighbours, in any order."""
    unique = distinct(clusters)
    begins = np.flatnonzero(np.diff(unique, prepend=-2) != 1)
    counts = np.diff(begins, append=len(unique))
    return list(zip(unique[begins].tolist(), counts.tolist(), strict=True))
