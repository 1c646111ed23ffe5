"""Copying what is read from below into the image that is read (bdrv_co_do_copy_on_readv)."""

from blockemu.buffers import new_buffer
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED
from blockemu.node import Write
from blockemu.requests import is_zero

BOUNCE = 1 << 20  # bytes in one go


async def populate(edge: Edge, offset: int, length: int) -> None:
    """Let the node at an edge have all of a range, whole clusters of it, for itself.

    Nobody else reads or writes these clusters meanwhile.  What the guest sees stays the same, so
    no bitmap is marked.  Raises OSError.
    """
    node = edge.node
    size = node.cluster_size or 1
    start, end = offset // size * size, min(-(-(offset + length) // size) * size, edge.length)
    if node.flags.inactive or start >= end:
        return
    request = await edge.begin(start, end, serialising=True)
    try:
        missing: list[tuple[int, int]] = []
        async for batch in edge.extents(start, end - start):
            for at, count, status, _ in batch.merged(ignore_host=True):
                if not status & ALLOCATED:
                    missing.append((at, count))
        for at, count in missing:
            await _fetch(edge, at, at + count)
    finally:
        node.tracker.end(request)
        node.changed()


async def _fetch(edge: Edge, start: int, end: int) -> None:
    node = edge.node
    buf = new_buffer(min(BOUNCE, end - start))
    for at in range(start, end, BOUNCE):
        part = buf[: end - at]
        await node.pread(at, part)
        if node.debug is not None:
            await node.debug("cor_write")
        if is_zero(part):
            try:
                await node.write_zeroes(at, len(part), Write.UNCHANGED)
                continue
            except NotImplementedError:
                pass
        await node.pwrite(at, part, Write.UNCHANGED)
