"""Connecting to an address that a client gave, without keeping the loop waiting.

With the steps and error texts of socket_connect, util/qemu-sockets.c.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from blockemu.errors import QmpError
from blockemu.host import sockets
from blockemu.host.pool import Pool
from blockemu.host.streams import ready
from blockemu.os_errors import os_error
from blockemu.schema.sockets import (
    InetSocketAddress,
    SocketAddress,
    SocketAddressFd,
    SocketAddressInet,
    SocketAddressUnix,
    SocketAddressVsock,
    UnixSocketAddress,
    VsockSocketAddress,
)

_take: ContextVar[Callable[[str], str] | None] = ContextVar("take", default=None)
NO_NAME = bytes(sockets.PATH_MOST + 1)  # where the kernel has nobody listening


class NoFamily(QmpError):
    """Neither of the two."""

    template = "Cannot disable IPv4 and IPv6 at same time"


class NoSocket(QmpError):
    """(family's number, why)."""

    template = "Failed to create socket family {}: {}"


@contextmanager
def sockets_by_name(take: Callable[[str], str]) -> Iterator[None]:
    """Have nodes that are opened take sockets by a monitor's names for them, not by numbers.

    ``take`` returns the number of a socket, which is then the taker's, or raises QmpError.
    """
    token = _take.set(take)
    try:
        yield
    finally:
        _take.reset(token)


def resolve_name(address: SocketAddress) -> SocketAddress:
    """Take the socket that an address names, if it does (socket_address_parse_named_fd)."""
    take = _take.get()
    if take is None or not isinstance(address, SocketAddressFd):
        return address
    return SocketAddressFd(str_=take(address.str_))


async def connect(address: SocketAddress, pool: Pool) -> socket.socket:
    """Return a connected socket that does not block.

    Raises:
        QmpError: in QEMU's words.

    """
    if isinstance(address, SocketAddressInet):
        sock = await _connect_inet(address, pool)
    elif isinstance(address, SocketAddressUnix):
        sock = await _connect_unix(address)
    elif isinstance(address, SocketAddressVsock):
        sock = await _connect_vsock(address)
    else:
        assert isinstance(address, SocketAddressFd)
        sock = sockets.adopt(address.str_)
        sock.setblocking(False)
    return sock


def family_of(address: InetSocketAddress) -> socket.AddressFamily:
    """Return which kind of address may be used (inet_ai_family_from_address)."""
    v4, v6 = address.ipv4, address.ipv6
    if v4 is False and v6 is False:
        raise NoFamily
    if v4 and v6:
        return socket.AF_UNSPEC
    if v6 or v4 is False:
        return socket.AF_INET6
    return socket.AF_INET if v4 or v6 is False else socket.AF_UNSPEC


async def _connect_inet(address: InetSocketAddress, pool: Pool) -> socket.socket:
    family = family_of(address)
    problem: QmpError | None = None
    for kind, proto, where in await pool.run(_resolve, address, family):
        try:
            sock = await _connect(kind, proto, where)
        except OSError as e:
            name = f"{address.host}:{address.port}"
            problem = sockets.CannotConnect(name, _reason(e))
            continue
        if address.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    assert problem is not None
    raise problem


def _resolve(
    address: InetSocketAddress, family: socket.AddressFamily
) -> list[tuple[int, int, Any]]:
    """Return family, protocol and address of each way there; it may take its time."""
    flags = socket.AI_CANONNAME | socket.AI_ADDRCONFIG | socket.AI_V4MAPPED
    try:
        found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM, 0, flags)
    except socket.gaierror as e:
        raise sockets.CannotResolve(address.host, address.port, e.strerror) from e
    paths = sockets.MPTCP if address.mptcp else 0
    return [(kind, paths or proto, where) for kind, _, proto, _, where in found]


async def _connect_unix(address: UnixSocketAddress) -> socket.socket:
    known = sockets.UnixAddress(address.path, bool(address.abstract), address.tight is not False)
    if len(address.path.encode("utf-8", "surrogateescape")) > sockets.PATH_MOST:
        raise sockets.PathTooLong(address.path)
    try:
        return await _connect(socket.AF_UNIX, 0, known.raw or NO_NAME)
    except OSError as e:
        raise sockets.CannotConnect(address.path, _reason(e)) from e


async def _connect_vsock(address: VsockSocketAddress) -> socket.socket:
    known = sockets.VsockAddress(address.cid, address.port)
    where = known.raw
    try:
        return await _connect(socket.AF_VSOCK, 0, where)
    except OSError as e:
        raise sockets.CannotConnect(f"{address.cid}:{address.port}", _reason(e)) from e


async def _connect(family: int, proto: int, where: Any) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, proto)
    except OSError as e:
        raise NoSocket(int(family), _reason(e)) from e
    sock.setblocking(False)
    try:
        await _established(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _established(sock: socket.socket, where: Any) -> None:
    """Connect: local ones are there at once (the loop's own way imports ssl and knows no MPTCP)."""
    code = sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        await ready(sock, loop.add_writer, loop.remove_writer)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise os_error(code)


def _reason(e: OSError) -> str:
    return os.strerror(e.errno) if e.errno else str(e)
