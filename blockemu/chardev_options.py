"""``--chardev``'s argument, and the chardev that it asks for."""

import socket
from collections.abc import Callable, Mapping
from typing import Final

from blockemu.chardevs import (
    RING_SIZE,
    Chardev,
    FileChardev,
    MemoryChardev,
    NullChardev,
    PipeChardev,
    RingBuffer,
    SocketChardev,
    StdioChardev,
    check_socket,
)
from blockemu.errors import QmpError
from blockemu.host.sockets import Address, FdAddress, InetAddress, NotANumber, UnixAddress
from blockemu.optlist import is_on, number, parse_options, size

_KINDS: Final = (  # in QEMU's order
    ("string", "backend path host port fd localaddr localport"),
    ("number", "to"),
    ("bool", "ipv4 ipv6 wait server delay nodelay"),
    ("number", "reconnect"),
    ("bool", "telnet tn3270"),
    ("string", "tls-creds tls-authz"),
    ("bool", "websocket"),
    ("number", "width height cols rows"),
    ("bool", "mux signal"),
    ("string", "name"),
    ("number", "debug"),
    ("size", "size"),
    ("string", "chardev"),
    ("bool", "append"),
    ("string", "logfile"),
    ("bool", "logappend mouse clipboard tight abstract"),
)
OPTIONS: Final[Mapping[str, str]] = {name: kind for kind, names in _KINDS for name in names.split()}


class UnknownBackend(QmpError):
    """No chardev of this kind."""

    template = "'{}' is not a valid char driver name"


class NoBackend(QmpError):
    """An id alone."""

    template = 'chardev: "{}" missing backend'


class NoId(QmpError):
    """A chardev must have a name."""

    template = "chardev: no id specified"


class TwoAddresses(QmpError):
    """A socket has one address."""

    template = "None or one of 'path', 'fd' or 'host' option required."


class NoPort(QmpError):
    """A host alone."""

    template = "chardev: socket: no port given"


class NoPath(QmpError):
    """A file without a name: (backend)."""

    template = "chardev: {}: no filename given"


class DelayTwice(QmpError):
    """Both ways to say it."""

    template = "'delay' and 'nodelay' are mutually exclusive"


Options = Mapping[str, str]
Tell = Callable[[str], None]


def _make_null(options: Options, tell: Tell) -> Chardev:
    return NullChardev()


def _make_stdio(options: Options, tell: Tell) -> Chardev:
    return StdioChardev()


def _path(options: Options, backend: str) -> str:
    if "path" not in options:
        raise NoPath(backend)
    return options["path"]


def _make_file(options: Options, tell: Tell) -> Chardev:
    return FileChardev(_path(options, "file"), append=is_on(options.get("append")))


def _make_pipe(options: Options, tell: Tell) -> Chardev:
    if "path" not in options:
        raise NoPath("pipe")
    return PipeChardev(options["path"])


def _make_ring(options: Options, tell: Tell) -> Chardev:
    return RingBuffer(_ring_size(options))


def _ring_size(options: Options) -> int:
    return size(options.get("size", str(RING_SIZE))) or 0


def _make_socket(options: Options, tell: Tell) -> Chardev:
    if sum(name in options for name in ("path", "fd", "host")) > 1:
        raise TwoAddresses
    if "host" in options and "port" not in options:
        raise NoPort
    if "delay" in options and "nodelay" in options:
        raise DelayTwice
    address = _socket_address(options)
    server = is_on(options.get("server"))
    check_socket(
        address, server=server, has_reconnect="reconnect" in options, has_wait="wait" in options
    )
    return SocketChardev(
        address,
        server=server,
        wait=server and is_on(options.get("wait"), default=True),
        reconnect=number(options.get("reconnect", "0")) or 0,
        tell=tell,
    )


def _socket_address(options: Options) -> Address:
    if "path" in options:
        return UnixAddress(
            options["path"],
            is_on(options.get("abstract")),
            is_on(options.get("tight"), default=True),
        )
    if "host" in options:
        family = socket.AF_UNSPEC
        if is_on(options.get("ipv4")) and not is_on(options.get("ipv6")):
            family = socket.AF_INET
        elif is_on(options.get("ipv6")) and not is_on(options.get("ipv4")):
            family = socket.AF_INET6
        return InetAddress(options["host"], options["port"], family)
    if "fd" not in options:
        raise NotANumber("")
    return FdAddress(options["fd"])


_MAKERS: Final[Mapping[str, Callable[[Options, Tell], Chardev]]] = {
    "file": _make_file,
    "socket": _make_socket,
    "stdio": _make_stdio,
    "ringbuf": _make_ring,
    "null": _make_null,
    "pipe": _make_pipe,
    "memory": lambda options, tell: MemoryChardev(_ring_size(options)),
}


BACKENDS: Final = ("memory", "file", "socket", "stdio", "ringbuf", "null", "pipe")  # QEMU's order


def parse_chardev(text: str, warn: Tell) -> tuple[str, str, Options]:
    """Return name, backend and options of a chardev.

    Raises:
        HelpWanted: the user asks which options there are.
        QmpError: it cannot be.
    """
    return check_chardev(parse_options(text, "backend", OPTIONS, warn))


def check_chardev(options: Options) -> tuple[str, str, Options]:
    """Return name, backend and options of a chardev, of options that were read.

    Raises:
        QmpError: it cannot be.
    """
    name = options.get("id")
    if name is None:
        raise NoId
    backend = options.get("backend")
    if backend is None:
        raise NoBackend(name)
    if backend not in _MAKERS:
        raise UnknownBackend(backend)
    return name, backend, options


def make_chardev(backend: str, options: Options, tell: Tell) -> Chardev:
    """Return a new chardev; ``tell`` hears that it waits for its client."""
    return _MAKERS[backend](options, tell)
