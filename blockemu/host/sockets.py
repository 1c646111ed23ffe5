"""Sockets as QEMU's options name them: bind, connect, or take over, with QEMU's error texts.

After util/qemu-sockets.c.  Everything here blocks; it is for start-up, before there is a loop.
"""

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import Any, NamedTuple

from blockemu.errors import QmpError

PATH_MOST = 107  # bytes of a path: sun_path without its NUL
MOST_U32 = (1 << 32) - 1
MPTCP = 262  # IPPROTO_MPTCP; the socket module has it on newer systems only
BACKLOG = 1


class CannotConnect(QmpError):
    """(address, errno's text)."""

    template = "Failed to connect to '{}': {}"


class CannotBind(QmpError):
    """(path, errno's text)."""

    template = "Failed to bind socket to {}: {}"


class NoFreePort(QmpError):
    """Another program has the port, most likely."""

    template = "Failed to find an available port: {}"


class CannotBindInet(QmpError):
    """The host has no such address, or the user may not have the port."""

    template = "Failed to bind socket: {}"


class NoInetSocket(QmpError):
    """(why): the kernel has no sockets of this kind, or there was no port to try."""

    template = "Failed to create a socket{}"


class CannotResolve(QmpError):
    """(host, port, the resolver's text)."""

    template = "address resolution failed for {}:{}: {}"


class PathTooLong(QmpError):
    """More than fits a socket address."""

    template = "UNIX socket path '{}' is too long"


class BadCid(QmpError):
    """(text): no number of a machine."""

    template = "Failed to parse cid '{}'"


class BadPort(QmpError):
    """(text): no number of a port."""

    template = "Failed to parse port '{}'"


class NoVsock(QmpError):
    """(why): the kernel has no such sockets, most likely."""

    template = "Failed to create socket: {}"


class CannotBindVsock(QmpError):
    """(why)."""

    template = "Failed to bind socket: {}"


class NotANumber(QmpError):
    """A descriptor that is none."""

    template = "Unable to parse FD number {}"


class CannotListenFd(QmpError):
    """(why): it is connected, or of a kind that cannot."""

    template = "Failed to listen on fd socket: {}"


class NotASocket(QmpError):
    """A descriptor of something else."""

    template = "File descriptor '{}' is not a socket"


class UnixAddress(NamedTuple):
    """A path, or a name in the abstract namespace."""

    path: str
    abstract: bool = False
    tight: bool = True

    def __str__(self) -> str:
        if not self.abstract:
            return f"unix:{self.path}"
        return f"unix:{self.path},abstract=on,tight={'on' if self.tight else 'off'}"

    @property
    def raw(self) -> str | bytes:
        """What the socket module takes."""
        if not self.abstract:
            return self.path
        name = b"\0" + self.path.encode("utf-8", "surrogateescape")
        return name if self.tight else name.ljust(PATH_MOST + 1, b"\0")


class InetAddress(NamedTuple):
    """A host and a port; with ``family`` only one kind.

    ``last`` is the last port to try, ``only_v6``: no IPv4 by an IPv6 socket, ``mptcp``: by several
    paths.
    """

    host: str
    port: str
    family: socket.AddressFamily = socket.AF_UNSPEC
    last: int | None = None
    only_v6: bool = True
    mptcp: bool = False

    def __str__(self) -> str:
        return f"tcp:{_inet(self.host, self.port)}"


class VsockAddress(NamedTuple):
    """A virtual machine, or its host, and a port; both are numbers."""

    cid: str
    port: str

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"

    @property
    def raw(self) -> tuple[int, int]:
        """What the socket module takes.

        Raises:
            BadCid, BadPort: they are no numbers.

        """
        cid, port = _number(self.cid), _number(self.port)
        if cid is None:
            raise BadCid(self.cid)
        if port is None:
            raise BadPort(self.port)
        return cid, port


class FdAddress(NamedTuple):
    """An inherited socket."""

    fd: str

    def __str__(self) -> str:
        return f"fd:{self.fd}"


Address = UnixAddress | InetAddress | VsockAddress | FdAddress


def listen(address: Address, backlog: int = BACKLOG) -> socket.socket:
    """Return a listening socket."""
    if isinstance(address, FdAddress):
        sock = adopt(address.fd)
        try:
            sock.listen(backlog)
        except OSError as e:
            sock.close()
            raise CannotListenFd(e.strerror) from e
        return sock
    if isinstance(address, InetAddress):
        return _listen_inet(address, backlog)
    if isinstance(address, VsockAddress):
        return _listen_vsock(address, backlog)
    if len(address.path.encode()) > PATH_MOST:
        raise PathTooLong(address.path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        if not address.abstract:
            _unlink(address.path)
        sock.bind(address.raw)
        sock.listen(backlog)
    except OSError as e:
        sock.close()
        raise CannotBind(address.path, e.strerror) from e
    return sock


def unbind(listener: socket.socket) -> None:
    """Close a listening socket and remove its path, if it has one (socket_listen_cleanup)."""
    where = listener.getsockname() if listener.family == socket.AF_UNIX else ""
    listener.close()
    if isinstance(where, str) and where:
        with suppress(OSError):
            os.unlink(where)  # noqa: PTH108


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def _listen_inet(address: InetAddress, backlog: int) -> socket.socket:
    """Listen at the first address and port that are free (inet_listen_saddr)."""
    why, created = "", False  # no port to try is no error of the host's
    for family, _, proto, _, where in _resolve(address, socket.AI_PASSIVE):
        first = where[1]
        for port in range(first, (first if address.last is None else address.last) + 1):
            try:
                sock = socket.socket(family, proto=MPTCP if address.mptcp else proto)
            except OSError as e:
                why = str(e.strerror)
                break
            created = True
            try:
                _bind(sock, (where[0], port, *where[2:]), only_v6=address.only_v6)
                sock.listen(backlog)
            except OSError as e:
                sock.close()
                if e.errno != errno.EADDRINUSE:
                    raise CannotBindInet(e.strerror) from e
                why = str(e.strerror)
            else:
                return sock
    raise NoFreePort(why) if created else NoInetSocket(f": {why}" if why else "")


def _bind(sock: socket.socket, where: Any, *, only_v6: bool) -> None:
    """Bind a socket; where IPv4 has the port already, IPv6 may have it alone (try_bind)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family != socket.AF_INET6:
        sock.bind(where)
        return
    for alone in (True,) if only_v6 else (False, True):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        try:
            sock.bind(where)
        except OSError as e:
            if e.errno != errno.EADDRINUSE or alone:
                raise
        else:
            return


def connect(address: Address) -> socket.socket:
    """Return a connected socket."""
    if isinstance(address, FdAddress):
        return adopt(address.fd)
    if isinstance(address, InetAddress):
        return _connect_inet(address)
    if isinstance(address, VsockAddress):
        return _connect_vsock(address)
    if len(address.path.encode()) > PATH_MOST:
        raise PathTooLong(address.path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(address.raw)
    except OSError as e:
        sock.close()
        raise CannotConnect(address.path, e.strerror) from e
    return sock


def _connect_inet(address: InetAddress) -> socket.socket:
    problem: OSError | None = None
    for family, kind, proto, _, where in _resolve(address, 0):
        sock = socket.socket(family, kind, proto)
        try:
            sock.connect(where)
        except OSError as e:
            sock.close()
            problem = e
        else:
            return sock
    assert problem is not None
    raise CannotConnect(f"{address.host}:{address.port}", problem.strerror) from problem


def _vsock() -> socket.socket:
    try:
        return socket.socket(socket.AF_VSOCK)
    except OSError as e:
        raise NoVsock(e.strerror) from e


def _listen_vsock(address: VsockAddress, backlog: int) -> socket.socket:
    where, sock = address.raw, _vsock()
    try:
        sock.bind(where)
        sock.listen(backlog)
    except OSError as e:
        sock.close()
        raise CannotBindVsock(e.strerror) from e
    return sock


def _connect_vsock(address: VsockAddress) -> socket.socket:
    where, sock = address.raw, _vsock()
    try:
        sock.connect(where)
    except OSError as e:
        sock.close()
        raise CannotConnect(f"{address.cid}:{address.port}", e.strerror) from e
    return sock


def _number(text: str) -> int | None:
    good = text.isascii() and text.isdigit() and int(text) <= MOST_U32
    return int(text) if good else None


def _resolve(address: InetAddress, flags: int) -> list[tuple[Any, Any, int, str, Any]]:
    """Return what ``getaddrinfo`` does."""
    kind = socket.SOCK_STREAM
    try:
        return list(
            socket.getaddrinfo(
                address.host or None, address.port, address.family, kind, flags=flags
            )
        )
    except socket.gaierror as e:
        raise CannotResolve(address.host, address.port, e.strerror) from e


def resolve_passive(address: InetAddress, flags: int) -> list[tuple[str, str]]:
    """Return numeric hosts and ports of a listener-to-be, in order."""
    found = _resolve(address, socket.AI_PASSIVE | flags)
    return [(where[0], str(where[1])) for _, _, _, _, where in found]


def adopt(number: str) -> socket.socket:
    """Take over an inherited descriptor, which must be a socket's."""
    if not (number.isascii() and number.isdigit()):
        raise NotANumber(number)
    try:
        return socket.socket(fileno=int(number))
    except OSError as e:
        raise NotASocket(number) from e


def describe_local(sock: socket.socket) -> str:
    """Return ``unix:PATH`` or ``tcp:HOST:PORT`` of a socket's own end."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{_shown(name)}"
    if sock.family == socket.AF_VSOCK:
        return f"vsock:{name[0]}:{name[1]}"
    return f"tcp:{_inet(*name[:2])}" if isinstance(name, tuple) else "socket"


def describe_connection(sock: socket.socket, suffix: str) -> str:
    """Return the same of a connected socket, with ``suffix`` and its peer."""
    local = describe_local(sock) + suffix
    if sock.family in (socket.AF_UNIX, socket.AF_VSOCK):
        return local
    try:
        peer = sock.getpeername()
    except OSError:
        return local
    return f"{local} <-> {_inet(*peer[:2])}" if isinstance(peer, tuple) else local


def describe_peer(sock: socket.socket) -> str:
    """Return who is at the other end, as far as the kernel knows."""
    with suppress(OSError):
        if sock.family == socket.AF_UNIX:
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("iII", peer)
            return f"process {pid} of user {uid}"
        name = sock.getpeername()
        if sock.family == socket.AF_VSOCK:
            return f"vsock:{name[0]}:{name[1]}"
        return f"tcp:{_inet(*name[:2])}"
    return "unknown"


def _shown(name: str | bytes) -> str:
    return "" if isinstance(name, bytes) else name


def _inet(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
