"""Monitors on sockets, pipes, terminals and files: the only module here that does I/O.

Bytes are received, parsed, run and answered in one go, without a task, unless a command waits.
asyncio's transports are not used: file descriptors come by recvmsg, and a socket may carry them.
"""

import array
import asyncio
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.qmp_server.address import Address, parse_address
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.scheduler import Dispatcher, Lane
from blockemu.qmp_server.session import Service, Session

if TYPE_CHECKING:
    from blockemu.qmp_server.dispatch import Registry
    from blockemu.qmp_server.events import EventHub

RECEIVE: Final = 1 << 16  # bytes at a time
BACKLOG: Final = 1  # the second client waits there for the first to leave, as QEMU has it
MOST_UNSENT: Final = 1 << 20  # beyond, no more is read from a client that does not read
_MOST_FDS: Final = 16
_FD_SPACE: Final = socket.CMSG_SPACE(_MOST_FDS * array.array("i").itemsize)
_tasks: set[asyncio.Task[None]] = set()


def _spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)  # the loop keeps weak references only
    task.add_done_callback(_tasks.discard)


def make_dispatcher() -> Dispatcher:
    """Return the dispatcher for all monitors of an event loop."""
    return Dispatcher(_spawn)


class Monitor:
    """What a monitor is, wherever its clients come from.

    ``context_factory(connection)`` makes what commands get as context.  Monitors of one program
    share ``dispatcher`` and ``hub``.
    """

    def __init__(
        self,
        context_factory: "Callable[[Connection], Any]",
        registry_loader: "Callable[[], Registry]",
        profile: Profile = ALL,
        *,
        pretty: bool = False,
        dispatcher: Dispatcher | None = None,
        hub: "EventHub | None" = None,
        self_check: bool = False,
        on_bug: Callable[[Exception], None] | None = None,
        reword: Callable[[Exception, str], str] | None = None,
        crash: Callable[[], None] | None = None,
    ) -> None:
        self.context_factory = context_factory
        self.service = Service(
            registry_loader,
            profile,
            self_check=self_check,
            on_bug=on_bug,
            reword=reword,
            crash=crash,
        )
        self.pretty = pretty
        self.dispatcher = dispatcher or make_dispatcher()
        self.hub = hub
        self.on_disconnect: Callable[[], None] = lambda: None

    @property
    def profile(self) -> Profile:
        """The version of the interface and the policy."""
        return self.service.profile


class Connection:
    """One client of a monitor; also a sink of events."""

    def __init__(
        self,
        monitor: Monitor,
        fd_in: int,
        fd_out: int,
        sock: socket.socket | None = None,
        on_closed: "Callable[[Connection], None] | None" = None,
    ) -> None:
        self.monitor = monitor
        self.pretty = monitor.pretty
        self.session = Session(monitor.service, pretty=monitor.pretty)
        self.fds: deque[int] = deque()  # received by SCM_RIGHTS and not yet taken
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._in, self._out, self._sock = fd_in, fd_out, sock
        self._buffer = bytearray(RECEIVE)
        self._view = memoryview(self._buffer)
        self._receive = self._receiver()
        self._unsent = bytearray()
        self._replies: list[bytes] = []
        self._corked = False
        self._reading = False
        self._pollable = True
        self._eof = False
        self._on_closed = on_closed
        self._lane = Lane(self.session, monitor.context_factory(self), self._send)
        self._lane.on_progress = self._progressed

    def start(self, *, greeted: bool = False) -> None:
        """Greet the client, unless that was done, and listen to it."""
        if not greeted:
            self._send(self.session.greeting())
        if self.monitor.hub is not None:
            self.monitor.hub.add(self)
        self._resume()

    def take_fd(self) -> int | None:
        """Take the first file descriptor that came along; the others are closed, as in QEMU."""
        if not self.fds:
            return None
        fd = self.fds.popleft()
        self._drop_fds()
        return fd

    # In

    def _receiver(self) -> Callable[[], int]:
        """Return what receives into the buffer."""
        sock, view, fd = self._sock, self._view, self._in
        if sock is None:
            return lambda: os.readv(fd, [view])
        if sock.family == socket.AF_UNIX:
            return self._receive_message
        return lambda: sock.recv_into(view)

    def _receive_message(self) -> int:
        assert self._sock is not None
        size, extra, _, _ = self._sock.recvmsg_into(
            [self._view], _FD_SPACE, socket.MSG_CMSG_CLOEXEC
        )
        if extra:
            fds = array.array("i")
            for level, kind, data in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            for fd in fds:
                with suppress(OSError):
                    os.set_blocking(fd, True)
            self._lane.received.append(lambda: self._take_over(fds.tolist()))
        return size

    def _take_over(self, fds: list[int]) -> None:
        self._drop_fds()
        self.fds.extend(fds)

    def _drop_fds(self) -> None:
        while self.fds:
            os.close(self.fds.popleft())

    def _readable(self) -> None:
        """Receive, run what can be run, and send the replies together."""
        try:
            size = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._end()
            return
        lane = self._lane
        lane.received.extend(self.session.receive(self._view[:size]))
        self._work()
        if lane.received or len(self._unsent) > MOST_UNSENT:
            self._pause()

    def _work(self) -> None:
        self._corked = True
        try:
            self.monitor.dispatcher.submit(self._lane)
        finally:
            self._corked = False
            self._flush()

    def _progressed(self) -> None:
        if self._eof:
            if self._lane.idle:
                self._close_input()
        elif len(self._unsent) <= MOST_UNSENT:
            self._resume()

    def _resume(self) -> None:
        if self._reading or self._eof or self.closed:
            return
        self._reading = True
        if not self._pollable:
            self._loop.call_soon(self._poll_file)
            return
        try:
            self._loop.add_reader(self._in, self._readable)
        except PermissionError:  # a regular file: always readable, and epoll will not have it
            self._pollable = False
            self._loop.call_soon(self._poll_file)

    def _poll_file(self) -> None:
        if self._reading and not self.closed:
            self._readable()
            if self._reading:
                self._loop.call_soon(self._poll_file)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            if self._pollable:
                self._loop.remove_reader(self._in)

    def _end(self) -> None:
        """End of input: what was received without OOB is still run, for QEMU reads no further."""
        self._pause()
        self._eof = True
        if self.session.oob_enabled:
            self.monitor.dispatcher.forget(self._lane)
        if self._lane.idle:
            self._close_input()

    def _close_input(self) -> None:
        self._drop_fds()
        self.monitor.on_disconnect()
        if self._sock is not None:
            self.close()

    # Out

    def send_event(self, data: bytes) -> None:
        """Send an event, if the client is past its negotiation."""
        if self.session.negotiated:
            self._send(data)

    def _send(self, data: bytes) -> None:
        self._replies.append(data)
        if not self._corked:
            self._flush()

    def _flush(self) -> None:
        """Send what was corked, as far as that goes without waiting."""
        if not self._replies:
            return
        data = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
        self._replies.clear()
        if self.closed or self._out < 0:
            return
        if self._unsent:
            self._unsent += data
            return
        sent = self._try(data)
        if 0 <= sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._watch_output()

    def _try(self, data: bytes | bytearray) -> int:
        """Send now; return how much went out, -1 if nobody listens any more."""
        try:
            return self._sock.send(data) if self._sock else os.write(self._out, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._out = -1
            return -1

    def _watch_output(self) -> None:
        self._loop.add_writer(self._out, self._writable)

    def _writable(self) -> None:
        out = self._out
        sent = self._try(self._unsent)
        if sent < 0:
            self._unsent.clear()
        else:
            del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(out)
            if not self._lane.received:
                self._resume()

    def close(self) -> None:
        """Hang up; what the kernel takes at once is still sent."""
        if self.closed:
            return
        self._flush()
        self.closed = True
        self._pause()
        if self.monitor.hub is not None:
            self.monitor.hub.discard(self)
        if self._unsent:
            self._loop.remove_writer(self._out)
        self._drop_fds()
        if self._sock is not None:
            self._sock.close()
        else:
            _restore(self._in, self._out)
        if self._on_closed is not None:
            self._on_closed(self)


def _restore(*fds: int) -> None:
    """Make descriptors that others share blocking again."""
    for fd in fds:
        if fd >= 0:
            with suppress(OSError):
                os.set_blocking(fd, True)


class Server:
    """A monitor at an address.  ``connection`` is its client, if there is one now."""

    def __init__(self, monitor: Monitor, address: Address) -> None:
        self.monitor = monitor
        self.address = address
        self.connection: Connection | None = None
        self.listener: socket.socket | None = None
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def wait_client(self) -> None:
        """Wait for the first client."""
        await self._first

    def listen(self, listener: socket.socket) -> None:
        """Take clients from a listening socket, one at a time."""
        listener.setblocking(False)
        self.listener = listener
        self._loop.add_reader(listener, self._accept)

    def attach(self, sock: socket.socket, *, greeted: bool = False) -> None:
        """Take a connected socket as client."""
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin(
            Connection(self.monitor, sock.fileno(), sock.fileno(), sock, self._ended), greeted
        )

    def attach_fds(self, fd_in: int, fd_out: int) -> None:
        """Take a pair of descriptors (pipes, a terminal, files) as client."""
        for fd in (fd_in, fd_out):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.set_blocking(fd, False)
        self._begin(Connection(self.monitor, fd_in, fd_out, None, self._ended), False)

    def connect(self) -> None:
        """Connect out; raise OSError unless it is to be tried again later."""
        self._timer = None
        try:
            sock = connect(self.address)
        except OSError:
            if not self.address.reconnect:
                raise
            self._retry()
        else:
            self.attach(sock)

    def _retry(self) -> None:
        self._timer = self._loop.call_later(self.address.reconnect, self.connect)

    def _accept(self) -> None:
        assert self.listener is not None
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        self._loop.remove_reader(self.listener)  # the next one waits in the backlog
        self.attach(sock)

    def _begin(self, connection: Connection, greeted: bool) -> None:
        self.connection = connection
        connection.start(greeted=greeted)
        if not self._first.done():
            self._first.set_result(None)

    def _ended(self, connection: Connection) -> None:
        self.connection = None
        if self.closed:
            return
        if self.listener is not None:
            self._loop.add_reader(self.listener, self._accept)
        elif self.address.reconnect:
            self._retry()

    def close(self) -> None:
        """Hang up and listen no more; the socket file is removed."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.connection is not None:
            self.connection.close()
        if self.listener is not None:
            self._loop.remove_reader(self.listener)
            path = self.listener.getsockname() if self.listener.family == socket.AF_UNIX else ""
            self.listener.close()
            if path and isinstance(path, str):
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108
        if not self._first.done():
            self._first.cancel()


def bind(address: Address) -> socket.socket:
    """Return a listening socket; raise OSError.  A socket file that is there is replaced."""
    if address.kind == "unix":
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            os.unlink(address.path)  # noqa: PTH108
        listener.bind(address.path)
    else:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    listener.listen(BACKLOG)
    return listener


def connect(address: Address) -> socket.socket:
    """Return a connected socket; raise OSError."""
    if address.kind == "unix":
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.connect(address.path)
        except OSError:
            peer.close()
            raise
        return peer
    return socket.create_connection((address.host or "localhost", int(address.port)))


async def serve(monitor: Monitor, where: str | Address | socket.socket) -> Server:
    """Serve a monitor at an address, or on a socket that listens or is connected already.

    Raises OSError, or AddressError for text that is no address.
    """
    if isinstance(where, socket.socket):
        server = Server(monitor, Address("socket"))
        _attach_socket(server, where)
        return server
    address = parse_address(where) if isinstance(where, str) else where
    server = Server(monitor, address)
    if address.kind == "stdio":
        server.attach_fds(0, 1)
    elif address.kind == "fd":
        if stat.S_ISSOCK(os.fstat(address.fd).st_mode):
            _attach_socket(server, socket.socket(fileno=address.fd))
        else:
            server.attach_fds(address.fd, address.fd)
    elif address.server:
        server.listen(bind(address))
        if address.wait:
            await server.wait_client()
    else:
        server.connect()
    return server


def _attach_socket(server: Server, sock: socket.socket) -> None:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        server.listen(sock)
    else:
        server.attach(sock)
