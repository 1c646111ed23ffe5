"""Character devices: where a monitor reads and writes.

Those that a monitor of a storage daemon is put on: sockets, stdio, pipes, files, ring buffers,
null.  A chardev only opens and describes; who serves it takes what ``plug`` gives.  Everything here
blocks and is for start-up or commands; nothing here needs an event loop.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from blockemu.errors import QmpError
from blockemu.host.sockets import (
    Address,
    FdAddress,
    UnixAddress,
    VsockAddress,
    connect,
    describe_connection,
    describe_local,
    listen,
)
from blockemu.objects.qom import Container, DuplicateChild, Object, Property

RING_SIZE = 65536


class Incompatible(QmpError):
    """(option, with what)."""

    template = "'{}' option is incompatible with {}"


class BadRingSize(QmpError):
    """Not a power of two."""

    template = "size of ringbuf chardev must be power of two"


class CannotOpenFile(QmpError):
    """(path, errno's text)."""

    template = "Could not open '{}': {}"


class StdioTaken(QmpError):
    """There is one standard input."""

    template = "cannot use stdio by multiple character devices"


class FdsUnsupported(QmpError):
    """A passed descriptor is not known by that name."""

    template = "only QEMU supports file descriptor passing"


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


class OnlyQmp(QmpError):
    """There is no human monitor."""

    template = "Only QMP is supported"


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

    BACKEND: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False  # a monitor is on it

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
    BACKEND = "stdio"

    def plug(self) -> Plug:
        """Serve on both."""
        return Plug(reader=0, writer=1)


class FileChardev(Chardev):
    """Output to a file, and input from another if there is one."""

    TYPE = "chardev-file"
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


class MemoryChardev(RingBuffer):
    """A ring buffer by its old name."""

    TYPE = "chardev-memory"
    BACKEND = "memory"


def _connected(self: "SocketChardev") -> bool:
    return self.connection() is not None


class SocketChardev(Chardev):
    """A socket: a server for one client at a time, or a client.

    ``server`` None: an inherited socket is what it is.
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
        server: bool | None,
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
        says_side = server and not isinstance(address, VsockAddress)
        self._suffix = ",server=on" if says_side else ""
        if server is None:
            adopted = connect(address)
            if adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                self.listener, self._suffix = adopted, ",server=on"
            else:
                peer = adopted
        elif server:
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
        if isinstance(at, VsockAddress):
            return {"type": "vsock", "cid": at.cid, "port": at.port}
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
                with suppress(FileNotFoundError):  # somebody was faster
                    os.unlink(self.address.path)  # noqa: PTH108
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


def check_socket(address: Address, *, server: bool, has_reconnect: bool, has_wait: bool) -> None:
    """Raise if options do not go together (qmp_chardev_validate_socket, chardev/char-socket.c)."""
    if has_reconnect and isinstance(address, FdAddress):
        raise Incompatible("reconnect", "'fd' address type")
    if server and has_reconnect:
        raise Incompatible("reconnect", "socket in server listen mode")
    if not server and has_wait:
        raise Incompatible("wait", "socket in client connect mode")


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

    def check_stdio(self) -> None:
        """Raise if standard input is taken."""
        if any(isinstance(chardev, StdioChardev) for chardev in self):
            raise StdioTaken

    def take(self, name: str, *, hmp: bool = False) -> Chardev:
        """Reserve a chardev for a monitor, which cannot be a human one."""
        found = self.find(name)
        if found is None:
            raise MonitorChardevNotFound(name)
        if hmp:
            raise OnlyQmp
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
