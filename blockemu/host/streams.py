"""A connection's bytes without waiting, in clear text or (``blockemu.tls.stream``) encrypted."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from blockemu.nbd.lost import CannotRead, CannotReadTls, CannotWrite, CannotWriteTls, EndOfFile

Watch = Callable[..., object]


class Stream(Protocol):
    """Bytes both ways: BlockingIOError where one would have to wait."""

    @property
    def encrypted(self) -> bool:
        """Whether nobody else can read along."""

    @property
    def unsent(self) -> bool:
        """Whether bytes that were taken wait for the descriptor; sending nothing sends them."""

    @property
    def pending(self) -> bool:
        """Whether bytes may have come that the descriptor does not announce any more."""

    def fileno(self) -> int:
        """Return the descriptor to watch."""

    def recv_into(self, view: memoryview, /) -> int:
        """Receive into ``view``; 0 is the end."""

    def send(self, view: memoryview, /) -> int:
        """Send; return how many bytes were taken."""

    def sendmsg(self, views: list[memoryview], /) -> int:
        """Send from several places; return how many bytes were taken."""

    def shutdown(self) -> None:
        """End both directions; the descriptor stays."""

    def close(self) -> None:
        """Let go of the descriptor."""


class PlainStream:
    """A socket, in clear text."""

    encrypted = False
    unsent = False
    pending = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.sendmsg = sock.sendmsg
        self.close = sock.close

    def shutdown(self) -> None:
        """End both directions."""
        shut(self.sock)


async def receive(stream: Stream, size: int) -> bytes:
    """Wait for exactly so many bytes.  Raises Lost, in QEMU's words."""
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        try:
            count = stream.recv_into(view)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            await ready(stream, loop.add_reader, loop.remove_reader)
            continue
        except OSError as e:
            lost = CannotReadTls if stream.encrypted else CannotRead
            raise lost(os.strerror(e.errno or 0)) from e
        if not count:
            raise EndOfFile
        view = view[count:]
    return bytes(data)


async def send_all(stream: Stream, data: bytes) -> None:
    """Send, however long it takes.  Raises Lost, in QEMU's words."""
    view = memoryview(data)
    while len(view) or stream.unsent:
        try:
            view = view[stream.send(view) :]
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            await ready(stream, loop.add_writer, loop.remove_writer)
        except OSError as e:
            lost = CannotWriteTls if stream.encrypted else CannotWrite
            raise lost(os.strerror(e.errno or 0)) from e


async def ready(
    stream: Stream | socket.socket, watch: Watch, forget: Callable[[int], object]
) -> None:
    """Wait until a stream can go on."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    number = stream.fileno()
    watch(number, _resolve, turn)
    try:
        await turn
    finally:
        forget(number)


def _resolve(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


def shut(sock: socket.socket) -> None:
    """End both directions; that they have ended is no error."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
