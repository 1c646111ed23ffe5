"""The human monitor on a chardev: banner, prompt, echo, a line at a time (monitor/hmp.c)."""

import asyncio
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from blockemu.chardevs import Chardev
from blockemu.daemon import Daemon

if TYPE_CHECKING:
    from blockemu.chardevs import Chardevs
    from blockemu.commands.context import Context
    from blockemu.emulator import Emulator
    from blockemu.qmp_server.dispatch import Registry

PROMPT = "(qemu) "
_RECEIVE = 1 << 16
_KEPT_LINES = 64


class HumanContext:
    """What commands get (``blockemu.commands.context.Context``)."""

    monitor: Any = None

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.named_fds: dict[str, int] = {}
        self.history: list[str] = []

    def remember(self, line: str) -> None:
        """Keep a line, each only once (readline_hist_add, util/readline.c)."""
        if line:
            kept = [each for each in self.history if each != line]
            self.history = [*kept, line][-_KEPT_LINES:]

    @property
    def emu(self) -> "Emulator":
        """The emulator."""
        return self._daemon.emu

    @property
    def chardevs(self) -> "Chardevs":
        """The chardevs."""
        return self._daemon.chardevs

    @property
    def registry(self) -> "Registry":
        """The QMP commands."""
        return self._daemon.registry

    def take_fd(self) -> int | None:
        """Nothing comes along with a line."""
        return None

    def shut_down(self, reason: str) -> None:
        """End the program."""
        self._daemon.shut_down(reason)


class HumanMonitor:
    """A monitor on a pair of descriptors."""

    def __init__(self, daemon: Daemon, chardev: Chardev) -> None:
        plug = chardev.plug()
        self._daemon = daemon
        self._context = HumanContext(daemon)
        self._listener = plug.listener if plug.connection is None else None
        self._socket = plug.connection
        self._in, self._out = plug.reader, plug.writer
        self._lines: deque[str] = deque()
        self._rest = b""
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Greet, and listen."""
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)
            return
        if self._socket is not None:
            self._in = self._out = self._socket.fileno()
        if self._in < 0:
            return  # nobody will ever say a thing
        version = ".".join(map(str, self._daemon.profile.greeting_version))
        self._write(f"QEMU {version} monitor - type 'help' for more information\n{PROMPT}")
        try:
            self._loop.add_reader(self._in, self._readable)
        except PermissionError:  # a regular file: always readable, and epoll will not have it
            while self._receive():
                pass

    def _accept(self) -> None:
        assert self._listener is not None
        self._loop.remove_reader(self._listener)
        self._socket, _ = self._listener.accept()
        self._listener = None
        self.start()

    def _readable(self) -> None:
        if not self._receive():
            self._loop.remove_reader(self._in)

    def _receive(self) -> bool:
        """Read; tell whether more may come."""
        try:
            data = os.read(self._in, _RECEIVE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            data = b""
        if not data:
            return False
        *lines, self._rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        self._lines.extend(line.decode("utf-8", "surrogateescape") for line in lines)
        if self._task is None and self._lines:
            self._task = self._loop.create_task(self._run())
        return True

    async def _run(self) -> None:
        from blockemu.commands.hmp import run_line  # start-up

        while self._lines and not self._daemon.stopping:
            line = self._lines.popleft()
            self._write(f"{line}\n")
            self._context.remember(line)
            await run_line(cast("Context", self._context), line, self._write)
            if not self._daemon.stopping:
                self._write(PROMPT)
        self._task = None

    def _write(self, text: str) -> None:
        data = text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")
        with suppress(OSError):  # nobody reads
            while data:
                data = data[self._send(data) :]

    def _send(self, data: bytes) -> int:
        return self._socket.send(data) if self._socket else os.write(self._out, data)

    def close(self) -> None:
        """Hang up."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        if self._in >= 0:
            with suppress(OSError, ValueError):
                self._loop.remove_reader(self._in)
