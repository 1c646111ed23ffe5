"""Block status: what some L2 tables tell, in one go."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import numpy as np

from blockemu.drivers.qcow2 import mapping
from blockemu.drivers.qcow2.image import Image, c_hex
from blockemu.extents import ALLOCATED, DATA, NOWHERE, Extents, refine
from blockemu.extents import ZERO as READS_ZERO
from blockemu.images.qcow2.constants import OFFSET
from blockemu.images.qcow2.tables import (
    COMPRESSED,
    HAS_HOST,
    I64,
    INVALID,
    NORMAL,
    U8,
    ZERO,
    ZERO_ALLOC,
    Run,
    Table,
    columns,
)
from blockemu.records import replace

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.reader import Reader

LEAST, MOST = 1 << 18, 1 << 21  # bytes of L2 tables a step reads: ``Status.at_once``
MOST_TABLES = 512  # that a step reads, however small they are: 2 us each
STEPS = 4  # of the largest kind, that one answer is made of: to make one takes as long as a step
FEW = 1 << 12  # runs in a step
ENOUGH = 1 << 15  # runs for an answer
_STATUS = np.zeros(INVALID + 1, np.uint8)
_STATUS[[NORMAL, COMPRESSED]] = DATA | ALLOCATED
_STATUS[[ZERO, ZERO_ALLOC]] = READS_ZERO | ALLOCATED
_HAS_HOST = np.array(HAS_HOST)


class Status:
    """Describes one image.

    ``at_once``: how many bytes of L2 tables the next step reads.  More where there were few runs,
    since to describe any takes a while, too (``make bench``: images); few where there are many,
    since others must have their turn.
    """

    def __init__(
        self, image: Image, reader: "Reader", reserve: Callable[[], Awaitable[None]]
    ) -> None:
        self.image = image
        self.reader = reader
        self.reserve = reserve
        self.at_once = LEAST

    async def block_status(self, offset: int, length: int) -> Extents:
        """Describe as much as some L2 tables tell."""
        image = self.image
        index, last = (at >> image.geometry.table_bits for at in (offset, offset + length - 1))
        if index == last and index not in image.mapping.tables:
            await image.table(index)  # to stay at hand: else a disk of holes is never planned
        at, limit, count, read = offset, offset + length, 0, 0
        steps: list[tuple[I64, U8, Table, I64]] = []
        while at < limit and read < STEPS * MOST and count < ENOUGH:
            step, at = await self._step(at, limit)
            steps.append(step)
            read += self.at_once
            count += len(step[0])
            self.at_once = min(2 * self.at_once, MOST) if len(step[0]) < FEW else LEAST
        start, kind, entry, host = (np.concatenate(column) for column in zip(*steps, strict=True))
        await self._check(start, at, kind, entry, host)
        if image.header.crypt_method:
            host = np.full(len(start), NOWHERE)  # what lies there is nobody's to read
        status = _STATUS[kind]
        if image.backing is None:
            status = np.where(status == 0, np.uint8(READS_ZERO), status)
        batch = Extents(start, status, host, at).clip(offset, min(at, limit))
        return await self._refine(batch)

    async def _step(self, offset: int, limit: int) -> tuple[tuple[I64, U8, Table, I64], int]:
        """Return start, kind, entry and host offset of some runs, and where these end."""
        image, geometry = self.image, self.image.geometry
        bits, per = geometry.cluster_bits, geometry.l2_size
        index, first = divmod(offset >> bits, per)
        clusters = geometry.clusters(limit) - (offset >> bits)
        most = min(max(1, self.at_once >> bits), MOST_TABLES)
        tables = min(most, -(-(first + clusters) // per))
        try:
            whole = await image.mapping.stretch(index, tables, image.file)
        except mapping.Unaligned as e:
            at, l1_index = e.args
            raise await image.corrupt(
                f"L2 table offset {at:#x} unaligned (L1 index: {c_hex(l1_index)})"
            ) from None
        entries = whole.entries[first : first + clusters]
        bitmaps = None if whole.bitmaps is None else whole.bitmaps[first : first + clusters]
        found = columns(entries, bitmaps, geometry)
        sub = found.sub << geometry.subcluster_bits
        start = ((offset >> bits) + found.first << bits) + sub
        base = (found.entry & np.uint64(OFFSET)).astype(np.int64)
        host = np.where(_HAS_HOST[found.kind], base + sub, NOWHERE)
        end = (offset >> bits) + len(entries) << bits
        return (start, found.kind, found.entry, host), end

    async def _check(
        self, start: I64, end: int, kind: U8, entry: Table,
        host: I64,
    ) -> None:  # fmt: skip
        """Raise EIO for entries that make no sense."""
        geometry = self.image.geometry
        wrong = kind == INVALID
        if geometry.version < 3:
            wrong |= (kind == ZERO) | (kind == ZERO_ALLOC)
        hosted = _HAS_HOST[kind]
        if geometry.data_file:
            wrong |= hosted & (host != start) | (kind == COMPRESSED)
        wrong |= hosted & ((host ^ start) & geometry.cluster_size - 1 != 0)
        if wrong.any():
            at = int(wrong.argmax())
            run = Run(int(start[at]), 1, int(kind[at]), int(entry[at]), max(int(host[at]), 0))
            await self.reader.check(run)
            raise await self.reader.invalid(run)

    async def _refine(self, batch: Extents) -> Extents:
        """Look for holes in the file, if it has far less data than clusters in use."""
        if self.image.sparse is None:
            self.image.sparse = await self._is_sparse()
            self.image.node.changed()  # what is read by plans may be data for sure now
        data = (batch.status & DATA != 0) & (batch.host != NOWHERE)
        if not self.image.sparse or not data.any():
            return batch
        low = int(batch.host[data].min())
        high = int((batch.host + batch.length)[data].max())
        parts = [part async for part in self.image.data.extents(low, high - low)]
        fine = refine(batch, Extents.concat(parts))
        was, _ = batch.at(fine.start)
        return replace(fine, status=fine.status | was & np.uint8(DATA))

    async def _is_sparse(self) -> bool:
        """After qcow2_detect_metadata_preallocation, block/qcow2-refcount.c."""
        await self.reserve()
        image, geometry = self.image, self.image.geometry
        allocated = image.file.node.allocated_size()
        if allocated is None:
            return False
        real = allocated // geometry.cluster_size
        threshold = max(real * 10 // 9, real + 2)
        end = geometry.clusters(image.file.fresh_length())
        if end < threshold:
            return False
        used = 0
        for index in range(-(-end // geometry.counts_per_block)):
            block = await image.refcounts.block(index, image.file)
            if block is not None:
                used += int(np.count_nonzero(block[: end - index * geometry.counts_per_block]))
            if used >= threshold:
                return True
        return False
