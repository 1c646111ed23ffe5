"""Letting the kernel copy between the files at the bottom of two nodes."""

import errno
import os

from blockemu.edge import Edge
from blockemu.pool import Pool
from blockemu.route import Segments
from blockemu.sysfile import FileLeaf

# What copy_file_range says of two files between which it never will copy.
NEVER = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class CannotOffload(Exception):
    """The kernel does not copy between these two files."""


async def offload(source: Edge, target: Edge, offset: int, length: int, pool: Pool) -> bool:
    """Copy a range with copy_file_range; False if it was not done and must be done otherwise.

    Raises:
        CannotOffload: there is no point in trying again.

    """
    if not _in_files(_plan(source, offset, length)):
        return False
    try:
        places, commit = await target.place(offset, length)
    except NotImplementedError:
        return False
    good = False
    leaves = {leaf for leaf, _, _ in places if leaf is not None}
    try:
        # Planned before the await above: ask again, the mapping may be another now.
        segments = _plan(source, offset, length)
        if segments is None or not (_in_files(segments) and _in_files(places)):
            return False
        for leaf in leaves:
            leaf.recall()
            leaf.writing += 1
        try:
            good = await pool.run(_copy_ranges, segments, places)
        except OSError as e:
            if e.errno in NEVER:
                raise CannotOffload from e
        finally:
            for leaf in leaves:
                leaf.writing -= 1
    finally:
        if commit is not None:
            commit(good)
    return good


def _plan(source: Edge, offset: int, length: int) -> Segments | None:
    read = source.route.read
    return read(offset, length) if read is not None else None


def _in_files(segments: Segments | None) -> bool:
    return segments is not None and all(isinstance(leaf, FileLeaf) for leaf, _, _ in segments)


def _copy_ranges(segments: Segments, places: Segments) -> bool:
    """Copy pairwise, both in order; return False if the source is shorter than planned."""
    outs = iter(places)
    out, to, room = next(outs)
    for leaf, host, length in segments:
        at, left = host, length
        while left:
            if not room:
                out, to, room = next(outs)
            assert isinstance(leaf, FileLeaf)
            assert isinstance(out, FileLeaf)
            done = os.copy_file_range(leaf.fd, out.fd, min(left, room), at, to)
            if not done:
                return False
            at, to, left, room = at + done, to + done, left - done, room - done
    return True
