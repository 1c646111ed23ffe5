"""Zeroes and discards: changes of the mapping without data."""

from __future__ import annotations

from typing import Final

import numpy as np

from blockemu.drivers.qcow2.freed import Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.mapping import L2
from blockemu.drivers.qcow2.reader import BELOW, ZEROES, Reader
from blockemu.drivers.qcow2.writeback import row_starts
from blockemu.drivers.qcow2.writer import Writer
from blockemu.extents import ZERO
from blockemu.images.qcow2.constants import (
    ALL_ZERO,
    DATA_FILE_RAW,
    READS_ZERO,
    SUBCLUSTERS,
)
from blockemu.images.qcow2.constants import (
    COMPRESSED as COMPRESSED_FLAG,
)
from blockemu.images.qcow2.tables import Bools, Table, has_offset, sub_range
from blockemu.node import Write

_NIL, _READS_ZERO, _ALL_ZERO = np.uint64(0), np.uint64(READS_ZERO), np.uint64(ALL_ZERO)
_COMPRESSED: Final = np.uint64(COMPRESSED_FLAG)


class Zeroer:
    """Zeroes and discards in one image."""

    def __init__(self, image: Image, reader: Reader, writer: Writer) -> None:
        self.image = image
        self.reader = reader
        self.writer = writer
        self.geometry = image.geometry

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Make a range read as zeroes (after qcow2_co_pwrite_zeroes).

        A range that is not whole subclusters must lie in one of them, and the rest of that must
        read as zeroes already; else ``NotImplementedError``: write the zeroes.
        """
        image, size = self.image, self.geometry.subcluster_size
        end = offset + length
        if self.geometry.version < 3 and (flags & Write.NO_FALLBACK or image.backing is not None):
            raise NotImplementedError
        head = offset & size - 1
        tail = 0 if end == image.length else -end & size - 1
        partial = bool(head or tail)
        if partial:
            await self._check_rest(offset, end, head, tail)
            offset -= head
            end = offset + size
        await self.writer.relieve()
        ticket = image.in_flight.enter()
        try:
            await self.zeroize(offset, end, flags, partial=partial)
        finally:
            image.in_flight.leave(ticket)

    async def zeroize(self, offset: int, end: int, flags: int, *, partial: bool = False) -> None:
        """Zero whole subclusters; the last may go beyond the disk's end.

        ``partial``: only a part of the one subcluster was asked for, so it must hold nothing still
        when it is changed: a write to its rest may have been under way.
        """
        image, geometry = self.image, self.geometry
        if image.header.autoclear_features & DATA_FILE_RAW:
            await image.data.write_zeroes(offset, min(end, image.length) - offset, flags)
        if geometry.version < 3:
            await self.drop(offset, end, Discard.REQUEST, partial=partial)
            return
        size = geometry.cluster_size
        first = min(end, -(-offset // size) * size)
        if first > offset:
            await self._zero_subclusters(offset, first, partial=partial)
        last = end if end >= image.length else max(first, end & -size)
        for index, start, count in self._tables(first, last):
            unmap = bool(flags & Write.MAY_UNMAP)
            await self._zero_clusters(index, start, count, unmap=unmap, partial=partial)
        if end > last:
            await self._zero_subclusters(last, end, partial=partial)

    async def discard(self, offset: int, length: int) -> None:
        """Drop whole clusters, so that they read as zeroes (after qcow2_co_pdiscard)."""
        image, size = self.image, self.geometry.cluster_size
        if self.geometry.version < 3 and image.backing is not None:
            raise NotImplementedError
        end = offset + length
        start = -(-offset // size) * size
        stop = end if end == image.length else end & -size
        if stop <= start:
            raise NotImplementedError
        await self.writer.relieve()
        ticket = image.in_flight.enter()
        try:
            await self.drop(start, stop, Discard.REQUEST)
        finally:
            image.in_flight.leave(ticket)

    async def drop(
        self, offset: int, end: int, reason: Discard, *, full: bool = False, partial: bool = False
    ) -> None:
        """Drop clusters; ``full``: what is below shows through again; ``partial``: see above."""
        for index, start, count in self._tables(offset, end):
            await self._drop_clusters(index, start, count, reason, full=full, partial=partial)

    # One table at a time

    def _tables(self, offset: int, end: int) -> list[tuple[int, int, int]]:
        """Return (L1 index, first cluster in the table, clusters) of a range of whole clusters."""
        bits, per = self.geometry.cluster_bits, self.geometry.l2_size
        first, last = offset >> bits, self.geometry.clusters(end) if end > offset else 0
        out = []
        while first < last:
            index, at = divmod(first, per)
            count = min(last - first, per - at)
            out.append((index, at, count))
            first += count
        return out

    async def _get(self, index: int, first: int, count: int) -> L2:
        """Return a table with no allocation under way in some clusters of it."""
        image = self.image
        guest = (index << self.geometry.l2_bits) + first
        while (other := image.mapping.clash(guest, guest + count)) is not None:
            await other.finished()
        table = await image.table(index)
        if image.mapping.clash(guest, guest + count) is not None:
            return await self._get(index, first, count)
        return table

    def _guest(self, index: int, first: int, count: int) -> tuple[int, int]:
        """Return guest offset and length of some clusters of a table."""
        bits = self.geometry.cluster_bits
        return ((index << self.geometry.l2_bits) + first) << bits, count << bits

    async def _zero_clusters(
        self, index: int, first: int, count: int, *, unmap: bool, partial: bool
    ) -> None:
        while True:
            table = await self._get(index, first, count)
            if partial:
                self._check_empty(table, *self._guest(index, first, count))
            old = table.entries[first : first + count]
            drop = old & _COMPRESSED != 0
            if unmap:
                drop |= has_offset(old, self.geometry.data_file)
            new = np.where(drop, _NIL, old)
            if table.bitmaps is None:
                if await self._change(index, first, new | _READS_ZERO, None, drop):
                    return
            elif await self._change(index, first, new, np.full(count, _ALL_ZERO), drop):
                return

    async def _drop_clusters(
        self, index: int, first: int, count: int, reason: Discard, *, full: bool, partial: bool
    ) -> None:
        while True:
            table = await self._get(index, first, count)
            if partial:
                self._check_empty(table, *self._guest(index, first, count))
            old = table.entries[first : first + count]
            has = (old & _COMPRESSED != 0) | has_offset(old, self.geometry.data_file)
            zero = np.zeros(count, np.bool_) if full else has | (self.image.backing is not None)
            bitmaps = None
            if table.bitmaps is not None:
                keep = table.bitmaps[first : first + count]
                bitmaps = np.where(zero, _ALL_ZERO, _NIL if full else keep)
                new = np.where(zero | full, _NIL, old)
            else:
                mark = _READS_ZERO if self.geometry.version >= 3 else _NIL
                new = np.where(zero, mark, _NIL if full else old)
            if await self._change(index, first, new, bitmaps, has, reason):
                return

    async def _zero_subclusters(self, offset: int, end: int, *, partial: bool) -> None:
        """Zero some subclusters of one cluster; the disk may end in the last of them."""
        index, first = divmod(offset >> self.geometry.cluster_bits, self.geometry.l2_size)
        begin = offset & self.geometry.cluster_size - 1
        bits, size = self.geometry.subcluster_bits, self.geometry.subcluster_size
        mask = sub_range(1, begin >> bits, (begin + end - offset + size - 1) >> bits)
        while True:
            table = await self._get(index, first, 1)
            if partial:
                self._check_empty(table, offset, end - offset)
            old = table.entries[first : first + 1]
            assert table.bitmaps is not None
            if old[0] & _COMPRESSED:
                raise NotImplementedError
            bitmap = table.bitmaps[first : first + 1]
            new = (bitmap | mask << np.uint64(SUBCLUSTERS)) & ~mask
            if await self._change(index, first, old, new, np.zeros(1, np.bool_)):
                return

    async def _change(
        self,
        index: int,
        first: int,
        entries: Table,
        bitmaps: Table | None,
        freed: Bools,
        reason: Discard = Discard.REQUEST,
    ) -> bool:
        """Enter new values in a table at hand; False: things may be different now, try again."""
        image, mapping = self.image, self.image.mapping
        table, end = mapping.tables[index], first + len(entries)
        changed = table.entries[first:end] != entries
        if bitmaps is not None and table.bitmaps is not None:
            changed |= table.bitmaps[first:end] != bitmaps
        if image.debug is not None and await self.writer.stepwise.table_now(index):
            return False
        if not changed.any():
            return True
        own = mapping.own(index)
        if own is None:
            await image.ready()
            return False
        old = own.entries[first:end][changed & freed].copy()
        own.entries[first:end] = entries
        if bitmaps is not None and own.bitmaps is not None:
            own.bitmaps[first:end] = bitmaps
        clusters = self.writer.free(old, reason)
        if image.refcounts.crooked:
            await image.check_blocks(clusters)
        if len(clusters) and image.debug is not None:
            await image.debug("cluster_free")
            await image.debug("refblock_alloc")
        if self.geometry.data_file and image.passes(reason):
            bits = self.geometry.cluster_bits
            for start, count in row_starts(np.sort(clusters)):
                size = min(count << bits, image.length - (start << bits))
                try:
                    await image.data.discard(start << bits, size)
                except OSError:
                    break  # it was only a wish
        return True

    # Zeroes around a partial request

    async def _check_rest(self, offset: int, end: int, head: int, tail: int) -> None:
        size = self.geometry.subcluster_size
        if end - offset + head + tail > size:
            raise NotImplementedError
        if not (await self._is_zero(offset - head, head) and await self._is_zero(end, tail)):
            raise NotImplementedError
        table = await self.image.table(offset >> self.geometry.table_bits)
        self._check_empty(table, offset - head, size)

    def _check_empty(self, table: L2, offset: int, length: int) -> None:
        """Raise NotImplementedError if a range holds data of this image's own."""
        for run in self.reader.runs(table, offset, length):
            if run.kind not in BELOW and run.kind not in ZEROES:
                raise NotImplementedError

    async def _is_zero(self, offset: int, length: int) -> bool:
        """Tell whether a range reads as zeroes, as block status shows it."""
        length = min(offset + length, self.image.length) - offset
        if length <= 0:
            return True
        table = await self.image.table(offset >> self.geometry.table_bits)
        for run in self.reader.runs(table, offset, length):
            if run.kind in BELOW:
                if not await self._is_zero_below(run.start, run.length):
                    return False
            elif run.kind not in ZEROES:
                return False
        return True

    async def _is_zero_below(self, offset: int, length: int) -> bool:
        from blockemu.walk import extents_above

        backing = self.image.backing
        if backing is None:
            return True
        length = min(offset + length, backing.length) - offset
        if length <= 0:
            return True
        async for batch in extents_above(backing, offset, length):
            if not (batch.closed().status & ZERO).all():
                return False
        return True
