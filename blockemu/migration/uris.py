"""Where a migration goes or comes from: ``tcp:…``, ``unix:…``, ``vsock:…``, ``exec:…``, ``fd:…``.

After socket_parse and inet_parse, util/qemu-sockets.c.
"""

import re
from typing import Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.schema.sockets import (
    SocketAddress,
    SocketAddressInet,
    SocketAddressUnix,
    SocketAddressVsock,
)

_NO_HOST: Final = re.compile(r":([^,]{1,32})")
_BRACKETS: Final = re.compile(r"\[([^\]]{1,64})\]:([^,]{1,32})")
_PLAIN: Final = re.compile(r"([^:]{1,64}):([^,]{1,32})")
_TO: Final = re.compile(r",to=([+-]?\d+)(?=,|$)")


class NoProtocol(QmpError):
    """(URI): the machine cannot be waited for there."""

    template = "unknown migration protocol: {}"


class NoPath(QmpError):
    """A socket without a path."""

    template = "invalid Unix socket address"


class BadAddress(QmpError):
    """(address)."""

    template = "error parsing address '{}'"


class BadPort(QmpError):
    """(address)."""

    template = "error parsing port in address '{}'"


class BadBrackets(QmpError):
    """(address)."""

    template = "error parsing IPv6 address '{}'"


class BadLastPort(QmpError):
    """The last port to try is no number."""

    template = "error parsing to= argument"


class BadFlag(QmpError):
    """(name, what was said)."""

    template = "error parsing '{}' flag '{}'"


class NoRdma(QmpError):
    """(why): there is no network that reaches into memory, as with a QEMU where there is none."""

    template = "RDMA ERROR: {}"


class Socket(NamedTuple):
    """An address."""

    address: SocketAddress


class Command(NamedTuple):
    """A command of the shell."""

    line: str


class Descriptor(NamedTuple):
    """A descriptor that the client has named, or its number."""

    name: str


Place = Socket | Command | Descriptor


def parse(uri: str, *, coming: bool = False) -> Place | None:
    """Return what a URI means; None if its protocol is unknown.

    ``coming``: it is where to wait.

    Raises:
        QmpError: the address makes no sense.

    """
    protocol, colon, rest = uri.partition(":")
    if colon and protocol == "exec":
        return Command(rest)
    if colon and protocol == "fd":
        return Descriptor(rest)
    if colon and protocol == "tcp":
        return Socket(_inet(rest))
    if colon and protocol == "unix":
        if not rest:
            raise NoPath
        return Socket(SocketAddressUnix(path=rest))
    if colon and protocol == "rdma":
        raise NoRdma(_why_not_rdma(rest, coming))
    if colon and protocol == "vsock":
        cid, _, port = rest.partition(":")
        if not port:
            raise BadAddress(rest)
        return Socket(SocketAddressVsock(cid=cid, port=port))
    return None


def _why_not_rdma(text: str, coming: bool) -> str:
    """Return what fails first (qemu_rdma_data_init, qemu_rdma_resolve_host, migration/rdma.c)."""
    try:
        address = _inet(text)
    except QmpError:
        return f"bad RDMA migration address '{text}'"
    if not address.host:
        return "RDMA host is not set!" if coming else "RDMA hostname has not been set"
    return "could not create rdma event channel" if coming else "could not create CM channel"


def _inet(text: str) -> SocketAddressInet:
    pattern: re.Pattern[str]
    error: type[QmpError]
    pattern, error = _PLAIN, BadAddress
    if text.startswith(":"):
        pattern, error = _NO_HOST, BadPort
    elif text.startswith("["):
        pattern, error = _BRACKETS, BadBrackets
    found = pattern.match(text)
    if found is None:
        raise error(text)
    host, port = ("", found[1]) if text.startswith(":") else (found[1], found[2])
    options = text[found.end() :]
    to = None
    if ",to=" in options:
        last = _TO.search(options)
        if last is None:
            raise BadLastPort
        to = int(last[1])
    return SocketAddressInet(
        host=host,
        port=port,
        to=to,
        ipv4=_flag(options, "ipv4"),
        ipv6=_flag(options, "ipv6"),
        keep_alive=_flag(options, "keep-alive"),
    )


def _flag(options: str, name: str) -> bool | None:
    """Read a flag: its name alone means on (inet_parse_flag)."""
    _, found, rest = options.partition(f",{name}")
    if not found:
        return None
    if not rest or rest[0] == ",":
        return True
    word = rest.split(",")[0]
    if word in ("=on", "=off"):
        return word == "=on"
    raise BadFlag(name, rest)
