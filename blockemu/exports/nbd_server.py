"""The NBD server: takes clients in, leads the handshake, leaves the rest to a connection.

After blockdev-nbd.c.  A client has ten seconds for the handshake.
"""

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blockemu.clocks import Clock
from blockemu.exports.connection import Connection
from blockemu.nbd.server import Exports as Offered
from blockemu.nbd.server import Negotiation, Refused, Session
from blockemu.nbd.steps import Receive, Send
from blockemu.pool import Pool

if TYPE_CHECKING:
    from blockemu.exports.export import NbdExport
    from blockemu.exports.registry import Exports

HANDSHAKE_LIMIT: Final = 10 * 10**9  # nanoseconds
MAX_CONNECTIONS: Final = 100  # by default


class NbdServer:
    """Listens, and leads handshakes; ``max_connections`` of 0 is any number."""

    def __init__(
        self,
        exports: "Exports",
        listeners: list[socket.socket],
        pool: Pool,
        clock: Clock,
        *,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._exports = exports
        self._listeners = listeners
        self._pool = pool
        self._clock = clock
        self.max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._listening = False
        self._closed = False
        for listener in listeners:
            listener.setblocking(False)
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
        if sock.family != socket.AF_UNIX:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._serve(sock))
        self._clients[task] = sock
        task.add_done_callback(self._left)
        self._watch()

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._clients.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "an NBD client failed unexpectedly", "exception": error}
            self._loop.call_exception_handler(context)
        self._watch()

    async def _serve(self, sock: socket.socket) -> None:
        stop = self._clock.timer(HANDSHAKE_LIMIT, lambda: _shut(sock))
        try:
            session = await self._handshake(sock, self._exports)
        except (Refused, OSError, EOFError):
            return
        finally:
            stop()
        export: NbdExport = session.export  # type: ignore[assignment]
        if self._closed or not export.user_owned:
            return
        connection = Connection(export.requests(session), self._pool, sock)
        export.add_client(connection)
        await connection.closed

    async def _handshake(self, sock: socket.socket, exports: Offered) -> Session:
        dialogue = Negotiation(exports).run()
        answer = b""
        while True:
            try:
                step = dialogue.send(answer) if answer else next(dialogue)
            except StopIteration as stop:
                session: Session = stop.value
                return session
            answer = b""
            if isinstance(step, Send):
                await self._loop.sock_sendall(sock, step.data)
            else:
                assert isinstance(step, Receive)  # without credentials there is no TLS
                answer = await self._receive(sock, step.size)

    async def _receive(self, sock: socket.socket, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = await self._loop.sock_recv(sock, size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    async def close(self) -> None:
        """Stop listening, and hang up on those who have not left by themselves."""
        self._closed = True
        self._watch()
        for listener in self._listeners:
            listener.close()
        for sock in list(self._clients.values()):
            _shut(sock)
        while self._clients:
            await asyncio.wait(list(self._clients))


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
