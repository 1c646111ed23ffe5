"""Copying between two edges by a bitmap: what backup, copy-before-write and others are built on.

A ``BlockCopy`` owns the bitmap of what is still to copy.  Calls of ``copy`` over ranges run side
by side: each takes dirty areas out of the bitmap piece by piece, and waits for what another call
took before it.  Pieces are cut as QEMU cuts them (1 MiB, cluster by cluster when compressing)
where that can be seen: with a speed limit, or when bytes pass through buffers.  Where both ends are
plain files below, the kernel copies, in steps of up to 64 MiB.  After block/block-copy.c.
"""

import asyncio
import errno
import os
from dataclasses import dataclass, field
from typing import Any

from blockemu import eager
from blockemu.bitmap import Bitmap
from blockemu.buffers import new_buffer
from blockemu.clocks import Clock
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, ZERO
from blockemu.node import Node, Write
from blockemu.offload import offload
from blockemu.pool import Pool
from blockemu.progress import Progress
from blockemu.ratelimit import RateLimit
from blockemu.walk import status_above

BUFFER = 1 << 20  # bytes of one piece that passes through a buffer
STEP = 64 << 20  # bytes of one piece that the kernel copies, or that is zero
WORKERS = 64
DEFAULT_CLUSTER = 1 << 16


@dataclass(eq=False)
class Call:
    """One call of ``BlockCopy.copy``, and what became of it."""

    max_workers: int = WORKERS
    max_chunk: int = 0  # bytes; 0 for no limit
    ignore_speed: bool = False
    cancelled: bool = False
    finished: bool = False
    error: int = 0  # errno of the first piece that failed
    error_is_read: bool = False
    wake: "asyncio.Future[None] | None" = None  # while it waits because of the speed

    def cancel(self) -> None:
        """Take no more pieces; those under way go on."""
        self.cancelled = True
        self.kick()

    def kick(self) -> None:
        """End a wait that is due to the speed."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


@dataclass(eq=False)
class Piece:
    """A range on its way."""

    start: int
    end: int
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)


class BlockCopy:
    """A copy in progress from ``source`` to ``target``, both held by the caller."""

    def __init__(
        self, source: Edge, target: Edge, bitmap: Bitmap, pool: Pool, clock: Clock
    ) -> None:
        self.source = source
        self.target = target
        self.bitmap = bitmap
        self.cluster_size = bitmap.granularity
        self.length = bitmap.length
        self.progress: Progress | None = None
        self.limit = RateLimit(clock)
        self.skip_unallocated = False
        self.use_copy_range = True
        self.write_flags = Write.SERIALISING if is_fleecing(source, target) else 0
        self._pool = pool
        self._clock = clock
        self._pieces: dict[Piece, None] = {}
        self._in_flight = 0  # bytes
        self._calls: dict[Call, None] = {}

    def set_speed(self, speed: int) -> None:
        """Limit bytes a second; 0 for no limit."""
        self.limit.set_speed(speed)
        for call in self._calls:
            call.kick()

    def reset(self, start: int, length: int) -> None:
        """Forget what was to be copied of a range."""
        self.bitmap.reset(start, min(length, self.length - start))
        self.tell()

    def tell(self) -> None:
        """Bring the job's progress up to date."""
        if self.progress is not None:
            self.progress.remaining = self.bitmap.dirty_bytes + self._in_flight

    async def reset_unallocated(self, offset: int) -> int:
        """Skip what the source's top node leaves open at ``offset``; return the bytes looked at.

        Whole clusters only; a cluster of which any part is allocated is copied.
        """
        cluster, end = self.cluster_size, self.length
        seen = 0
        while offset + seen < end:
            status, length = await status_above(
                self.source, offset + seen, end - offset - seen, top_only=True, mask=ALLOCATED
            )
            seen += length
            if status & ALLOCATED:
                return -(-seen // cluster) * cluster
            if seen >= cluster or offset + seen >= end:
                whole = -(-seen // cluster) if offset + seen >= end else seen // cluster
                self.reset(offset, whole * cluster)
                return whole * cluster
        return cluster

    async def copy(self, start: int, length: int, call: Call) -> None:
        """Copy what is dirty of a range of whole clusters, and wait for who copies parts of it.

        Returns when nothing of the range is left to copy, or the call was cancelled, or a piece
        failed: then ``call.error`` says so.  Pieces that failed are dirty again.
        """
        self._calls[call] = None
        try:
            while not call.cancelled and not call.error:
                some = await self._copy_dirty(start, length, call)
                if call.error or call.cancelled:
                    break
                if not some:
                    other = self._conflict(start, start + length)
                    if other is not None:
                        await self._wait(other)
                    elif self.bitmap.next_dirty(start, min(length, self.length - start)) is None:
                        break
        finally:
            call.finished = True
            del self._calls[call]

    # Pieces

    async def _copy_dirty(self, start: int, length: int, call: Call) -> bool:
        """Take pieces until none is left; return whether there were any."""
        workers = Workers(call.max_workers)
        found = False
        offset, end = start, start + length
        try:
            while offset < end and not call.cancelled and not call.error:
                piece = self._take(offset, end, call)
                if piece is None:
                    break
                found = True
                status = await self._classify(piece)
                if self.skip_unallocated and not status & ALLOCATED:
                    self._end(piece, good=True)
                    offset = piece.end
                    continue
                if not call.ignore_speed and (delay := self.limit.delay(0)) > 0:
                    self._end(piece, good=False)
                    await self._pause(call, delay)
                    continue
                self.limit.delay(piece.end - piece.start)
                offset = piece.end
                await workers.slot()
                if call.error:
                    self._end(piece, good=False)
                    break
                workers.start(self._do(piece, status, call))
        finally:
            await workers.finished()
        return found

    def _take(self, offset: int, end: int, call: Call) -> Piece | None:
        most = self._chunk()
        if call.max_chunk:
            most = min(most, call.max_chunk)
        limit = min(end, self.length)
        if offset >= limit:
            return None
        area = self.bitmap.next_dirty_area(offset, limit, most)
        if area is None:
            return None
        start, size = area
        size = -(-size // self.cluster_size) * self.cluster_size
        piece = Piece(start, start + size)
        self.bitmap.reset(start, min(size, self.length - start))
        self._in_flight += size
        self._pieces[piece] = None
        return piece

    def _chunk(self) -> int:
        """Return how long a piece may be."""
        if self.use_copy_range and not self.limit.limited and self._plain():
            return max(self.cluster_size, STEP)
        return max(self.cluster_size, BUFFER)

    def _plain(self) -> bool:
        """Whether no node in between could tell one big piece from many small ones."""
        return self.source.route.read is not None and self.target.route.write is not None

    async def _classify(self, piece: Piece) -> int:
        """Return the status at the beginning of a piece; cut the piece to what it is true of."""
        cluster = self.cluster_size
        want = min(piece.end, self.length) - piece.start
        mask = ZERO | ALLOCATED if self.skip_unallocated else ZERO
        try:
            status, length = await status_above(
                self.source, piece.start, want, top_only=self.skip_unallocated, mask=mask
            )
        except OSError:
            status, length = ALLOCATED, 0
        if length < cluster and piece.start + length < self.length:
            status, length = ALLOCATED, cluster
        elif piece.start + length >= self.length:
            length = -(-length // cluster) * cluster
        else:
            length = length // cluster * cluster
        if piece.start + length < piece.end:
            rest = piece.start + length
            self._in_flight -= piece.end - rest
            self.bitmap.mark(rest, min(piece.end, self.length) - rest)
            piece.end = rest
        return status

    async def _do(self, piece: Piece, status: int, call: Call) -> None:
        error, is_read = 0, False
        size = min(piece.end, self.length) - piece.start
        try:
            if status & ZERO:
                await self.target.write_zeroes(piece.start, size, self.write_flags)
            elif not await self._offload(piece.start, size):
                is_read = await self._through_buffers(piece.start, size)
        except OSError as e:
            error, is_read = e.errno or errno.EIO, isinstance(e, ReadFailed)
        except BaseException:
            self._end(piece, good=False)
            raise
        if error and not call.error:
            call.error, call.error_is_read = error, is_read
        if not error and self.progress is not None:
            self.progress.done(piece.end - piece.start)
        self._end(piece, good=not error)

    async def _offload(self, start: int, size: int) -> bool:
        if not self.use_copy_range or self.write_flags:
            return False
        return await offload(self.source, self.target, start, size, self._pool)

    async def _through_buffers(self, start: int, size: int) -> bool:
        buf = new_buffer(min(BUFFER, size))
        for at in range(start, start + size, BUFFER):
            part = buf[: start + size - at]
            try:
                await self.source.pread(at, part)
            except OSError as e:
                raise ReadFailed(e.errno, os.strerror(e.errno or errno.EIO)) from e
            await self.target.pwrite(at, part, self.write_flags)
        return False

    def _end(self, piece: Piece, *, good: bool) -> None:
        self._in_flight -= piece.end - piece.start
        if not good:
            self.bitmap.mark(piece.start, min(piece.end, self.length) - piece.start)
        self.tell()
        del self._pieces[piece]
        for waiter in piece.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _conflict(self, start: int, end: int) -> Piece | None:
        return next((p for p in self._pieces if p.start < end and start < p.end), None)

    async def _wait(self, piece: Piece) -> None:
        piece.waiters.append(asyncio.get_running_loop().create_future())
        await piece.waiters[-1]

    async def _pause(self, call: Call, nanoseconds: int) -> None:
        call.wake = asyncio.get_running_loop().create_future()
        cancel = self._clock.timer(nanoseconds, call.kick)
        try:
            await call.wake
        finally:
            cancel()
            call.wake = None


class ReadFailed(OSError):
    """The source failed, not the target."""


class Workers:
    """So many coroutines at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    async def slot(self) -> None:
        """Wait until one more may start."""
        while len(self._tasks) >= self._most:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._tasks = {task for task in self._tasks if not task.done()}

    def start(self, work: Any) -> None:
        """Run a coroutine; at once as far as it goes without waiting."""
        task = eager.start(work)
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finished(self) -> None:
        """Wait for all."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._tasks = {task for task in self._tasks if not task.done()}


def is_fleecing(source: Edge, target: Edge) -> bool:
    """Tell whether the target is an overlay of the source: then readers may be watching."""
    node: Node[Any] | None = target.node
    while node is not None:
        if node is source.node:
            return True
        node = node.below.node if node.below is not None else None
    return False
