"""``bench``: send many requests to an image and tell how long they took."""

import asyncio
import os
import re
from time import perf_counter
from typing import Final

from blockemu.backend import Backend
from blockemu.cache_modes import CACHE_MODES, CacheMode
from blockemu.programs.img.arguments import Syntax
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import WRITEBACK, Mode, Program
from blockemu.programs.img.refusals import OneImageExpected, Refusal
from blockemu.records import field, record

SYNTAX = Syntax(
    "hc:d:f:ni:o:qs:S:t:wU",
    {
        "help": "h",
        "flush-interval": ":",
        "image-opts": "",
        "pattern": ":",
        "no-drain": "",
        "force-share": "U",
    },
)
MOST: Final = 2**31 - 1
_NUMBER: Final = re.compile(r"[ \t-\r]*\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")


class BadNumber(Refusal):
    """(what)."""

    template = "Invalid {} specified"


AIO = ("threads", "io_uring", "native")  # the last that is asked for counts


class BadAio(Refusal):
    """(mode)."""

    template = "Invalid aio option: {}"


class BadMode(Refusal):
    """Of the cache; the other commands tell which."""

    template = "Invalid cache mode"


class FlushWithoutWrites(Refusal):
    """There would be nothing to flush."""

    template = "--flush-interval is only available in write tests"


class FlushTooOften(Refusal):
    """A queue that is never full tells nothing."""

    template = "Flush interval can't be smaller than depth"


class RequestFailed(Refusal):
    """(why)."""

    template = "Failed request: {}"


@record
class Wanted:
    """What the command line says; sizes and offsets are bytes."""

    count: int = 75000
    depth: int = 64
    offset: int = 0
    size: int = 4096
    step: int = 0
    pattern: int = 0
    interval: int = 0  # writes between two flushes; 0: none
    cache: CacheMode = WRITEBACK
    aio: str = "threads"
    fmt: str | None = None
    flags: set[str] = field(default_factory=set)

    @property
    def write(self) -> bool:
        """Whether to write; else to read."""
        return "w" in self.flags

    def take(self, program: Program, name: str, value: str) -> None:
        """Read one option."""
        match name:
            case "c":
                self.count = _plain("request count", value, MOST)
            case "d":
                self.depth = _plain("queue depth", value, MOST)
            case "pattern":
                self.pattern = _plain("pattern byte", value, 255)
            case "flush-interval":
                self.interval = _plain("flush interval", value, MOST)
            case "o":
                self.offset = number("offset", value, program.warn)
            case "s":
                self.size = number("buffer size", value, program.warn, 0, MOST)
            case "S":
                self.step = number("step_size", value, program.warn, 0, MOST)
            case "t":
                if value not in CACHE_MODES:
                    raise BadMode
                self.cache = CACHE_MODES[value]
            case "i" | "n":
                wanted = value if name == "i" else "native"
                if wanted not in AIO:
                    raise BadAio(value)
                self.aio = max(self.aio, wanted, key=AIO.index)
            case "f":
                self.fmt = value
            case _:
                self.flags.add(name)


def _plain(what: str, text: str, most: int) -> int:
    """Read a number as C's strtoul does, without any suffix."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadNumber(what)
    base, digits = next((b, d) for b, d in zip((16, 8, 10), match.groups(), strict=True) if d)
    if int(digits, base) > most:
        raise BadNumber(what)
    return int(digits, base)


async def run(program: Program, argv: list[str]) -> int:
    """Read from an image, or write to it with ``-w``."""
    wanted, names = Wanted(), []
    for name, value in program.options(SYNTAX, argv):
        if name:
            wanted.take(program, name, value)
        else:
            names.append(value)
    if len(names) != 1:
        raise OneImageExpected
    if wanted.interval and not wanted.write:
        raise FlushWithoutWrites
    if wanted.interval and wanted.interval < wanted.depth:
        raise FlushTooOften
    as_options = "image-opts" in wanted.flags
    has_file = not as_options or "file" in names[0]  # else there is none to have an option
    image = await program.open(
        names[0],
        wanted.fmt,
        Mode(write=wanted.write, cache=wanted.cache, force_share="U" in wanted.flags),
        image_opts=as_options,
        options={"file.aio": wanted.aio} if wanted.aio != "threads" and has_file else {},
    )
    step = wanted.step or wanted.size
    program.print(
        f"Sending {wanted.count} {'write' if wanted.write else 'read'} requests, {wanted.size} "
        f"bytes each, {wanted.depth} in parallel (starting at offset {wanted.offset}, "
        f"step size {step})\n"
    )
    if wanted.interval:
        program.print(f"Sending flush every {wanted.interval} requests\n")
    bench = Bench(image, wanted, step)
    begun = perf_counter()
    try:
        await bench.run()
    except OSError as e:
        raise RequestFailed(os.strerror(e.errno or 0)) from e
    program.print(f"Run completed in {perf_counter() - begun:3.3f} seconds.\n")
    return 0


class Bench:
    """Keeps requests under way.

    ``left`` are the requests that are not done, those under way among them.  After every so many a
    flush follows; requests wait for that unless they are not to.
    """

    def __init__(self, image: Backend, wanted: Wanted, step: int) -> None:
        self.image = image
        self.wanted = wanted
        self.step = step
        self.left = wanted.count
        self.in_flight = 0
        self.offset = wanted.offset
        self.drain = "no-drain" not in wanted.flags
        self._flushed = asyncio.Event()
        self._flushes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send all; OSError: one failed."""
        workers = min(self.wanted.depth, self.wanted.count)
        ends = await asyncio.gather(*(self._work() for _ in range(workers)), return_exceptions=True)
        for error in ends:
            if error is not None:
                raise error
        for flush in list(self._flushes):
            await flush

    async def _work(self) -> None:
        """Send one request after the other, from a buffer of its own."""
        size, image, length = self.wanted.size, self.image, self.image.length
        buffer = memoryview(bytearray([self.wanted.pattern]) * size)
        request = image.pwrite if self.wanted.write else image.pread
        while self.left > self.in_flight:
            self.in_flight += 1
            offset, self.offset = self.offset, (self.offset + self.step) % max(length, 1)
            try:
                await request(offset, buffer)
            except BaseException:
                self.left = 0  # the others shall send no more
                raise
            unsent = self.left - self.in_flight
            self.left -= 1
            self.in_flight -= 1
            if self.wanted.interval and unsent % self.wanted.interval == 0:
                await self._flush()

    async def _flush(self) -> None:
        """Flush once all that was sent is done, or else beside it (bench_cb, qemu-img.c)."""
        if not self.drain:
            task = asyncio.create_task(self.image.flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        elif self.in_flight:
            await self._flushed.wait()
        else:
            await self.image.flush()
            self._flushed.set()
            self._flushed = asyncio.Event()
