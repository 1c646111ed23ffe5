"""What is not about data: help, waiting, blkdebug's breakpoints, and ends of the program."""

import asyncio
import errno
import os
import signal
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.qemu_io.options import Options
from blockemu.qemu_io.refusals import NoBreakpoint, NoSuchCommand, SignalTooLarge
from blockemu.qemu_io.sizes import parse_milliseconds
from blockemu.qemu_io.table import IoCommand, find

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter

MOST_MILLISECONDS = (1 << 63) // 10**6
END_OF_HELP = "\nUse 'help commandname' for extended help.\n"


@runtime_checkable
class Breakable(Protocol):
    """A driver that can hold requests up; errors are OSError."""

    def set_break(self, event: str, tag: str) -> None:
        """Suspend the next request that comes by ``event``, and call it ``tag``."""

    def remove_break(self, tag: str) -> None:
        """Forget the rule for ``tag``, and let requests that it holds go on."""

    def resume_break(self, tag: str) -> None:
        """Let the request ``tag`` go on."""

    async def wait_break(self, tag: str) -> None:
        """Wait until a request is suspended as ``tag``."""


def _breakable(io: "Interpreter") -> Breakable:
    """Return the first node from the top that can (after bdrv_debug_breakpoint, block.c)."""
    node: Node[Any] | None = io.image.inserted
    while node is not None:
        if isinstance(node, Breakable):
            return node
        node = node.primary.node if node.primary is not None else None
    raise os_error(errno.ENOTSUP)


async def break_(io: "Interpreter", options: Options) -> int:
    """Set a breakpoint."""
    try:
        _breakable(io).set_break(*options.operands)
    except OSError as e:
        raise NoBreakpoint("set breakpoint", e) from None
    return 0


async def remove_break(io: "Interpreter", options: Options) -> int:
    """Remove a breakpoint."""
    try:
        _breakable(io).remove_break(options.operands[0])
    except OSError as e:
        raise NoBreakpoint(f"remove breakpoint {options.operands[0]}", e) from None
    return 0


async def resume(io: "Interpreter", options: Options) -> int:
    """Let a suspended request go on."""
    try:
        _breakable(io).resume_break(options.operands[0])
    except OSError as e:
        raise NoBreakpoint("resume request", e) from None
    return 0


async def wait_break(io: "Interpreter", options: Options) -> int:
    """Wait for a request to be suspended; where that cannot be, QEMU waits for ever."""
    try:
        await _breakable(io).wait_break(options.operands[0])
    except OSError as e:
        return -(e.errno or errno.EIO)
    return 0


async def help_(io: "Interpreter", options: Options) -> int:
    """List the commands, or one."""
    if not options.operands:
        io.print("".join(io.commands[name].help(name) for name in sorted(io.commands)))
        io.print(END_OF_HELP)
        return 0
    name = options.operands[0]
    command = find(name, io.commands)
    if command is None:
        raise NoSuchCommand(name)
    io.print(command.help(name))
    return 0


async def sleep(io: "Interpreter", options: Options) -> int:
    """Wait a number of milliseconds."""
    milliseconds = parse_milliseconds(options.operands[0])
    await io.clocks.realtime.sleep(min(milliseconds, MOST_MILLISECONDS) * 10**6)
    await asyncio.sleep(0)  # QEMU's main loop runs at least once
    return 0


async def abort(io: "Interpreter", options: Options) -> int:
    """Crash the program."""
    os.abort()


async def sigraise(io: "Interpreter", options: Options) -> int:
    """Send a signal to the program itself."""
    text = options.operands[0]
    number = io.size(text)
    if number > signal.NSIG:
        raise SignalTooLarge(text)
    io.output.flush()
    if 0 < number < signal.NSIG:
        signal.raise_signal(number)
    return 0


COMMANDS = (
    IoCommand(
        name="break",
        oneline="sets a breakpoint on event and tags the stopped request as tag",
        run=break_,
        least=2,
        most=2,
        arguments="event tag",
    ),
    IoCommand(
        name="remove_break",
        oneline="remove a breakpoint by tag",
        run=remove_break,
        least=1,
        most=1,
        arguments="tag",
    ),
    IoCommand(
        name="resume",
        oneline="resumes the request tagged as tag",
        run=resume,
        least=1,
        most=1,
        arguments="tag",
    ),
    IoCommand(
        name="wait_break",
        oneline="waits for the suspension of a request",
        run=wait_break,
        least=1,
        most=1,
        arguments="tag",
    ),
    IoCommand(
        name="help",
        alias="?",
        oneline="help for one or all commands",
        run=help_,
        most=1,
        arguments="[command]",
        needs_image=False,
    ),
    IoCommand(
        name="sleep",
        oneline="waits for the given value in milliseconds",
        run=sleep,
        least=1,
        most=1,
        needs_image=False,
    ),
    IoCommand(
        name="abort",
        oneline="simulate a program crash using abort(3)",
        run=abort,
        needs_image=False,
    ),
    IoCommand(
        name="sigraise",
        oneline="raises a signal",
        run=sigraise,
        least=1,
        most=1,
        arguments="signal",
        needs_image=False,
    ),
)
