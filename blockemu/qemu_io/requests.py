"""Requests that are awaited: read, write, their vectored forms, discard and flush."""

import errno
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from blockemu.node import Write
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.qemu_io.fills import READ_FILL, WRITE_FILL, filled, from_file, matches, total_length
from blockemu.qemu_io.options import Options
from blockemu.qemu_io.refusals import (
    MAX_REQUEST,
    Conflict,
    Failed,
    LengthTooLarge,
    NeedsZero,
    NotSectorAligned,
    OnlyOneFill,
    PatternBeyondRead,
    WriteTooLarge,
)
from blockemu.qemu_io.report import dump, report
from blockemu.qemu_io.sizes import parse_pattern, parse_size
from blockemu.qemu_io.table import ANY, VECTORED, IoCommand
from blockemu.qemu_io.unusual import load_state, save_state

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter

SECTOR = 512
MISMATCH = "Pattern verification failed at offset {}, {} bytes\n"
WRITE_FLAGS = {"f": Write.FUA, "n": Write.NO_FALLBACK, "u": Write.MAY_UNMAP}


def write_flags(options: Options) -> int:
    """Return the flags that options ask for."""
    return sum(flag for letter, flag in WRITE_FLAGS.items() if letter in options)


async def timed(io: "Interpreter", what: str, request: Awaitable[None]) -> int:
    """Await a request and return how long it took, in nanoseconds.

    Raises:
        Failed: the request did.

    """
    begun = io.now()
    try:
        await request
    except NotImplementedError:
        raise Failed(what, os_error(errno.ENOTSUP)) from None
    except OSError as e:
        raise Failed(what, e) from None
    return io.now() - begun


async def read(io: "Interpreter", options: Options) -> int:
    """Read, and maybe verify and show what came."""
    offset, count = io.size(options.operands[0]), io.size(options.operands[1])
    if count > MAX_REQUEST:
        raise LengthTooLarge(options.operands[1])
    if "P" not in options and ("l" in options or "s" in options):
        raise READ.usage()
    start = options.get("s", 0)
    length = options.get("l", count - start)
    if length < 0 or start + length > count:
        raise PatternBeyondRead
    if "b" in options:
        check_aligned(offset, count)
    if "b" not in options:
        check_bounds(io, "read", offset, count)
    buf = filled(count, READ_FILL)
    request = load_state(io.image, offset, buf) if "b" in options else io.image.pread(offset, buf)
    elapsed = await timed(io, "read", request)
    return finish_read(io, options, offset, buf, elapsed, (start, length))


async def readv(io: "Interpreter", options: Options) -> int:
    """Read as with several buffers."""
    offset = io.size(options.operands[0])
    count = total_length(io, options.operands[1:])
    check_bounds(io, "readv", offset, count)
    buf = filled(count, READ_FILL)
    elapsed = await timed(io, "readv", io.image.pread(offset, buf))
    return finish_read(io, options, offset, buf, elapsed, (0, count))


def check_bounds(io: "Interpreter", what: str, offset: int, count: int) -> None:
    """Fail a request before there is a buffer, which may be huge for nothing."""
    try:
        io.image.check(offset, count)
    except OSError as e:
        raise Failed(what, e) from None


def finish_read(
    io: "Interpreter",
    options: Options,
    offset: int,
    buf: bytearray,
    elapsed: int,
    verify: tuple[int, int],
) -> int:
    """Verify a part of what was read, show and report it; return the command's result."""
    result = 0
    if "P" in options and not matches(buf, options.get("P"), *verify):
        io.print(MISMATCH.format(offset + verify[0], verify[1]))
        result = -errno.EINVAL
    if "q" in options:
        return result
    if "v" in options:
        io.print(dump(buf, offset))
    count = len(buf)
    io.print(report("read", elapsed, offset, count, count, machine="C" in options))
    return result


async def write(io: "Interpreter", options: Options) -> int:
    """Write a pattern, zeroes or a file's contents."""
    _check_write(options)
    text = options.operands[1]
    offset, count = io.size(options.operands[0]), io.size(text)
    if count > MAX_REQUEST and "n" not in options:
        raise WriteTooLarge(text)
    if "b" in options or "c" in options:
        check_aligned(offset, count)
    elapsed = await timed(io, "write", _write(io, options, offset, count))
    if "q" not in options:
        io.print(report("wrote", elapsed, offset, count, count, machine="C" in options))
    return 0


def _check_write(options: Options) -> None:
    if "b" in options and "z" in options:
        raise Conflict("-b and -z")
    if "f" in options and ("b" in options or "c" in options):
        raise Conflict("-f and -b or -c")
    for letter in "nu":
        if letter in options and "z" not in options:
            raise NeedsZero(f"-{letter}")
    if sum(letter in options for letter in "zPs") > 1:
        raise OnlyOneFill


def _write(io: "Interpreter", options: Options, offset: int, count: int) -> Awaitable[None]:
    """Return the request, its buffer made and filled already."""
    backend, flags = io.image, write_flags(options)
    if "z" in options:
        return backend.write_zeroes(offset, count, flags)
    data: bytes | bytearray
    if "s" in options:
        data = from_file(options.get("s"), count)
    else:
        if "b" not in options:
            check_bounds(io, "write", offset, count)
        data = filled(count, options.get("P", WRITE_FILL))
    if "b" in options:
        return save_state(backend, offset, data)
    if "c" in options:
        flags = Write.COMPRESSED
    return backend.pwrite(offset, data, flags)


async def writev(io: "Interpreter", options: Options) -> int:
    """Write as with several buffers."""
    offset = io.size(options.operands[0])
    count = total_length(io, options.operands[1:])
    check_bounds(io, "writev", offset, count)
    data = filled(count, options.get("P", WRITE_FILL))
    elapsed = await timed(io, "writev", io.image.pwrite(offset, data, write_flags(options)))
    if "q" not in options:
        io.print(report("wrote", elapsed, offset, count, count, machine="C" in options))
    return 0


async def discard(io: "Interpreter", options: Options) -> int:
    """Discard a range."""
    offset, count = io.size(options.operands[0]), io.size(options.operands[1])
    if count > MAX_REQUEST:
        raise LengthTooLarge(options.operands[1])
    elapsed = await timed(io, "discard", io.image.discard(offset, count))
    if "q" not in options:
        io.print(report("discard", elapsed, offset, count, count, machine="C" in options))
    return 0


async def flush(io: "Interpreter", options: Options) -> int:
    """Flush, silently even if that fails."""
    if io.image.inserted is None:
        return -errno.ENOMEDIUM
    try:
        await io.image.flush()
    except OSError as e:
        return -(e.errno or errno.EIO)
    return 0


def check_aligned(offset: int, count: int) -> None:
    """Raise NotSectorAligned unless both are whole sectors."""
    for value, which in ((offset, "offset"), (count, "count")):
        if value % SECTOR:
            raise NotSectorAligned(value, which)


READ = IoCommand(
    name="read",
    alias="r",
    oneline="reads a number of bytes at a specified offset",
    run=read,
    least=2,
    most=ANY,
    arguments="[-abCqv] [-P pattern [-s off] [-l len]] off len",
    letters="bCl:pP:qs:v",
    converters={"l": parse_size, "P": parse_pattern, "s": parse_size},
    operands=range(2, 3),
)
COMMANDS = (
    READ,
    IoCommand(
        name="readv",
        oneline="reads a number of bytes at a specified offset",
        run=readv,
        least=2,
        most=ANY,
        arguments="[-Cqv] [-P pattern] off len [len..]",
        letters="CP:qv",
        converters={"P": parse_pattern},
        operands=VECTORED,
    ),
    IoCommand(
        name="write",
        alias="w",
        oneline="writes a number of bytes at a specified offset",
        run=write,
        perm=Perm.WRITE,
        least=2,
        most=ANY,
        arguments="[-bcCfnquz] [-P pattern | -s source_file] off len",
        letters="bcCfnpP:qs:uz",
        converters={"P": parse_pattern},
        operands=range(2, 3),
    ),
    IoCommand(
        name="writev",
        oneline="writes a number of bytes at a specified offset",
        run=writev,
        perm=Perm.WRITE,
        least=2,
        most=ANY,
        arguments="[-Cfq] [-P pattern] off len [len..]",
        letters="CfqP:",
        converters={"P": parse_pattern},
        operands=VECTORED,
    ),
    IoCommand(
        name="discard",
        alias="d",
        oneline="discards a number of bytes at a specified offset",
        run=discard,
        perm=Perm.WRITE,
        least=2,
        most=ANY,
        arguments="[-Cq] off len",
        letters="Cq",
        operands=range(2, 3),
    ),
    IoCommand(name="flush", alias="f", oneline="flush all in-core file state to disk", run=flush),
)
