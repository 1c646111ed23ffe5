"""Walking a disk as a reader sees it: a node, and the chain below it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np

from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, Extents, overlay
from blockemu.node import Node


def extents_above(edge: Edge, offset: int, length: int) -> AsyncGenerator[Extents, None]:
    """Yield batches of runs; the chain below decides what a node leaves open.

    A child is asked once for all that a batch leaves open, not run by run.  Only what the topmost
    node itself decides is marked as allocated.
    """
    return _walk(edge, offset, length, None, keep=False)


def allocated_above(
    edge: Edge, offset: int, length: int, last: Node[Any] | None
) -> AsyncGenerator[Extents, None]:
    """Yield batches of runs, allocated where any node from here down to ``last`` decides.

    None stands for the lowest node.  What lies beyond the end of a short node that is asked counts
    as allocated there (bdrv_is_allocated_above, block/io.c).
    """
    return _walk(edge, offset, length, last, keep=True)


async def _walk(
    edge: Edge, offset: int, length: int, last: Node[Any] | None, *, keep: bool
) -> AsyncGenerator[Extents, None]:
    if keep and edge.node.always_allocated:
        yield Extents.one(offset, length, ALLOCATED)
        return
    async for batch in edge.extents(offset, length):
        open_ = (batch.status & ALLOCATED == 0).nonzero()[0]
        below = edge.node.below if edge.node is not last else None
        if below is None or not len(open_):
            yield batch
            continue
        begin, first = int(batch.start[0]), int(batch.start[open_[0]])
        end = int((batch.start + batch.length)[open_[-1]])
        cut = min(end, max(below.length, first))
        parts = [batch.clip(begin, first)] if first > begin else []
        if cut > first:
            async for lower in _walk(below, first, cut - first, last, keep=keep):
                top = batch.clip(int(lower.start[0]), lower.end)
                parts.append(overlay(top, lower, keep=keep))
        if batch.end > cut:
            parts.append(batch.clip(cut, batch.end).closed(keep=keep))
        yield _whole(Extents.concat(parts), batch)


def _whole(found: Extents, top: Extents) -> Extents:
    """Return runs without the cuts that are only below what ``top`` decides."""
    if len(found.start) == 1:
        return found
    cut = top.at(found.start)[0] & ALLOCATED == 0
    cut |= np.isin(found.start, top.start)
    return Extents(found.start[cut], found.status[cut], found.host[cut], found.end)


async def is_allocated_above(
    edge: Edge, offset: int, length: int, last: Node[Any] | None, *, one_run: bool = False
) -> tuple[bool, int]:
    """Return whether ``offset`` is allocated from here to ``last``, and how far that holds."""
    found, end = None, offset
    async with aclosing(allocated_above(edge, offset, length, last)) as batches:
        async for batch in batches:
            for start, size, status, _ in batch:
                if found is not None and (one_run or bool(status & ALLOCATED) is not found):
                    return found, end - offset
                found = bool(status & ALLOCATED)
                end = start + size
    return bool(found), end - offset


async def status_above(
    edge: Edge,
    offset: int,
    length: int,
    *,
    top_only: bool = False,
    mask: int = 0xFF,
    one_run: bool = False,
) -> tuple[int, int]:
    """Return the status at ``offset`` and how many bytes of the range share it, at least one.

    ``mask`` selects the status flags that matter.  ``top_only``: only what the topmost image itself
    has counts as allocated; filters are looked through.  ``one_run``: as far as one run of whoever
    decides goes, as QEMU has it (bdrv_block_status_above, block/io.c).
    """
    walk = edge.extents if top_only else lambda o, n: extents_above(edge, o, n)
    status, end = -1, offset
    async with aclosing(walk(offset, length)) as batches:
        async for batch in batches:
            for start, size, found, _ in batch if one_run else batch.merged(ignore_host=True):
                flags = found & mask
                if status < 0:
                    status = flags
                elif flags != status:
                    return status, end - offset
                end = start + size
                if one_run:
                    return status, end - offset
    return status, end - offset
