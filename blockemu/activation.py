"""Giving images to another machine, and taking them over (BDRV_O_INACTIVE).

An inactive node holds no permission that another program could mind, is not written to, and does
not rely on what it has read: when it becomes active it reads its metadata anew.  Backends that are
a guest's keep what they want for that moment.  After bdrv_activate and bdrv_inactivate_recurse,
block.c, and blk_root_activate, block/block-backend.c.
"""

import errno
import os
from contextlib import suppress
from typing import Any

from blockemu.backend import Backend, drained
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.images.errors import FormatError
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.permissions import refresh, try_set_perm
from blockemu.transaction import Transaction


class NoSize(QmpError):
    """(why): the image cannot be used as it is now."""

    template = "Could not refresh total sector count: {}"


class NotActivated(QmpError):
    """(why): the image could not be read anew."""

    template = "{}"


def tops(graph: Graph) -> list[Node[Any]]:
    """Return the nodes that backends or the monitor hold, in QEMU's order (bdrv_next)."""
    held = [backend.node for backend in graph.all_backends() if backend.inserted is not None]
    own = [node for node in graph.nodes.values() if node.monitor_owned]
    return list(dict.fromkeys([*held, *own]))


async def activate_all(graph: Graph) -> None:
    """Take all images over.

    Raises:
        QmpError: the first that cannot be; those before it are active.

    """
    nodes = tops(graph)
    if not any(_asleep(node) for node in nodes):
        return
    async with drained(*graph):
        for node in nodes:
            await _activate(graph, node)


def _asleep(node: Node[Any]) -> bool:
    """Tell whether a node or one below it, or a backend on one, is to be made active."""
    suspended = (e for e in node.parents if isinstance(e, Backend) and e.suspended is not None)
    below = (_asleep(edge.node) for edge in node.children.values())
    return node.flags.inactive or any(suspended) or any(below)


async def activate(graph: Graph, node: Node[Any]) -> None:
    """Take over one image, and those below it.

    Raises:
        QmpError: it cannot be.

    """
    if not _asleep(node):
        return
    async with drained(node):
        await _activate(graph, node)


async def _activate(graph: Graph, node: Node[Any]) -> None:
    for edge in reversed(node.children.values()):
        await _activate(graph, edge.node)
    if node.flags.inactive:
        node.flags.inactive = False
        try:
            _refresh(node)
            await _invalidate(node)
        except BaseException:
            node.flags.inactive = True
            raise
        for bitmap in node.bitmap_set or ():
            bitmap.skip_store = False
        node.changed()
    for edge in list(node.parents):
        if isinstance(edge, Backend) and edge.suspended is not None:
            try:
                _resume(graph, edge)
            except QmpError:
                node.flags.inactive = True
                raise


async def _invalidate(node: Node[Any]) -> None:
    try:
        await node.activate()
    except FormatError as e:
        raise NotActivated(e, hint=e.hint) from e
    try:
        _ = node.length
    except OSError as e:
        raise NoSize(os.strerror(e.errno or errno.EIO)) from e


def _resume(graph: Graph, backend: Backend) -> None:
    """Give a backend what it wants.

    As long as the other machine runs, others may do as they like: an NBD server that its disks are
    mirrored to, say.
    """
    assert backend.suspended is not None
    perm, shared = backend.suspended
    backend.suspended = None
    try:
        try_set_perm(backend, perm, Perm.ALL)
        if graph.incoming:
            graph.to_unshare[backend] = shared
        else:
            try_set_perm(backend, perm, shared)
    except QmpError:
        backend.suspended = perm, shared
        raise


def unshare(graph: Graph) -> list[QmpError]:
    """Share no more than guests' devices want, now that the machine starts; return what fails."""
    failed: list[QmpError] = []
    for backend, shared in graph.to_unshare.items():
        try:
            if backend.inserted is not None:
                try_set_perm(backend, backend.perm, shared)
        except QmpError as e:
            failed.append(e)
    graph.to_unshare.clear()
    return failed


async def inactivate_all(graph: Graph) -> None:
    """Give all images away.

    Raises:
        OSError: EPERM, somebody writes to one; or it cannot be written back.  Some are inactive.

    """
    async with drained(*graph):
        for node in tops(graph):
            if all(edge.parent is None for edge in node.parents):
                await _inactivate(node)


async def _inactivate(node: Node[Any]) -> None:
    """Make a node inactive once all nodes above it are, and then those below."""
    if node.flags.inactive:
        return
    if any(edge.parent is not None and not edge.parent.flags.inactive for edge in node.parents):
        return
    await node.inactivate()
    for edge in list(node.parents):
        if isinstance(edge, Backend):
            _suspend(edge)
    if node.cumulative_perm()[0] & Perm.WRITES:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    node.flags.inactive = True
    node.changed()
    with suppress(QmpError):  # it asks for less than before
        _refresh(node)
    for edge in reversed(node.children.values()):
        await _inactivate(edge.node)


def _suspend(backend: Backend) -> None:
    if backend.suspended is not None:
        return
    if not backend.can_be_suspended:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    backend.suspended = backend.perm, backend.shared
    try_set_perm(backend, Perm.NONE, Perm.ALL)


def _refresh(node: Node[Any]) -> None:
    with Transaction() as transaction:
        refresh(node, transaction=transaction)
