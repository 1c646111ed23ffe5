"""The copying of ``convert``: some workers read ahead, writes go in order unless told otherwise."""

import asyncio
import errno
import os
from collections.abc import Coroutine, Iterator
from contextlib import closing
from itertools import chain
from threading import Event
from typing import Any

import numpy as np

from blockemu.backend import Backend
from blockemu.buffers import keep_freed_memory, new_buffer
from blockemu.host.pool import Pool
from blockemu.node import Write
from blockemu.programs.img.convert_plan import CLEAR, COPY, Chunk, Plan
from blockemu.programs.img.program import Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.sparse import SECTOR, all_data, is_zero, pieces
from blockemu.records import field, record
from blockemu.route import Commit, Segments
from blockemu.throttling.ratelimit import RateLimit

ON_THREAD = 256 << 10  # bytes from which on a read goes to a thread
TOGETHER = 8 << 20  # bytes that are read and written in one go, from file to file
STEP = 2 << 20  # bytes of one call


@record
class Settings:
    """What the user wants of the copy.

    Sizes are in bytes; ``sparse`` is how many zeroes in a row are left out, 0 for none at all.
    ``cluster`` is what compressed writes are made of.
    """

    sparse: int = 8 * SECTOR
    workers: int = 8
    in_order: bool = True
    compressed: bool = False
    copy_range: bool = False
    salvage: bool = False
    reads_zero: bool = False  # whether the target does so where nothing is written
    buffer: int = 2 << 20
    alignment: int = SECTOR
    cluster: int = 0
    rate: int = 0  # bytes a second, 0 for no limit
    unknown: list[tuple[int, str]] = field(default_factory=list)  # (offset, warning)


class Failure(Exception):
    """The copy failed, and the user was told."""


@record
class _Turns:
    """Who writes next, where writes go in order: by the offset that is due."""

    due: int = 0
    failed: bool = False
    waiting: "dict[int, asyncio.Future[None]]" = field(default_factory=dict)

    async def wait(self, offset: int) -> None:
        while self.due != offset and not self.failed:
            self.waiting[offset] = asyncio.get_running_loop().create_future()
            await self.waiting[offset]

    def done(self, end: int) -> None:
        self.due = end
        next_ = self.waiting.pop(end, None)
        if next_ is not None:
            next_.set_result(None)

    def fail(self) -> None:
        self.failed = True
        for future in self.waiting.values():
            future.set_result(None)
        self.waiting.clear()


@record
class _Load:
    """What a worker carries at a time: the bytes of a chunk, or of some in a row.

    It is the same thread that reads and writes them: what it has read is in its processor's caches,
    and written by another the copy takes a quarter more processor time (``make bench``: convert).
    """

    chunks: list[Chunk]
    view: memoryview
    thread: Pool
    solid: bool = False  # whether it is known that no block is zero
    written: int = 0  # so many bytes, at least

    @property
    def start(self) -> int:
        """Where the bytes go."""
        return self.chunks[0].start

    @property
    def end(self) -> int:
        """Where the last chunk ends."""
        start, length, _ = self.chunks[-1]
        return start + length

    @property
    def unwritten(self) -> Chunk:
        """The first chunk that is not known to be written."""
        at = self.start + self.written
        return next((c for c in self.chunks if at < c.start + c.length), self.chunks[-1])

    def singly(self) -> "Iterator[_Load]":
        """Yield a load for each chunk."""
        for chunk in self.chunks:
            at = chunk.start - self.start
            yield _Load([chunk], self.view[at : at + chunk.length], self.thread)


class _Write:
    """A write on a thread: the next one waits there until it is over."""

    def __init__(self) -> None:
        self.over = Event()
        self.good = False


class Copier:
    """A copy from some images, one after the other, to one."""

    def __init__(
        self,
        program: Program,
        sources: list[Backend],
        target: Backend,
        settings: Settings,
        bar: Bar,
    ) -> None:
        self._program = program
        self._sources = [
            (sum(s.length for s in sources[:i]), source) for i, source in enumerate(sources)
        ]
        self._target = target
        self._settings = settings
        self._bar = bar
        self._turns = _Turns()
        self._last: _Write | None = None
        self._done = 0
        self._limit = RateLimit(program.emu.clocks.realtime)
        self._limit.set_speed(settings.rate)
        # What is looked at for zeroes at once, in sectors: not clusters, which may be smaller.
        self._block = 0 if settings.compressed else settings.alignment // SECTOR
        plain = not settings.compressed and not settings.rate
        self._can_place = plain and target.write_cache
        self._flags = Write.COMPRESSED if settings.compressed else 0

    async def run(self, plan: Plan) -> None:
        """Copy.

        Raises:
            Failure: something went wrong, and was reported.

        """
        keep_freed_memory()
        settings = self._settings
        everything = not settings.sparse
        self._total = plan.total(write_zeroes=everything)
        chunks = plan.chunks(settings.buffer, write_zeroes=everything)
        count, most = settings.workers, settings.buffer
        planned = all(source.route.read for _, source in self._sources)
        if planned and self._can_place and not settings.salvage:
            # One thread writes at a time, and there is no need to wait for anything else.
            count, most = min(count, len(os.sched_getaffinity(0)) + 1), max(most, TOGETHER)
        # What may not be readable goes chunk by chunk, as in QEMU: the user is told in that order.
        loads = _in_rows(chunks, 0 if settings.salvage else most)
        await asyncio.gather(*(self._work(loads, new_buffer(most)) for _ in range(count)))
        if self._turns.failed:
            raise Failure
        if settings.compressed:
            await self._target.pwrite(0, b"", self._flags)  # the file is to end with a sector

    async def _work(self, rows: Iterator[list[Chunk]], buffer: memoryview) -> None:
        with closing(Pool(1)) as thread:
            for row in rows:
                if self._turns.failed:
                    break
                for chunk in row:
                    self._begin(chunk)
                size = sum(chunk.length for chunk in row if self._is_copied(chunk))
                await self._carry(_Load(row, buffer[:size], thread))

    def _begin(self, chunk: Chunk) -> None:
        self._warn_again(chunk)
        if self._is_copied(chunk):
            self._done += chunk.length
            self._bar.set(100.0 * self._done / self._total)

    def _is_copied(self, chunk: Chunk) -> bool:
        """Tell whether a chunk goes through the buffer: zeroes do if there are to be no holes."""
        return chunk.kind == COPY or (chunk.kind == CLEAR and not self._settings.sparse)

    async def _carry(self, load: _Load) -> None:
        """Copy chunks as one if all of it is data, else one by one."""
        if len(load.chunks) == 1:
            await self._fill(load)
            return await self._store(load)
        try:
            await self._read(load)
        except OSError:  # which will be met again, and told of
            for each in load.singly():
                await self._fill(each)
                await self._store(each)
        else:
            for each in (load,) if load.solid else load.singly():
                await self._store(each)

    async def _store(self, load: _Load) -> None:
        """Write a load, in its turn if there are turns."""
        turns = self._turns
        if self._settings.in_order:
            await turns.wait(load.start)
        rest = None if turns.failed else await self._put(load)
        turns.done(load.end)
        if rest is not None:
            await self._finish(rest, load)

    def _warn_again(self, chunk: Chunk) -> None:
        """Tell of status that is not known where the copy gets to: QEMU asks a second time."""
        unknown = self._settings.unknown
        while unknown and unknown[0][0] < chunk.start + chunk.length:
            _, text = unknown.pop(0)
            if not self._program.quiet:
                self._program.warn(text)

    async def _fill(self, load: _Load) -> None:
        """Read what a chunk is to hold; report what goes wrong."""
        (chunk,) = load.chunks
        if chunk.kind == CLEAR:
            np.frombuffer(load.view, np.uint8).fill(0)
            return
        try:
            await self._read(load)
        except OSError as e:
            self._fail("reading", chunk, e)

    async def _put(self, load: _Load) -> Coroutine[Any, Any, None] | None:
        """Write a load, or return what is left to do of that once others have their turn.

        What goes wrong is reported.
        """
        chunk = load.chunks[0]
        try:
            if self._is_copied(chunk):
                return await self._write(load)
            clears = chunk.kind == CLEAR and not self._settings.reads_zero
            if clears and await self._is_written(load.thread):
                await self._clear(chunk.start, chunk.length)
        except OSError as e:
            self._fail("writing", load.unwritten, e)
        return None

    async def _finish(self, rest: Coroutine[Any, Any, None], load: _Load) -> None:
        try:
            await rest
        except OSError as e:
            self._fail("writing", load.unwritten, e)

    def _fail(self, doing: str, chunk: Chunk, error: OSError) -> None:
        why = os.strerror(error.errno or errno.EIO)
        self._program.complain(f"error while {doing} at byte {chunk.start}: {why}")
        self._turns.fail()

    # Reading

    async def _read(self, load: _Load) -> None:
        """Read, from one source after the other."""
        offset, view = load.start, load.view
        for begin, source in self._sources:
            start = max(offset, begin)
            end = min(offset + len(view), begin + source.length)
            if start < end:
                part = view[start - offset : end - offset]
                try:
                    await self._read_part(source, start - begin, part, load)
                except OSError:
                    if not self._settings.salvage:
                        raise
                    await self._salvage(source, start - begin, part)

    async def _read_part(self, source: Backend, offset: int, part: memoryview, load: _Load) -> None:
        """Read from one source: much at a time on a thread, since writes keep this one busy."""
        read = source.route.read if len(part) >= ON_THREAD else None
        segments = read(offset, len(part)) if read is not None else None
        if segments is None:
            await source.pread(offset, part)
            return
        at, block = load.start // SECTOR, self._block if len(part) == len(load.view) else 0
        load.solid = await load.thread.run(_read_segments, segments, part, at, block)

    async def _salvage(self, source: Backend, offset: int, view: memoryview) -> None:
        """Read sector by sector, with zeroes for those that cannot be read."""
        for at in range(0, len(view), SECTOR):
            part = view[at : at + SECTOR]
            try:
                await source.pread(offset + at, part)
            except OSError as e:
                part[:] = bytes(len(part))
                if not self._program.quiet:
                    why = os.strerror(e.errno or errno.EIO)
                    self._program.warn(f"error while reading offset {offset + at}: {why}")

    # Writing

    async def _write(self, load: _Load) -> Coroutine[Any, Any, None] | None:
        """Write what is not zero, and see that the rest reads as zeroes.

        If all of it is data that can go straight to a file, its place is settled and the writing
        itself is returned.
        """
        view, step = load.view, self._settings.buffer
        pieces = self._pieces(load)
        first = next(pieces)
        if first == (0, len(view), True) and len(view) >= ON_THREAD and self._can_place:
            placed = await self._place(load)
            if placed is not None:
                return placed
        if not await self._is_written(load.thread):
            return None
        for start, length, data in chain((first,), pieces):
            if not data:
                await self._clear(load.start + start, length)
                continue
            for at in range(start, start + length, step):
                part = view[at : min(at + step, start + length)]
                delay = self._limit.delay(len(part))
                if delay:
                    await asyncio.sleep(delay / 1e9)
                await self._target.pwrite(load.start + at, part, self._flags)
                load.written = at + len(part)
        return None

    async def _is_written(self, thread: Pool) -> bool:
        """Wait for what came before; tell whether it went well."""
        last = self._last
        if last is not None and not last.over.is_set():
            await thread.run(last.over.wait)
        return last is None or last.good

    async def _place(self, load: _Load) -> Coroutine[Any, Any, None] | None:
        try:
            segments, commit = await self._target.place([(load.start, len(load.view))])
        except NotImplementedError:
            self._can_place = False
            return None
        before, self._last = self._last, _Write()
        return self._write_placed(segments, commit, load, (before, self._last))

    async def _write_placed(
        self,
        segments: Segments,
        commit: Commit | None,
        load: _Load,
        writes: tuple[_Write | None, _Write],
    ) -> None:
        """Write on a thread, where others read meanwhile."""
        before, write = writes
        leaves = {leaf for leaf, _, _ in segments if leaf is not None}
        for leaf in leaves:
            leaf.recall()
            leaf.writing += 1
        try:
            await load.thread.run(_write_after, before, write, segments, load)
        finally:
            write.over.set()  # if it never began, too
            for leaf in leaves:
                leaf.writing -= 1
            if commit is not None:
                commit(write.good)

    def _pieces(self, load: _Load) -> Iterator[tuple[int, int, bool]]:
        settings, view = self._settings, load.view
        if load.solid or not settings.sparse:
            yield 0, len(view), True
        elif settings.compressed:
            yield from _clusters(view, settings.cluster)
        else:
            sectors = (settings.sparse, load.start, settings.alignment)
            least, at, alignment = (value // SECTOR for value in sectors)
            for start, count, data in pieces(view, least, at, alignment):
                yield start * SECTOR, count * SECTOR, data

    async def _clear(self, offset: int, length: int) -> None:
        if not self._settings.reads_zero:
            await self._target.write_zeroes(offset, length, Write.MAY_UNMAP)


def _read_segments(segments: Segments, view: memoryview, sector: int, block: int) -> bool:
    """Read, and see whether there is data everywhere (``all_data``) unless ``block`` is 0."""
    at = 0
    for leaf, host, length in segments:
        part = view[at : at + length]
        if leaf is None:
            np.frombuffer(part, np.uint8).fill(0)
        else:
            leaf.read(host, part)
        at += length
    return bool(block) and all_data(view, sector, block)


def _write_after(before: _Write | None, write: _Write, segments: Segments, load: _Load) -> None:
    """Write when the write before is over and unless it failed, as if there were no threads.

    Linux lets only one write to a file, anyway, and has others spin (``make bench``: convert).
    """
    try:
        if before is not None:
            before.over.wait()
            if not before.good:
                return
        for leaf, host, length in segments:
            assert leaf is not None
            for at in range(0, length, STEP):
                part = load.view[load.written :][: min(STEP, length - at)]
                leaf.write_now(host + at, part)
                load.written += len(part)
        write.good = True
    finally:
        write.over.set()  # here, since the loop's thread may be waiting for the next one's


def _in_rows(chunks: Iterator[Chunk], most: int) -> Iterator[list[Chunk]]:
    """Yield chunks, and together those to be copied that follow one another, up to a length."""
    row: list[Chunk] = []
    left = 0
    for chunk in chunks:
        if row and (chunk.kind != COPY or row[0].kind != COPY or chunk.length > left):
            yield row
            row = []
        if not row:
            left = most
        row.append(chunk)
        left -= chunk.length
    if row:
        yield row


def _clusters(view: memoryview, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of clusters, zero as a whole or not."""
    start = 0
    zero = is_zero(view[:size])
    for at in range(size, len(view), size):
        if is_zero(view[at : at + size]) != zero:
            yield start, at - start, not zero
            start, zero = at, not zero
    yield start, len(view) - start, not zero
