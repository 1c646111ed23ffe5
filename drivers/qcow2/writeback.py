"""Writing metadata back, in stages with a barrier after each.

1. refcount blocks, and a refcount table that has moved, which nothing points to yet; data
2. the refcount table, or the header that points to its new place
3. L2 tables
4. the L1 table, and then the header if it has moved
5. refcounts of what is not used any more: no barrier, a crash before leaks them at worst

What is written is how things stand when the flush begins; changes from then on are the next one's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.drivers.qcow2.freed import I64, Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.refcount_blocks import Unaligned
from blockemu.errors import QmpError
from blockemu.host.sysfile import FileLeaf, fallocate
from blockemu.images.lengths import lengths
from blockemu.images.qcow2.constants import DIRTY, OFFSET
from blockemu.images.qcow2.header import L1_SIZE_AT, REFTABLE_AT
from blockemu.images.qcow2.refcount import pack_counts
from blockemu.os_errors import os_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parts = list[tuple[str, int, bytes]]  # (blkdebug event, offset in the file, what to write there)

WRITTEN: Final = {  # what the writes are that events tell of
    "refblock_alloc_write": frozenset({"refcount block"}),
    "refblock_update_part": frozenset({"refcount block"}),
    "refblock_alloc_write_table": frozenset({"refcount table"}),
    "refblock_alloc_hookup": frozenset({"refcount table"}),
    "l2_update": frozenset({"active L2 table"}),
    "l1_grow_write_table": frozenset({"active L1 table"}),
    "l1_update": frozenset({"active L1 table"}),
}
GROWTH: Final = ("reftable_grow", "refblock_alloc_write_blocks")  # before a moved table's blocks


class Writeback:
    """Flushes one image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._lock = asyncio.Lock()
        self._lazy = False
        self._leaving = False
        self._take_freed: Callable[[], Iterable[tuple[Discard, I64]]] | None = None

    async def flush(
        self,
        *,
        before_tables: tuple[str, ...] = (),
        settle: bool = True,
        accurate: bool = False,
    ) -> None:
        """Write back what changed, in order, and make it durable along with the data.

        ``before_tables`` are events that come before L2 tables are written.  Without ``settle`` the
        last barrier, and what may only be done behind it, are left to a call of ``settle``.  With
        ``accurate`` refcounts are written even if they may be lazy.
        """
        async with self._lock:
            self._lazy = self.image.settings.lazy_refcounts and not accurate
            await self._flush(before_tables, settle)

    async def grow_table(self) -> None:
        """Make a larger refcount table if there must be one, and free the old one's room at once.

        What is allocated then finds that room, as with QEMU.
        """
        async with self._lock:
            if self.image.refcounts.full:
                self.image.refcounts.grow()
                self._lazy = False
                await self._flush((), settle=True)

    async def settle(self) -> None:
        """Make durable what ``flush`` wrote, and then let freed clusters be used again."""
        async with self._lock:
            await self.image.barrier()
            await self._drop_freed()

    async def _drop_freed(self) -> None:
        """Let go of clusters, now that the tables without them are durable."""
        if self._take_freed is None:
            return
        for root in list(self.image.node.roots()):
            await root.settle()  # a read or write planned on a thread may know old places
        take, self._take_freed = self._take_freed, None
        await self._drop(take())

    async def settle_all(self) -> None:
        """Flush until nothing waits any more, freed clusters included; nothing is in flight."""
        await self.flush(accurate=True)
        if self.image.freed.count or self.image.refcounts.dirty:
            await self.flush(accurate=True)

    async def leave(self) -> None:
        """Close; a data file that cannot be flushed is no reason to lose the tables as well."""
        self._leaving = True
        try:
            await self.close()
        finally:
            self._leaving = False

    async def close(self) -> None:
        """Flush, and say that refcounts are right; nothing is in flight."""
        await self.settle_all()
        if self.image.header.incompatible_features & DIRTY:
            self.image.header.incompatible_features &= ~DIRTY
            await self.image.write_header()
            await self.image.file.flush()

    async def reserve(self) -> None:
        """Have the file system allocate new clusters whole, though only parts are written.

        QEMU does so for each write, and takes an image with many holes for one that was
        preallocated.  Clusters never used before lie in a row, so one call is enough, or a few.
        """
        refcounts, bits = self.image.refcounts, self.image.geometry.cluster_bits
        gaps = refcounts.filled.take_gaps(refcounts.reserved, refcounts.fresh)
        refcounts.reserved = refcounts.fresh
        if self.image.geometry.extended:
            return  # subclusters are filled one by one
        route = self.image.file.route
        leaf, delta = route.linear or (None, 0)
        if not gaps or not isinstance(leaf, FileLeaf):
            return
        rows = [((start << bits) + delta, end - start << bits) for start, end in gaps]
        try:
            await self.image.node.pool.run(_make_room, leaf.fd, rows)
        except OSError:
            return  # a file system that cannot, or a full one: the writes themselves will tell

    async def _flush(self, before_tables: tuple[str, ...], settle: bool) -> None:
        image = self.image
        refcounts, mapping = image.refcounts, image.mapping
        if image.freed.count and self._take_freed is None:
            self._take_freed = image.freed.cut()
        held = self._held()
        stages = self._collect(held)
        undo = (
            refcounts.dirty,
            refcounts.dirty_entries,
            refcounts.moved,
            mapping.dirty,
            mapping.dirty_l1,
            mapping.l1_moved,
        )
        refcounts.dirty, refcounts.writing = held, undo[0] - held
        mapping.dirty, mapping.writing = set(), undo[3]
        refcounts.dirty_entries, refcounts.moved = None, False
        mapping.dirty_l1, mapping.l1_moved = None, False
        data_waits, mapping.unsettled = mapping.unsettled, False
        try:
            if held or (self._lazy and stages[2]):
                await image.mark_dirty()
            await self._extend()
            await self.reserve()
            written = False
            for parts in stages:
                if parts and (written or (data_waits and parts is stages[2])):
                    await image.barrier(leaving=self._leaving)
                written |= bool(parts)
                for event in before_tables if parts is stages[2] else ():
                    await image.tell(event)
                for event in GROWTH if undo[2] and parts is stages[0] else ():
                    await image.tell(event)
                for event, offset, data in parts:
                    await image.tell(event)
                    await self._guard(event, offset, len(data))
                    await image.file.pwrite(offset, data)
            if settle:
                await image.barrier(leaving=self._leaving)
        except BaseException:
            self._take_freed = None
            mapping.unsettled |= data_waits
            refcounts.dirty |= undo[0]
            mapping.dirty |= undo[3]
            refcounts.dirty_entries = _join(refcounts.dirty_entries, undo[1])
            refcounts.moved |= undo[2]
            mapping.dirty_l1 = _join(mapping.dirty_l1, undo[4])
            mapping.l1_moved |= undo[5]
            raise
        finally:
            refcounts.writing, mapping.writing = set(), set()
        if settle:
            await self._drop_freed()

    async def _extend(self) -> None:
        if self.image.reach:
            try:
                await self.image.extend()
            except QmpError as e:
                code = (e.errno if isinstance(e, OSError) else None) or errno.EIO
                raise os_error(code) from e

    async def _guard(self, event: str, offset: int, length: int) -> None:
        """Raise EIO if a table would be written over metadata of another kind."""
        kind = WRITTEN.get(event)
        if kind is not None:
            await self.image.check_overlap(offset, length, kind)

    def _held(self) -> set[int]:
        """Return the changed refcount blocks that lazy refcounts leave for later.

        Those that are new must be there for the table to point to.
        """
        refcounts = self.image.refcounts
        if not self._lazy or refcounts.moved:
            return set()
        return refcounts.dirty - set(range(*(refcounts.dirty_entries or (0, 0))))

    def _collect(self, held: set[int]) -> tuple[Parts, Parts, Parts, Parts, Parts]:
        """Copy what is to be written; of refcount blocks all but some.

        Of these what was noted is: QEMU writes lazy refcounts when it allocates an L2 table.
        """
        image = self.image
        refcounts, mapping, order = image.refcounts, image.mapping, image.geometry.refcount_order
        new = range(*(refcounts.dirty_entries or (0, 0)))
        blocks = [
            (
                "refblock_alloc_write" if i in new else "refblock_update_part",
                refcounts.host(i),
                pack_counts(refcounts.blocks[i], order),
            )
            for i in sorted(refcounts.dirty - held)
        ]
        for i in sorted(held & refcounts.noted.keys()):
            data = pack_counts(refcounts.noted[i], order)
            blocks.append(("refblock_update_part", refcounts.host(i), data))
        refcounts.noted.clear()
        table: Parts = []
        if refcounts.moved:
            table_bytes = refcounts.table.byteswap().tobytes()
            blocks.append(("refblock_alloc_write_table", refcounts.table_offset, table_bytes))
            clusters = len(refcounts.table) * 8 >> image.geometry.cluster_bits
            place = struct.pack(">QI", refcounts.table_offset, clusters)
            table.append(("refblock_alloc_switch_table", REFTABLE_AT, place))
            image.header.refcount_table_offset = refcounts.table_offset
            image.header.refcount_table_clusters = clusters
        elif refcounts.dirty_entries is not None:
            words = _words(refcounts.table, refcounts.dirty_entries, refcounts.table_offset)
            table.append(("refblock_alloc_hookup", *words))
        tables = [
            ("l2_update", int(mapping.l1[i]) & OFFSET, mapping.encode(i))
            for i in sorted(mapping.dirty)
        ]
        l1: Parts = []
        if mapping.dirty_l1 is not None:
            event = "l1_grow_write_table" if mapping.l1_moved else "l1_update"
            l1.append((event, *_words(mapping.l1, mapping.dirty_l1, mapping.l1_offset)))
        header: Parts = []
        if mapping.l1_moved:
            place = struct.pack(">IQ", len(mapping.l1), mapping.l1_offset)
            header.append(("l1_grow_activate_table", L1_SIZE_AT, place))
            image.header.l1_size = len(mapping.l1)
            image.header.l1_table_offset = mapping.l1_offset
        return blocks, table, tables, l1, header

    async def _drop(self, freed: Iterable[tuple[Discard, I64]]) -> None:
        """Tell the file what is not used any more, and lower refcounts.

        The file hears of it first: once a refcount is zero, somebody may write there.  The blocks
        stay dirty, since the next flush must wait for them before it writes tables.
        """
        image = self.image
        for reason, clusters in freed:
            if reason is Discard.NEVER:  # of the others was told when they were freed
                await image.tell("cluster_free")
            try:
                if image.passes(reason):
                    await self._discard(await image.refcounts.last_users(clusters, image.file))
                wrong = errno.EINVAL if await image.refcounts.drop(clusters, image.file) else 0
            except Unaligned as e:
                wrong = (await image.bad_block(e)).errno or 0
            if wrong:
                text = f"qcow2_free_clusters failed: {os.strerror(wrong)}"
                print(text, file=sys.stderr, flush=True)
        order = image.geometry.refcount_order
        for i in sorted(image.refcounts.dirty - self._held()):
            data = pack_counts(image.refcounts.blocks[i], order)
            await image.tell("refblock_update_part")
            await image.file.pwrite(image.refcounts.host(i), data)

    async def _discard(self, clusters: I64) -> None:
        bits = self.image.geometry.cluster_bits
        for first, count in row_starts(clusters):
            try:
                await self.image.file.discard(first << bits, count << bits)
            except OSError:
                return  # it was only a wish


def _make_room(fd: int, rows: list[tuple[int, int]]) -> None:
    for offset, length in rows:
        fallocate(fd, 0, offset, length)


def row_starts(clusters: I64) -> list[tuple[int, int]]:
    """Return (first, count) of clusters in a row; ``clusters`` is sorted and without repeats."""
    if not len(clusters):
        return []
    breaks = np.flatnonzero(clusters[1:] - clusters[:-1] != 1) + 1
    begins = np.concatenate(([0], breaks))
    counts = lengths(begins, len(clusters))
    return list(zip(clusters[begins].tolist(), counts.tolist(), strict=True))


def _words(table: NDArray[np.uint64], span: tuple[int, int], at: int) -> tuple[int, bytes]:
    low, high = span
    return at + low * 8, table[low:high].byteswap().tobytes()


def _join(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1])
