"""I/O threads: ours has but their names, and what may not be joined because of them.

All runs in one loop, but what QEMU would refuse is refused (bdrv_try_change_aio_context, block.c).
"""

from collections.abc import Callable
from typing import Any

from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.node import Node


class IothreadFixed(QmpError):
    """Who uses the node already must stay in another thread."""

    template = "Cannot change iothread of active block backend"


class Threads:
    """Which threads the users of nodes must stay in.

    ``used``: whether anybody was ever put in one.  ``pinned`` returns that of a root edge: empty
    for the main loop's, None if it goes where it must.
    """

    def __init__(self) -> None:
        self.used = False
        self.pinned: Callable[[Edge], str | None] = lambda edge: None

    def around(self, node: Node[Any]) -> set[str]:
        """Return those of all that hangs together with a node."""
        found = (self.pinned(edge) for edge in roots_around(node))
        return {name for name in found if name is not None}

    def check_join(self, parent: Node[Any], node: Node[Any]) -> None:
        """Raise IothreadFixed if two nodes cannot come to be in one thread."""
        if self.used:
            above, below = self.around(parent), self.around(node)
            if above and below and above != below:
                raise IothreadFixed

    def follow(self, node: Node[Any], leader: Node[Any]) -> None:
        """Let a node go to the thread of another; IothreadFixed if it cannot."""
        if self.used:
            self.enter(node, next(iter(self.around(leader)), ""))

    def enter(self, node: Node[Any], thread: str) -> None:
        """Let a node go to a thread; IothreadFixed if it cannot."""
        if not self.around(node) <= {thread}:
            raise IothreadFixed


def roots_around(node: Node[Any]) -> list[Edge]:
    """Return the root edges of all that hangs together with a node, upwards and downwards."""
    roots: list[Edge] = []
    seen = {node}
    waiting = [node]
    while waiting:
        at = waiting.pop()
        roots += (edge for edge in at.parents if edge.parent is None)
        near = [edge.parent for edge in at.parents if edge.parent is not None]
        near += (edge.node for edge in at.children.values())
        waiting += (each for each in dict.fromkeys(near) if each not in seen)
        seen.update(near)
    return roots
