"""Letting the kernel copy between the files at the bottom of two nodes."""

import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from blockemu.edge import Edge
from blockemu.host.pool import Pool
from blockemu.host.sysfile import FileLeaf
from blockemu.node import Node
from blockemu.route import Placed, Ranges, Route, Segments
from blockemu.walk import extents_above

LARGE = 1 << 20  # bytes: to find the next hole of 1 GiB in tmpfs takes as long as to copy 10 MiB

Place = Callable[[Ranges], Awaitable[Placed]]

# What copy_file_range says of two files between which it never will copy.
NEVER = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class CannotOffload(Exception):
    """The kernel does not copy between these two files."""


def unseen(source: Edge, target: Edge) -> bool:
    """Tell whether no node sees each request, so that it cannot be told how many are under way."""
    return source.route.read is not None and target.route.write is not None


async def offload(source: Edge, target: Edge, ranges: Ranges, pool: Pool) -> bool:
    """Copy ranges of (offset, length) with copy_file_range; False: none is sure to be done.

    All go to the pool in one call, since that is what costs.

    Raises:
        CannotOffload: there is no point in trying again.

    """
    for each in ranges:
        plan = _plan(source.route, *each)
        if plan is None and source.route.read is not None:
            await _look(source, *each)
            plan = _plan(source.route, *each)
        if not _in_files(plan):
            return False
    return await _carry(lambda: source.route, target.place, ranges, pool)


async def fetch(node: Node[Any], ranges: Ranges, pool: Pool) -> bool:
    """Copy into a node what it shows there of another; like ``offload``.

    The caller has a serialising request over the ranges.
    """
    if not all(_in_files(_plan(node.route(), *each)) for each in ranges):
        return False
    return await _carry(node.route, node.place, ranges, pool)


async def _look(source: Edge, offset: int, length: int) -> None:
    """Have images find out what a range holds, as copies begin with: then they have their tables.

    No byte of it is read: what is wrong with these is for who copies them to meet, and to tell.
    """
    with suppress(OSError):
        async for _ in extents_above(source, offset, length):
            pass


async def _carry(route: Callable[[], Route], place: Place, ranges: Ranges, pool: Pool) -> bool:
    try:
        places, commit = await place(ranges)
    except NotImplementedError:
        return False
    good = False
    try:
        # Planned before all these awaits: ask again, the mapping may be another now.
        good = await _copy([_plan(route(), *each) for each in ranges], places, pool)
    finally:
        if commit is not None:
            commit(good)
    return good


async def _copy(plans: Sequence[Segments | None], places: Segments, pool: Pool) -> bool:
    if not all(_in_files(plan) for plan in (*plans, places)):
        return False
    leaves = {leaf for leaf, _, _ in places if leaf is not None}
    for leaf in leaves:
        leaf.recall()
        leaf.writing += 1
    try:
        segments = [each for plan in plans for each in plan or ()]
        return await pool.run(_copy_in_turn, segments, places)
    except OSError as e:
        if e.errno in NEVER:
            raise CannotOffload from e
        return False
    finally:
        for leaf in leaves:
            leaf.writing -= 1


def _plan(route: Route, offset: int, length: int) -> Segments | None:
    return route.read(offset, length) if route.read is not None else None


def _in_files(segments: Segments | None) -> bool:
    return segments is not None and all(isinstance(leaf, FileLeaf) for leaf, _, _ in segments)


def _copy_in_turn(segments: Segments, places: Segments) -> bool:
    """Copy when no other thread writes to the same file so.

    Linux lets one write to a file at a time and has the others spin until then, which takes half as
    much processor time again and is no faster (``make bench``: busy).
    """
    first = places[0][0]
    assert isinstance(first, FileLeaf)
    _map_ahead(segments, first)
    with first.written:
        return _copy_ranges(segments, places)


def _map_ahead(segments: Segments, out: FileLeaf) -> None:
    """Do what of the copying needs not wait for its turn.

    A quarter of the time that a write of mapped pages takes is that of the faults that map them
    (``make bench``: jobs).
    """
    for leaf, host, length in segments:
        assert isinstance(leaf, FileLeaf)
        if length >= LARGE and leaf.memory and out.memory:
            leaf.map_ahead(host, length)


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
            done = _copy_some(leaf, out, min(left, room), at, to)
            if not done:
                return False
            at, to, left, room = at + done, to + done, left - done, room - done
    return True


def _copy_some(leaf: FileLeaf, out: FileLeaf, length: int, at: int, to: int) -> int:
    """Copy up to ``length`` bytes; return how many, none at the end of the file.

    Between files in memory, where nothing could be shared anyway, a write of mapped pages takes a
    fifth less than the kernel's own copying (``make bench``: jobs, convert).
    """
    large = length >= LARGE  # else it is not worth to ask where the next hole is
    if large and leaf.memory and out.memory and leaf.has_data(at, length):
        pages = leaf.window(at, length)
        if pages is not None:
            return os.pwrite(out.fd, pages, to)
    return os.copy_file_range(leaf.fd, out.fd, length, at, to)
