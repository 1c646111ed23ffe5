"""How deep in a backing chain the data lies, as NBD clients may ask (qemu:allocation-depth)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from blockemu.edge import Edge
from blockemu.extents import ALLOCATED
from blockemu.images.distinct import distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray

I64: TypeAlias = "NDArray[np.int64]"


async def allocation_depth(edge: Edge, offset: int, length: int) -> tuple[I64, I64]:
    """Return runs as two columns: bytes, and depth.

    1 is the node itself, 2 what is below it, 0 for what nobody has.  Beyond the end of a node that
    is shorter its zeroes count as its own.  After bdrv_is_allocated_above, block/io.c.
    """
    end = offset + length
    edges = np.array([offset, end], np.int64)
    depth = np.zeros(1, np.int64)
    at: Edge | None = edge
    level = 0
    while at is not None and not depth.all():
        level += 1
        stop = max(min(end, at.length), offset)
        points, mine = await _allocated(at, offset, stop)
        points, mine = np.append(points, stop), np.append(mine, np.True_)
        joined = distinct(np.concatenate((edges[:-1], points[points < end])))
        before = depth[edges.searchsorted(joined, "right") - 1]
        here = mine[points.searchsorted(joined, "right") - 1]
        depth = np.where((before == 0) & here, level, before)
        edges = np.append(joined, end)
        at = at.node.below
    return np.diff(edges), depth


async def _allocated(edge: Edge, offset: int, end: int) -> tuple[I64, NDArray[np.bool_]]:
    """Return where runs begin, and whether the node itself has them."""
    starts: list[I64] = []
    found: list[NDArray[np.bool_]] = []
    if offset < end:
        async for batch in edge.extents(offset, end - offset):
            starts.append(batch.start)
            found.append((batch.status & ALLOCATED) != 0)
    if not starts:
        return np.array([offset], np.int64), np.zeros(1, np.bool_)
    return np.concatenate(starts), np.concatenate(found)
