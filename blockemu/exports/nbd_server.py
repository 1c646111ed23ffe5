"""The NBD server: takes clients in, leads the handshake, leaves the rest to a connection.

After blockdev-nbd.c.  A client has ten seconds for the handshake.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from blockemu.clocks import Clock
from blockemu.errors import QmpError
from blockemu.exports.connection import Connection
from blockemu.host.pool import Pool
from blockemu.host.sockets import describe_peer, unbind
from blockemu.host.streams import PlainStream, Stream, receive, send_all, shut
from blockemu.nbd.client_errors import ReadFailed
from blockemu.nbd.lost import Lost
from blockemu.nbd.server import Exports as Offered
from blockemu.nbd.server import Left, Negotiation, Refused, Session
from blockemu.nbd.steps import Receive, Send

if TYPE_CHECKING:
    from blockemu.exports.export import NbdExport
    from blockemu.exports.registry import Exports
    from blockemu.tls.credentials import Find, TlsCreds

HANDSHAKE_LIMIT: Final = 10 * 10**9  # nanoseconds
MAX_CONNECTIONS: Final = 100  # by default
_ON_THE_WAY: Final = 512 << 10  # bytes that a local socket is to hold for its client; see _accept


class Security(NamedTuple):
    """Credentials, None for clear text; the object that says who may come in; where it is."""

    credentials: "TlsCreds | None" = None
    authz: str | None = None
    find: "Find" = lambda _: None


class NbdServer:
    """Listens once it is started, and leads handshakes.

    ``max_connections``: 0 is any number.  ``left`` hears of each client that has gone, and whether
    its handshake had come to an end.
    """

    def __init__(
        self,
        exports: "Exports",
        listeners: list[socket.socket],
        pool: Pool,
        clock: Clock,
        *,
        max_connections: int = MAX_CONNECTIONS,
        security: Security | None = None,
    ) -> None:
        self._exports = exports
        self._listeners = listeners
        self._pool = pool
        self._clock = clock
        self.max_connections = max_connections
        self._security = security or Security()
        self.tell: Callable[[str], None] = lambda _: None  # why a client was hung up on
        self.log: Callable[[str, str], None] = lambda _who, _why: None  # the same, and on whom
        self.left: Callable[[bool], None] = lambda _negotiated: None
        self._loop = asyncio.get_running_loop()
        self._clients: dict[asyncio.Task[bool], socket.socket] = {}
        self._listening = False
        self._closed = False
        for listener in listeners:
            listener.setblocking(False)

    @property
    def clients(self) -> int:
        """How many are connected, in the handshake or after it."""
        return len(self._clients)

    def start(self) -> None:
        """Let clients in from now on."""
        self._watch()

    def _watch(self) -> None:
        """Listen as long as there is room for another client."""
        room = not self.max_connections or len(self._clients) < self.max_connections
        wanted = room and not self._closed
        if wanted is self._listening:
            return
        self._listening = wanted
        for listener in self._listeners:
            if wanted:
                self._loop.add_reader(listener.fileno(), self._accept, listener)
            else:
                self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        with suppress(OSError):
            if sock.family == socket.AF_UNIX:
                # Large replies then wait for the client a quarter as often, and it for them
                # (``make bench``: NBD, 1 MiB reads; nbdcopy).  TCP finds out by itself.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._serve(sock))
        self._clients[task] = sock
        task.add_done_callback(self._left)
        self._watch()

    def _tell(self, who: str, why: str) -> None:
        self.tell(why)
        self.log(who, why)

    def _left(self, task: "asyncio.Task[bool]") -> None:
        self._clients.pop(task).close()
        negotiated = False
        if not task.cancelled():
            if (error := task.exception()) is not None:
                context = {"message": "an NBD client failed unexpectedly", "exception": error}
                self._loop.call_exception_handler(context)
            else:
                negotiated = task.result()
        self.left(negotiated)
        self._watch()

    async def _serve(self, sock: socket.socket) -> bool:
        """Serve until the client leaves; return whether its handshake came to an end."""
        peer = describe_peer(sock)
        stop = self._clock.timer(HANDSHAKE_LIMIT, lambda: shut(sock))
        try:
            session, stream = await self._handshake(sock, self._exports)
        except Left:
            return False
        except (Refused, QmpError) as e:
            self._tell(peer, f"option negotiation failed: {e}")
            return False
        finally:
            stop()
        export: NbdExport = session.export  # type: ignore[assignment]
        if self._closed or not export.user_owned:
            return False
        connection = Connection(export.requests(session), self._pool, stream)
        connection.tell = partial(self._tell, f"{peer}, export '{export.name}'")
        export.add_client(connection)
        with self._pool.shared():
            await connection.closed
        return True

    async def _handshake(self, sock: socket.socket, exports: Offered) -> tuple[Session, Stream]:
        """Lead the handshake.

        Raises:
            Refused: the client broke the protocol, or left.
            QmpError: no encryption was agreed on, the client may not come in, or it is gone.

        """
        dialogue = Negotiation(exports, tls=self._security.credentials is not None).run()
        stream: Stream = PlainStream(sock)
        try:
            step = next(dialogue)
            while True:
                answer = b""
                try:
                    if isinstance(step, Send):
                        await send_all(stream, step.data)
                    elif isinstance(step, Receive):
                        answer = await self._receive(stream, step)
                    else:
                        stream = await self._encrypt(sock)
                except Lost as e:
                    step = dialogue.throw(e)
                else:
                    step = dialogue.send(answer)
        except StopIteration as stop:
            session: Session = stop.value
            return session, stream

    async def _encrypt(self, sock: socket.socket) -> Stream:
        from blockemu.tls.session import accept  # start-up: few servers do

        credentials, authz, find = self._security
        assert credentials is not None
        try:
            return await accept(sock, credentials, find, authz)
        except QmpError:
            await self._dismiss(sock)
            raise

    async def _dismiss(self, sock: socket.socket) -> None:
        """Say nothing more, but let the client finish what it is saying: that must not fail."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(sock, 1 << 16):
                pass

    async def _receive(self, stream: Stream, wanted: Receive) -> bytes:
        try:
            return await receive(stream, wanted.size)
        except Lost as e:
            if wanted.what:
                raise ReadFailed(wanted.what, e) from e
            raise

    async def close(self, *, unbinds: bool = False) -> None:
        """Stop listening, and hang up on those who have not left by themselves.

        A program that ends leaves the paths where it listened, as QEMU's do: ``unbinds`` is for
        one that goes on.
        """
        self._closed = True
        self._watch()
        for listener in self._listeners:
            unbind(listener) if unbinds else listener.close()
        for sock in list(self._clients.values()):
            shut(sock)
        while self._clients:
            await asyncio.wait(list(self._clients))
