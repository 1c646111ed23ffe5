"""What each stretch of a disk is and which image of the chain decides it, run by run."""

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from blockemu.edge import Edge
from blockemu.extents import DATA, I64, NOWHERE, U8, ZERO, Extents
from blockemu.images.distinct import distinct
from blockemu.images.lengths import lengths
from blockemu.node import Node
from blockemu.perm import Role
from blockemu.records import record

DECIDED = DATA | ZERO


@record(frozen=True, eq=False)
class Mapped:
    """Runs in ascending order without gaps; the last one ends at ``end``.

    ``start`` is int64 of shape (n,).  ``status`` is uint8, the flags of ``extents``: ALLOCATED
    means that the deciding image has it allocated.  ``host`` is int64, an offset in that image's
    storage or NOWHERE.  ``depth`` is int64: how many images further down the deciding one is.
    """

    start: I64
    status: U8
    host: I64
    depth: I64
    end: int

    @classmethod
    def of(cls, runs: Extents, depth: int) -> "Mapped":
        """Return what one image tells by itself."""
        return cls(runs.start, runs.status, runs.host, np.full(len(runs), depth), runs.end)

    @classmethod
    def concat(cls, parts: "list[Mapped]") -> "Mapped":
        """Join parts that follow one another."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([p.start for p in parts]),
            np.concatenate([p.status for p in parts]),
            np.concatenate([p.host for p in parts]),
            np.concatenate([p.depth for p in parts]),
            parts[-1].end,
        )

    def rows(self, index: "I64 | slice", end: int) -> "Mapped":
        """Return some of the runs, the last of which ends at ``end``."""
        return Mapped(
            self.start[index], self.status[index], self.host[index], self.depth[index], end
        )

    @property
    def length(self) -> I64:
        """The runs' lengths."""
        return lengths(self.start, self.end)

    def __len__(self) -> int:
        return len(self.start)

    def at(self, points: I64) -> tuple[U8, I64, I64]:
        """Return status, host offset and depth of single bytes."""
        row = self.start.searchsorted(points, "right") - 1
        host = self.host[row]
        moved = np.where(host == NOWHERE, NOWHERE, host + (points - self.start[row]))
        return self.status[row], moved, self.depth[row]

    def merged(self, *, ignore_host: bool = False) -> "Mapped":
        """Join neighbours that are alike and follow one another in the storage, too."""
        breaks = (self.status[1:] != self.status[:-1]) | (self.depth[1:] != self.depth[:-1])
        if not ignore_host:
            here, there = self.host[:-1], self.host[1:]
            nowhere = (here == NOWHERE) & (there == NOWHERE)
            follows = (there - here == self.start[1:] - self.start[:-1]) & (here != NOWHERE)
            breaks |= ~(nowhere | follows)
        keep = np.flatnonzero(np.concatenate(([True], breaks)))
        return self.rows(keep, self.end)


async def map_chain(edge: Edge, offset: int, length: int) -> AsyncGenerator[Mapped, None]:
    """Yield batches of runs of a range, down the chain to whatever image decides.

    Filters are looked through and do not count as depth.  Where all images leave it open and one
    of them ends, that one's overlay decides: zero (after bdrv_co_block_status, block/io.c).
    """
    asked, edge = edge, unfiltered(edge)  # a filter may have its say about status, too
    backing = edge.node.backing
    async for runs in asked.extents(offset, length):
        open_ = (runs.status & DECIDED == 0).nonzero()[0]
        if backing is None or not len(open_):
            yield _closed(Mapped.of(runs, 0), edge.node)
            continue
        start, last = int(runs.start[open_[0]]), int(runs.start[open_[-1]])
        stop = last + int(runs.length[open_[-1]])
        cut = max(min(stop, backing.length), start)
        top = Mapped.of(runs, 0)
        parts = [_clip(top, int(runs.start[0]), start)] if start > runs.start[0] else []
        if cut > start:
            async for below in map_chain(backing, start, cut - start):
                parts.append(_overlay(top, below))  # noqa: PERF401
        if runs.end > cut:
            parts.append(_closed(_clip(top, cut, runs.end), edge.node))
        yield Mapped.concat(parts)


def unfiltered(edge: Edge) -> Edge:
    """Return the edge to the first node on the way down that is no filter."""
    while edge.node.is_filter and edge.node.filtered is not None:
        edge = edge.node.filtered
    return edge


def image_at(node: Node[Any], depth: int) -> Node[Any]:
    """Return the image so many backing files further down."""
    while True:
        while node.filtered is not None:
            node = node.filtered.node
        if not depth:
            return node
        assert node.backing is not None
        node, depth = node.backing.node, depth - 1


def storage(node: Node[Any]) -> Node[Any] | None:
    """Return the node that an image's host offsets are in, None if it stores nothing itself.

    Filters and raw ask what is below them, where that is any.
    """
    edges = node.children.values()
    below = next((edge.node for edge in edges if edge.role & (Role.DATA | Role.FILTERED)), None)
    if below is None:
        return node if node.is_protocol else None
    return storage(below) if node.is_filter or node.driver == "raw" else below


def _clip(runs: Mapped, start: int, end: int) -> Mapped:
    points = runs.start[(runs.start > start) & (runs.start < end)]
    points = np.concatenate((np.array([start], np.int64), points))
    return Mapped(points, *runs.at(points), end)


def _closed(runs: Mapped, node: Node[Any]) -> Mapped:
    """Say what is true where nobody says anything: zero, if a backing file might have spoken."""
    open_ = runs.status & DECIDED == 0
    status = np.where(open_, np.uint8(ZERO if node.supports_backing else 0), runs.status)
    host = np.where(open_, NOWHERE, runs.host)
    return Mapped(runs.start, status, host, runs.depth, runs.end)


def _overlay(top: Mapped, below: Mapped) -> Mapped:
    """Let ``below``, which covers a part of the range, decide there what ``top`` leaves open."""
    top = _clip(top, int(below.start[0]), below.end)
    points = distinct(np.concatenate((top.start, below.start)))
    status, host, depth = top.at(points)
    under, under_host, under_depth = below.at(points)
    open_ = status & DECIDED == 0
    return Mapped(
        points,
        np.where(open_, under, status).astype(np.uint8),
        np.where(open_, under_host, host),
        np.where(open_, under_depth + 1, depth),
        top.end,
    )
