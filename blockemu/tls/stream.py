"""A connection's bytes, encrypted by memory, without waiting."""

import asyncio
import errno
import socket
import ssl
from contextlib import suppress
from typing import Final

from blockemu.host.streams import shut
from blockemu.os_errors import os_error

RECORD: Final = 1 << 16  # bytes taken from the network, or encrypted, at once


class Records:
    """Either side of an encrypted connection, whatever carries it."""

    def __init__(
        self, context: ssl.SSLContext, *, hostname: str | None = None, server: bool = False
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=hostname
        )

    async def _receive(self) -> bytes:
        """Wait for encrypted bytes; none is the end."""
        raise NotImplementedError

    async def _transmit(self, data: bytes) -> None:
        """Send encrypted bytes."""
        raise NotImplementedError

    async def handshake(self) -> None:
        """Agree on keys.  As with QEMU the other side does not learn why that fails.

        Raises:
            ssl.SSLError: they cannot.
            OSError: the connection failed.

        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._transmit_waiting()
                self._feed(await self._receive())
            else:
                await self._transmit_waiting()
                return

    async def _transmit_waiting(self) -> None:
        if self._outgoing.pending:
            await self._transmit(self._outgoing.read())

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


class TlsStream(Records):
    """A socket, encrypted, from either side."""

    encrypted = True

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        hostname: str | None = None,
        server: bool = False,
    ) -> None:
        super().__init__(context, hostname=hostname, server=server)
        self.sock = sock
        self.fileno = sock.fileno
        self.close = sock.close
        self._waiting = memoryview(b"")  # encrypted, for the network

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the descriptor."""
        return bool(len(self._waiting) or self._outgoing.pending)

    @property
    def pending(self) -> bool:
        """Whether bytes have come that nobody has taken yet, at least a part of a record."""
        return bool(self.tls.pending() or self._incoming.pending)

    async def _receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.sock, RECORD)

    async def _transmit(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def recv_into(self, view: memoryview) -> int:
        """Receive and decrypt as much as there is.

        Raises:
            OSError: ECONNABORTED if the connection ended without a word, EIO if it is garbled.

        """
        got = 0
        while got < len(view):
            try:
                count = self.tls.read(len(view) - got, view[got:])
            except ssl.SSLWantReadError:
                if got:
                    break
                self._feed(self.sock.recv(RECORD))
                continue
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLError as e:
                if got:
                    break  # it comes up again
                code = errno.ECONNABORTED if isinstance(e, ssl.SSLEOFError) else errno.EIO
                raise os_error(code) from e
            if not count:
                break
            got += int(count)
        return got

    def send(self, view: memoryview) -> int:
        """Encrypt and send."""
        return self.sendmsg([view])

    def sendmsg(self, views: list[memoryview]) -> int:
        """Encrypt and send, a bounded part at a time."""
        self._push()
        if self.unsent:
            raise BlockingIOError
        taken = 0
        for view in views:
            for at in range(0, len(view), RECORD):
                try:
                    taken += self.tls.write(view[at : at + RECORD])
                except ssl.SSLError as e:
                    raise os_error(errno.EIO) from e
                self._push()
                if self.unsent:
                    return taken
        return taken

    def _push(self) -> None:
        """Send what is encrypted, as far as the network takes it."""
        with suppress(BlockingIOError):
            while self.unsent:
                if not len(self._waiting):
                    self._waiting = memoryview(self._outgoing.read())
                self._waiting = self._waiting[self.sock.send(self._waiting) :]

    def shutdown(self) -> None:
        """End both directions, without a word, as QEMU does."""
        shut(self.sock)
