"""Allocation step by step, for when blkdebug is below and has rules.

Otherwise all metadata waits for the next flush.  What differs from QEMU in time even so,
since it happens in memory and is written by a flush:

- ``refblock_alloc_write``, ``refblock_alloc_hookup``, ``refblock_alloc_write_table`` and
  ``refblock_alloc_switch_table`` come when a flush writes new refcount blocks or a moved table
- ``reftable_grow`` and ``refblock_alloc_write_blocks`` come before any block is written by a flush
  that writes a moved table
- ``cluster_free`` of what a write replaces comes at the flush after it, and so does a second
  ``refblock_update_part``

- ``refblock_load`` comes when clusters are taken only, not when some are let go of

Not told at all: ``l1_shrink_free_l2_clusters``, ``empty_image_prepare``, ``reftable_update``,
``vmstate_load``, ``vmstate_save``, ``cor_write``; and ``refblock_update``, which QEMU does not tell
either.
"""

from contextlib import suppress
from typing import Protocol

from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.refcount_blocks import Unaligned
from blockemu.images.qcow2.constants import COPIED, OFFSET


class Flush(Protocol):
    """Write back what changed (``Writeback.flush``)."""

    async def __call__(self, *, before_tables: tuple[str, ...] = ()) -> None:
        """Write back; tell of the events before L2 tables are written."""


class Stepwise:
    """Does at once what a flush would do later."""

    def __init__(self, image: Image, flush: Flush) -> None:
        self.image = image
        self.flush = flush

    async def table_now(self, index: int) -> bool:
        """Allocate an L2 table and write all about it at once, as events show QEMU doing it.

        Returns whether something was done (after l2_allocate, block/qcow2-cluster.c).
        """
        image, mapping = self.image, self.image.mapping
        old, dirty = int(mapping.l1[index]), mapping.dirty_l1
        if image.debug is None or (old & OFFSET and old & COPIED):
            return False
        await self.tell_allocation()
        while mapping.own(index) is None:
            await image.ready()
        try:
            steps = ("l2_alloc_cow_read", "l2_alloc_write") if old & OFFSET else ("l2_alloc_write",)
            await self.flush(before_tables=steps)
        except BaseException:
            cluster = (int(mapping.l1[index]) & OFFSET) >> image.geometry.cluster_bits
            mapping.l1[index], mapping.dirty_l1 = old, dirty
            mapping.forget(index)
            image.refcounts.put_back(cluster)
            image.refcounts.dirty.add(cluster // image.refcounts.per)
            raise
        return True

    async def tell_allocation(self) -> None:
        """Tell of events before clusters are taken; load what QEMU loads between them."""
        image, refcounts = self.image, self.image.refcounts
        await image.tell("cluster_alloc")
        found = None
        with suppress(Unaligned):  # that is told when they are taken
            found = await refcounts.block(refcounts.cursor // refcounts.per, image.file)
        await image.tell("refblock_alloc")
        if found is not None:
            await image.tell("refblock_load")
