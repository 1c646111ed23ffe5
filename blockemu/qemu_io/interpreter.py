"""Running lines of qemu-io's language on one backend."""

import asyncio
import errno
from collections.abc import Callable, Mapping

from blockemu.backend import Backend
from blockemu.clocks import Clocks
from blockemu.errors import QmpError, ReadOnlyNode
from blockemu.graph import Graph
from blockemu.perm import Perm
from blockemu.permissions import want, wanted
from blockemu.qemu_io.commands import COMMANDS
from blockemu.qemu_io.refusals import (
    BadOption,
    InvalidRequest,
    NoFileOpen,
    Refusal,
    UnknownCommand,
)
from blockemu.qemu_io.sizes import parse_size
from blockemu.qemu_io.table import IoCommand, find
from blockemu.records import record


@record(frozen=True)
class Output:
    """Where text goes: standard output, standard error, and error reports (whole lines each).

    ``tell`` is for what a monitor is told, where there is one, and not standard output.
    """

    out: Callable[[str], None]
    err: Callable[[str], None]
    report: Callable[[str], None]
    flush: Callable[[], None] = lambda: None  # if standard output is held back
    tell: Callable[[str], None] | None = None


class Interpreter:
    """Runs commands on ``backend``, which may be None for those that need no image.

    ``tasks`` holds the requests of ``aio_read`` and ``aio_write`` that are under way; those of many
    interpreters may share it, as ``aio_flush`` awaits them all.  ``own`` are this one's.
    """

    def __init__(
        self,
        backend: Backend | None,
        output: Output,
        *,
        graph: Graph,
        clocks: Clocks,
        tasks: "set[asyncio.Task[None]]",
        commands: Mapping[str, IoCommand] = COMMANDS,
    ) -> None:
        self.backend = backend
        self.output = output
        self.graph = graph
        self.clocks = clocks
        self.tasks = tasks
        self.own: set[asyncio.Task[None]] = set()
        self.commands = commands

    async def run(self, line: str) -> int:
        """Run one line; return 0 or a negative errno."""
        name, *arguments = [word for word in line.split(" ") if word] or [""]
        if not name:
            return 0
        try:
            command = find(name, self.commands)
            if command is None:
                raise UnknownCommand(name)
            return await self._run(command, name, arguments)
        except InvalidRequest as e:
            self.image.stats.invalid(e.kind, self.clocks)
            self.show(e)
            return e.code
        except Refusal as e:
            self.show(e)
            return e.code

    async def _run(self, command: IoCommand, name: str, arguments: list[str]) -> int:
        if command.needs_image and self.backend is None:
            raise NoFileOpen
        command.check_count(name, len(arguments))
        try:
            self._permit(command.perm)
        except QmpError as e:
            self.report_error(e)
            return -(errno.EACCES if isinstance(e, ReadOnlyNode) else errno.EPERM)
        try:
            options = command.options(name, arguments, self.warn)
        except BadOption as e:
            self.show(e)
            raise command.usage() from None
        return await command.run(self, options)

    def _permit(self, perm: Perm) -> None:
        """Ask for what a command needs; the backend keeps it for good."""
        backend = self.backend
        if not perm or backend is None or backend.inserted is None:
            return
        own, shared = wanted(backend)
        if perm & ~own:
            want(backend, own | perm, shared)

    # What commands use

    @property
    def image(self) -> Backend:
        """The backend of a command that needs an image."""
        assert self.backend is not None
        return self.backend

    def size(self, text: str) -> int:
        """Read a size in bytes."""
        return parse_size(text, self.warn)

    def now(self) -> int:
        """Return the time in nanoseconds that requests are measured by."""
        return self.clocks.realtime.now()

    def print(self, text: str) -> None:
        """Write to standard output."""
        self.output.out(text)

    def tell(self, text: str) -> None:
        """Print to the monitor, if there is one (qemu_printf)."""
        (self.output.tell or self.output.out)(text)

    def warn(self, text: str) -> None:
        """Report a warning, one line without its end."""
        self.output.report(f"warning: {text}\n")

    def show(self, refusal: Refusal) -> None:
        """Print what was refused, and where that belongs."""
        write = {"out": self.output.out, "err": self.output.err, "report": self.output.report}
        write[refusal.stream](str(refusal))

    def report_error(self, error: QmpError) -> None:
        """Report an error and its hint."""
        self.output.report(f"{error}\n{error.hint}")

    async def settle(self) -> None:
        """Await the requests that this interpreter has begun."""
        while self.own:
            await asyncio.wait(self.own)
