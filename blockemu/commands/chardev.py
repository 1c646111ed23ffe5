"""Character devices: query-chardev and what goes with ring buffers."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from blockemu.chardev_options import BACKENDS
from blockemu.chardevs import (
    RING_SIZE,
    Chardev,
    ChardevExists,
    ChardevNotFound,
    FdsUnsupported,
    FileChardev,
    MemoryChardev,
    NullChardev,
    PipeChardev,
    RingBuffer,
    SocketChardev,
    StdioChardev,
    check_socket,
)
from blockemu.commands.context import Context
from blockemu.errors import QmpError, Wrapped
from blockemu.host.sockets import Address, FdAddress, InetAddress, UnixAddress, VsockAddress
from blockemu.objects.object_add import decode_base64
from blockemu.qmp_server.dispatch import command
from blockemu.schema.chardevs import (
    AnyChardevBackend,
    ChardevBackendInfo,
    ChardevFile,
    ChardevInfo,
    ChardevReturn,
    ChardevRingbuf,
    ChardevSocket,
    DataFormat,
)
from blockemu.schema.sockets import (
    InetSocketAddress,
    String,
    UnixSocketAddress,
    VsockSocketAddress,
)


class NothingToChange(QmpError):
    """No chardev has the name."""

    template = "Chardev '{}' does not exist"


class NoHotswap(QmpError):
    """Whoever uses it would not know the new one."""

    template = "Chardev user does not support chardev hotswap"


class NoSuchRing(QmpError):
    """No chardev has the name."""

    template = "Device '{}' not found"


class NotARingBuffer(QmpError):
    """Another kind of chardev."""

    template = "{} is not a ringbuf device"


class NoSize(QmpError):
    """Nothing was asked for."""

    template = "size must be greater than zero"


@command(since="0.14")
def query_chardev(context: Context) -> list[ChardevInfo]:
    """List the chardevs."""
    return [
        ChardevInfo(label=c.name, filename=c.filename, frontend_open=c.frontend_open)
        for c in context.chardevs
    ]


@command(since="2.0")
def query_chardev_backends(context: Context) -> list[ChardevBackendInfo]:
    """List the kinds of chardevs."""
    return [ChardevBackendInfo(name=name) for name in reversed(BACKENDS)]


@command(since="1.4")
def chardev_add(context: Context, *, id: str, backend: AnyChardevBackend) -> ChardevReturn:
    """Add a chardev.  A socket that waits for its client, or connects, holds up everything."""
    chardevs = context.chardevs
    if chardevs.find(id) is not None:
        raise ChardevExists(id)
    chardevs.add(id, _make(context, id, backend))
    return ChardevReturn()


def _make(context: Context, name: str, backend: AnyChardevBackend) -> Chardev:
    assert backend.tag is not None
    try:
        if backend.tag == "stdio":
            context.chardevs.check_stdio()
        return _MAKERS[backend.tag](context, _data(backend))
    except QmpError as e:
        raise Wrapped(f"Failed to add chardev '{name}'", e) from e


def _data(case: Any) -> Any:
    """Return the content of a wrapper, which all cases of both unions are."""
    return case.data


def _file(context: Context, data: ChardevFile) -> Chardev:
    return FileChardev(data.out, data.in_, append=bool(data.append))


def _ringbuf(context: Context, data: ChardevRingbuf) -> Chardev:
    return RingBuffer(RING_SIZE if data.size is None else data.size)


def _memory(context: Context, data: ChardevRingbuf) -> Chardev:
    return MemoryChardev(RING_SIZE if data.size is None else data.size)


def _socket(context: Context, data: ChardevSocket) -> Chardev:
    address = _address(context, data)
    server = data.server is not False
    check_socket(
        address,
        server=server,
        has_reconnect=data.reconnect is not None,
        has_wait=data.wait is not None,
    )
    return SocketChardev(
        address, server=server, wait=server and bool(data.wait), reconnect=data.reconnect or 0
    )


def _address(context: Context, data: ChardevSocket) -> Address:
    given: UnixSocketAddress | InetSocketAddress | VsockSocketAddress | String = _data(data.addr)
    if isinstance(given, UnixSocketAddress):
        return UnixAddress(given.path, bool(given.abstract), given.tight is not False)
    if isinstance(given, InetSocketAddress):
        return InetAddress(given.host, given.port)
    if isinstance(given, VsockSocketAddress):
        return VsockAddress(given.cid, given.port)
    fd = context.named_fds.pop(given.str_, None)
    if fd is None:
        raise FdsUnsupported
    return FdAddress(str(fd))


_MAKERS: Mapping[str, Callable[[Context, Any], Chardev]] = {
    "file": _file,
    "pipe": lambda context, data: PipeChardev(data.device),
    "socket": _socket,
    "null": lambda context, data: NullChardev(),
    "stdio": lambda context, data: StdioChardev(),
    "ringbuf": _ringbuf,
    "memory": _memory,
}


@command(since="1.4")
def chardev_remove(context: Context, *, id: str) -> None:
    """Remove a chardev that nobody uses."""
    context.chardevs.remove(id)


@command(since="2.10")
def chardev_send_break(context: Context, *, id: str) -> None:
    """Send a break on a chardev; on none of ours there is such a thing.

    @id: its name
    """
    if context.chardevs.find(id) is None:
        raise ChardevNotFound(id)


@command(since="2.10")
def chardev_change(context: Context, *, id: str, backend: AnyChardevBackend) -> ChardevReturn:
    """Put another chardev in the place of one that nobody uses, which is gone even if this fails.

    @id: its name
    @backend: the new one
    """
    old = context.chardevs.find(id)
    if old is None:
        raise NothingToChange(id)
    if old.taken:
        raise NoHotswap
    context.chardevs.remove(id)
    context.chardevs.add(id, _make(context, id, backend))
    return ChardevReturn()


@command(since="1.4")
def ringbuf_write(
    context: Context,
    *,
    device: str,
    data: str,
    format: DataFormat | None = None,
) -> None:
    """Write to a ring buffer."""
    ring = _ring(context.chardevs.find(device), device)
    raw = data.encode()
    ring.write(decode_base64(raw) if format == DataFormat.BASE64 else raw)


@command(since="1.4")
def ringbuf_read(
    context: Context,
    *,
    device: str,
    size: int,
    format: DataFormat | None = None,
) -> str:
    """Take bytes out of a ring buffer."""
    ring = _ring(context.chardevs.find(device), device)
    if size <= 0:
        raise NoSize
    data = ring.read(size)
    if format == DataFormat.BASE64:
        return base64.b64encode(data).decode()
    return data.decode(errors="replace")


def _ring(found: Chardev | None, name: str) -> RingBuffer:
    if found is None:
        raise NoSuchRing(name)
    if not isinstance(found, RingBuffer):
        raise NotARingBuffer(name)
    return found
