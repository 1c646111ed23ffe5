"""What a mirror copies by: the bitmap of what differs, and the requests under way.

How much one request carries is QEMU's where a user can see it in a job's offset: with a speed
limit.  Else the kernel copies as much as it can at a time.  After mirror_iteration, mirror_co_read
and their like, block/mirror.c.
"""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import Any, Final

import numpy as np

from blockemu.backend import Backend
from blockemu.bitmaps.bitmap import Bitmap
from blockemu.buffers import new_buffer
from blockemu.copying.copy_calls import ReadFailed
from blockemu.copying.offload import CannotOffload, offload, unseen
from blockemu.copying.progress import Progress
from blockemu.eager import Routine
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, DATA, ZERO, Extents
from blockemu.host.pool import Pool
from blockemu.images.lengths import turns
from blockemu.node import Node, Write
from blockemu.records import field, record
from blockemu.waiting import BREATH_BYTES, asleep, breathe, wake
from blockemu.walk import status_above

MAX_IN_FLIGHT: Final = 16  # requests
MAX_REQUEST: Final = 1 << 20  # bytes of one that carries data, unless the buffer is large
STEP: Final = 16 << 20  # bytes that the kernel copies in one go
MAX_PIECES: Final = 1024  # of the granularity, in one request (IOV_MAX)
AHEAD: Final = 1 << 30  # bytes of zeroes that are looked for at a time
ZEROING: Final = (1 << 31) - 1  # bytes of one request that zeroes the target at first

Failed = Callable[[bool, int], bool]  # (reading?, errno): is that the end?


@record(eq=False)
class Request:
    """A range that is being copied, or written by a guest to both sides."""

    start: int
    end: int
    in_slot: bool = True  # counts against the limit, and may be waited for
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)


class MirrorCopy:
    """Copies what is dirty from ``source`` to ``target``; ``length`` is in bytes.

    ``failed`` is told of each error; once it has answered True, ``error`` is set and nothing more
    is begun.
    """

    def __init__(
        self,
        source: Edge,
        target: Backend,
        bitmap: Bitmap,
        pool: Pool,
        progress: Progress,
        *,
        buffer: int,
        unmap: bool,
        failed: Failed,
    ) -> None:
        self.source = source
        self.target = target
        self.bitmap = bitmap
        self.granularity = bitmap.granularity
        self.length = bitmap.length
        self.buffer = buffer
        self.error = 0
        self.bytes_in_flight = 0
        self.active_bytes = 0  # of guests' writes on their way to the target
        self.zeroing = False  # the target is being zeroed at first; that is no progress
        self.limited: Callable[[], bool] = lambda: False
        self._failed = failed
        self._pool = pool
        self._progress = progress
        self._unmap = Write.MAY_UNMAP if unmap else 0
        self._cursor = 0
        self._reach = 0  # bytes of the next stretch, if zeroes go on
        self._requests: dict[Request, None] = {}
        self._can_offload = True
        self._cluster = target.node.cluster_size or 512
        self._cow: Bitmap | None = None  # target clusters that were copied whole

    def copy_on_write(self) -> None:
        """Copy whole clusters of the target: nothing is below it yet that could fill them up."""
        if self.granularity < self._cluster:
            self.buffer = max(self.buffer, self._cluster)
            self._cow = Bitmap(self.length, self.granularity)

    # Requests under way

    @property
    def in_flight(self) -> int:
        """How many requests of the job's own are under way."""
        return sum(request.in_slot for request in self._requests)

    @property
    def full(self) -> bool:
        """Whether nothing more can be begun just now."""
        return self.in_flight >= MAX_IN_FLIGHT or self.bytes_in_flight >= self.buffer

    async def slot(self) -> None:
        """Wait until one of the requests is over."""
        await asleep(next(r for r in self._requests if r.in_slot).waiters)

    async def idle(self) -> None:
        """Wait until none is under way."""
        while self.in_flight:
            await self.slot()

    async def free(self, start: int, end: int) -> None:
        """Wait until nothing that is under way overlaps a range; who waits is in nobody's way."""
        size = self.granularity
        start, end = start // size * size, -(-end // size) * size
        while not self.error and (other := self._overlapping(start, end)) is not None:
            await asleep(other.waiters)

    def _overlapping(self, start: int, end: int) -> Request | None:
        for request in self._requests:
            if request.start < end and start < request.end:
                return request
        return None

    def _leave(self, request: Request) -> None:
        del self._requests[request]
        wake(request.waiters)

    # Copying

    async def zero_all(self, throttle: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Zero the target; ``throttle`` lets others run and tells whether to go on."""
        self.zeroing = True
        step = ZEROING // self.granularity * self.granularity
        offset, going = 0, True
        while offset < self.length and (going := await throttle()):
            if self.in_flight >= MAX_IN_FLIGHT:
                await self.slot()
                continue
            end = min(offset + step, self.length)
            self._begin(offset, end, self._zero)
            offset = end
        if going:
            await self.idle()
        self.zeroing = False
        return going

    async def iterate(self, pause: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Begin to copy the next dirty stretch; return the bytes that count against the speed."""
        offset = self.bitmap.next_dirty(self._cursor)
        if offset is None:
            offset = self.bitmap.next_dirty(0)
            assert offset is not None
        await self.free(offset, offset + 1)
        await pause()
        end = self._stretch(offset)
        self._cursor = end if end < self.length else 0
        self.bitmap.reset(offset, min(end, self.length) - offset)
        holder = Request(offset, end, in_slot=False)  # until the real requests are there
        self._requests[holder] = None
        try:
            return await self._copy_stretch(offset, min(end, self.length), holder)
        finally:
            self._leave(holder)

    def _stretch(self, offset: int) -> int:
        """Return where the dirty stretch at ``offset`` ends, or the buffer, or what is copied."""
        size = self.granularity
        reach = max(self.buffer, self._reach if self._maps_zeroes() else 0)
        limit = min(offset + max(reach // size, 1) * size, self.length)
        zero = self.bitmap.next_zero(offset, limit - offset)
        end = limit if zero is None else max(zero, offset + 1)
        busy = [r.start for r in self._requests if offset < r.start < end]
        end = min([end, *(start // size * size for start in busy)])
        return max(-(-end // size) * size, offset + size)

    async def _copy_stretch(self, offset: int, end: int, holder: Request) -> int:
        counted = effort = 0
        while offset < end:
            if effort >= BREATH_BYTES and unseen(self.source, self.target):
                effort = 0
                await asyncio.sleep(0)
            size, kind = await self._classify(offset, end)
            if kind == self._copy:
                end = self._shorten(offset, end, holder)
            while self.in_flight >= MAX_IN_FLIGHT:
                await self.slot()
            if self.error:
                self.bitmap.mark(offset, end - offset)
                break
            start, stop = offset, min(offset + size, self.length)
            copies = kind == self._copy
            if copies:
                effort += size
                start, stop = self._cow_align(start, stop)
                while self.in_flight and self.bytes_in_flight + stop - start > self.buffer:
                    await self.slot()
            self._begin(start, stop, kind)
            if copies or not unmaps_zeroes(self.target.node):
                counted += stop - offset
            offset = stop
            self._reach = 0 if copies else min(max(self.buffer, self._reach) * 2, AHEAD)
        return counted

    def _shorten(self, offset: int, end: int, holder: Request) -> int:
        """Leave for later what would make a stretch longer than the buffer from here on."""
        stop = offset + max(self.buffer // self.granularity, 1) * self.granularity
        if stop >= end:
            return end
        self.bitmap.mark(stop, end - stop)
        self._cursor = holder.end = stop
        return stop

    def _maps_zeroes(self) -> bool:
        """Whether zeroes are a matter of the target's mapping, and nobody could tell how many."""
        target = self.target
        return target.node.unmaps_zeroes and target.route.linear is None and self._plain()

    async def _classify(
        self, offset: int, end: int
    ) -> tuple[int, "Callable[[Request], Coroutine[Any, Any, None]]"]:
        """Decide how much goes into the next request, and which kind that is."""
        size, most = self.granularity, max(self.buffer // MAX_IN_FLIGHT, MAX_REQUEST)
        limited = self.limited()
        if self._plain():
            most = min(STEP, max(self.buffer // 2, MAX_REQUEST))  # two at a time
        try:
            status, length = await status_above(
                self.source, offset, end - offset, mask=DATA | ZERO, one_run=limited
            )
        except OSError:
            status, length = DATA, most
        if status & DATA:
            length = min(length, most)
        length = length // size * size if offset + length < end else length
        if length < size and offset + length < self.length:
            length = size
        elif not status & DATA and self._whole_clusters(offset, length):
            return length, self._zero if status & ZERO else self._discard
        return min(length, self.buffer, size * MAX_PIECES), self._copy

    def _whole_clusters(self, offset: int, length: int) -> bool:
        end = offset + length
        return not offset % self._cluster and (not end % self._cluster or end >= self.length)

    def _plain(self) -> bool:
        """Whether the kernel may copy, and nobody could tell."""
        return (
            self._can_offload
            and not self.limited()
            and self.source.route.readable_in_files
            and self.target.route.writable_in_files
        )

    def _cow_align(self, start: int, end: int) -> tuple[int, int]:
        """Widen a range to the target's clusters where these were not copied yet.

        It may end earlier then, where a request can hold no more (mirror_cow_align).
        """
        if self._cow is None or (self._cow.get(start) and self._cow.get(end - 1)):
            return start, end
        size = self._cluster
        start = start // size * size
        most = max(self.granularity * MAX_PIECES // size, 1) * size
        return start, min(-(-end // size) * size, start + most, self.length)

    def _begin(
        self, start: int, end: int, work: Callable[[Request], Coroutine[Any, Any, None]]
    ) -> None:
        request = Request(start, end)
        self._requests[request] = None
        self.bytes_in_flight += end - start
        Routine(self._run(request, work), _report).start()

    async def _run(
        self, request: Request, work: Callable[[Request], Coroutine[Any, Any, None]]
    ) -> None:
        size = request.end - request.start
        good = False
        try:
            await work(request)
            good = True
        except OSError as e:
            self.bitmap.mark(request.start, size)
            self._fail(e)
        finally:
            self.bytes_in_flight -= size
            if good and self._cow is not None:
                self._cow.mark(request.start, size)
            if good and not self.zeroing:
                self._progress.done(size)
                self._progress.remaining -= min(size, self._progress.remaining)
            self._leave(request)

    def _fail(self, error: OSError) -> None:
        number = error.errno or errno.EIO
        if self._failed(isinstance(error, ReadFailed), number) and not self.error:
            self.error = number

    async def _zero(self, request: Request) -> None:
        size = request.end - request.start
        await self.target.write_zeroes(request.start, size, self._unmap)

    async def _discard(self, request: Request) -> None:
        await self.target.discard(request.start, request.end - request.start)

    async def _copy(self, request: Request) -> None:
        start, size = request.start, request.end - request.start
        if self._can_offload and await self._offload(start, size):
            return
        buf = new_buffer(min(size, MAX_REQUEST if size > self.buffer else size))
        for at in range(start, request.end, len(buf)):
            await breathe(at - start)
            part = buf[: request.end - at]
            try:
                await self.source.pread(at, part)
            except OSError as e:
                raise ReadFailed(e.errno or errno.EIO, str(e)) from e
            await self.target.pwrite(at, part)

    async def _offload(self, start: int, size: int) -> bool:
        try:
            return await offload(self.source, self.target, [(start, size)], self._pool.background)
        except CannotOffload:
            self._can_offload = False
        except OSError:  # the way through a buffer will meet it, too, and tell
            pass
        return False

    # Guests' writes that must be on both sides before they are done

    async def write(
        self, offset: int, data: memoryview | None, length: int, flags: int, kind: str
    ) -> None:
        """Write to the source, then to the target (bdrv_mirror_top_do_write)."""
        if self.error:
            await self._write_one(self.source, offset, data, length, flags, kind)
            return
        copy = memoryview(bytes(data)) if data is not None else None  # both must get the same
        await self.free(offset, offset + length)
        request = Request(offset, offset + length, in_slot=False)
        self._requests[request] = None
        try:
            await self._write_one(self.source, offset, copy, length, flags, kind)
            await self._sync(offset, copy, length, flags, kind)
        finally:
            self._leave(request)

    async def _sync(
        self, offset: int, data: memoryview | None, length: int, flags: int, kind: str
    ) -> None:
        """Write to the target what is not to be copied anyway (do_sync_target_write)."""
        size, origin, end = self.granularity, offset, offset + length
        if offset % size and self.bitmap.get(offset):
            offset = -(-offset // size) * size
        if end % size and offset < end and self.bitmap.get(end - 1):
            end = end // size * size
        if offset >= end:
            return
        first, last = -(-offset // size) * size, end // size * size
        if end >= self.length:
            last = self.length
        if first < last:
            self.bitmap.reset(first, last - first)
        count = end - offset
        self._progress.remaining += count
        self.active_bytes += count
        part = data[offset - origin : end - origin] if data is not None else None
        try:
            await self._write_one(self.target, offset, part, count, flags, kind)
        except OSError as e:
            first = offset // size * size
            self.bitmap.mark(first, min(-(-end // size) * size, self.length) - first)
            self._fail(e)
        else:
            self._progress.done(count)
            self._progress.remaining -= min(count, self._progress.remaining)
        finally:
            self.active_bytes -= count

    @staticmethod
    async def _write_one(
        to: Edge, offset: int, data: memoryview | None, length: int, flags: int, kind: str
    ) -> None:
        if data is not None:
            await to.pwrite(offset, data, flags)
        elif kind == "zero":
            await to.write_zeroes(offset, length, flags)
        else:
            await to.discard(offset, length)


def unmaps_zeroes(node: Node[Any]) -> bool:
    """Tell whether zeroes cost a node nothing (bdrv_can_write_zeroes_with_unmap)."""
    return node.flags.unmap and node.unmaps_zeroes


def mark_allocated(bitmap: Bitmap, extents: Extents) -> None:
    """Mark in ``bitmap`` what runs say is allocated, all runs at once."""
    size = bitmap.granularity
    first = int(extents.start[0]) // size
    count = -(-extents.end // size) - first
    found = (extents.status & ALLOCATED) != 0
    start = extents.start[found]
    steps = np.zeros(count + 1, np.int64)  # +1 where marked bits begin, -1 behind them
    np.add.at(steps, start // size - first, 1)
    np.add.at(steps, -(-(start + extents.length[found]) // size) - first, -1)
    marked = turns(np.cumsum(steps) > 0)
    for begin, end in marked.reshape(-1, 2).tolist():
        offset = (first + begin) * size
        bitmap.mark(offset, min((first + end) * size, bitmap.length) - offset)


def _report(error: BaseException | None) -> None:
    if error is not None:
        context = {"message": "mirroring failed unexpectedly", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
