"""Trays, and the media that go in and out of them (after block/qapi-sysemu.c).

Nobody in the machine ever locks a tray: that takes a guest.
"""

from collections.abc import Callable
from typing import Any

from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.node import Node
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.devices import DeviceTrayMoved

Emit = Callable[[Struct], None]


class NotRemovable(QmpError):
    """The medium is a part of the device."""

    template = "Device '{}' is not removable"


class NoTray(QmpError):
    """A floppy drive, say, or no device at all."""

    template = "Device '{}' does not have a tray"


class TrayClosed(QmpError):
    """The medium cannot be got at."""

    template = "Tray of device '{}' is not open"


class FixedMedium(QmpError):
    """The same as NotRemovable, where a medium is put in."""

    template = "Device is not removable"


class ClosedForInsertion(QmpError):
    """The same as TrayClosed, where a medium is put in."""

    template = "Tray of the device is not open"


class MediumPresent(QmpError):
    """There is room for one."""

    template = "There already is a medium in the device"


class MediumUnknown(QmpError):
    """No node has the name."""

    template = "Node '{}' not found"


class MediumInUse(QmpError):
    """A medium is in one device only."""

    template = "Node '{}' is already in use"


def open_tray(emit: Emit, backend: Backend, name: str) -> None:
    """Open a tray; ``name`` is what the client calls the device.

    Raises:
        NotRemovable: its medium is fixed.
        NoTray: there is nothing to open.

    """
    if not backend.removable:
        raise NotRemovable(name)
    if not backend.tray:
        raise NoTray(name)
    if not backend.tray_open:
        _move(emit, backend, loaded=False)


def close_tray(emit: Emit, backend: Backend, name: str) -> None:
    """Close a tray, if there is one that is open.

    Raises:
        NotRemovable: its medium is fixed.

    """
    if not backend.removable:
        raise NotRemovable(name)
    if backend.tray_open:
        _move(emit, backend, loaded=True)


async def remove_medium(graph: Graph, emit: Emit, backend: Backend, name: str) -> None:
    """Take the medium out, if there is one.

    Raises:
        NotRemovable: it is fixed.
        TrayClosed: it is behind a closed tray.
        NodeBusy: somebody else needs it to stay.

    """
    if not backend.removable:
        raise NotRemovable(name)
    if backend.tray and not backend.tray_open:
        raise TrayClosed(name)
    node = backend.inserted
    if node is None:
        return
    graph.check_unblocked(node, "eject")
    await graph.remove(backend)
    if not backend.tray:
        _move(emit, backend, loaded=False)


async def insert_medium(graph: Graph, emit: Emit, backend: Backend, node: Node[Any]) -> None:
    """Put a medium in.

    Raises:
        QmpError: it does not fit; the device is as it was.

    """
    if not backend.removable:
        raise FixedMedium
    if backend.tray and not backend.tray_open:
        raise ClosedForInsertion
    if backend.inserted is not None:
        raise MediumPresent
    graph.insert(backend, node)
    if backend.tray:
        return
    try:
        _move(emit, backend, loaded=True)
    except QmpError:
        await graph.remove(backend)
        raise


def find_medium(graph: Graph, name: str) -> Node[Any]:
    """Find a node that may be put into a device.

    Raises:
        MediumUnknown: there is no such node.
        MediumInUse: a device, a job or an export uses it.

    """
    node = graph.nodes.get(name)
    if node is None:
        raise MediumUnknown(name)
    if any(isinstance(edge, Backend) for edge in node.parents):
        raise MediumInUse(name)
    return node


def _move(emit: Emit, backend: Backend, *, loaded: bool) -> None:
    """Tell the device, and clients if its tray moved (blk_dev_change_media_cb)."""
    for hook in backend.media_hooks:
        hook(loaded)
    if backend.tray and backend.tray_open == loaded:
        backend.tray_open = not loaded
        backend.forget()
        emit(
            DeviceTrayMoved(device=backend.title, id=backend.device_id, tray_open=backend.tray_open)
        )
