"""The refcount table and the blocks that are in memory."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import islice
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.freed import I64
from blockemu.edge import Edge
from blockemu.images.distinct import counted, distinct
from blockemu.images.qcow2.constants import MAX_REFTABLE_BYTES, REFTABLE_OFFSET
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.refcount import Counts, unpack_counts
from blockemu.images.qcow2.tables import Table
from blockemu.os_errors import os_error

_OFFSET: Final = np.uint64(REFTABLE_OFFSET)


class Unaligned(Exception):
    """A refcount block that is not at a cluster: its offset and its index in the table."""


class Blocks:
    """The table, and blocks by their index in it.

    ``cursor``: no cluster before it is free.
    """

    def __init__(self, geometry: Geometry, most_blocks: int) -> None:
        self.geometry = geometry
        self.most_blocks = most_blocks
        self.per = geometry.counts_per_block
        self.table: Table = np.zeros(0, np.uint64)
        self.blocks: dict[int, Counts] = {}
        self.dirty: set[int] = set()
        self.writing: set[int] = set()  # blocks on their way to the file: not to be dropped
        self.cursor = 0
        self.suspects: Callable[[int, Counts], bool] = lambda first, counts: False
        self.lying = False  # some metadata is said to be free

    def count(self, cluster: int) -> int:
        """Return the refcount of a cluster whose block is at hand or does not exist."""
        index, local = divmod(cluster, self.per)
        block = self.blocks.get(index)
        return 0 if block is None else int(block[local])

    @property
    def crooked(self) -> bool:
        """Whether some block is at no cluster."""
        inside = np.uint64(self.geometry.cluster_size - 1) & _OFFSET
        return bool((self.table & inside).any())

    def host(self, index: int) -> int:
        """Return where a block lies, 0 if there is none.

        Raises:
            Unaligned: at no cluster.

        """
        if index >= len(self.table):
            return 0
        host = int(self.table[index]) & REFTABLE_OFFSET
        if host & self.geometry.cluster_size - 1:
            raise Unaligned(host, index)
        return host

    @property
    def last_block(self) -> int:
        """The index of the last block that exists."""
        used = np.flatnonzero(self.table & _OFFSET)
        return int(used[-1]) if len(used) else 0

    async def block(self, index: int, file: Edge) -> Counts | None:
        """Return a block, loaded if need be; None if it does not exist."""
        known = self.blocks.get(index)
        if known is not None:
            return known
        host = self.host(index)
        if not host:
            return None
        if host >> 63:
            raise os_error(errno.EIO)
        raw = memoryview(bytearray(self.geometry.cluster_size))
        await file.pread(host, raw)
        if index not in self.blocks:  # else another request was faster, and may have changed it
            self.make_room(self.most_blocks - 1)
            self.blocks[index] = counts = unpack_counts(raw, self.geometry.refcount_order)
            self.lying |= self.suspects(index * self.per, counts)
        return self.blocks[index]

    def make_room(self, most: int) -> None:
        """Drop the oldest blocks until no more than ``most`` are left, but none that is busy."""
        if len(self.blocks) <= most:
            return
        busy = self.dirty | self.writing | {self.cursor // self.per}
        idle = (index for index in self.blocks if index not in busy)
        for index in list(islice(idle, len(self.blocks) - most)):
            del self.blocks[index]

    async def last_users(self, clusters: I64, file: Edge) -> I64:
        """Return those of the clusters that ``drop`` would leave without a user, in order."""
        unique, times = counted(clusters)
        have = np.zeros(len(unique), np.uint64)
        which = unique // self.per
        for index in distinct(which).tolist():
            mine = which == index
            block = await self.block(index, file)
            if block is not None:
                have[mine] = block[unique[mine] - index * self.per]
        last: I64 = unique[have == times.astype(np.uint64)]
        return last

    async def counts(self, clusters: I64, file: Edge) -> Table:
        """Return refcounts, one for each cluster named."""
        found, which = np.zeros(len(clusters), np.uint64), clusters // self.per
        for index in distinct(which).tolist():
            block = await self.block(index, file)
            if block is not None:
                mine = which == index
                found[mine] = block[clusters[mine] - index * self.per]
        return found

    async def add(self, clusters: I64, file: Edge) -> None:
        """Raise the refcounts of clusters by one for each time they are named.

        Raises:
            OSError: EINVAL, one would be too large; EIO, one is not there.  All are as they were.

        """
        unique, times = counted(clusters)
        which, by = unique // self.per, times.astype(np.uint64)
        have = await self.counts(unique, file)
        if (have > np.uint64(self.geometry.refcount_max) - by).any():
            raise os_error(errno.EINVAL)
        for index in distinct(which).tolist():
            mine, block = which == index, await self.block(index, file)
            if block is None:  # QEMU would make one, if the table could have it
                code = errno.EFBIG if index >= MAX_REFTABLE_BYTES // 8 else errno.EAGAIN
                raise os_error(code)
            block[unique[mine] - index * self.per] += by[mine].astype(block.dtype)
            self.dirty.add(index)

    def exists(self, index: int) -> bool:
        """Tell whether the table has a block."""
        return index < len(self.table) and bool(self.table[index] & _OFFSET)
