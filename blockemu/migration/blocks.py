"""Disks that leave with a machine: old-style block migration (migration/block.c).

First each disk is read from its begin to its end, and then again what the guest has written
meanwhile, until that is little enough to be sent while the machine stands still.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from blockemu.activation import tops
from blockemu.backend import Backend
from blockemu.dirty import DirtyBitmap, bitmaps_of
from blockemu.extents import ALLOCATED
from blockemu.graph import Graph, block, unblock
from blockemu.migration import block_wire
from blockemu.migration.block_wire import BLOCK, SECTOR
from blockemu.migration.rate import Rate
from blockemu.node import Blocker, Node
from blockemu.perm import Perm
from blockemu.records import record
from blockemu.requests import is_zero
from blockemu.schema.migration import MigrationStats

IN_USE: Final = "block device is in use by migration"
_AT_ONCE: Final = 16  # blocks that are read before any is sent

Send = Callable[[bytes], Awaitable[None]]


@record(eq=False)
class Disk:
    """A disk that leaves; positions in bytes.

    ``next``: where the first pass is; ``passed``: how much of it is told to be done; ``cursor``:
    where the present look at what is dirty is.
    """

    name: str
    backend: Backend
    length: int
    bitmap: DirtyBitmap
    next: int = 0
    passed: int = 0
    cursor: int = 0

    @property
    def node(self) -> Node[Any]:
        """The node that it is read from."""
        return self.backend.node


@record
class Piece:
    """A block that was read and is to be sent."""

    disk: Disk
    offset: int
    data: bytearray


class LeavingBlocks:
    """All disks that leave with one migration.

    ``allocated_only``: what a disk has from its backing file is there already; ``zeroes``: blocks
    that hold nothing else are sent as such.
    """

    def __init__(self, graph: Graph, *, allocated_only: bool, zeroes: bool) -> None:
        self._graph = graph
        self._allocated_only = allocated_only
        self._zeroes = zeroes
        self._disks: list[Disk] = []
        self._read: deque[Piece] = deque()
        self._told = -1  # percent
        self.passed = False  # each disk was read to its end once

    # What it is about

    def __bool__(self) -> bool:
        return bool(self._disks)

    @property
    def pending(self) -> int:
        """How many bytes are to be sent, as far as that is known."""
        dirty = sum(each.bitmap.bits.dirty_bytes for each in self._disks)
        known = dirty + len(self._read) * BLOCK
        return known or (0 if self.passed else BLOCK)

    def stats(self) -> MigrationStats:
        """Count the bytes of disks."""
        counts = dict.fromkeys(_UNCOUNTED, 0)
        total = sum(each.length for each in self._disks)
        done = sum(each.passed for each in self._disks)
        return MigrationStats(transferred=done, remaining=total - done, total=total, **counts)

    # The begin and the end

    def collect(self) -> None:
        """Take all disks that can be written to, and note from now on what is.

        Raises:
            QmpError: one cannot be read; what was taken is to be let go of.

        """
        nodes = [node for node in tops(self._graph) if not node.flags.read_only]
        for node in nodes:
            if node.length:
                self._add(node, node.length)

    def _add(self, node: Node[Any], length: int) -> None:
        name = self._graph.device_name(node)
        backend = Backend(perm=Perm.CONSISTENT_READ, shared=Perm.ALL)
        self._graph.insert(backend, node)
        bitmap = bitmaps_of(node).add(None, BLOCK)
        block(node, Blocker(IN_USE))
        self._disks.append(Disk(name, backend, length, bitmap))

    async def let_go(self) -> None:
        """Let go of the disks."""
        disks, self._disks = self._disks, []
        self._read.clear()
        for disk in disks:
            disk.bitmap.release()
            unblock(disk.node, IN_USE)
            await self._graph.remove(disk.backend)

    # On the way

    async def iterate(self, send: Send, rate: Rate) -> None:
        """Send some, as far as ``rate`` lets it (block_save_iterate).

        Raises:
            OSError: a disk cannot be read.

        """
        await self._flush(send, rate)
        for disk in self._disks:
            disk.cursor = 0
        read = 0
        while read < _AT_ONCE and (not rate.limit or len(self._read) * BLOCK < rate.limit):
            if not await (self._read_dirty() if self.passed else self._read_on(send)):
                break
            read += 1
        await self._flush(send, rate)
        await send(block_wire.end())

    async def complete(self, send: Send) -> None:
        """Send the rest, nobody writing any more (block_save_complete).

        Raises:
            OSError: a disk cannot be read.

        """
        for disk in self._disks:
            disk.cursor = 0
        while self._read or await self._read_dirty():
            await self._flush(send, None)
        await send(block_wire.progress(100) + block_wire.end())

    async def _flush(self, send: Send, rate: Rate | None) -> None:
        while self._read and not (rate is not None and rate.exceeded):
            piece = self._read.popleft()
            empty = self._zeroes and is_zero(memoryview(piece.data))
            data = None if empty else piece.data.ljust(BLOCK, b"\0")
            await send(block_wire.block(piece.disk.name, piece.offset, data))

    async def _read_on(self, send: Send) -> bool:
        """Read the next block of the first pass (blk_mig_save_bulked_block)."""
        disk = next((each for each in self._disks if each.next < each.length), None)
        if disk is None:
            self.passed = True
        else:
            await self._read_next(disk)
        total = sum(each.length for each in self._disks)
        percent = sum(each.passed for each in self._disks) * 100 // total if total else 100
        if percent != self._told:
            self._told = percent
            await send(block_wire.progress(percent))
        return True

    async def _read_next(self, disk: Disk) -> None:
        at = await self._allocated(disk) if self._allocated_only else disk.next
        disk.passed = at
        if at >= disk.length:
            disk.next = disk.length
            return
        offset = at // BLOCK * BLOCK
        disk.next = min(offset + BLOCK, disk.length)
        disk.bitmap.bits.reset(offset, disk.next - offset)
        await self._take(disk, offset)

    async def _allocated(self, disk: Disk) -> int:
        """Return where the next data is that the backing file does not have."""
        async with aclosing(disk.backend.extents(disk.next, disk.length - disk.next)) as batches:
            async for batch in batches:
                for start, _, status, _ in batch:
                    if status & ALLOCATED:
                        return max(start, disk.next) // SECTOR * SECTOR
        return disk.length

    async def _read_dirty(self) -> bool:
        """Read the next block that was written to; return whether there was one."""
        for disk in self._disks:
            offset = disk.bitmap.bits.next_dirty(disk.cursor, disk.length - disk.cursor)
            if offset is None:
                disk.cursor = disk.length
                continue
            disk.cursor = min(offset + BLOCK, disk.length)
            disk.bitmap.bits.reset(offset, disk.cursor - offset)
            await self._take(disk, offset)
            return True
        return False

    async def _take(self, disk: Disk, offset: int) -> None:
        data = bytearray(min(BLOCK, disk.length - offset))
        await disk.backend.pread(offset, data)
        self._read.append(Piece(disk, offset, data))


_UNCOUNTED: Final = (
    "duplicate",
    "skipped",
    "normal",
    "normal_bytes",
    "dirty_pages_rate",
    "mbps",
    "dirty_sync_count",
    "postcopy_requests",
    "page_size",
    "multifd_bytes",
    "pages_per_second",
    "precopy_bytes",
    "downtime_bytes",
    "postcopy_bytes",
    "dirty_sync_missed_zero_copy",
)
