"""Copying what is read from below into the image that is read (bdrv_co_do_copy_on_readv)."""

from typing import Any

from blockemu.buffers import new_buffer
from blockemu.copying.offload import CannotOffload, fetch
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED
from blockemu.node import Node, Write
from blockemu.records import record
from blockemu.requests import is_zero
from blockemu.waiting import breathe

BOUNCE = 1 << 20  # bytes in one go
PEEK = 4096  # bytes by which to find out whether more of them are zero


async def populate(edge: Edge, offset: int, length: int, into: memoryview | None = None) -> None:
    """Let the node at an edge have all of a range, whole clusters of it, for itself.

    Nobody else reads or writes these clusters meanwhile.  What the guest sees stays the same, so
    no bitmap is marked.  ``into`` gets the range's bytes, each run as its turn comes: what was just
    written is not read again.  Raises OSError.
    """
    node = edge.node
    size = node.cluster_size or 1
    start, end = offset // size * size, min(-(-(offset + length) // size) * size, edge.length)
    if into is not None and (node.flags.inactive or offset + length > edge.length):
        await populate(edge, offset, length)
        await edge.pread(offset, into)
        return
    if node.flags.inactive or start >= end:
        return
    request = await edge.begin(start, end, serialising=True)
    try:
        runs: list[tuple[int, int, bool]] = []
        async for batch in edge.extents(start, end - start):
            for at, count, status, _ in batch.merged(ignore_host=True):
                runs.append((at, at + count, bool(status & ALLOCATED)))
        wanted = Wanted(offset, length, into)
        for at, stop, there in runs:
            if not there:
                await _fetch(edge, at, stop, wanted)
            elif into is not None:
                low, high = wanted.part(at, stop)
                if high > low:
                    await node.pread(low, into[low - offset : high - offset])
    finally:
        node.tracker.end(request)
        node.changed()


@record(frozen=True)
class Wanted:
    """The range that is read, and where its bytes are to go."""

    offset: int
    length: int
    into: memoryview | None

    def part(self, start: int, end: int) -> tuple[int, int]:
        """Return what of a range is wanted; its end may come first if nothing is."""
        return max(start, self.offset), min(end, self.offset + self.length)

    def take(self, start: int, data: memoryview) -> None:
        """Take what is wanted of some bytes."""
        low, high = self.part(start, start + len(data))
        if self.into is not None and high > low:
            self.into[low - self.offset : high - self.offset] = data[low - start : high - start]


async def _fetch(edge: Edge, start: int, end: int, wanted: Wanted) -> None:
    node = edge.node
    parts = [(at, min(BOUNCE, end - at)) for at in range(start, end, BOUNCE)]
    if wanted.into is None and node.debug is None:
        parts = await _fetch_in_files(node, parts)
    buf = new_buffer(min(BOUNCE, end - start))
    for at, size in parts:
        await breathe(at - start)
        part = buf[:size]
        await node.pread(at, part)
        wanted.take(at, part)
        if node.debug is not None:
            await node.debug("cor_write")
        if is_zero(part):
            try:
                await node.write_zeroes(at, len(part), Write.UNCHANGED)
                continue
            except NotImplementedError:
                pass
        await node.pwrite(at, part, Write.UNCHANGED)


async def _fetch_in_files(node: Node[Any], parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Let the kernel copy what is surely not all zeroes; return the parts that are left.

    The event loop has its hands free meanwhile (``make bench``: jobs, stream).
    """
    route = node.route()
    if not (route.readable_in_files and route.writable_in_files):
        return parts
    left: list[tuple[int, int]] = []
    rows: list[tuple[int, int]] = []  # parts that follow one another, joined
    for start, size in parts:
        if not await _has_data(node, start, size):
            left.append((start, size))
        elif rows and sum(rows[-1]) == start:
            rows[-1] = rows[-1][0], rows[-1][1] + size
        else:
            rows.append((start, size))
    try:
        if rows and await fetch(node, rows, node.pool.background):
            return left
    except (CannotOffload, OSError):  # the way through a buffer will meet it, too, and tell
        pass
    return parts


async def _has_data(node: Node[Any], offset: int, length: int) -> bool:
    """Tell whether the first bytes of a range are in a file, and not all zeroes."""
    read = node.route().read
    segments = read(offset, min(length, PEEK)) if read is not None else None
    if not segments:
        return False
    leaf, at, size = segments[0]
    if leaf is None:
        return False
    peek = new_buffer(size)
    try:
        if not leaf.read_now(at, peek):
            await node.pool.run(leaf.read, at, peek)
    except OSError:
        return False
    return not is_zero(peek)
