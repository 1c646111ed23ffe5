"""Copying between two edges by a bitmap: what backup, copy-before-write and others are built on.

A ``BlockCopy`` owns the bitmap of what is still to copy.  Calls of ``copy`` over ranges run side
by side: each takes dirty areas out of the bitmap piece by piece, and waits for what another call
took before it.  After block/block-copy.c.

How long a piece is::

    with a speed limit      as QEMU's: 1 MiB at most, and within one run of the source, since the
                            user can see it in a job's offset; 16 MiB once the kernel has copied
                            one, if that was asked for (``copy_range``)
    both ends plain files   16 MiB: the kernel copies, that much in one go, scattered or not, and
                            two goes at a time, so that a guest's write never waits for much;
                            1 GiB of zeroes where they are a matter of the target's mapping, so
                            that a large disk takes no longer than what is on it
    else                    1 MiB, through a buffer

That the kernel copies cannot be seen from outside, so it does wherever it can; ``copy_range`` is
only about the length of pieces.
"""

import asyncio
import errno
import os
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import numpy as np

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.buffers import new_buffer
from blockemu.clocks import Clock
from blockemu.copying.copy_calls import WORKERS, Call, Piece, ReadFailed
from blockemu.copying.offload import CannotOffload, offload, unseen
from blockemu.copying.progress import Progress
from blockemu.eager import Routine, Workers
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, ZERO, KnownZeroes
from blockemu.host.pool import Pool
from blockemu.node import Node, Write
from blockemu.throttling.ratelimit import RateLimit
from blockemu.waiting import BREATH_BYTES, asleep, breathe, wake
from blockemu.walk import extents_above, status_above

BUFFER = 1 << 20  # bytes of one piece that passes through a buffer
STEP = 16 << 20  # bytes that the kernel copies in one go
AT_ONCE = 2  # such goes under way
BUNDLES = 8  # of many small pieces, so that threads have work when the event loop is late
BUNDLE = 32  # pieces in one go: while these are copied, the next are looked for
AHEAD = 1 << 30  # bytes of the source whose status is found out in one go
BREATH = 128  # pieces after which others get a turn, if nothing had to be waited for
DEEP_BREATH = 32 << 20  # bytes, likewise, where it can be told how many pieces are under way
COMPRESSING = 4  # pieces being compressed, which is all that the pool's threads can do
WINDOW = 1 << 16  # clusters that ``reset_unallocated`` looks at in one go; whole words of bits
LOOK = 1 << 12  # clusters that ``_take_known`` looks at in one go
DEFAULT_CLUSTER = 1 << 16


class BlockCopy:
    """A copy in progress from ``source`` to ``target``, both held by the caller."""

    copy_range = False  # whether the user asked for the kernel's copying

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
        self.write_flags = Write.SERIALISING if is_fleecing(source, target) else 0
        self._pool = pool
        self._clock = clock
        self._pieces: dict[Piece, None] = {}
        self._in_flight = 0  # bytes
        self._can_offload = True
        self._known: KnownZeroes | None = None
        self._copied_range = False  # whether the kernel has copied a piece
        longest = min(source.node.limits.max_transfer, target.node.limits.max_transfer)
        self._longest = max(longest // self.cluster_size * self.cluster_size, self.cluster_size)

    def set_speed(self, speed: int) -> None:
        """Limit bytes a second; 0 for no limit.  Who waits because of the old one is not kicked."""
        self.limit.set_speed(speed)

    def tell(self) -> None:
        """Bring the job's progress up to date."""
        if self.progress is not None:
            self.progress.remaining = self.bitmap.dirty_bytes + self._in_flight

    def under_way(self) -> list[tuple[int, int]]:
        """Return where pieces are on their way, which may still fail: offsets and lengths."""
        return [(p.start, min(p.end, self.length) - p.start) for p in self._pieces]

    async def reset_unallocated(self, offset: int) -> int:
        """Skip what the source's top image leaves open in a window; return the window's end.

        ``offset`` is 0 or what the last call returned.  Whole clusters only: one of which any part
        is allocated is copied.
        """
        end = min(offset + WINDOW * self.cluster_size, self.length)
        count = -(-(end - offset) // self.cluster_size)
        turns = np.zeros(count + 1, np.int64)  # +1 where allocated clusters begin, -1 behind them
        async with aclosing(self.source.extents(offset, end - offset)) as batches:
            async for batch in batches:
                found = (batch.status & ALLOCATED) != 0
                start = batch.start[found] - offset
                np.add.at(turns, start // self.cluster_size, 1)
                np.add.at(turns, -(-(start + batch.length[found]) // self.cluster_size), -1)
        allocated = np.packbits(np.cumsum(turns[:-1]) > 0, bitorder="little")
        bits = np.frombuffer(self.bitmap.serialise(offset, end - offset), np.uint8).copy()
        bits[: len(allocated)] &= allocated
        self.bitmap.deserialise(offset, end - offset, bits.data)
        self.tell()
        return end

    def start(self, start: int, length: int, call: Call) -> None:
        """Begin to ``copy``; may be over already when this returns."""

        def ended(error: BaseException | None) -> None:
            if error is not None:
                call.fail(errno.EIO, is_read=False)
                context = {"message": "copying failed unexpectedly", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
            call.finish()

        call.routine = Routine(self._copy(start, length, call), ended)
        call.routine.start()

    async def copy(self, start: int, length: int, call: Call) -> None:
        """Copy what is dirty of a range of whole clusters, and wait for who copies parts of it.

        Returns when nothing of the range is left to copy, or the call was cancelled, or a piece
        failed: then ``call.error`` says so.  Pieces that failed are dirty again.
        """
        try:
            await self._copy(start, length, call)
        finally:
            call.finish()

    # Pieces

    async def _copy(self, start: int, length: int, call: Call) -> None:
        while not call.cancelled and not call.error:
            some = await self._copy_dirty(start, length, call)
            if call.error or call.cancelled or some:
                continue
            other = self._conflict(start, start + length)
            if other is not None:
                await asleep(other.waiters)
            elif self.bitmap.next_dirty(start, min(length, self.length - start)) is None:
                break

    async def _copy_dirty(self, start: int, length: int, call: Call) -> bool:
        """Take pieces until none is left; return whether there were any."""
        workers = Workers(call.max_workers)
        bundle: list[Piece] = []
        found = False
        count = effort = load = 0  # pieces and bytes since the last breath; bytes in the bundle
        offset, end = start, start + length
        try:
            while offset < end and not call.cancelled and not call.error:
                if count >= BREATH or effort >= self._breath():
                    count = effort = 0
                    await asyncio.sleep(0)
                    continue
                if pieces := self._take_known(offset, end, call, BUNDLE - len(bundle), load):
                    count, effort = count + len(pieces), effort + _size(pieces)
                    offset = pieces[-1].end
                    for zeroes in (each for each in pieces if each.zero):
                        await self._begin([zeroes], call, workers)
                    bundle += (each for each in pieces if not each.zero)
                    load = _size(bundle)
                    if not self._may_grow(len(bundle), load):
                        await self._begin(bundle, call, workers)
                        bundle, load = [], 0
                    continue
                piece = self._take(offset, end, call)
                if piece is None:
                    break
                found = True
                count += 1
                status = await self._classify(piece, call)
                if call.cancelled:  # meanwhile: a wait for the speed would not be ended
                    self._end(piece, good=False)
                    break
                if self.skip_unallocated and not status & ALLOCATED:
                    self._end(piece, good=True)
                elif not call.ignore_speed and (delay := self.limit.delay(0)) > 0:
                    self._end(piece, good=False)
                    await self._pause(call, delay)
                    continue
                else:
                    if piece.zero:
                        self._lengthen(piece, end, call)
                    size = piece.end - piece.start
                    self.limit.delay(size)
                    if size > BUFFER or not piece.zero:
                        effort += size
                    bundle.append(piece)
                    load += size
                    if piece.zero or not self._may_grow(len(bundle), load):
                        await self._begin(bundle, call, workers)
                        bundle, load = [], 0
                offset = piece.end
            if bundle:
                await self._begin(bundle, call, workers)
        finally:
            await workers.finished()
        return found

    def _breath(self) -> int:
        return BREATH_BYTES if unseen(self.source, self.target) else DEEP_BREATH

    def _may_grow(self, count: int, size: int) -> bool:
        """Whether more pieces may go along with some, because the kernel is to copy them."""
        return count < BUNDLE and size < STEP and self._chunk() > BUFFER

    async def _begin(self, bundle: list[Piece], call: Call, workers: "Workers") -> None:
        """Copy pieces, in the background as soon as a worker is free."""
        zero = bundle[-1].zero
        if zero and len(bundle) > 1:  # the zeroes came last
            await self._begin(bundle[:-1], call, workers)
            bundle = bundle[-1:]
        size = _size(bundle)
        await workers.slot(WORKERS if zero else self._at_once(len(bundle), size))
        if call.error:
            self._end(*bundle, good=False)
        elif zero:
            workers.start(self._zero(bundle[0], call))
        else:
            workers.start(self._move(bundle, call))

    def _at_once(self, count: int, size: int) -> int:
        """Return how many goes of so many pieces and so many bytes may be under way.

        More would make others wait, for threads, the processor and memory, and not go faster.
        """
        if size > BUFFER:
            return AT_ONCE if count == 1 else min(BUNDLES, AT_ONCE * STEP // min(size, STEP))
        if self.write_flags & Write.COMPRESSED and not self.limit.limited and self._plain():
            return COMPRESSING
        return WORKERS

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

    def _take_known(self, offset: int, end: int, call: Call, most: int, load: int) -> list[Piece]:
        """Take pieces at once that the kernel is to copy, and the zeroes in between.

        Where it is known which are which, that is; ``most`` with data, and no more of them than
        make ``load`` bytes a go.  One by one they take four times as long, and data has a thread
        for each island in a sea of zeroes (``make bench``: jobs, incremental; growth).
        """
        known, chunk = self._known, self._chunk()
        if known is None or not known.starts[0] <= offset < known.end or chunk <= BUFFER:
            return []
        if call.ignore_speed or self.limit.limited or self.skip_unallocated:
            return []
        chunk = min(chunk, call.max_chunk or chunk)
        longest = AHEAD if self._lengthens(call) else chunk
        stop = min(end, self.length, known.end, offset + LOOK * self.cluster_size)
        if stop < self.length:
            stop -= stop % self.cluster_size
        rows = 2 * most
        dirty = (column[:rows] for column in self.bitmap.extents(offset, stop))
        parts = (column[:rows].tolist() for column in known.cut(*dirty))
        pieces: list[Piece] = []
        for at, after, zero in zip(*parts, strict=True):
            size = min(after - at, longest if zero else chunk)
            rounded = -(-size // self.cluster_size) * self.cluster_size
            pieces.append(Piece(at, at + rounded, zero))
            if not zero:
                load, most = load + size, most - 1
            if size < after - at or load >= STEP or not most:
                break
        if pieces:
            first, after = pieces[0].start, pieces[-1].end
            self.bitmap.reset(first, min(after, self.length) - first)
            self._in_flight += _size(pieces)
            self._pieces.update(dict.fromkeys(pieces))
            if pieces[-1].zero:
                self._lengthen(pieces[-1], end, call)
        return pieces

    def _lengthen(self, piece: Piece, end: int, call: Call) -> None:
        """Let a piece of zeroes reach as far as is known."""
        known, at = self._known, piece.end
        if (
            known is None
            or not self._lengthens(call)
            or not known.starts[0] <= at < min(known.end, end, self.length)
        ):
            return
        status, length = known.at(at, min(end, self.length, piece.start + AHEAD) - at)
        if at + length < self.length:
            length = length // self.cluster_size * self.cluster_size
        if not status & ZERO or length <= 0 or self.bitmap.next_dirty(at, 1) is None:
            return
        clean = self.bitmap.next_zero(at, length)
        length = length if clean is None else clean - at
        self.bitmap.reset(at, length)
        piece.end = -(-(at + length) // self.cluster_size) * self.cluster_size
        self._in_flight += piece.end - at

    def _lengthens(self, call: Call) -> bool:
        """Whether pieces of zeroes may be longer, since neither length nor time tell."""
        return not call.max_chunk and self._chunk() >= STEP and self._maps_zeroes()

    def _chunk(self) -> int:
        """Return how long a piece may be."""
        if self.limit.limited and self.write_flags & Write.COMPRESSED:
            return self.cluster_size
        if self.limit.limited:
            long = self.copy_range and self._copied_range
        else:
            long = self._can_offload and not self.write_flags and self._plain()
        return min(max(self.cluster_size, STEP if long else BUFFER), self._longest)

    def _plain(self) -> bool:
        """Whether no node in between could tell one big piece from many small ones."""
        return self.source.route.readable_in_files and self.target.route.writable_in_files

    def _maps_zeroes(self) -> bool:
        """Whether zeroes are a matter of the target's mapping: its bytes lie anywhere in a file."""
        return self.target.node.unmaps_zeroes and self.target.route.linear is None

    async def _classify(self, piece: Piece, call: Call) -> int:
        """Return the status at the beginning of a piece; cut the piece to what it is true of."""
        cluster = self.cluster_size
        want = min(piece.end, self.length) - piece.start
        try:
            if self.skip_unallocated or self.limit.limited:
                status, length = await status_above(
                    self.source,
                    piece.start,
                    want,
                    top_only=self.skip_unallocated,
                    mask=ZERO | ALLOCATED if self.skip_unallocated else ZERO,
                    one_run=self.limit.limited,
                )
            else:
                status, length = await self._status(piece.start, want, call)
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
        piece.zero = bool(status & ZERO)
        return status

    async def _status(self, start: int, length: int, call: Call) -> tuple[int, int]:
        """Return whether the source reads as zeroes somewhere, and how far that holds.

        What was found out before stays true of what is still to copy: nobody changes that unsaved.
        """
        known = self._known
        if known is None or not known.starts[0] <= start < known.end:
            if call.ignore_speed:  # a guest's write waits for this
                return await status_above(self.source, start, length, mask=ZERO)
            ahead = min(AHEAD, self.length - start)
            try:
                async with aclosing(extents_above(self.source, start, ahead)) as batches:
                    batch = await anext(batches)
            except OSError:  # as of a snapshot that does not have all that lies ahead
                return await status_above(self.source, start, length, mask=ZERO)
            known = self._known = KnownZeroes.of(batch, self.cluster_size)
        return known.at(start, length)

    async def _zero(self, piece: Piece, call: Call) -> None:
        size = min(piece.end, self.length) - piece.start
        try:
            await self.target.write_zeroes(piece.start, size, self.write_flags)
        except OSError as e:
            call.fail(e.errno or errno.EIO, is_read=False)
            self._end(piece, good=False)
        except BaseException:
            self._end(piece, good=False)
            raise
        else:
            self._done(piece)

    async def _move(self, bundle: list[Piece], call: Call) -> None:
        """Copy data, by the kernel if that is possible."""
        ranges = [(p.start, min(p.end, self.length) - p.start) for p in bundle]
        left = bundle[::-1]
        try:
            if await self._offload(ranges, call):
                left = []
                self._done(*bundle)
            while left:
                piece = left[-1]
                await self._through_buffers(piece.start, min(piece.end, self.length) - piece.start)
                self._done(left.pop())
        except OSError as e:
            call.fail(e.errno or errno.EIO, is_read=isinstance(e, ReadFailed))
        finally:
            self._end(*left, good=False)

    async def _offload(self, ranges: list[tuple[int, int]], call: Call) -> bool:
        if self.write_flags or not self._can_offload:
            return False
        pool = self._pool if call.ignore_speed else self._pool.background
        try:
            done = await offload(self.source, self.target, ranges, pool)
        except CannotOffload:
            done = self._can_offload = False
        except OSError:  # making room failed, for one of the ranges; by itself, each says so
            done = False
        self._copied_range |= done
        return done

    async def _through_buffers(self, start: int, size: int) -> None:
        buf = new_buffer(min(BUFFER, size))
        for at in range(start, start + size, BUFFER):
            await breathe(at - start)
            part = buf[: start + size - at]
            try:
                await self.source.pread(at, part)
            except OSError as e:
                raise ReadFailed(e.errno, os.strerror(e.errno or errno.EIO)) from e
            await self.target.pwrite(at, part, self.write_flags)

    def _done(self, *pieces: Piece) -> None:
        if self.progress is not None:
            self.progress.done(_size(pieces))
        self._end(*pieces, good=True)

    def _end(self, *pieces: Piece, good: bool) -> None:
        for piece in pieces:
            self._in_flight -= piece.end - piece.start
            if not good:
                self.bitmap.mark(piece.start, min(piece.end, self.length) - piece.start)
            del self._pieces[piece]
            wake(piece.waiters)
        self.tell()

    def _conflict(self, start: int, end: int) -> Piece | None:
        return next((p for p in self._pieces if p.start < end and start < p.end), None)

    async def _pause(self, call: Call, nanoseconds: int) -> None:
        assert call.routine is not None
        cancel = self._clock.timer(nanoseconds, call.routine.enter)
        try:
            await call.routine.park()
        finally:
            cancel()


def _size(pieces: Iterable[Piece]) -> int:
    return sum(piece.end - piece.start for piece in pieces)


def is_fleecing(source: Edge, target: Edge) -> bool:
    """Tell whether the target is an overlay of the source: then readers may be watching."""
    node: Node[Any] | None = target.node
    while node is not None:
        if node is source.node:
            return True
        node = node.below.node if node.below is not None else None
    return False
