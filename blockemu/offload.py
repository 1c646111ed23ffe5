"""Letting the kernel copy between the files at the bottom of two nodes."""

import os

from blockemu.edge import Edge
from blockemu.pool import Pool
from blockemu.route import Segments
from blockemu.sysfile import FileLeaf


async def offload(source: Edge, target: Edge, offset: int, length: int, pool: Pool) -> bool:
    """Copy a range with copy_file_range, if both sides are such; False if nothing was done."""
    read = source.route.read
    segments = read(offset, length) if read is not None else None
    if segments is None or not all(isinstance(leaf, FileLeaf) for leaf, _, _ in segments):
        return False
    try:
        places, commit = await target.place(offset, length)
    except NotImplementedError:
        return False
    good = False
    leaves = {leaf for leaf, _, _ in places if leaf is not None}
    try:
        # Planned before the await above: ask again, the mapping may be another now.
        segments = source.route.read(offset, length) if source.route.read is not None else None
        if segments is None:
            return False
        for leaf in leaves:
            leaf.recall()
            leaf.writing += 1
        try:
            good = await pool.run(_copy_ranges, segments, places)
        finally:
            for leaf in leaves:
                leaf.writing -= 1
    finally:
        if commit is not None:
            commit(good)
    return good


def _copy_ranges(segments: Segments, places: Segments) -> bool:
    """Copy pairwise with copy_file_range; return False if the files cannot."""
    outs = iter(places)
    out, to, room = next(outs)
    for leaf, host, length in segments:
        at, left = host, length
        while left:
            if not room:
                out, to, room = next(outs)
            if not (isinstance(leaf, FileLeaf) and isinstance(out, FileLeaf)):
                return False
            try:
                done = os.copy_file_range(leaf.fd, out.fd, min(left, room), at, to)
            except OSError:
                return False
            if not done:
                return False  # the source is shorter than planned
            at, to, left, room = at + done, to + done, left - done, room - done
    return True
