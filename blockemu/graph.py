"""The graph of nodes: names, references, and changes of who is whose child.

Changes come in two halves: those here without an await (attach, detach, replace) note in a
``Transaction`` how to undo them, and ``release`` closes what nobody uses any more.
"""

from _random import Random  # all of ``random`` takes as long to import as ten nodes to open
from collections.abc import Iterator
from typing import Any

from blockemu.backend import Backend, drained
from blockemu.edge import Edge
from blockemu.errors import NodeNotFound, NoSuchNode, QmpError, Wrapped
from blockemu.filtered_edge import FilteredEdge
from blockemu.node import Blocker, Node
from blockemu.optlist import is_identifier
from blockemu.perm import Perm, Role
from blockemu.permissions import refresh
from blockemu.threads import Threads
from blockemu.transaction import Transaction


class Cycle(QmpError):
    """A node would be its own descendant."""

    template = "Making '{}' a {} child of '{}' would create a cycle"


class FrozenLink(QmpError):
    """A job holds on to the link that was to be changed."""

    template = "Cannot change frozen '{}' link from '{}' to '{}'"


class FrozenChild(QmpError):
    """The same, when a node is to be replaced."""

    template = "Cannot change '{}' link to '{}'"


class NodeBusy(QmpError):
    """An operation is blocked, e.g. by a job."""

    template = "Node '{}' is busy: {}"


class BadNodeName(QmpError):
    """A node name that is not a valid identifier."""

    template = "Invalid node-name: '{}'"


class NameIsDevice(QmpError):
    """The node name is taken by a device."""

    template = "node-name={} is conflicting with a device id"


class DuplicateNode(QmpError):
    """The node name is taken."""

    template = "Duplicate nodes with node-name='{}'"


class NameTooLong(QmpError):
    """Node names have at most 31 characters."""

    template = "Node name too long"


class Graph:
    """All nodes by name, in order of creation, and the named backends."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: dict[str, Node[Any]] = {}
        self.backends: dict[str, Backend] = {}  # by title, or by the path of their device
        self._roots: dict[Backend, None] = {}  # those on nodes, the oldest first
        self.plans = True  # whether backends may answer at once (--no-plan)
        self.incoming = False  # another machine has the images still, and this is to take them over
        self.to_unshare: dict[Backend, Perm] = {}  # what roots share when this machine has started
        self.threads = Threads()
        self._auto = 0
        self._random = Random(seed)

    # Names

    def new_name(self, wanted: str | None) -> str:
        """Check a node name, or make one up as QEMU does: ``#block`` and a number.

        The digits at the end are random in QEMU, so that nobody relies on them; here they come
        from the graph's seed.
        """
        if wanted is None:
            self._auto += 1
            while (digits := self._random.getrandbits(7)) >= 100:
                pass
            return f"#block{self._auto - 1:d}{digits:02d}"
        if not is_identifier(wanted):
            raise BadNodeName(wanted)
        if wanted in self.backends:
            raise NameIsDevice(wanted)
        if wanted in self.nodes:
            raise DuplicateNode(wanted)
        if len(wanted) > 31:
            raise NameTooLong
        return wanted

    def add(self, node: Node[Any]) -> None:
        """Enter a node under its name."""
        self.nodes[node.name] = node

    def __iter__(self) -> Iterator[Node[Any]]:
        """Yield the nodes, the newest first, as QEMU's queries do."""
        return reversed(self.nodes.values())

    def find(self, name: str) -> Node[Any]:
        """Look a node up by node name only."""
        if name not in self.nodes:
            raise NoSuchNode(name)
        return self.nodes[name]

    def lookup(self, name: str) -> Node[Any]:
        """Look a node up by a name that may be a backend's or a node's."""
        return self.lookup_either(name, name)

    def lookup_either(self, device: str | None, node_name: str | None) -> Node[Any]:
        """Look a node up by the name of a backend, or of a node (bdrv_lookup_bs, block.c)."""
        backend = self.named(device)
        if backend is not None:
            if backend.inserted is None:
                raise NoMedium(device)
            return backend.node
        if node_name is not None and node_name in self.nodes:
            return self.nodes[node_name]
        raise NodeNotFound(device or "", node_name or "")

    def named(self, title: str | None) -> Backend | None:
        """Return the backend with a name; no path of a device is one (blk_by_name)."""
        backend = self.backends.get(title) if title is not None else None
        return backend if backend is not None and backend.title else None

    def root_node(self, name: str) -> Node[Any]:
        """Look up a node that no other node nor a job stands on (qmp_get_root_bs, blockdev.c)."""
        node = self.lookup(name)
        if not all(isinstance(edge, Backend) for edge in node.parents):
            raise NotRoot
        return node

    # Attaching

    def attach(self, edge: Edge, node: Node[Any], transaction: Transaction) -> None:
        """Let ``edge`` lead to ``node``; permissions are the caller's care."""
        parent = edge.parent
        if parent is not None:
            if self.reaches(node, parent):
                raise Cycle(node.name, edge.name, parent.name)
            self.threads.check_join(parent, node)
            parent.children[edge.name] = edge
            setattr(parent, edge.name.replace("-", "_"), edge)
        edge.node = node
        node.parents.insert(0, edge)
        edge.match_drains(node.quiesce_counter)
        edge.forget()
        transaction.on_abort(lambda: self._unlink(edge))
        if edge.role & Role.COW and parent is not None:
            block(node, Blocker(f"node is used as backing hd of '{parent.name}'", BACKING_OPS))

    def detach(self, edge: Edge, transaction: Transaction) -> None:
        """Take an edge out of the graph."""
        node, inherits_from = edge.node, edge.node.inherits_from

        def undo() -> None:
            self.attach(edge, node, Transaction())
            node.inherits_from = inherits_from

        self._unlink(edge)
        transaction.on_abort(undo)

    def _unlink(self, edge: Edge) -> None:
        edge.forget()
        node, parent = edge.node, edge.parent
        node.parents.remove(edge)
        if parent is not None:
            del parent.children[edge.name]
            name = edge.name.replace("-", "_")
            if name in vars(parent):
                delattr(parent, name)
            if edge.role & Role.COW:
                unblock(node, f"node is used as backing hd of '{parent.name}'")
            if node.inherits_from is parent:
                node.inherits_from = None
        edge.match_drains(0)

    def add_child(
        self, parent: Node[Any], name: str, role: Role, child: Node[Any], transaction: Transaction
    ) -> Edge:
        """Make ``child`` a child of ``parent`` and see to permissions."""
        edge = self.add_child_unchecked(parent, name, role, child, transaction)
        refresh(parent, transaction=transaction)
        return edge

    def add_child_unchecked(
        self, parent: Node[Any], name: str, role: Role, child: Node[Any], transaction: Transaction
    ) -> Edge:
        """Make ``child`` a child of ``parent``; permissions are the caller's care."""
        edge = (FilteredEdge if role & Role.FILTERED else Edge)(name, parent, role)
        self.attach(edge, child, transaction)
        return edge

    def insert(self, backend: Backend, node: Node[Any]) -> None:
        """Put a root on a node."""
        backend.plans = backend.plans and self.plans
        with Transaction() as transaction:
            transaction.on_abort(lambda: delattr(backend, "node"))  # it is nowhere, as before
            self.attach(backend, node, transaction)
            refresh(node, transaction=transaction)
        self._roots[backend] = None

    async def move(self, backend: Backend, to: Node[Any]) -> None:
        """Put a root that is on a node on another (bdrv_replace_child_bs, block.c).

        Raises:
            QmpError: permissions do not work out; all is as it was.

        """
        old = backend.node
        async with drained(old, to):
            with Transaction() as transaction:
                self.redirect(backend, to, transaction)
                refresh(old, to, transaction=transaction)
        await self.release(old)

    async def remove(self, backend: Backend) -> None:
        """Take a root off its node, and close what nobody else uses."""
        node = backend.inserted
        if node is None:
            return
        for hook in backend.removed_hooks:
            hook()
        backend.remember_medium()
        await self.rest(node)
        self._unlink(backend)
        self._roots.pop(backend, None)
        del backend.node
        self.loosen(node)
        await self.release(node)

    async def rest(self, node: Node[Any]) -> None:
        """Drain a node as often as QEMU does when a root goes away (blk_unref, blk_remove_bs)."""
        for _ in range(2):
            async with drained(node):
                pass

    def refresh(self, node: Node[Any], transaction: Transaction) -> None:
        """Work out the permissions of a node and of what is below it."""
        refresh(node, transaction=transaction)

    def drop_root(self, edge: Edge) -> None:
        """Take a root that has no requests off its node; the caller releases the node."""
        node = edge.node
        self._unlink(edge)
        if isinstance(edge, Backend):
            self._roots.pop(edge, None)
        self.loosen(node)

    def loosen(self, node: Node[Any]) -> None:
        """Refresh permissions after a parent went away; that cannot do harm."""
        transaction = Transaction()
        try:
            refresh(node, transaction=transaction)
        except QmpError:
            transaction.abort()
        else:
            transaction.commit()

    def redirect(self, edge: Edge, to: Node[Any], transaction: Transaction) -> None:
        """Let an edge lead to another node; permissions are the caller's care."""
        old = edge.node
        if edge.parent is not None and self.reaches(to, edge.parent):
            raise Cycle(to.name, edge.name, edge.parent.name)
        self._move(edge, to)
        transaction.on_abort(lambda: self._move(edge, old))

    def _move(self, edge: Edge, to: Node[Any]) -> None:
        edge.forget()
        backs = edge.role & Role.COW and edge.parent is not None
        reason = f"node is used as backing hd of '{edge.parent.name}'" if edge.parent else ""
        if backs:
            unblock(edge.node, reason)
        edge.node.parents.remove(edge)
        edge.node = to
        to.parents.insert(0, edge)
        edge.match_drains(to.quiesce_counter)
        if edge.parent is not None:  # as in QEMU it is its parent's newest child now
            edge.parent.children[edge.name] = edge.parent.children.pop(edge.name)
        if backs:
            block(to, Blocker(reason, BACKING_OPS))
        edge.forget()

    def replace(
        self,
        old: Node[Any],
        new: Node[Any],
        transaction: Transaction,
        *,
        keep: frozenset[Edge] = frozenset(),
    ) -> None:
        """Let all parents of ``old`` lead to ``new`` instead, but those in ``keep``.

        After bdrv_replace_node_noperm, block.c: parents that ``new`` itself stands on stay.
        """
        for edge in list(old.parents):
            if edge in keep or edge.stays_at_node:
                continue
            if edge.parent is not None and self.reaches(new, edge.parent):
                continue
            if edge.frozen:
                raise FrozenChild(edge.name, old.name)
            self.redirect(edge, new, transaction)

    def reaches(self, start: Node[Any], goal: Node[Any]) -> bool:
        """Tell whether ``goal`` is ``start`` or below it."""
        return start is goal or any(
            self.reaches(edge.node, goal) for edge in start.children.values()
        )

    async def insert_above(self, top: Node[Any], node: Node[Any]) -> None:
        """Move all parents of ``node`` to ``top``, which stands on it (bdrv_insert_node)."""
        async with drained(node):
            try:
                self.replace_node(node, top)
            except QmpError as e:
                raise Wrapped("Could not replace node", e, hint=e.hint) from e

    def append(self, top: Node[Any], node: Node[Any]) -> None:
        """Put ``top`` on ``node`` and move the parents there (bdrv_append, block.c)."""
        with Transaction() as transaction:
            self.add_child_unchecked(top, "backing", backing_role(top), node, transaction)
            self.replace(node, top, transaction)
            refresh(top, transaction=transaction)
        top.flags.no_backing = False

    def unappend(self, top: Node[Any]) -> None:
        """Undo ``append``."""
        assert top.backing is not None
        node = top.backing.node
        with Transaction() as transaction:
            self.detach(top.backing, transaction)
            refresh(top, transaction=transaction)
        self.replace_node(top, node)

    def replace_node(self, old: Node[Any], new: Node[Any]) -> None:
        """Let all parents of ``old`` lead to ``new``, or none (bdrv_replace_node)."""
        with Transaction() as transaction:
            self.replace(old, new, transaction)
            refresh(new, old, transaction=transaction)

    async def set_backing(self, node: Node[Any], backing: Node[Any] | None) -> None:
        """Give a node another backing child, or none (bdrv_set_backing_hd, block.c).

        If others use the old one it keeps what permissions it took, until the next change there.
        """
        async with drained(node):
            edge = node.backing
            old = edge.node if edge is not None else None
            inherits = backing is not None and inherits_from(backing, node)
            with Transaction() as transaction:
                if edge is not None:
                    if edge.frozen:
                        raise FrozenLink(edge.name, node.name, edge.node.name)
                    self.detach(edge, transaction)
                if backing is not None:
                    role = backing_role(node)
                    self.add_child_unchecked(node, "backing", role, backing, transaction)
                refresh(node, transaction=transaction)
            if backing is not None and inherits:
                backing.inherits_from = node
            if old is not None and old is not backing:
                await self.release(old)

    async def drop_filter(self, top: Node[Any]) -> None:
        """Take a filter out of the graph: its parents go to its child (bdrv_drop_filter)."""
        child = top.filtered
        assert child is not None
        below = child.node
        async with drained(top):
            with Transaction() as transaction:
                self.replace(top, below, transaction)
                self.detach(child, transaction)
                refresh(below, transaction=transaction)
            await self.release(top)
            await self.release(below)

    # Letting go

    async def release(self, node: Node[Any]) -> None:
        """Close ``node`` and what it alone keeps alive, unless somebody still uses it."""
        if node.parents or node.monitor_owned or node.holds:
            return
        if self.nodes.get(node.name) is not node:
            return  # closed already, or never entered
        del self.nodes[node.name]
        try:
            await node.close()
        finally:
            for edge in list(node.children.values()):
                child = edge.node
                self._unlink(edge)
                self.loosen(child)
                await self.release(child)

    async def delete(self, node: Node[Any]) -> None:
        """Drop the monitor's reference."""
        async with drained(node):
            node.monitor_owned = False
            await self.release(node)

    def check_unblocked(self, node: Node[Any], operation: str) -> None:
        """Raise NodeBusy if something forbids ``operation`` on a node."""
        for blocker in node.blockers:
            if operation not in blocker.allowed:
                raise NodeBusy(self.display_name(node), blocker.reason)

    def device_name(self, node: Node[Any]) -> str:
        """Return the name of the backend on a node, empty if there is none."""
        return next((e.title for e in self.backend_names(node) if e.title), "")

    def display_name(self, node: Node[Any]) -> str:
        """Return the name of the backend on a node, or else the node's."""
        return self.device_name(node) or node.name

    def all_backends(self) -> list[Backend]:
        """Return the backends with names, and those of jobs and exports, which have none."""
        return list(dict.fromkeys(self.backends.values()) | self._roots)

    def backend_names(self, node: Node[Any]) -> Iterator[Backend]:
        """Yield the backends directly on a node."""
        return (edge for edge in node.parents if isinstance(edge, Backend))


def backing_role(node: Node[Any]) -> Role:
    """Return what a child called ``backing`` is to a node (bdrv_backing_role)."""
    return Role.FILTERED | Role.PRIMARY if node.is_filter else Role.COW


def inherits_from(node: Node[Any], parent: Node[Any]) -> bool:
    """Tell whether a node takes its options from another, maybe by way of others."""
    at: Node[Any] | None = node
    while at is not None and at is not parent:
        at = at.inherits_from
    return at is parent


class NotRoot(QmpError):
    """Another node stands on the node."""

    template = "Need a root block node"


class NoMedium(QmpError):
    """A backend is empty."""

    template = "Device '{}' has no medium"


# What a node that backs another may still be used for (bdrv_backing_attach, block.c).
BACKING_OPS = frozenset({"commit-target", "stream", "backup-source", "backup-target"})


def block(node: Node[Any], blocker: Blocker) -> None:
    """Forbid all but some operations on a node."""
    node.blockers.insert(0, blocker)


def unblock(node: Node[Any], reason: str) -> None:
    """Take back one ``block`` with this reason."""
    for i, blocker in enumerate(node.blockers):
        if blocker.reason == reason:
            del node.blockers[i]
            return


class NoBackingOfDriver(QmpError):
    """The format has no backing files."""

    template = "Driver '{}' of node '{}' does not support backing files"


def check_may_have_backing(node: Node[Any]) -> None:
    """Raise NoBackingOfDriver if a node can have no backing child (bdrv_set_backing_hd)."""
    if not node.supports_backing and not node.is_filter:
        raise NoBackingOfDriver(node.driver, node.name)
