"""Where a monitor listens or connects: addresses as text, and the sockets for them.

Light, and without asyncio: a program can bind first and import the rest afterwards.
"""

import os
import socket
from contextlib import suppress
from typing import Final, NamedTuple

_TRUE: Final = frozenset({"on", "yes", "true", "y"})
_FALSE: Final = frozenset({"off", "no", "false", "n"})
BACKLOG: Final = 1  # the second client waits there for the first to leave, as QEMU has it


class AddressError(ValueError):
    """The text is no address."""


class Address(NamedTuple):
    """``kind`` is unix, tcp, stdio or fd; ``reconnect`` is in seconds, 0 for never."""

    kind: str
    path: str = ""
    host: str = ""
    port: str = ""
    fd: int = -1
    server: bool = True
    wait: bool = False
    reconnect: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """The family of its sockets."""
        return socket.AF_UNIX if self.kind == "unix" else socket.AF_UNSPEC


def parse_address(text: str) -> Address:
    """Return the Address of ``unix:PATH``, ``tcp:HOST:PORT``, ``stdio`` or ``fd:N``.

    The first two may have ``,server=on,wait=off,reconnect=SECONDS``.  Raises AddressError.
    """
    kind, colon, rest = text.partition(":")
    if kind == "stdio" and not colon:
        return Address("stdio")
    if kind == "fd" and rest.isdecimal():
        return Address("fd", fd=int(rest))
    if kind not in ("unix", "tcp") or not rest:
        raise AddressError(f"'{text}' is no address: unix:PATH, tcp:HOST:PORT, stdio or fd:N")
    pieces = [piece.replace("\0", ",") for piece in rest.replace(",,", "\0").split(",")]
    options = _options(pieces[1:])
    if kind == "unix":
        return options._replace(kind="unix", path=pieces[0])
    host, colon, port = pieces[0].rpartition(":")
    if not colon or not port:
        raise AddressError(f"'{text}' has no port")
    return options._replace(kind="tcp", host=host.strip("[]"), port=port)


def _options(pieces: list[str]) -> Address:
    options = Address("")
    for piece in pieces:
        key, equals, value = piece.partition("=")
        if not equals:
            key, value = (key[2:], "off") if key.startswith("no") else (key, "on")
        if key == "reconnect" and value.isdecimal():
            options = options._replace(reconnect=int(value))
        elif key in ("server", "wait") and value in _TRUE | _FALSE:
            yes = value in _TRUE
            options = (
                options._replace(server=yes) if key == "server" else options._replace(wait=yes)
            )
        else:
            raise AddressError(f"unknown option '{piece}'")
    return options


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
