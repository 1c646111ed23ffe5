"""Character devices: query-chardev and what goes with ring buffers."""

import base64

from blockemu.chardevs import BACKENDS, Chardev, RingBuffer
from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.objects import decode_base64
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import QEnum, Struct


class NoSuchRing(QmpError):
    """No chardev has the name."""

    template = "Device '{}' not found"


class NotARingBuffer(QmpError):
    """Another kind of chardev."""

    template = "{} is not a ringbuf device"


class NoSize(QmpError):
    """Nothing was asked for."""

    template = "size must be greater than zero"


class DataFormat(QEnum):
    """How bytes are written in JSON."""

    UTF8 = "utf8"
    BASE64 = "base64"


class ChardevInfo(Struct):
    """A chardev.

    @label: its name
    @filename: what it is connected to
    @frontend-open: whether somebody uses it
    """

    label: str
    filename: str
    frontend_open: bool


class ChardevBackendInfo(Struct):
    """A kind of chardev.

    @name: its name
    """

    name: str


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
def chardev_remove(context: Context, *, id: str) -> None:  # noqa: A002: the wire's name
    """Remove a chardev that nobody uses."""
    context.chardevs.remove(id)


@command(since="1.4")
def ringbuf_write(
    context: Context, *, device: str, data: str, format: DataFormat | None = None  # noqa: A002
) -> None:
    """Write to a ring buffer."""
    ring = _ring(context.chardevs.find(device), device)
    raw = data.encode()
    ring.write(decode_base64(raw) if format == DataFormat.BASE64 else raw)


@command(since="1.4")
def ringbuf_read(
    context: Context, *, device: str, size: int, format: DataFormat | None = None  # noqa: A002
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
