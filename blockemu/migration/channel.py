"""The way that a migration's bytes take: a socket, a pair of pipes to a command, a descriptor."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
from contextlib import suppress
from typing import Any, Final, Protocol

from blockemu.errors import HostError

_AT_ONCE: Final = 1 << 16  # bytes that are received at once


class CannotWrite(HostError):
    """(to what, why)."""

    template = "Unable to write to {}: {}"


class Way(Protocol):
    """What bytes can be sent and received by, whether in clear text or not."""

    sent: int  # bytes

    @property
    def error(self) -> HostError | None:
        """What writing met; from then on nothing is sent."""

    @property
    def is_socket(self) -> bool:
        """Whether the other side's end is announced."""

    async def read(self) -> bytes:
        """Wait for bytes; none is the end."""

    async def write(self, data: bytes) -> None:
        """Send; what goes wrong is in ``error``."""

    def shut_down(self) -> None:
        """Let whoever waits go on, and send and receive no more."""

    def close(self) -> None:
        """Let go of what carries it."""

    async def finish(self) -> None:
        """Close, and wait until a command has done what it does with all that it got."""


class Channel:
    """Descriptors to read from and to write to, one or two; nothing here waits for long.

    ``kind`` is what errors call it.  ``error`` is what writing met, from then on nothing is sent.
    """

    def __init__(
        self,
        reader: int,
        writer: int,
        *,
        kind: str,
        sock: socket.socket | None = None,
        process: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._kind = kind
        self._sock = sock
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.error: HostError | None = None
        self.sent = 0  # bytes
        self._closed = False
        self._shut: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()  # the command's end
        for fd in {reader, writer} - {-1}:
            os.set_blocking(fd, False)

    @property
    def two_way(self) -> bool:
        """Whether the other side could answer."""
        return self._reader >= 0 and self._writer >= 0

    @property
    def is_socket(self) -> bool:
        """Whether the other side's end is announced."""
        return self._sock is not None

    # Reading

    async def read(self) -> bytes:
        """Wait for bytes; none is the end."""
        while not self._closed and not self._shut.done():
            try:
                return os.read(self._reader, _AT_ONCE)
            except BlockingIOError:
                await self._ready(self._reader, self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                return b""
        return b""

    # Writing

    async def write(self, data: bytes) -> None:
        """Send; what goes wrong is in ``error``."""
        view = memoryview(data)
        while len(view) and self.error is None:
            if self._closed or self._shut.done():
                self._fail(errno.EPIPE)
                return
            try:
                count = os.write(self._writer, view)
            except BlockingIOError:
                await self._ready(self._writer, self._loop.add_writer, self._loop.remove_writer)
            except OSError as e:
                self._fail(e.errno or errno.EIO)
            else:
                self.sent += count
                view = view[count:]

    def _fail(self, code: int) -> None:
        self.error = CannotWrite(self._kind, os.strerror(code), errno=code)

    async def _ready(self, fd: int, watch: Any, forget: Any) -> None:
        """Wait until a descriptor is ready, or until ``shut_down``."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def resolve() -> None:
            if not ready.done():
                ready.set_result(None)

        try:
            watch(fd, resolve)
        except PermissionError:  # a regular file always is
            return
        try:
            await asyncio.wait({ready, self._shut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            forget(fd)

    # The end

    def shut_down(self) -> None:
        """Let whoever waits go on, and send and receive no more."""
        if not self._shut.done():
            self._shut.set_result(None)
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the descriptors; a command goes on by itself."""
        if self._closed:
            return
        self._closed = True
        if not self._shut.done():
            self._shut.set_result(None)
        if self._sock is not None:
            self._sock.close()
        elif self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()
            threading.Thread(target=self._reap, args=(self._process,), daemon=True).start()
        else:
            for fd in {self._reader, self._writer} - {-1}:
                os.close(fd)

    def _reap(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for a command on a thread of its own: it may never end."""
        process.wait()
        with suppress(RuntimeError):  # the program has ended
            self._loop.call_soon_threadsafe(self._command_over)

    def _command_over(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def finish(self) -> None:
        """Close, and wait until a command has done what it does with all that it got."""
        self.close()
        if self._process is not None:
            await self._over


def from_socket(sock: socket.socket) -> Channel:
    """Return the channel of a connected socket."""
    return Channel(sock.fileno(), sock.fileno(), kind="socket", sock=sock)


def from_descriptor(fd: int, *, reading: bool) -> Channel:
    """Return the channel of a descriptor, which is closed with it."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return Channel(fd if reading else -1, -1 if reading else fd, kind="file")
    return from_socket(sock)


def from_command(line: str) -> Channel:
    """Start a command and return the channel of its standard input and output."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Channel(process.stdout.fileno(), process.stdin.fileno(), kind="command", process=process)
