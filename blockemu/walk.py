"""Walking a disk as a reader sees it: a node, and the chain below it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, Extents, overlay


async def extents_above(edge: Edge, offset: int, length: int) -> AsyncGenerator[Extents, None]:
    """Yield batches of runs; the chain below decides what a node leaves open.

    A child is asked once for all that a batch leaves open, not run by run.
    """
    async for batch in edge.extents(offset, length):
        open_ = (batch.status & ALLOCATED == 0).nonzero()[0]
        below = edge.node.below
        if below is None or not len(open_):
            yield batch
            continue
        begin, first = int(batch.start[0]), int(batch.start[open_[0]])
        last = int((batch.start + batch.length)[open_[-1]])
        cut = min(last, max(below.length, first))
        parts = [batch.clip(begin, first)] if first > begin else []
        if cut > first:
            async for lower in extents_above(below, first, cut - first):
                parts.append(overlay(batch.clip(int(lower.start[0]), lower.end), lower))  # noqa: PERF401
        if batch.end > cut:
            parts.append(batch.clip(cut, batch.end).closed())
        yield Extents.concat(parts)


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
