"""Walking a backing chain: what stands on what, with filters and without.

QEMU's names are given where one exists; all of them take a node and look downwards.
"""

from collections.abc import Iterator
from typing import Any

from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.node import Node


class LinkIsFrozen(QmpError):
    """Another job holds on to a link."""

    template = "Cannot change '{}' link from '{}' to '{}'"


class CannotFreeze(QmpError):
    """A job's own filter must be free to go."""

    template = "Cannot freeze '{}' link to '{}'"


def skip_implicit(node: Node[Any]) -> Node[Any]:
    """Return the first node that is no filter put in by QEMU itself."""
    while node.implicit and node.filtered is not None:
        node = node.filtered.node
    return node


def skip_filters(node: Node[Any]) -> Node[Any]:
    """Return the first node that is no filter (bdrv_skip_filters)."""
    while node.filtered is not None:
        node = node.filtered.node
    return node


def cow_child(node: Node[Any]) -> Node[Any] | None:
    """Return the node that backs the first one below that is no filter, or None."""
    backing = skip_filters(node).backing
    return backing.node if backing is not None else None


def next_below(node: Node[Any]) -> Node[Any] | None:
    """Return the filtered or backing child's node (bdrv_filter_or_cow_bs)."""
    return node.below.node if node.below is not None else None


def chain(node: Node[Any]) -> Iterator[Node[Any]]:
    """Yield the node and all that its data may come from, to the base."""
    at: Node[Any] | None = node
    while at is not None:
        yield at
        at = next_below(at)


def in_chain(top: Node[Any], node: Node[Any]) -> bool:
    """Tell whether ``node`` is ``top`` or below it (bdrv_chain_contains)."""
    return any(each is node for each in chain(top))


def links_between(top: Node[Any], base: Node[Any] | None) -> Iterator[Edge]:
    """Yield the edges from ``top`` down to ``base``; to the end if that is None."""
    at = top
    while at is not base and at.below is not None:
        yield at.below
        at = at.below.node


def is_plain(top: Edge, base: Node[Any] | None) -> bool:
    """Tell whether no node down to ``base`` could tell one long read from many short ones."""
    edge: Edge | None = top
    while edge is not None and edge.node is not base:
        if edge.route.read is None:
            return False
        edge = edge.node.below
    return True


def find_overlay(top: Node[Any], base: Node[Any] | None) -> Node[Any] | None:
    """Return the image that ``base`` backs, or the lowest if that is None (bdrv_find_overlay).

    Filters do not count, neither above nor below it.
    """
    goal = skip_filters(base) if base is not None else None
    at: Node[Any] | None = skip_filters(top)
    while at is not None:
        below = cow_child(at)
        under = skip_filters(below) if below is not None else None
        if under is goal:
            return at
        at = under
    return None


def find_base(node: Node[Any]) -> Node[Any]:
    """Return the lowest image of a chain (bdrv_find_base)."""
    found = find_overlay(node, None)
    assert found is not None
    return found


def freeze(top: Node[Any], base: Node[Any] | None) -> None:
    """Keep the links from ``top`` down to ``base`` as they are (bdrv_freeze_backing_chain).

    Raises:
        QmpError: one of them is kept by another job, or must not be kept; then none is.

    """
    links = list(links_between(top, base))
    for edge in links:
        if edge.frozen and edge.parent is not None:
            raise LinkIsFrozen(edge.name, edge.parent.name, edge.node.name)
    for edge in links:
        if edge.node.never_frozen:
            raise CannotFreeze(edge.name, edge.node.name)
    for edge in links:
        edge.frozen = True


def unfreeze(top: Node[Any], base: Node[Any] | None) -> None:
    """Undo ``freeze``."""
    for edge in links_between(top, base):
        edge.frozen = False
