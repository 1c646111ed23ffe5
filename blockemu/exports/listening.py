"""Listening where a client of the NBD server was told to (socket_listen, util/qemu-sockets.c)."""

import socket
from typing import Any, Final

from blockemu.connecting import family_of
from blockemu.errors import QmpError
from blockemu.host import sockets
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
    return [sockets.listen(sockets.VsockAddress(address.cid, address.port), BACKLOG)]


def _listen_inet(address: InetSocketAddress) -> list[socket.socket]:
    """Listen at each address of a host; one is enough (qio_net_listener_open_sync)."""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV if address.numeric else 0
    where = sockets.InetAddress(
        address.host,
        address.port,
        family_of(address),
        address.to,
        only_v6=address.ipv4 is not address.ipv6 or address.ipv4 is False,
        mptcp=bool(address.mptcp),
    )
    listeners: list[socket.socket] = []
    problem: QmpError | None = None
    for host, port in sockets.resolve_passive(where, numeric):
        try:
            listeners.append(sockets.listen(where._replace(host=host, port=port), BACKLOG))
        except QmpError as e:
            problem = problem or e
    if not listeners:
        assert problem is not None
        raise problem
    return listeners
