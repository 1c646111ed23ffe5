"""Changing the disk's size (after qcow2_co_truncate)."""

import errno
import os
import struct
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import numpy as np

from blockemu.drivers.qcow2.freed import Discard
from blockemu.drivers.qcow2.image import c_hex
from blockemu.drivers.qcow2.options import settings
from blockemu.drivers.qcow2.refcount_blocks import Unaligned
from blockemu.errors import HostError, QmpError
from blockemu.images.qcow2.constants import (
    ALL_ALLOCATED,
    COPIED,
    DATA_FILE_RAW,
    MAX_L1_BYTES,
    OFFSET,
)
from blockemu.images.qcow2.header import SIZE_AT
from blockemu.images.qcow2.tables import contiguous, has_offset
from blockemu.os_errors import os_error

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.mapping import L2
    from blockemu.drivers.qcow2.parts import Parts

MODES = ("off", "metadata", "falloc", "full")


class UnsupportedMode(QmpError):
    """A way to preallocate that qcow2 does not know."""

    template = "Unsupported preallocation mode '{}'"


class UnalignedSize(QmpError):
    """The size is not in whole sectors."""

    template = "The new size must be a multiple of 512"


class OldWithSnapshots(QmpError):
    """Version 2 does not store the disk's size with a snapshot."""

    template = "Can't resize a v2 image which has snapshots"


class ShrinkPreallocated(QmpError):
    """Nothing is to be allocated when the disk becomes smaller."""

    template = "Preallocation can't be used for shrinking an image"


class Failed(HostError):
    """(what, why)."""

    template = "{}: {}"


class Resizer:
    """Resizes one image; nothing else is in flight."""

    def __init__(self, parts: "Parts") -> None:
        self.image = parts.image
        self.zeroer = parts.zeroer
        self.writer = parts.writer
        self.writeback = parts.writeback
        self._parts = parts

    async def truncate(self, length: int, *, exact: bool, prealloc: str, zero: bool) -> None:
        """Change the size to ``length`` bytes.

        Raises:
            QmpError: in QEMU's words.

        """
        image, old = self.image, self.image.length
        if prealloc not in MODES:
            raise UnsupportedMode(prealloc)
        if length % 512:
            raise UnalignedSize
        if image.snapshots and image.geometry.version < 3:
            raise OldWithSnapshots
        if image.bitmaps:
            self._parts.bitmaps_stored.check_resize()
        if length < old:
            if prealloc != "off":
                raise ShrinkPreallocated
            await self._shrink(old, length)
        else:
            await self._step("Failed to grow the L1 table", self._grow_l1(length))
            if image.header.autoclear_features & DATA_FILE_RAW and prealloc == "off":
                prealloc = "metadata"
        if prealloc != "off":
            # New room in the file reads as zeroes: with it, the disk does as well.
            filled = zero and prealloc != "metadata" and not image.geometry.data_file
            await self._preallocate(old, length, prealloc, filled=filled)
            zero = zero and not filled
        elif image.geometry.data_file:
            await image.data.truncate(length, exact=exact)
        if zero and length > old:
            await self._zero(old, length)
        await self._step("Failed to update the image size", self._set_size(length))

    async def _step(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except OSError as e:
            code = e.errno or errno.EIO
            raise Failed(what, os.strerror(code), errno=code) from e

    async def _set_size(self, length: int) -> None:
        image = self.image
        await self.writeback.flush()
        await image.file.pwrite(SIZE_AT, struct.pack(">Q", length))
        await image.file.flush()
        image.length = image.header.size = length
        image.adopt(settings(image.node.options, image.header, image.node.flags))  # larger caches

    # Growing

    async def _grow_l1(self, length: int) -> None:
        """Give the L1 table a larger place, and write it there."""
        await self._grow_to(self.image.geometry.l1_entries(length))

    async def _grow_to(self, entries: int) -> None:
        if entries > len(self.image.mapping.l1):
            await self.grow_l1(entries)
            await self.writeback.flush()

    async def grow_l1(self, entries: int) -> None:
        """Give the L1 table so many entries, if it has fewer."""
        image = self.image
        mapping, refcounts, bits = image.mapping, image.refcounts, image.geometry.cluster_bits
        old = mapping.l1
        if entries <= len(old):
            return
        if entries > MAX_L1_BYTES // 8:
            raise os_error(errno.EFBIG)
        await image.tell("l1_grow_alloc_table")
        await self.writer.stepwise.tell_allocation()
        # Not beyond the end: a device, or what an NBD server has, does not grow.
        first = await refcounts.take_row(image.geometry.clusters(entries * 8), image.file)
        l1 = np.zeros(entries, np.uint64)
        l1[: len(old)] = old
        clusters = image.geometry.clusters(len(old) * 8)
        image.freed.add_range(mapping.l1_offset >> bits, clusters, Discard.OTHER)
        mapping.move_l1(l1, first << bits)

    async def grow_l1_for(self, end: int) -> None:
        """Let the L1 table reach as far as ``end``, growing by halves (qcow2_grow_l1_table)."""
        needed = self.image.geometry.l1_entries(end)
        entries = max(1, len(self.image.mapping.l1))
        while entries < needed:
            entries = -(-entries * 3 // 2)
        await self._grow_to(entries)

    async def _preallocate(self, old: int, length: int, mode: str, *, filled: bool) -> None:
        """Allocate clusters for what is new, and room for them in the file.

        ``filled``: they do not let the backing file show through.
        """
        image = self.image
        geometry, refcounts, bits = image.geometry, image.refcounts, image.geometry.cluster_bits
        first, last = old >> bits, geometry.clusters(length)
        begun = bool(old & geometry.cluster_size - 1)  # the last cluster so far is partly new
        rooms = mode != "metadata" and not geometry.data_file  # the file gets some for all of it
        if begun and not rooms and (filled or not geometry.extended):
            await self._fill_last(old, length)
            first += 1
        if first >= last:
            return
        if mode == "metadata" and not geometry.data_file:
            await self._map_rows(first, last)
            await image.extend()
            return
        unit = 1 << geometry.subcluster_bits  # an allocation writes zeroes up to its end
        host, end, count = 0, -(-length // unit) * unit, last - first
        tables = -(-count // geometry.l2_size) + 1
        if not geometry.data_file:
            await self.writeback.flush()
            await refcounts.block(refcounts.last_block, image.file)
            end = refcounts.place_beyond(count, tables) + count << bits
        if end > image.data.fresh_length():
            await self._grow_file(end, "off" if mode == "metadata" else mode)
        if not geometry.data_file:
            host = refcounts.move_beyond(count, tables)
            refcounts.reserved = refcounts.fresh  # the mode tells what the file gets
            await self.writeback.flush()  # the table's old place can be used again
        if begun and rooms:
            await self._move_last(old, host, filled=filled)
            first, host = first + 1, host + 1
        used = await self._map_new(first, last, host, filled=filled)
        if not geometry.data_file:
            image.freed.add_range(host + used, last - first - used, Discard.NEVER)

    async def _grow_file(self, end: int, mode: str) -> None:
        try:
            await self.image.data.truncate(end, exact=False, prealloc=mode)
        except QmpError as e:
            if mode == "off":
                raise
            code = e.errno if isinstance(e, OSError) else None
            raise Failed("Failed to resize underlying file", e, errno=code or errno.EINVAL) from e

    async def _fill_last(self, old: int, length: int) -> None:
        """See that the last cluster so far, which is only partly new, has a place."""
        geometry = self.image.geometry
        table = await self.image.table(old >> geometry.table_bits)
        at = old >> geometry.cluster_bits & geometry.l2_size - 1
        if not has_offset(table.entries[at : at + 1], geometry.data_file)[0]:
            end = min(length, -(-old // geometry.cluster_size) * geometry.cluster_size)
            await self.writer.pwrite(old, memoryview(bytes(end - old)))

    async def _move_last(self, old: int, cluster: int, *, filled: bool) -> None:
        """Give the last cluster so far, which is only partly new, a place that is empty.

        What it holds is copied; nothing else is under way.
        """
        image, geometry, bits = self.image, self.image.geometry, self.image.geometry.cluster_bits
        start = old >> bits << bits
        head = memoryview(bytearray(old - start))
        await self.writer.reader.read(start, head)
        await image.write_data(cluster << bits, start, head)
        table = await self._own(old >> geometry.table_bits)
        at = old >> bits & geometry.l2_size - 1
        before = table.entries[at : at + 1].copy()
        table.entries[at] = cluster << bits | COPIED
        if filled and table.bitmaps is not None:
            table.bitmaps[at] = ALL_ALLOCATED
        image.mapping.unsettled = True
        self.writer.free(before, Discard.NEVER)

    async def _map_new(self, first: int, last: int, host: int, *, filled: bool) -> int:
        """Map guest clusters that have none to those from ``host`` on; return how many."""
        geometry, used = self.image.geometry, 0
        bits = geometry.cluster_bits
        while first < last:
            index, at = divmod(first, geometry.l2_size)
            count = min(last - first, geometry.l2_size - at)
            table = await self._own(index)
            entries = table.entries[at : at + count]
            new = np.flatnonzero(~has_offset(entries, geometry.data_file))
            if geometry.data_file:
                entries[new] = contiguous(first << bits, count, bits)[new]
            else:
                entries[new] = contiguous(host + used << bits, len(new), bits)
                used += len(new)
            if filled and table.bitmaps is not None:
                table.bitmaps[at : at + count][new] = ALL_ALLOCATED
            first += count
            await self.writer.relieve()
        return used

    async def _map_rows(self, first: int, last: int) -> None:
        """Map guest clusters that have none, those of each L2 table to clusters in a row."""
        image, geometry, refcounts = self.image, self.image.geometry, self.image.refcounts
        bits = geometry.cluster_bits
        while first < last:
            index, at = divmod(first, geometry.l2_size)
            count = min(last - first, geometry.l2_size - at)
            table = await self._own(index)
            new = np.flatnonzero(~has_offset(table.entries[at : at + count], False))
            if len(new):
                host = await image.take_fresh_row(len(new)) << bits
                refcounts.reserved = refcounts.fresh  # the file gets no room for it
                table = await self._own(index)
                table.entries[at : at + count][new] = contiguous(host, len(new), bits)
                image.reach = max(image.reach, host + (len(new) << bits))
            first += count
            await self.writer.relieve()

    async def _own(self, index: int) -> "L2":
        """Return an L2 table for writing."""
        while True:
            await self.image.table(index)
            table = self.image.mapping.own(index)
            if table is not None:
                return table
            await self.image.ready()

    async def _zero(self, old: int, length: int) -> None:
        size = self.image.geometry.subcluster_size
        start = min(-(-old // size) * size, length)
        if length > start:
            await self._step("Failed to zero out new clusters", self._zeroize(start, length))
        if start > old:
            write = self.writer.pwrite(old, memoryview(bytes(start - old)))
            await self._step("Failed to zero out the new area", write)

    async def _zeroize(self, start: int, end: int) -> None:
        if self.image.geometry.version < 3 and self.image.backing is not None:
            raise os_error(errno.ENOTSUP)
        await self.zeroer.zeroize(start, end, 0)

    # Shrinking

    async def _shrink(self, old: int, length: int) -> None:
        image = self.image
        geometry, mapping, bits = image.geometry, image.mapping, image.geometry.cluster_bits
        start = geometry.clusters(length) << bits
        drop = self.zeroer.drop(start, max(old, start), Discard.ALWAYS, full=True)
        await self._step("Failed to discard cropped clusters", drop)
        keep = geometry.l1_entries(length)
        await image.tell("l1_shrink_write_table")
        for index in (np.flatnonzero(mapping.l1[keep:]) + keep).tolist():
            host = int(mapping.l1[index]) & OFFSET
            mapping.forget(index)
            mapping.set_l1(index, 0)
            image.freed.add_range(host >> bits, 1, Discard.ALWAYS)
        await self._step("Failed to reduce the number of L2 tables", self.writeback.flush())
        await self._step("Failed to discard unused refblocks", self._drop_blocks())
        await self._cut_file()

    async def _drop_blocks(self) -> None:
        """Do without the refcount blocks that count nothing but themselves."""
        image, refcounts = self.image, self.image.refcounts
        unused: list[int] = []
        for index in np.flatnonzero(refcounts.table).tolist():
            try:
                await refcounts.block(index, image.file)
            except Unaligned as e:
                raise await image.corrupt(
                    "Cannot get entry from refcount block cache: "
                    f"Offset {e.args[0]:#x} is unaligned"
                ) from None
            if refcounts.counts_nothing(index):
                unused.append(index)
        problem: tuple[str, int] | None = None
        for index in unused:
            problem = problem or await self._release_block(index)
            refcounts.drop_block(index)
        await self.writeback.flush()
        if problem is not None:
            await image.corrupt(problem[0])
            raise OSError(problem[1], os.strerror(problem[1]))

    async def _release_block(self, index: int) -> tuple[str, int] | None:
        """Let go of a refcount block's cluster; or return what is wrong about it, and an errno.

        After qcow2_discard_refcount_block.
        """
        refcounts, bits = self.image.refcounts, self.image.geometry.cluster_bits
        host = refcounts.host(index)
        cluster = host >> bits
        covering = cluster // refcounts.per
        if not refcounts.host(covering):
            text = f"Refblock at {host:#x} is not covered by the refcount structures"
            return text, errno.EIO
        await refcounts.block(covering, self.image.file)
        count = refcounts.count(cluster)
        if count != 1:
            text = (
                f"Invalid refcount: refblock offset {refcounts.host(covering):#x}, reftable index "
                f"{covering}, block offset {host:#x}, refcount {c_hex(count)}"
            )
            return text, errno.EINVAL
        if covering != index:
            self.image.freed.add_range(cluster, 1, Discard.ALWAYS)
        return None

    async def _cut_file(self) -> None:
        """Make the file end with the last cluster in use."""
        image, refcounts = self.image, self.image.refcounts
        await refcounts.block(refcounts.last_block, image.file)
        end = refcounts.last_used() + 1 << image.geometry.cluster_bits
        if end < image.file.fresh_length():
            try:
                await image.file.truncate(end, exact=False)
            except OSError as e:
                why = os.strerror(e.errno or errno.EIO)
                image.node.services.warn(f"Failed to truncate the tail of the image: {why}")
