"""blockdev-add, blockdev-del and their like."""

import errno
import os
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from blockemu import filenames
from blockemu.backend import Backend, drained
from blockemu.blockdev_options import BlockdevOptions
from blockemu.chain import in_chain
from blockemu.commands.context import Context
from blockemu.commands.fds import take_socket
from blockemu.connecting import sockets_by_name
from blockemu.emulator import Emulator
from blockemu.errors import HostError, InvalidParameterValue, NoSuchNode, QmpError
from blockemu.node_options import flatten
from blockemu.perm import Perm
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import dump
from blockemu.reopen import Queue, set_read_only, subtree


class NodeNameMissing(QmpError):
    """A node that belongs to the monitor needs a name."""

    template = "'node-name' must be specified for the root node"


class InUse(QmpError):
    """A device sits on the node."""

    template = "Node {} is in use"


class NotOwned(QmpError):
    """The node was opened for another node."""

    template = "Node {} is not owned by the monitor"


class HasParents(QmpError):
    """Another node stands on the node."""

    template = "Block device {} is in use"


@command(since="2.9")
async def blockdev_add(context: Context, options: BlockdevOptions) -> None:
    """Open a node that stays until ``blockdev-del``."""
    with sockets_by_name(partial(take_socket, context)):
        await add_node(context.emu, dump(options))


async def add_node(emu: Emulator, plain: dict[str, Any]) -> None:
    """Open a node that belongs to the monitor."""
    if plain.get("node-name") is None:
        raise NodeNameMissing
    plain["cache"] = {"direct": False, "no-flush": False} | plain.get("cache", {})
    node = await emu.opener.open({"read-only": False} | plain)
    node.monitor_owned = True


@command(since="2.9")
async def blockdev_del(context: Context, *, node_name: str) -> None:
    """Close a node that nobody uses (after qmp_blockdev_del, blockdev.c)."""
    graph = context.emu.graph
    node = graph.find(node_name)
    if any(isinstance(edge, Backend) for edge in node.parents):
        raise InUse(node_name)
    graph.check_unblocked(node, "drive-del")
    if not node.monitor_owned:
        raise NotOwned(node_name)
    if node.parents or node.holds:
        raise HasParents(node_name)
    await graph.delete(node)


class NodeNameNotGiven(QmpError):
    """What is to be reopened is told by its name."""

    template = "node-name not specified"


class DeviceInUse(QmpError):
    """Something else uses the device."""

    template = "Device '{}' is in use"


class ResizeFailed(QmpError):
    """The driver failed for a reason QEMU has no words for."""

    template = "Failed to resize the image: {}"


class NoBackingFile(QmpError):
    """There is nothing to change."""

    template = "not allowing backing file change on an image without a backing file"


class OtherChain(QmpError):
    """The image does not belong to the device."""

    template = "'{}' and image file are not in the same chain"


class CannotChangeBacking(QmpError):
    """The format failed to change its header."""

    template = "Could not change backing file to '{}': {}"


@command(name="x-blockdev-reopen", since="4.0", removed="6.1")
async def x_blockdev_reopen(context: Context, options: BlockdevOptions) -> None:
    """Give a node new options."""
    await _reopen(context.emu, [options])


@command(since="6.1")
async def blockdev_reopen(context: Context, *, options: list[BlockdevOptions]) -> None:
    """Give nodes new options, all of them or none."""
    await _reopen(context.emu, options)


async def _reopen(emu: Emulator, options: list[BlockdevOptions]) -> None:
    graph = emu.graph
    queue = Queue(graph)
    async with AsyncExitStack() as stack:
        for each in options:
            if each.node_name is None:
                raise NodeNameNotGiven
            if each.node_name not in graph.nodes:
                raise NoSuchNode(each.node_name)
            node = graph.nodes[each.node_name]
            await stack.enter_async_context(drained(*subtree(node)))
            queue.add(node, flatten(dump(each)))
        await queue.run()
        for node in list(graph):
            filenames.refresh(node)


@command(name="block_resize", since="0.14")
async def block_resize(
    context: Context,
    *,
    device: str | None = None,
    node_name: str | None = None,
    size: int,
) -> None:
    """Change the size of an image."""
    graph = context.emu.graph
    node = graph.lookup_either(device, node_name)
    if size < 0:
        raise InvalidParameterValue("size", "a >0 size")
    if any("resize" not in blocker.allowed for blocker in node.blockers):
        raise DeviceInUse(device or "(null)")  # so says QEMU, too
    backend = Backend(perm=Perm.RESIZE, shared=Perm.ALL)
    graph.insert(backend, node)
    try:
        async with drained(node):
            await _truncate(backend, size)
    finally:
        await graph.remove(backend)


async def _truncate(backend: Backend, size: int) -> None:
    try:
        await backend.truncate(size, exact=False)
    except HostError:
        raise
    except OSError as e:
        raise ResizeFailed(os.strerror(e.errno or errno.EIO)) from e


@command(since="2.1")
async def change_backing_file(
    context: Context, *, device: str, image_node_name: str, backing_file: str
) -> None:
    """Change the name of the backing file in an image's header, and nothing else."""
    emu, graph = context.emu, context.emu.graph
    root = graph.root_node(device)
    image = graph.lookup_either(None, image_node_name)
    if image.backing is None:
        raise NoBackingFile
    graph.check_unblocked(root, "change")
    if not in_chain(root, image):
        raise OtherChain(device)
    was_read_only = image.flags.read_only
    if was_read_only:
        await set_read_only(emu.graph, image, False)
    try:
        await image.change_backing_file(backing_file, image.driver)
    except NotImplementedError:
        raise CannotChangeBacking(backing_file, os.strerror(errno.ENOTSUP)) from None
    except OSError as e:
        raise CannotChangeBacking(backing_file, os.strerror(e.errno or errno.EIO)) from e
    finally:
        if was_read_only:
            await set_read_only(emu.graph, image, True)
