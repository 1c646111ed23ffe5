"""A connection's bytes, in clear text or encrypted, without waiting."""

import asyncio
import errno
import os
import socket
import ssl
from contextlib import suppress
from typing import Final, Protocol

from blockemu.errors import QmpError

# What openssl finds wrong with a certificate, by its number, in QEMU's words.
_VERDICTS: Final = {
    9: "The certificate is not yet activated",
    10: "The certificate has expired",
    18: "The certificate hasn't got a known issuer",
    19: "The certificate hasn't got a known issuer",
    20: "The certificate hasn't got a known issuer",
    21: "The certificate hasn't got a known issuer",
    23: "The certificate has been revoked",
    66: "The certificate uses an insecure algorithm",
    67: "The certificate uses an insecure algorithm",
    68: "The certificate uses an insecure algorithm",
}
_OTHER_HOST: Final = (62, 64)  # openssl: the name, the address is another
RECORD: Final = 1 << 16  # bytes taken from the network, or encrypted, at once


class HandshakeFailed(QmpError):
    """(why): no keys were agreed on."""

    template = "TLS handshake failed: {}"


class BadCertificate(QmpError):
    """(why): the server is not known to be who it says."""


class OtherHost(QmpError):
    """(name): the certificate is somebody else's."""

    template = "Certificate does not match the hostname {}"


class NoHostname(QmpError):
    """Nobody said whose certificate it should be."""

    template = "No hostname for certificate validation"


class Stream(Protocol):
    """Bytes both ways: BlockingIOError where one would have to wait.

    ``buffers`` tells whether bytes may have come that the descriptor does not announce any more.
    """

    buffers: bool

    @property
    def unsent(self) -> bool:
        """Whether bytes that were taken wait for the descriptor; sending nothing sends them."""

    def fileno(self) -> int:
        """Return the descriptor to watch."""

    def recv_into(self, view: memoryview) -> int:
        """Receive into ``view``; 0 is the end."""

    def sendmsg(self, views: list[memoryview]) -> int:
        """Send from several places; return how many bytes were taken."""

    def shutdown(self) -> None:
        """End both directions; the descriptor stays."""

    def close(self) -> None:
        """Let go of the descriptor."""


class PlainStream:
    """A socket, in clear text."""

    buffers = False
    unsent = False

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.recv_into = sock.recv_into

    def sendmsg(self, views: list[memoryview]) -> int:
        """Send from several places; return how many bytes went."""
        return self.sock.sendmsg(views)

    def shutdown(self) -> None:
        """End both directions."""
        _shut(self.sock)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class TlsStream:
    """A socket, encrypted."""

    buffers = True

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, hostname: str | None) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._waiting = memoryview(b"")  # encrypted, for the network

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the descriptor."""
        return bool(len(self._waiting) or self._outgoing.pending)

    async def handshake(self) -> None:
        """Agree on keys.

        Raises:
            ssl.SSLError: they cannot.
            OSError: the connection failed.

        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self.sock, self._outgoing.read())
                self._feed(await loop.sock_recv(self.sock, RECORD))
            except ssl.SSLError:
                with suppress(OSError):  # let the server know why
                    await loop.sock_sendall(self.sock, self._outgoing.read())
                raise
            else:
                await loop.sock_sendall(self.sock, self._outgoing.read())
                return

    def recv_into(self, view: memoryview) -> int:
        """Receive and decrypt."""
        while True:
            try:
                return int(self._tls.read(len(view), view))
            except ssl.SSLWantReadError:
                self._feed(self.sock.recv(RECORD))
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLError as e:
                raise OSError(errno.EIO, os.strerror(errno.EIO)) from e

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def sendmsg(self, views: list[memoryview]) -> int:
        """Encrypt and send, a bounded part at a time."""
        self._push()
        if self.unsent:
            raise BlockingIOError
        taken = 0
        for view in views:
            for at in range(0, len(view), RECORD):
                taken += self._tls.write(view[at : at + RECORD])
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
        """Say that nothing follows, and end both directions."""
        with suppress(ssl.SSLError, OSError):
            self._tls.unwrap()
        with suppress(OSError):
            self._push()
        _shut(self.sock)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


async def encrypted(
    sock: socket.socket, context: ssl.SSLContext, hostname: str | None
) -> TlsStream:
    """Encrypt a connection from now on, as its client.

    Raises:
        QmpError: in QEMU's words, as far as they are not those of its library.

    """
    if context.check_hostname and hostname is None:
        raise NoHostname
    stream = TlsStream(sock, context, hostname)
    try:
        await stream.handshake()
    except ssl.SSLCertVerificationError as e:
        if e.verify_code in _OTHER_HOST:
            raise OtherHost(hostname) from e
        raise BadCertificate(_VERDICTS.get(e.verify_code, "The certificate is not trusted")) from e
    except ssl.SSLEOFError as e:
        raise HandshakeFailed("The TLS connection was non-properly terminated.") from e
    except ssl.SSLError as e:
        alert = "ALERT" in (e.reason or "")
        raise HandshakeFailed(
            "A TLS fatal alert has been received." if alert else e.reason or e.strerror
        ) from e
    except OSError as e:
        raise HandshakeFailed("Error in the pull function.") from e
    return stream


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
