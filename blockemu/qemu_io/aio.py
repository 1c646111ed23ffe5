"""Requests that nobody awaits: aio_read and aio_write, and aio_flush, which awaits them all."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from blockemu.eager import start
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.qemu_io.fills import READ_FILL, WRITE_FILL, filled, total_length
from blockemu.qemu_io.options import Options, Warn
from blockemu.qemu_io.refusals import Failed, InvalidRequest, NeedsZero, OneLengthOnly, Refusal
from blockemu.qemu_io.report import report
from blockemu.qemu_io.requests import finish_read, write_flags
from blockemu.qemu_io.sizes import parse_pattern
from blockemu.qemu_io.table import ANY, VECTORED, IoCommand
from blockemu.stats import Kind, Measured

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter


def invalid(kind: Kind) -> Callable[[str, Warn], None]:
    """Return what makes nothing of the command as soon as ``-i`` is seen."""

    def refuse(_value: str, _warn: Warn) -> None:
        raise InvalidRequest(kind)

    return refuse


def _length(io: "Interpreter", words: list[str], kind: Kind) -> int:
    """Add up the lengths of a request; one that cannot be made is accounted too."""
    try:
        return total_length(io, words)
    except Refusal:
        io.image.stats.invalid(kind, io.clocks)
        raise


async def aio_read(io: "Interpreter", options: Options) -> int:
    """Begin to read; verify, show and report when it is done."""
    offset = io.size(options.operands[0])
    count = _length(io, options.operands[1:], Kind.READ)
    buf = bytearray()
    begun = io.now()
    measured = io.image.stats.begin(Kind.READ, count, io.clocks)

    async def request() -> None:
        io.image.check(offset, count)
        buf.extend(filled(count, READ_FILL))
        await io.image.pread(offset, buf)

    def done() -> None:
        finish_read(io, options, offset, buf, io.now() - begun, (0, count))

    submit(io, request(), "readv", done, measured)
    return 0


async def aio_write(io: "Interpreter", options: Options) -> int:
    """Begin to write; report when it is done."""
    zero = "z" in options
    if zero and len(options.operands) > 2:
        raise OneLengthOnly
    if "u" in options and not zero:
        raise NeedsZero("-u")
    offset = io.size(options.operands[0])
    backend, flags = io.image, write_flags(options)
    words = options.operands[1:]
    count = io.size(words[0]) if zero else _length(io, words, Kind.WRITE)
    begun = 0 if zero else io.now()  # QEMU takes no time of a zero write, so it began with the host
    measured = None if zero else backend.stats.begin(Kind.WRITE, count, io.clocks)

    async def request() -> None:
        if zero:
            await backend.write_zeroes(offset, count, flags)
            return
        backend.check(offset, count)
        await backend.pwrite(offset, filled(count, options.get("P", WRITE_FILL)), flags)

    def done() -> None:
        if "q" not in options:
            elapsed = io.now() - begun
            io.print(report("wrote", elapsed, offset, count, count, machine="C" in options))

    submit(io, request(), "aio_write", done, measured)
    return 0


def submit(
    io: "Interpreter",
    request: Coroutine[Any, Any, None],
    what: str,
    done: Callable[[], None],
    measured: Measured | None,
) -> None:
    """Start a request at once, so that requests enter the graph in the order of their commands.

    What it has to say comes in a later turn of the loop at the earliest.
    """
    failures: list[OSError] = []

    async def caught() -> None:
        try:
            await request
        except NotImplementedError:
            failures.append(os_error(errno.ENOTSUP))
        except OSError as e:
            failures.append(e)

    async def finish(rest: "asyncio.Task[None] | None") -> None:
        if rest is not None:
            await rest
        if measured is not None:
            (measured.failed if failures else measured.done)()
        if failures:
            io.show(Failed(what, failures[0]))
        else:
            done()

    task = asyncio.get_running_loop().create_task(finish(start(caught())))
    for tasks in (io.tasks, io.own):
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def aio_flush(io: "Interpreter", options: Options) -> int:
    """Await all that has been begun."""
    measured = io.image.stats.begin(Kind.FLUSH, 0, io.clocks)
    while io.tasks:
        await asyncio.wait(io.tasks)
    measured.done()
    return 0


COMMANDS = (
    IoCommand(
        name="aio_read",
        oneline="asynchronously reads a number of bytes",
        run=aio_read,
        least=2,
        most=ANY,
        arguments="[-Ciqv] [-P pattern] off len [len..]",
        letters="CP:iqv",
        converters={"P": parse_pattern, "i": invalid(Kind.READ)},
        operands=VECTORED,
    ),
    IoCommand(
        name="aio_write",
        oneline="asynchronously writes a number of bytes",
        run=aio_write,
        perm=Perm.WRITE,
        least=2,
        most=ANY,
        arguments="[-Cfiquz] [-P pattern] off len [len..]",
        letters="CfiqP:uz",
        converters={"P": parse_pattern, "i": invalid(Kind.WRITE)},
        operands=VECTORED,
    ),
    IoCommand(name="aio_flush", oneline="completes all outstanding aio requests", run=aio_flush),
)
