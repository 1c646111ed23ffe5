"""``compare``: whether two images hold the same."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from blockemu.backend import Backend
from blockemu.buffers import new_buffer
from blockemu.cache_modes import CACHE_MODES
from blockemu.chain_map import Mapped, map_chain
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED, I64, NOWHERE, U8, ZERO
from blockemu.images.distinct import distinct
from blockemu.images.lengths import lengths
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.refusals import BadSourceCache, Misused, Refusal, TwoImagesExpected
from blockemu.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

SYNTAX = Syntax("hf:F:T:pqsU", IMAGE | {"force-share": "U"})
BUFFER = 2 << 20  # bytes compared at once
SECTOR = 512
IDENTICAL, DIFFERENT, ERROR, NO_STATUS, NO_READ = 0, 1, 2, 3, 4  # exit statuses
# Bytes of both images whose status is found out in one go: what one L2 table of QEMU's default size
# covers, since that is how often the progress changes there.
STEP = 512 << 20


class CacheRefused(BadSourceCache):
    """(mode)."""

    status = ERROR


class ReadFailed(Refusal):
    """(offset, name, why)."""

    status = NO_READ
    template = "Error while reading offset {} of {}: {}"


class StatusFailed(Refusal):
    """(name)."""

    status = NO_STATUS
    template = "Sector allocation test failed for {}"


@record(frozen=True)
class Side:
    """One of the two images."""

    name: str
    image: Backend

    async def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        try:
            await self.image.pread(offset, view)
        except OSError as e:
            raise ReadFailed(offset, self.name, os.strerror(e.errno or errno.EIO)) from e

    async def status(self, offset: int, end: int) -> Mapped:
        """Describe a range."""
        try:
            parts = [part async for part in map_chain(self.image, offset, end - offset)]
        except OSError as e:
            raise StatusFailed(self.name) from e
        return Mapped.concat(parts).merged(ignore_host=True)


class Piece(NamedTuple):
    """A stretch that is alike in both images."""

    start: int
    length: int
    status: int
    other: int


class Different(Exception):
    """(words): how the images differ."""


async def run(program: Program, argv: list[str]) -> int:
    """Compare two images, the longer one's end with zeroes."""
    given, names = _given(program, argv)
    program.quiet = "q" in given
    if len(names) != 2:
        raise TwoImagesExpected
    bar = program.bar(2.0, shown="p" in given)
    try:
        return await _compare(program, names, given, bar)
    finally:
        bar.end()


def _given(program: Program, argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Read the command line; an object that cannot be made is an error of its own kind here."""
    try:
        return program.given(SYNTAX, argv)
    except Misused:
        raise
    except QmpError as e:
        refusal = Refusal(str(e), hint=e.hint)
        refusal.status = ERROR
        raise refusal from e


async def _compare(program: Program, names: list[str], given: dict[str, str], bar: Bar) -> int:
    cache = given.get("T", "writeback")
    if cache not in CACHE_MODES:
        raise CacheRefused(cache)
    mode = Mode(force_share="U" in given, cache=CACHE_MODES[cache])
    sides = []
    for name, letter in zip(names, "fF", strict=True):
        try:
            image = await program.open(
                name, given.get(letter), mode, image_opts="image-opts" in given
            )
        except Refusal as e:
            e.status = ERROR
            raise
        sides.append(Side(name, image))
    try:
        await Comparison(program, sides[0], sides[1], bar, strict="s" in given).run()
    except Different as e:
        program.tell(f"{e}\n")
        return DIFFERENT
    program.tell("Images are identical.\n")
    return IDENTICAL


class Comparison:
    """Two images being compared."""

    def __init__(self, program: Program, one: Side, other: Side, bar: Bar, *, strict: bool) -> None:
        self._program = program
        self._one, self._other = one, other
        self._bar = bar
        self._strict = strict
        self._buffers = new_buffer(BUFFER), new_buffer(BUFFER)

    async def run(self) -> None:
        """Compare; raises Different."""
        sizes = self._one.image.length, self._other.image.length
        self._whole = max(sizes)
        self._bar.add(0)
        if self._strict and sizes[0] != sizes[1]:
            raise Different("Strict mode: Image size mismatch!")
        async for piece in self._pieces(min(sizes)):
            await self._compare(piece)
        if sizes[0] != sizes[1]:
            self._program.tell("Warning: Image size mismatch!\n")
            await self._check_rest(self._one if sizes[0] > sizes[1] else self._other, *sizes)

    async def _pieces(self, end: int) -> AsyncIterator[Piece]:
        for start in range(0, end, STEP):
            stop = min(start + STEP, end)
            one = await self._one.status(start, stop)
            other = await self._other.status(start, stop)
            points = distinct(np.concatenate((one.start, other.start)))
            columns = (
                points,
                lengths(points, stop),
                _comparable(one, points),
                _comparable(other, points),
            )
            rows = zip(*(column.tolist() for column in columns), strict=True)
            for piece in map(Piece._make, rows):
                if self._strict and piece.status != piece.other:
                    raise Different(f"Strict mode: Offset {piece.start} block status mismatch!")
                yield piece

    async def _compare(self, piece: Piece) -> None:
        first, second = piece.status & ALLOCATED, piece.other & ALLOCATED
        if piece.status & piece.other & ZERO or not (first or second):
            self._proceed(piece.length)
            return
        for offset in range(piece.start, piece.start + piece.length, BUFFER):
            size = min(BUFFER, piece.start + piece.length - offset)
            if first and second:
                await self._compare_data(offset, size)
            else:
                await self._check_empty(self._one if first else self._other, offset, size)
            self._proceed(size)

    async def _compare_data(self, offset: int, size: int) -> None:
        views = [buffer[:size] for buffer in self._buffers]
        await self._one.read(offset, views[0])
        await self._other.read(offset, views[1])
        if views[0] != views[1]:
            one, other = (np.frombuffer(view, np.uint8) for view in views)
            raise _mismatch(offset, one != other)

    async def _check_rest(self, side: Side, *sizes: int) -> None:
        """See that what only one image has is empty."""
        for start in range(min(sizes), max(sizes), STEP):
            stop = min(start + STEP, max(sizes))
            runs = await side.status(start, stop)
            for at, length, status in zip(runs.start, runs.length, runs.status, strict=True):
                await self._check_run(side, int(at), int(length), int(status))

    async def _check_run(self, side: Side, start: int, length: int, status: int) -> None:
        if status & (ALLOCATED | ZERO) != ALLOCATED:
            self._proceed(length)
            return
        for offset in range(start, start + length, BUFFER):
            size = min(BUFFER, start + length - offset)
            await self._check_empty(side, offset, size)
            self._proceed(size)

    async def _check_empty(self, side: Side, offset: int, size: int) -> None:
        view = self._buffers[0][:size]
        await side.read(offset, view)
        data = np.frombuffer(view, np.uint8)
        if data.any():
            raise _mismatch(offset, data != 0)

    def _proceed(self, size: int) -> None:
        self._bar.add(size / self._whole * 100)


def _comparable(runs: Mapped, points: I64) -> U8:
    """Return the status at some points, with a flag more for what has a place in the host."""
    status, host, _ = runs.at(points)
    return np.where(host == NOWHERE, status, status | np.uint8(8))


def _mismatch(offset: int, wrong: NDArray[np.bool_]) -> Different:
    at = offset + int(wrong.argmax()) // SECTOR * SECTOR
    return Different(f"Content mismatch at offset {at}!")
