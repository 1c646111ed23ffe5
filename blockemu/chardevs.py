"""Character devices: where a monitor reads and writes.

Those that a monitor of a storage daemon is put on: sockets, stdio, pipes, files, ring buffers,
null.  A chardev only opens and describes; who serves it takes what ``plug`` gives.  Everything here
blocks and is for start-up or commands; nothing here needs an event loop.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.optlist import is_on, number, parse_options, size
from blockemu.qom import Container, DuplicateChild, Object, Property
from blockemu.sockets import (
    Address,
    FdAddress,
    InetAddress,
    NotANumber,
    UnixAddress,
    connect,
    describe_connection,
    describe_local,
    listen,
)

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
OPTIONS: Final[Mapping[str, str]] = {
    name: kind for kind, names in _KINDS for name in names.split()
}
RING_SIZE = 65536


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
    """(backend): where to?"""

    template = "chardev: {}: no filename given"


class DelayTwice(QmpError):
    """Both ways to say it."""

    template = "'delay' and 'nodelay' are mutually exclusive"


class Incompatible(QmpError):
    """(option, with what)."""

    template = "'{}' option is incompatible with {}"


class BadRingSize(QmpError):
    """Not a power of two."""

    template = "size of ringbuf chardev must be power of two"


class CannotOpenFile(QmpError):
    """(path, errno's text)."""

    template = "Could not open '{}': {}"


class ChardevExists(QmpError):
    """The name is taken."""

    template = "Chardev with id '{}' already exists"


class ChardevNotFound(QmpError):
    """No such chardev."""

    template = "Chardev '{}' not found"


class ChardevBusy(QmpError):
    """A monitor sits on it."""

    template = "Chardev '{}' is busy"


class MonitorChardevNotFound(QmpError):
    """--monitor names no chardev."""

    template = 'chardev "{}" not found'


class ChardevInUse(QmpError):
    """It has a monitor already."""

    template = "Device '{}' is in use"


class Plug(NamedTuple):
    """What a monitor is served on: one of a listening socket, a connection, two descriptors.

    ``reconnect``: seconds after which a lost connection is made anew; 0: never.  A client that
    has connected to ``listener`` already is ``connection``.
    """

    listener: socket.socket | None = None
    connection: socket.socket | None = None
    reader: int = -1
    writer: int = -1
    reconnect: int = 0
    address: Address | None = None


class Chardev(Object):
    """A chardev: subclasses open, describe and close one kind."""

    PARENT = "chardev"
    BACKEND: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False  # a monitor is on it
        self.open_frontend = False
        self.on_remove: list[Callable[[], None]] = []

    @property
    def filename(self) -> str:
        """What ``query-chardev`` calls it."""
        return self.BACKEND

    @property
    def frontend_open(self) -> bool:
        """Whether somebody listens to what it receives."""
        return self.taken

    def plug(self) -> Plug:
        """Return what to serve a monitor on."""
        return Plug()

    def close(self) -> None:
        """Give the resources back."""


class NullChardev(Chardev):
    """Takes all and says nothing."""

    TYPE = "chardev-null"
    BACKEND = "null"


class StdioChardev(Chardev):
    """Standard input and output."""

    TYPE = "chardev-stdio"
    PARENT = "chardev-fd"
    BACKEND = "stdio"

    def plug(self) -> Plug:
        """Serve on both."""
        return Plug(reader=0, writer=1)


class FileChardev(Chardev):
    """Output to a file, and input from another if there is one."""

    TYPE = "chardev-file"
    PARENT = "chardev-fd"
    BACKEND = "file"

    def __init__(self, out: str, in_: str | None = None, *, append: bool = False) -> None:
        super().__init__()
        mode = os.O_APPEND if append else os.O_TRUNC
        self.writer = _open(out, os.O_WRONLY | os.O_CREAT | mode)
        self.reader = _open(in_ or os.devnull, os.O_RDONLY)

    def plug(self) -> Plug:
        """Serve on the files."""
        return Plug(reader=self.reader, writer=self.writer)

    def close(self) -> None:
        """Close the files."""
        _close(self.reader, self.writer)


class PipeChardev(Chardev):
    """Two FIFOs, PATH.in and PATH.out, or one for both."""

    TYPE = "chardev-pipe"
    PARENT = "chardev-fd"
    BACKEND = "pipe"

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            self.reader = _open(f"{path}.in", os.O_RDWR)
            self.writer = _open(f"{path}.out", os.O_RDWR)
        except CannotOpenFile:
            self.reader = _open(path, os.O_RDWR)
            self.writer = os.dup(self.reader)

    def plug(self) -> Plug:
        """Serve on the FIFOs."""
        return Plug(reader=self.reader, writer=self.writer)

    def close(self) -> None:
        """Close the FIFOs."""
        _close(self.reader, self.writer)


class RingBuffer(Chardev):
    """Keeps the last bytes written."""

    TYPE = "chardev-ringbuf"
    BACKEND = "ringbuf"

    def __init__(self, size: int = RING_SIZE) -> None:
        super().__init__()
        if size <= 0 or size & (size - 1):
            raise BadRingSize
        self._size = size
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """Append, and drop what is too old."""
        self._data = (self._data + data)[-self._size :]

    def read(self, count: int) -> bytes:
        """Take up to ``count`` of the oldest bytes."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken


def _connected(self: "SocketChardev") -> bool:
    return self.connection() is not None


class SocketChardev(Chardev):
    """A socket: a server for one client at a time, or a client.

    ``connection`` gives the socket of its client; whoever serves the monitor sets it.
    """

    TYPE = "chardev-socket"
    BACKEND = "socket"
    PROPERTIES = (
        Property("connected", "bool", bool, _connected),
        Property("addr", "SocketAddress", dict, lambda self: self.address_info()),
    )

    def __init__(
        self,
        address: Address,
        *,
        server: bool,
        wait: bool = False,
        reconnect: int = 0,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__()
        self.address = address
        self.reconnect = reconnect
        self.listener: socket.socket | None = None
        peer: socket.socket | None = None
        self.connection: Callable[[], socket.socket | None] = lambda: peer
        self._suffix = ",server=on" if server else ""
        if server:
            self.listener = listen(address)
            if wait:
                tell(f"QEMU waiting for connection on: {self.filename}")
                peer, _ = self.listener.accept()
        elif not reconnect:
            peer = connect(address)

    @property
    def filename(self) -> str:
        """The local address and the peer's, or that there is none."""
        peer = self.connection()
        if peer is not None:
            return describe_connection(peer, self._suffix)
        known = describe_local(self.listener) if self.listener else str(self.address)
        return f"disconnected:{known}{self._suffix}"

    @property
    def frontend_open(self) -> bool:
        """Whether a monitor listens to a client."""
        return self.taken and self.connection() is not None

    def address_info(self) -> dict[str, Any]:
        """Return the SocketAddress."""
        at = self.address
        if isinstance(at, UnixAddress):
            return {"type": "unix", "path": at.path}
        if isinstance(at, FdAddress):
            return {"type": "fd", "str": at.fd}
        host, port = self.listener.getsockname()[:2] if self.listener else (at.host, at.port)
        return {"type": "inet", "host": host, "port": str(port)}

    def plug(self) -> Plug:
        """Serve on the socket."""
        return Plug(
            listener=self.listener,
            connection=self.connection(),
            reconnect=self.reconnect,
            address=self.address,
        )

    def close(self) -> None:
        """Close, and remove the path that was bound."""
        if self.listener is not None:
            self.listener.close()
            if isinstance(self.address, UnixAddress) and not self.address.abstract:
                try:
                    os.unlink(self.address.path)  # noqa: PTH108: pathlib costs start-up time
                except FileNotFoundError:
                    pass  # somebody was faster
        peer = self.connection()
        if peer is not None:
            peer.close()


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as e:
        raise CannotOpenFile(path, e.strerror) from e


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


# From a command line

Options = Mapping[str, str]


def _make_null(options: Options, tell: Callable[[str], None]) -> Chardev:
    return NullChardev()


def _make_stdio(options: Options, tell: Callable[[str], None]) -> Chardev:
    return StdioChardev()


def _path(options: Options, backend: str) -> str:
    if "path" not in options:
        raise NoPath(backend)
    return options["path"]


def _make_file(options: Options, tell: Callable[[str], None]) -> Chardev:
    return FileChardev(_path(options, "file"), append=is_on(options.get("append")))


def _make_pipe(options: Options, tell: Callable[[str], None]) -> Chardev:
    if "path" not in options:
        raise NoPath("pipe")
    return PipeChardev(options["path"])


def _make_ring(options: Options, tell: Callable[[str], None]) -> Chardev:
    return RingBuffer(size(options.get("size", str(RING_SIZE))) or 0)


def _make_socket(options: Options, tell: Callable[[str], None]) -> Chardev:
    if sum(name in options for name in ("path", "fd", "host")) > 1:
        raise TwoAddresses
    if "host" in options and "port" not in options:
        raise NoPort
    if "delay" in options and "nodelay" in options:
        raise DelayTwice
    address = _socket_address(options)
    server = is_on(options.get("server"))
    if "reconnect" in options and isinstance(address, FdAddress):
        raise Incompatible("reconnect", "'fd' address type")
    if server and "reconnect" in options:
        raise Incompatible("reconnect", "socket in server listen mode")
    if not server and "wait" in options:
        raise Incompatible("wait", "socket in client connect mode")
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


_MAKERS: Final[Mapping[str, Callable[[Options, Callable[[str], None]], Chardev]]] = {
    "file": _make_file,
    "socket": _make_socket,
    "stdio": _make_stdio,
    "ringbuf": _make_ring,
    "null": _make_null,
    "pipe": _make_pipe,
}
BACKENDS: Final = tuple(_MAKERS)  # in QEMU's order


class Chardevs:
    """All chardevs, in the folder ``/chardevs`` of the object tree."""

    def __init__(self) -> None:
        self.container = Container()

    def __iter__(self) -> "Any":
        """Yield the chardevs in the order in which they are listed."""
        return reversed(list(self.container.children))

    def find(self, name: str) -> Chardev | None:
        """Return the chardev of that name."""
        found = self.container.child(name)
        return found if isinstance(found, Chardev) else None

    def add(self, name: str, chardev: Chardev) -> None:
        """Enter a chardev; close it if the name is taken."""
        try:
            self.container.add_child(name, chardev)
        except DuplicateChild:
            chardev.close()
            raise

    def add_options(
        self, text: str, warn: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        """Make what ``--chardev`` asks for.

        Raises:
            HelpWanted: the user asks which options there are.
            QmpError: it cannot be.
        """
        options = parse_options(text, "backend", OPTIONS, warn)
        name = options.get("id")
        if name is None:
            raise NoId
        backend = options.get("backend")
        if backend is None:
            raise NoBackend(name)
        if backend not in _MAKERS:
            raise UnknownBackend(backend)
        self.add(name, _MAKERS[backend](options, tell))

    def take(self, name: str) -> Chardev:
        """Reserve a chardev for a monitor."""
        found = self.find(name)
        if found is None:
            raise MonitorChardevNotFound(name)
        if found.taken:
            raise ChardevInUse(name)
        found.taken = True
        return found

    def remove(self, name: str) -> None:
        """Close a chardev that nobody uses."""
        found = self.find(name)
        if found is None:
            raise ChardevNotFound(name)
        if found.taken:
            raise ChardevBusy(name)
        self.container.remove_child(name)
        found.close()

    def close(self) -> None:
        """Close them all."""
        for chardev in list(self):
            self.container.remove_child(chardev.name)
            chardev.close()
