"""Listening where a client of the NBD server was told to (socket_listen, util/qemu-sockets.c)."""

import os
import socket
from typing import Any, Final

from blockemu import sockets
from blockemu.connecting import family_of
from blockemu.errors import QmpError
from blockemu.schema.sockets import (
    InetSocketAddress,
    InetSocketAddressWrapper,
    SocketAddress,
    SocketAddressFd,
    SocketAddressInet,
    SocketAddressLegacy,
    SocketAddressUnix,
    SocketAddressVsock,
    StringWrapper,
    UnixSocketAddressWrapper,
    VsockSocketAddressWrapper,
)

BACKLOG: Final = socket.SOMAXCONN
_PLAIN: Final[dict[type[SocketAddressLegacy], type[SocketAddress]]] = {
    InetSocketAddressWrapper: SocketAddressInet,
    UnixSocketAddressWrapper: SocketAddressUnix,
    VsockSocketAddressWrapper: SocketAddressVsock,
    StringWrapper: SocketAddressFd,
}


class NoVsock(QmpError):
    """The kernel has no such sockets, or the address is taken."""

    template = "Failed to bind socket: {}"


def plain_address(legacy: SocketAddressLegacy) -> SocketAddress:
    """Return an address with its members beside its type (socket_address_flatten)."""
    data: Any = legacy.data  # type: ignore[attr-defined]
    return _PLAIN[type(legacy)](**vars(data))


def listen(address: SocketAddress) -> list[socket.socket]:
    """Return sockets that listen at an address: one for each of a host's.

    Raises:
        QmpError: in QEMU's words.

    """
    if isinstance(address, SocketAddressInet):
        return _listen_inet(address)
    if isinstance(address, SocketAddressUnix):
        where = sockets.UnixAddress(
            address.path, bool(address.abstract), address.tight is not False
        )
        return [sockets.listen(where, BACKLOG)]
    if isinstance(address, SocketAddressFd):
        return [sockets.listen(sockets.FdAddress(address.str_), BACKLOG)]
    assert isinstance(address, SocketAddressVsock)
    return [_listen_vsock(address)]


def _listen_inet(address: InetSocketAddress) -> list[socket.socket]:
    family = family_of(address)
    where = sockets.InetAddress(address.host, address.port, family)
    if address.to is None:
        return [sockets.listen(where, BACKLOG)]
    first = int(address.port)
    for port in range(first, max(address.to, first) + 1):
        try:
            return [sockets.listen(where._replace(port=str(port)), BACKLOG)]
        except sockets.CannotBindInet:
            if port == address.to:
                raise
    raise AssertionError("no port was tried")


def _listen_vsock(address: SocketAddressVsock) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as e:
        raise NoVsock(os.strerror(e.errno or 0)) from e
    try:
        sock.bind((int(address.cid), int(address.port)))
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise NoVsock(os.strerror(e.errno or 0)) from e
    return sock
