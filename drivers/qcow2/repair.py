"""Counting all references anew: for an image whose refcounts were left wrong on purpose.

Lazy refcounts leave the dirty bit set; whoever opens such an image for writing sets all refcounts
right, and the copied flags with them (what qemu-img check -r all would do).
"""

from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.mapping import L2
from blockemu.drivers.qcow2.writeback import Writeback
from blockemu.images.qcow2.constants import COMPRESSED, COPIED, OFFSET, REFTABLE_OFFSET
from blockemu.images.qcow2.tables import Table, compressed_extents, has_offset

I64 = NDArray[np.int64]
_OFFSET, _COPIED = np.uint64(OFFSET), np.uint64(COPIED)
_COMPRESSED = np.uint64(COMPRESSED)
TABLES_AT_ONCE = 16


async def repair(image: Image, writeback: Writeback) -> None:
    """Set refcounts and copied flags right, and say on disk that they are."""
    counter = Counter(image)
    await counter.count()
    await counter.fix_blocks()
    await counter.fix_copied()
    await writeback.close()


class Counter:
    """How often each cluster of the file is referred to."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.bits = image.geometry.cluster_bits
        self.counts: I64 = np.zeros(image.geometry.clusters(image.file.fresh_length()), np.int64)

    async def count(self) -> None:
        """Walk all that the header points to."""
        image, header = self.image, self.image.header
        self._range(0, header.cluster_size)
        table = image.refcounts.table
        self._range(image.refcounts.table_offset, len(table) * 8)
        blocks = table & np.uint64(REFTABLE_OFFSET)
        self._clusters((blocks[blocks != 0] >> np.uint64(self.bits)).astype(np.int64))
        await self._count_l1(image.mapping.l1, header.l1_table_offset)
        for snapshot in image.snapshots:
            raw = await self._words(snapshot.l1_table_offset, snapshot.l1_size)
            await self._count_l1(raw, snapshot.l1_table_offset)
        if image.snapshots:
            self._range(header.snapshots_offset, image.snapshot_bytes)
        if image.extensions.crypto is not None:
            self._range(*image.extensions.crypto)
        if image.extensions.bitmaps is not None:
            await self._count_bitmaps()

    async def fix_blocks(self) -> None:
        """Enter the counts."""
        image, refcounts = self.image, self.image.refcounts
        per, most = refcounts.per, image.geometry.refcount_max
        missing = []
        for index in range(max(len(refcounts.table), -(-len(self.counts) // per))):
            want = np.zeros(per, np.int64)
            some = self.counts[index * per : (index + 1) * per]
            want[: len(some)] = np.minimum(some, min(most, (1 << 63) - 1))
            block = await refcounts.block(index, image.file)
            if block is not None:
                refcounts.enter(index, want)
            elif want.any():
                missing.append((index, want))
        await refcounts.block(refcounts.last_block, image.file)
        for index, want in missing:
            refcounts.enter_new(index, want)
        refcounts.cursor = 0

    async def fix_copied(self) -> None:
        """Set the copied flag where there is exactly one reference, and nowhere else."""
        image, mapping = self.image, self.image.mapping
        for index in np.flatnonzero(mapping.l1 & _OFFSET).tolist():
            entry = int(mapping.l1[index])
            single = self._single(np.array([entry], np.uint64))[0]
            if single != bool(entry & COPIED):
                mapping.set_l1(index, entry ^ COPIED)
            if not single:
                continue
            table = await image.table(index)
            if image.geometry.data_file:
                continue
            has = (table.entries & _COMPRESSED == 0) & has_offset(table.entries, False)
            want = np.zeros(len(has), np.bool_)
            want[has] = self._single(table.entries[has])
            wrong = has & (want != (table.entries & _COPIED != 0))
            if wrong.any():
                table.entries[wrong] ^= _COPIED
                mapping.own(index)

    def _single(self, entries: Table) -> NDArray[np.bool_]:
        clusters = (entries & _OFFSET).astype(np.int64) >> self.bits
        inside = clusters < len(self.counts)
        single = np.zeros(len(entries), np.bool_)
        single[inside] = self.counts[clusters[inside]] == 1
        return single

    # Walking

    async def _count_l1(self, l1: Table, offset: int) -> None:
        if not len(l1):
            return
        self._range(offset, len(l1) * 8)
        hosts = (l1 & _OFFSET).astype(np.int64)
        hosts = hosts[(hosts != 0) & (hosts & (1 << self.bits) - 1 == 0)]
        self._clusters(hosts >> self.bits)
        async for entries in self._tables(hosts):
            packed = entries & _COMPRESSED != 0
            if not self.image.geometry.data_file:
                plain = entries[~packed & has_offset(entries, False)]
                self._clusters((plain & _OFFSET).astype(np.int64) >> self.bits)
            if packed.any():
                start, length = compressed_extents(entries[packed], self.image.geometry)
                first, last = start >> self.bits, (start + length - 1) >> self.bits
                self._clusters(np.concatenate((first, last[last != first])))

    async def _tables(self, hosts: I64) -> AsyncIterator[Table]:
        """Yield the entries of L2 tables, those in a row in one go."""
        at, size = 0, 1 << self.bits
        while at < len(hosts):
            some = hosts[at : at + TABLES_AT_ONCE]
            breaks = np.flatnonzero(np.diff(some) != size)
            count = int(breaks[0]) + 1 if len(breaks) else len(some)
            raw = await self._words(int(hosts[at]), count * size // 8)
            found: L2 = self.image.mapping.split(raw)
            yield found.entries
            at += count

    async def _count_bitmaps(self) -> None:
        ext = self.image.extensions.bitmaps
        assert ext is not None
        self._range(ext.directory_offset, ext.directory_size)
        raw = memoryview(bytearray(ext.directory_size))
        await self.image.file.pread(ext.directory_offset, raw)
        at = 0
        while at + 24 <= len(raw):
            offset = int.from_bytes(raw[at : at + 8], "big")
            entries = int.from_bytes(raw[at + 8 : at + 12], "big")
            name, extra = raw[at + 18 : at + 20], raw[at + 20 : at + 24]
            length = 24 + int.from_bytes(name, "big") + int.from_bytes(extra, "big")
            self._range(offset, entries * 8)
            table = await self._words(offset, min(entries, 1 << 27))
            hosts = (table & _OFFSET).astype(np.int64)
            self._clusters(hosts[hosts != 0] >> self.bits)
            at += (length + 7) & ~7

    def _range(self, offset: int, length: int) -> None:
        if length > 0:
            first, last = offset >> self.bits, (offset + length - 1) >> self.bits
            self.counts[first : last + 1] += 1

    def _clusters(self, clusters: I64) -> None:
        inside = clusters[clusters < len(self.counts)]
        if len(inside):
            self.counts += np.bincount(inside, minlength=len(self.counts))

    async def _words(self, offset: int, count: int) -> Table:
        raw = memoryview(bytearray(count * 8))
        await self.image.file.pread(offset, raw)
        return np.frombuffer(raw, ">u8").astype(np.uint64)
