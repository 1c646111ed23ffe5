"""blockdev-add, blockdev-del and their like."""

import errno
import os
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol, runtime_checkable

from blockemu import filenames
from blockemu.backend import Backend, drained
from blockemu.blockdev_options import BlockdevOptions
from blockemu.chain import find_base, in_chain
from blockemu.commands.context import Context
from blockemu.commands.fds import take_socket
from blockemu.connecting import sockets_by_name
from blockemu.edge import Edge
from blockemu.emulator import Emulator
from blockemu.errors import HostError, InvalidParameterValue, NoSuchNode, QmpError
from blockemu.graph import Graph
from blockemu.node import Flags, Node
from blockemu.node_options import NO_CACHE_MODES, fill_cache, flatten
from blockemu.perm import Perm, Role
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import dump
from blockemu.reopen import Queue, set_read_only, subtree
from blockemu.transaction import Transaction


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
    fill_cache(plain, NO_CACHE_MODES)
    flags = Flags(inactive=emu.graph.incoming)
    node = await emu.opener.open({"read-only": False} | plain, flags=flags)
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


class ChildAndNode(QmpError):
    """One change at a time."""

    template = "The parameters child and node are in conflict"


class NeitherChildNorNode(QmpError):
    """Nothing is to be changed."""

    template = "Either child or node must be specified"


class NoSuchChild(QmpError):
    """(parent, child)."""

    template = "Node '{}' does not have child '{}'"


class NewChildNotFound(QmpError):
    """There is no node of this name."""

    template = "Node '{}' not found"


class TakesNoChildren(QmpError):
    """The driver cannot be given more children."""

    template = "The node {} does not support adding a child"


class LosesNoChildren(QmpError):
    """The driver cannot do with fewer children."""

    template = "The node {} does not support removing a child"


class HasParentAlready(QmpError):
    """Another node, or a user, stands on the new child."""

    template = "The node {} already has a parent"


@runtime_checkable
class VariesChildren(Protocol):
    """A node that children can be added to, and removed from, as long as it is there."""

    def name_new_child(self) -> str:
        """Return the name of the next child.  Raises QmpError if there can be none."""

    def added_child(self, edge: Edge) -> None:
        """Hear of a new child."""

    def check_removal(self) -> None:
        """Raise QmpError if no child can be missed."""

    def removed_child(self, edge: Edge) -> None:
        """Hear that a child is about to go."""


@command(name="x-blockdev-change", since="2.7", features=("unstable",))
async def x_blockdev_change(
    context: Context, *, parent: str, child: str | None = None, node: str | None = None
) -> None:
    """Add a node to another's children, or remove one of them."""
    graph = context.emu.graph
    above = graph.lookup(parent)
    if child is not None and node is not None:
        raise ChildAndNode
    if child is not None:
        if child not in above.children:
            raise NoSuchChild(parent, child)
        await _remove_child(graph, above, above.children[child])
    elif node is not None:
        if node not in graph.nodes:
            raise NewChildNotFound(node)
        await _add_child(graph, above, graph.nodes[node])
    else:
        raise NeitherChildNorNode


async def _add_child(graph: Graph, above: Node[Any], node: Node[Any]) -> None:
    if not isinstance(above, VariesChildren):
        raise TakesNoChildren(graph.display_name(above))
    if node.parents:
        raise HasParentAlready(node.name)
    name = above.name_new_child()
    async with drained(above):
        with Transaction() as transaction:
            edge = graph.add_child(above, name, Role.DATA, node, transaction)
        above.added_child(edge)
        above.changed()


async def _remove_child(graph: Graph, above: Node[Any], edge: Edge) -> None:
    if not isinstance(above, VariesChildren):
        raise LosesNoChildren(graph.display_name(above))
    above.check_removal()
    node = edge.node
    async with drained(above):
        above.removed_child(edge)
        graph.drop_root(edge)
        above.changed()
        await graph.release(node)


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
    if find_base(image) is image:
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
