"""Keeping the permissions of a graph right: what a parent wants goes down, conflicts come back.

After bdrv_refresh_perms and its helpers, block.c.
"""

from collections.abc import Iterable
from itertools import permutations
from typing import Any

from blockemu.backend import Backend
from blockemu.edge import Edge
from blockemu.errors import PermissionConflict, QmpError, ReadOnlyNode
from blockemu.node import Node
from blockemu.perm import Perm, perm_names
from blockemu.transaction import Transaction


class ReadOnlyInUse(QmpError):
    """A node with writing parents would become read-only."""

    template = "Read-only block node '{}' cannot support read-write users"


class UnalignedImage(QmpError):
    """The last sector could be written only by making the image longer."""

    template = (
        "Cannot get 'write' permission without 'resize': Image size is not a multiple of request "
        "alignment"
    )


def topological(nodes: Iterable[Node[Any]]) -> list[Node[Any]]:
    """Return the nodes and all below them, parents before their children."""
    done: dict[Node[Any], None] = {}

    def visit(node: Node[Any]) -> None:
        if node in done:
            return
        for edge in reversed(node.children.values()):  # as QEMU lists children, newest first
            visit(edge.node)
        done[node] = None

    for node in nodes:
        visit(node)
    return list(done)[::-1]


def refresh(
    *nodes: Node[Any],
    transaction: Transaction,
    was_read_only: "dict[Node[Any], bool] | None" = None,
) -> None:
    """Work out the permissions of ``nodes`` and of all below them anew.

    ``was_read_only``: what nodes that are being reopened were before, for the error text.

    Raises:
        QmpError: some parents do not get along; what was changed is undone by the transaction.

    """
    for node in topological(nodes):
        _check_parents(node, transaction)
        _refresh_node(node, transaction, was_read_only or {})


def set_perm(edge: Edge, perm: Perm, shared: Perm, transaction: Transaction) -> None:
    """Change what one edge may do, without looking at the rest."""
    if edge.perm == perm and edge.shared == shared:
        return
    old = edge.perm, edge.shared
    transaction.touched.add(edge)

    def undo() -> None:
        edge.perm, edge.shared = old
        edge.forget()

    transaction.on_abort(undo)
    edge.perm, edge.shared = perm, shared
    edge.forget()


def try_set_perm(edge: Edge, perm: Perm, shared: Perm) -> None:
    """Change what a root may do; to ask for less never fails (bdrv_child_try_set_perm)."""
    tighter = bool(perm & ~edge.perm) or bool(edge.shared & ~shared)
    try:
        with Transaction() as transaction:
            set_perm(edge, perm, shared, transaction)
            refresh(edge.node, transaction=transaction)
    except QmpError:
        if tighter:
            raise


def want(backend: Backend, perm: Perm, shared: Perm) -> None:
    """Give a backend other permissions; if its own are suspended, later (blk_set_perm).

    Raises:
        QmpError: others do not get along with that; it has what it had.

    """
    if backend.suspended is not None:
        backend.suspended = perm, shared
    elif backend.inserted is None:
        backend.perm, backend.shared = perm, shared
    else:
        try_set_perm(backend, perm, shared)


def wanted(backend: Backend) -> tuple[Perm, Perm]:
    """Return the permissions of a backend, or those that it is going to take."""
    return backend.suspended or (backend.perm, backend.shared)


def _check_parents(node: Node[Any], transaction: Transaction) -> None:
    for a, b in permutations(node.parents, 2):
        missing = b.perm & ~a.shared
        if missing:
            error = PermissionConflict(
                node.name,
                perm_names(missing),
                b.describe_parent(),
                b.name,
                a.describe_parent(),
                a.name,
            )
            error.earlier = _earlier_words(node, *_who_came(node, a, b, transaction))
            raise error


def _who_came(node: Node[Any], a: Edge, b: Edge, transaction: Transaction) -> tuple[Edge, Edge]:
    """Return which of two users has changed, or else came last, and which was there before."""
    for one, other in ((a, b), (b, a)):
        if one in transaction.touched and other not in transaction.touched:
            return one, other
    order = list(node.parents)  # the newest first
    return (a, b) if order.index(a) < order.index(b) else (b, a)


def _earlier_words(node: Node[Any], came: Edge, there: Edge) -> str:
    """Return what QEMU said before 6.1, which was about the user that was there."""
    refused = came.perm & ~there.shared
    user = f"Conflicts with use by {_user(there)} as '{there.name}'"
    if refused:
        return f"{user}, which does not allow '{perm_names(refused)}' on {node.name}"
    return f"{user}, which uses '{perm_names(there.perm & ~came.shared)}' on {node.name}"


def _user(edge: Edge) -> str:
    """Return a user of a node as it was called before 6.1."""
    if isinstance(edge, Backend):
        return edge.title or edge.device or "a block device"
    if edge.parent is None:
        return edge.describe_parent()
    owner = edge.parent
    names = (each.title for each in owner.parents if isinstance(each, Backend) and each.title)
    return next(names, owner.name)


def _refresh_node(
    node: Node[Any], transaction: Transaction, was_read_only: dict[Node[Any], bool]
) -> None:
    perm, shared = node.cumulative_perm()
    if perm & Perm.WRITES and not node.flags.writable:
        raise ReadOnlyNode if was_read_only.get(node, True) else ReadOnlyInUse(node.name)
    sectors = -(-node.length // 512) if Perm.WRITE in perm and Perm.RESIZE not in perm else 0
    if sectors * 512 % node.limits.request_alignment:
        raise UnalignedImage
    node.set_perm(perm, shared, transaction)
    for name, edge in node.children.items():
        needed, left = node.child_perm(name, edge.role, perm, shared)
        if edge.node.flags.force_share:
            left = Perm.ALL
        set_perm(edge, needed, left, transaction)
