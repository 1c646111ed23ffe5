"""Changing the options of open nodes, several at once or none.

Options are flat here (``file.driver``), as in QEMU, since error texts show them so.  After
bdrv_reopen_queue_child, bdrv_reopen_prepare and bdrv_reopen_multiple, block.c.
"""

from contextlib import AsyncExitStack
from typing import Any

from blockemu.backend import drained
from blockemu.blockdev_options import BLOCKDEV
from blockemu.chain import skip_implicit
from blockemu.errors import QmpError
from blockemu.graph import Cycle, FrozenLink, Graph, check_may_have_backing
from blockemu.node import Flags, Node
from blockemu.node_options import DetectZeroesUnmap, Parent, flatten, inherit, set_flags
from blockemu.perm import Role
from blockemu.permissions import refresh
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import Unexpected, visit
from blockemu.records import record, replace
from blockemu.transaction import Transaction

Flat = dict[str, Any]

# Handled here for every driver, so they may be left out (bdrv_reset_options_allowed).
COMMON = frozenset(
    {
        "node-name",
        "discard",
        "cache.direct",
        "cache.no-flush",
        "read-only",
        "auto-read-only",
        "detect-zeroes",
    }
)
_HANDLED = COMMON - {"node-name"}


class NotReopenable(QmpError):
    """The driver cannot change its options."""

    template = "Block format '{}' used by node '{}' does not support reopening files"


class CannotReset(QmpError):
    """An option that was given may not be left out."""

    template = "Option '{}' cannot be reset to its default value"


class CannotChange(QmpError):
    """An option is only for opening."""

    template = "Cannot change the option '{}'"


class BackingMissing(QmpError):
    """Nothing says what is to become of the backing file."""

    template = "backing is missing for '{}'"


class ImplicitChild(QmpError):
    """A filter that the user does not know of is in the way."""

    template = "Cannot replace implicit {} child of {}"


class NoFileChild(QmpError):
    """What a file would be to a driver that has none is not known."""

    template = "Cannot set file child to format node without file child"


class WrongFilterChild(QmpError):
    """A filter has one child only."""

    template = "'{}' is a {} filter node that does not support a {} child"


@record
class Entry:
    """What a node is to become."""

    node: Node[Any]
    options: Flat
    explicit: Flat
    flags: Flags
    backing_missing: bool = False


class Queue:
    """Nodes to be reopened together, in order; all of them are drained."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.entries: dict[Node[Any], Entry] = {}

    def add(self, node: Node[Any], options: Flat, *, keep: bool = False) -> None:
        """Enter a node with new options; ``keep``: what is not given stays as it is."""
        self._add(node, dict(options), None, Role.NONE, keep=keep)

    def _add(
        self, node: Node[Any], options: Flat, parent: Parent | None, role: Role, *, keep: bool
    ) -> None:
        known = self.entries.get(node)
        if known is not None or keep:
            old = known.explicit if known is not None else flatten(node.explicit)
            node.join_options(options, old)
        explicit = dict(options)
        if parent is not None:
            nested = unflatten(options)
            inherit(role, parent, nested)
            options = flatten(nested)
        if keep:
            node.join_options(options, flatten(node.effective))
        flags = replace(node.flags)
        set_flags(flags, unflatten(options))
        if "discard" not in options:
            flags.unmap = node.flags.unmap  # what is not said stays, of this one option
        entry = Entry(node, options, explicit, flags)
        entry.backing_missing = not keep and not any(
            key == "backing" or key.startswith("backing.") for key in options
        )
        self.entries[node] = entry
        self._add_children(entry, keep=keep)

    def _add_children(self, entry: Entry, *, keep: bool) -> None:
        node, options = entry.node, entry.options
        for name, edge in reversed(node.children.items()):
            if edge.node.inherits_from is not node:
                continue
            mine: Flat = {}
            keep_child = keep
            if name in options:
                if options[name] != edge.node.name:
                    continue
                keep_child = True
            else:
                mine = _extract(options, name)
                _extract(entry.explicit, name)
            me = Parent(entry.flags, unflatten(options), node.is_format)
            self._add(edge.node, mine, me, edge.role, keep=keep_child)

    async def run(self) -> None:
        """Do it.

        Raises:
            QmpError: in QEMU's words; everything is as it was.

        """
        for node in self.entries:
            await node.flush()
        async with AsyncExitStack() as drains:
            old = await self._change(drains)
        for node in old:
            self.graph.loosen(node)
            await self.graph.release(node)

    async def _change(self, drains: AsyncExitStack) -> list[Node[Any]]:
        """Change all nodes or none; return the children that are no longer needed.

        New children are drained as well from the moment they are attached: their jobs hear of it.
        """
        old: list[Node[Any]] = []
        transaction = Transaction()
        was = {node: node.flags.read_only for node in self.entries}
        try:
            for entry in self.entries.values():
                old += await self._prepare(entry, transaction, drains)
            refresh(*self.entries, *old, transaction=transaction, was_read_only=was)
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()
        for entry in self.entries.values():
            _keep_options(entry)
            entry.node.changed()
        for node in reversed(self.entries):
            await node.reopened()
        return old

    async def _prepare(
        self, entry: Entry, transaction: Transaction, drains: AsyncExitStack
    ) -> list[Node[Any]]:
        """Check one node and stage its changes; return the children it is going to lose."""
        node, options = entry.node, entry.options
        if entry.flags.detect_zeroes == "unmap" and not entry.flags.unmap:
            raise DetectZeroesUnmap
        if not node.can_reopen:
            raise NotReopenable(node.driver, self.graph.display_name(node))
        for key in in_order(flatten(node.effective)):
            if key not in options and key not in COMMON and not _may_be_left_out(node, key):
                raise CannotReset(key)
        await node.reopen(_typed(node, options), entry.flags, transaction)
        _set_flags(node, entry.flags, transaction)
        has_backing = node.backing is not None or bool(node.backing_file)
        if node.supports_backing and entry.backing_missing and has_backing:
            raise BackingMissing(node.name)
        lost = [
            old
            for name in ("backing", "file")
            if (old := await self._replace_child(entry, name, transaction, drains)) is not None
        ]
        _check_unchanged(entry)
        return lost

    async def _replace_child(
        self, entry: Entry, name: str, transaction: Transaction, drains: AsyncExitStack
    ) -> Node[Any] | None:
        """Change the file or backing child; return the old one if there was one."""
        node = entry.node
        if name not in entry.options:
            return None
        value = entry.options[name]
        edge = node.children.get(name)
        old = edge.node if edge is not None else None
        new = self.graph.lookup_either(None, value) if value is not None else None
        if new is not None and self.graph.reaches(new, node):
            raise Cycle(value, name, node.name)
        if old is new or (old is not None and skip_implicit(old) is new):
            return None
        if old is not None and old.implicit:
            raise ImplicitChild(name, node.name)
        if node.is_filter and old is None:
            raise WrongFilterChild(node.name, node.driver, name)
        if edge is not None and edge.frozen:
            raise FrozenLink(name, node.name, edge.node.name)
        if name == "backing":
            check_may_have_backing(node)
        elif edge is None:
            raise NoFileChild
        if edge is not None:
            self.graph.detach(edge, transaction)
        if new is not None:
            await drains.enter_async_context(drained(*subtree(new)))
            role = edge.role if edge is not None else Role.COW
            self.graph.add_child_unchecked(node, name, role, new, transaction)
        return old


async def set_read_only(graph: Graph, node: Node[Any], read_only: bool) -> None:
    """Reopen a node and what it inherits to (bdrv_reopen_set_read_only).

    Raises:
        QmpError: it cannot be; everything is as it was.

    """
    queue = Queue(graph)
    async with drained(*subtree(node)):
        queue.add(node, {"read-only": read_only}, keep=True)
        await queue.run()


def subtree(node: Node[Any]) -> list[Node[Any]]:
    """Return a node and all below it, parents first."""
    nodes = {node: None}
    for edge in node.children.values():
        nodes |= dict.fromkeys(subtree(edge.node))
    return list(nodes)


def unflatten(flat: Flat) -> dict[str, Any]:
    """Undo ``flatten``; members that are all numbers become a list.

    A value whose name is a prefix of others, too, is among them under an empty name.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        at = nested
        for parent in parents:
            if not isinstance(at.setdefault(parent, {}), dict):
                at[parent] = {"": at[parent]}
            at = at[parent]
        if isinstance(at.get(last), dict):
            at[last][""] = value
        else:
            at[last] = value
    return {key: _listed(value) for key, value in nested.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {key: _listed(each) for key, each in value.items()}
    if items and all(key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items


def _extract(options: Flat, name: str) -> Flat:
    """Take the options of one child out of its parent's."""
    prefix = name + "."
    keys = [key for key in options if key.startswith(prefix)]
    return {key[len(prefix) :]: options.pop(key) for key in keys}


def _mutable(node: Node[Any], key: str) -> bool:
    return key in node.reopen_options or key.split(".")[0] in node.reopen_options


def _may_be_left_out(node: Node[Any], key: str) -> bool:
    return _mutable(node, key) and key.split(".")[0] not in node.kept_options


def _typed(node: Node[Any], options: Flat) -> Any:
    """Return what the driver gets; what it cannot change is as it was, whatever was said."""
    kept = {k: v for k, v in flatten(node.effective).items() if not _mutable(node, k)}
    nested = unflatten(kept | {k: v for k, v in options.items() if _mutable(node, k)})
    for name in node.child_names():
        nested[name] = "child" if name in node.children or name in nested else None
        if nested[name] is None:
            del nested[name]
    node.read_texts(nested)
    try:
        return visit(type(node.options), nested, keyval=True, drop=BLOCKDEV.discriminator)
    except Unexpected as e:
        key = next(k for k in in_order(options) if f"{k}.".startswith(f"{e.where}."))
        raise CannotChange(key) from e


def _set_flags(node: Node[Any], flags: Flags, transaction: Transaction) -> None:
    old = node.flags
    node.flags = flags

    def undo() -> None:
        node.flags = old

    transaction.on_abort(undo)


def _check_unchanged(entry: Entry) -> None:
    """Refuse options that only opening knows, if they are not as they were."""
    node = entry.node
    old = flatten(node.effective)
    for key in in_order(entry.options):
        if key in _HANDLED or key in ("backing", "file") or _mutable(node, key):
            continue
        new = entry.options[key]
        if key == "force-share" and isinstance(new, bool):
            new = "on" if new else "off"  # QEMU compares texts here: what JSON said is another type
        child = node.children.get(key)
        if child is not None and new == child.node.name:
            continue
        if key not in old or type(old[key]) is not type(new) or old[key] != new:
            raise CannotChange(key)


def _keep_options(entry: Entry) -> None:
    node = entry.node
    children = {*node.children, "backing"}
    node.explicit = unflatten({k: v for k, v in entry.explicit.items() if k not in children})
    node.effective = unflatten({k: v for k, v in entry.options.items() if k not in children})
