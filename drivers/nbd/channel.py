"""A connection to a server: handshake, then requests going out and replies coming in."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from blockemu.host.streams import Stream, receive, send_all
from blockemu.nbd import wire
from blockemu.nbd.client import ExportInfo
from blockemu.nbd.steps import Handshake, Receive, Send
from blockemu.nbd.transmission import (
    Command,
    RemoteProtocolError,
    Transmission,
    WrongReply,
)

T = TypeVar("T")
Encrypt = Callable[[], Awaitable[Stream]]
MOST_VIEWS = 64  # handed to the kernel at once


class Channel:
    """A stream, and what is under way on it.

    While nothing is under way, what comes is left alone, the stream's end included: QEMU looks only
    when it waits for a reply.
    """

    def __init__(self, stream: Stream, encrypt: Encrypt | None = None) -> None:
        self._stream = stream
        self._encrypt = encrypt
        self._loop = asyncio.get_running_loop()
        self._transmission = Transmission(ExportInfo())
        self._unsent: deque[tuple[memoryview, Command]] = deque()
        self._waiters: dict[Command, asyncio.Future[None]] = {}
        self._reading = False
        self.info = ExportInfo()
        self.broken: int | None = None  # errno: no use any more

    # Handshake

    async def negotiate(self, steps: Handshake[ExportInfo]) -> None:
        """Lead the handshake; then requests may be sent."""
        self.info = await self.follow(steps)
        self._transmission = Transmission(self.info)

    async def follow(self, steps: Handshake[T]) -> T:
        """Do what the steps say and return what they come to."""
        try:
            step = next(steps)
            while True:
                try:
                    data = b""
                    if isinstance(step, Send):
                        await send_all(self._stream, step.data)
                    elif isinstance(step, Receive):
                        data = await receive(self._stream, step.size)
                    elif self._encrypt is not None:
                        self._stream = await self._encrypt()
                except Exception as e:
                    step = steps.throw(e)
                else:
                    step = steps.send(data)
        except StopIteration as e:
            result: T = e.value
            return result

    # Requests

    async def request(
        self,
        kind: int,
        offset: int,
        length: int,
        *,
        flags: int = 0,
        buf: memoryview | None = None,
        payload: memoryview | None = None,
    ) -> Command:
        """Send a request and wait for its reply; ``buf`` is filled, ``payload`` is sent.

        Neither the server's error nor a lost connection is raised: the command has both.
        """
        command = Command(kind, offset, length, self._ended, flags, buf)
        if self.broken is not None:
            command.lost = wire.EIO
            return command
        waiter = self._waiters[command] = self._loop.create_future()
        header = memoryview(self._transmission.begin(command))
        self._send([header] if payload is None else [header, payload], command)
        if not self._reading and self.broken is None:
            self._loop.add_reader(self._stream.fileno(), self._readable)
            self._reading = True
        await waiter
        return command

    def _ended(self, command: Command) -> None:
        """Wake who waits, but not while what it sends is still in its buffer."""
        if self.broken is not None or all(owner is not command for _, owner in self._unsent):
            _resolve(self._waiters.pop(command))

    def _send(self, views: list[memoryview], command: Command) -> None:
        if not self._unsent:
            try:
                left = _skip(views, self._stream.sendmsg(views))
            except BlockingIOError:
                left = views
            except OSError:
                self._break(wire.EIO)
                return
            if not left and not self._stream.unsent:
                return
            views = left
            self._loop.add_writer(self._stream.fileno(), self._writable)
        self._unsent.extend((view, command) for view in views)

    def _writable(self) -> None:
        """Send what waits; what is sent and answered is over."""
        views = [view for view, _ in islice(self._unsent, MOST_VIEWS)]
        try:
            left = _skip(views, self._stream.sendmsg(views))
        except BlockingIOError:
            return
        except OSError:
            self._break(wire.EIO)
            return
        sent = [self._unsent.popleft()[1] for _ in range(len(views) - len(left))]
        if left:
            self._unsent[0] = (left[0], self._unsent[0][1])
        if not self._unsent and not self._stream.unsent:
            self._loop.remove_writer(self._stream.fileno())
        for command in sent:
            if command in self._waiters and command.cookie not in self._transmission.commands:
                self._ended(command)

    def _readable(self) -> None:
        """Take what came, as long as somebody waits for it."""
        transmission = self._transmission
        while True:
            if not transmission.commands:
                self._reading = False
                self._loop.remove_reader(self._stream.fileno())
                return
            room = transmission.room()
            try:
                count = self._stream.recv_into(room)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if not count:
                self._break(wire.EIO)
                return
            try:
                transmission.received(count)
            except WrongReply as e:
                e.command.lost = wire.EINVAL
                self._break(wire.EINVAL)
                return
            except RemoteProtocolError:
                self._break(wire.EINVAL)
                return
            if count < len(room) and not self._stream.pending:
                return

    # The end

    def _break(self, error: int) -> None:
        """Give the connection up; what is under way fails."""
        if self.broken is None:
            self.broken = error
            self._forget()
            self._stream.shutdown()
            self._transmission.fail(wire.EIO)
            for waiter in self._waiters.values():  # answered, but not sent to the end
                _resolve(waiter)
            self._waiters.clear()

    def _forget(self) -> None:
        number = self._stream.fileno()
        self._loop.remove_reader(number)
        self._loop.remove_writer(number)
        self._reading = False
        self._unsent.clear()

    def close(self, *, politely: bool = True) -> None:
        """Take leave if that is still possible, and hang up."""
        if self.broken is None and politely and not self._unsent:
            goodbye = wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0)
            with suppress(OSError):
                self._stream.sendmsg([memoryview(goodbye)])
        self._break(wire.EIO)
        self._stream.close()


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _skip(views: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left to send after so many bytes."""
    for at, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[at + 1 :]]
        count -= len(view)
    return []
