"""The copying of ``convert``: some workers read ahead, writes go in order unless told otherwise."""

import asyncio
import errno
import os
from collections.abc import Coroutine, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from blockemu.backend import Backend
from blockemu.buffers import keep_freed_memory, new_buffer
from blockemu.img.convert_plan import CLEAR, COPY, Chunk, Plan
from blockemu.img.program import Program
from blockemu.img.progress import Bar
from blockemu.img.sparse import SECTOR, is_zero, pieces
from blockemu.node import Write
from blockemu.ratelimit import RateLimit
from blockemu.records import field, record
from blockemu.route import Commit, Segments
from blockemu.sysfile import FileLeaf

ON_THREAD = 256 << 10  # bytes from which on a read goes to a thread


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
        self._done = 0
        self._limit = RateLimit(program.emu.clocks.realtime)
        self._limit.set_speed(settings.rate)
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
        workers = [self._work(chunks) for _ in range(settings.workers)]
        await asyncio.gather(*workers)
        if self._turns.failed:
            raise Failure
        if settings.compressed:
            await self._target.pwrite(0, b"", self._flags)  # the file is to end with a sector

    async def _work(self, chunks: Iterator[Chunk]) -> None:
        settings, turns = self._settings, self._turns
        buffer = new_buffer(settings.buffer)
        for chunk in chunks:
            if turns.failed:
                return
            self._warn_again(chunk)
            kind = chunk.kind
            if kind == CLEAR and not settings.sparse:
                kind = COPY
            if kind == COPY:
                self._done += chunk.length
                self._bar.set(100.0 * self._done / self._total)
            view = buffer[: chunk.length] if kind == COPY else buffer[:0]
            await self._fill(chunk, view)
            if settings.in_order:
                await turns.wait(chunk.start)
            rest = None if turns.failed else await self._put(chunk, kind, view)
            turns.done(chunk.start + chunk.length)
            if rest is not None:
                await self._finish(rest, chunk)

    def _warn_again(self, chunk: Chunk) -> None:
        """Tell of status that is not known where the copy gets to: QEMU asks a second time."""
        unknown = self._settings.unknown
        while unknown and unknown[0][0] < chunk.start + chunk.length:
            _, text = unknown.pop(0)
            if not self._program.quiet:
                self._program.warn(text)

    async def _fill(self, chunk: Chunk, view: memoryview) -> None:
        """Read what a chunk is to hold; report what goes wrong."""
        if chunk.kind == CLEAR:
            np.frombuffer(view, np.uint8).fill(0)
            return
        try:
            await self._read(chunk.start, view)
        except OSError as e:
            self._fail("reading", chunk, e)

    async def _put(
        self, chunk: Chunk, kind: int, view: memoryview
    ) -> Coroutine[Any, Any, None] | None:
        """Write a chunk, or return what is left to do of that once others have their turn.

        What goes wrong is reported.
        """
        try:
            if kind == COPY:
                return await self._write(chunk.start, view)
            if kind == CLEAR:
                await self._clear(chunk.start, chunk.length)
        except OSError as e:
            self._fail("writing", chunk, e)
        return None

    async def _finish(self, rest: Coroutine[Any, Any, None], chunk: Chunk) -> None:
        try:
            await rest
        except OSError as e:
            self._fail("writing", chunk, e)

    def _fail(self, doing: str, chunk: Chunk, error: OSError) -> None:
        why = os.strerror(error.errno or errno.EIO)
        self._program.complain(f"error while {doing} at byte {chunk.start}: {why}")
        self._turns.fail()

    # Reading

    async def _read(self, offset: int, view: memoryview) -> None:
        """Read, from one source after the other."""
        for begin, source in self._sources:
            start = max(offset, begin)
            end = min(offset + len(view), begin + source.length)
            if start < end:
                part = view[start - offset : end - offset]
                try:
                    await self._read_part(source, start - begin, part)
                except OSError:
                    if not self._settings.salvage:
                        raise
                    await self._salvage(source, start - begin, part)

    async def _read_part(self, source: Backend, offset: int, view: memoryview) -> None:
        """Read from one source: much at a time on a thread, since writes keep this one busy."""
        read = source.route.read if len(view) >= ON_THREAD else None
        segments = read(offset, len(view)) if read is not None else None
        if segments is None:
            await source.pread(offset, view)
        else:
            await self._program.emu.pool.run(_read_segments, segments, view)

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

    async def _write(self, offset: int, view: memoryview) -> Coroutine[Any, Any, None] | None:
        """Write what is not zero, and see that the rest reads as zeroes.

        If all of it is data that can go straight to a file, its place is settled and the writing
        itself is returned.
        """
        for start, length, data in self._pieces(offset, view):
            if data and length == len(view) >= ON_THREAD and self._can_place:
                placed = await self._place(offset, view)
                if placed is not None:
                    return placed
            if not data:
                await self._clear(offset + start, length)
                continue
            delay = self._limit.delay(length)
            if delay:
                await asyncio.sleep(delay / 1e9)
            await self._target.pwrite(offset + start, view[start : start + length], self._flags)

        return None

    async def _place(self, offset: int, view: memoryview) -> Coroutine[Any, Any, None] | None:
        try:
            segments, commit = await self._target.place([(offset, len(view))])
        except NotImplementedError:
            self._can_place = False
            return None
        return self._write_placed(segments, commit, view)

    async def _write_placed(
        self, segments: Segments, commit: Commit | None, view: memoryview
    ) -> None:
        """Write on a thread, so that several go on at once."""
        good = False
        leaves = {leaf for leaf, _, _ in segments if leaf is not None}
        for leaf in leaves:
            leaf.recall()
            leaf.writing += 1
        try:
            await self._program.emu.pool.run(_write_segments, segments, view)
            good = True
        finally:
            for leaf in leaves:
                leaf.writing -= 1
            if commit is not None:
                commit(good)

    def _pieces(self, offset: int, view: memoryview) -> Iterator[tuple[int, int, bool]]:
        settings = self._settings
        if not settings.sparse:
            yield 0, len(view), True
        elif settings.compressed:
            yield from _clusters(view, settings.cluster)
        else:
            sectors = (settings.sparse, offset, settings.alignment)
            least, at, alignment = (value // SECTOR for value in sectors)
            for start, count, data in pieces(view, least, at, alignment):
                yield start * SECTOR, count * SECTOR, data

    async def _clear(self, offset: int, length: int) -> None:
        if not self._settings.reads_zero:
            await self._target.write_zeroes(offset, length, Write.MAY_UNMAP)


def _read_segments(segments: Segments, view: memoryview) -> None:
    at = 0
    for leaf, host, length in segments:
        part = view[at : at + length]
        if leaf is None:
            np.frombuffer(part, np.uint8).fill(0)
        else:
            leaf.read(host, part)
        at += length


def _write_segments(segments: Segments, view: memoryview) -> None:
    """Write when no other thread writes there: see ``offload`` (``make bench``: convert)."""
    first = segments[0][0]
    with first.written if isinstance(first, FileLeaf) else nullcontext():
        at = 0
        for leaf, host, length in segments:
            assert leaf is not None
            leaf.write_now(host, view[at : at + length])
            at += length


def _clusters(view: memoryview, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of clusters, zero as a whole or not."""
    start = 0
    zero = is_zero(view[:size])
    for at in range(size, len(view), size):
        if is_zero(view[at : at + size]) != zero:
            yield start, at - start, not zero
            start, zero = at, not zero
    yield start, len(view) - start, not zero
