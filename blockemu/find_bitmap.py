"""Looking dirty bitmaps up by the names of node and bitmap."""

from collections.abc import Callable
from typing import Any

from blockemu.dirty import DirtyBitmap
from blockemu.errors import QmpError
from blockemu.node import Node


class BitmapNodeNotFound(QmpError):
    """There is no such node or device; the words are those of bitmap commands."""

    template = "Node '{}' not found"


class BitmapNotFound(QmpError):
    """The node has no bitmap of this name."""

    template = "Dirty bitmap '{}' not found"


def find_bitmap(
    lookup: Callable[[str], Node[Any]], node_name: str, name: str
) -> tuple[Node[Any], DirtyBitmap]:
    """Look up a bitmap and its node (after block_dirty_bitmap_lookup)."""
    try:
        node = lookup(node_name)
    except QmpError:
        raise BitmapNodeNotFound(node_name) from None
    return node, bitmap_on(node, name)


def bitmap_on(node: Node[Any], name: str) -> DirtyBitmap:
    """Return a node's bitmap."""
    found = node.bitmap_set.find(name) if node.bitmap_set is not None else None
    if found is None:
        raise BitmapNotFound(name)
    return found
