"""Refcounts in memory: which clusters are free, and taking some.

Taking clusters is plain code without an await, so that plans can do it.  It needs the refcount
block of the first free cluster in memory; if that is not, it says so and ``ready`` loads it.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.filled import Filled
from blockemu.drivers.qcow2.freed import I64, Freed
from blockemu.drivers.qcow2.refcount_blocks import Blocks
from blockemu.edge import Edge
from blockemu.images.distinct import counted, distinct
from blockemu.images.qcow2.constants import MAX_HOST_OFFSET, MAX_REFTABLE_BYTES, REFTABLE_OFFSET
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.refcount import Counts, empty_counts, first_free
from blockemu.images.qcow2.tables import Table
from blockemu.os_errors import os_error

_OFFSET: Final = np.uint64(REFTABLE_OFFSET)


class Misplaced(Exception):
    """Something would get a place that metadata has, though a refcount says that it is free.

    What is told of that, and the offset and size of what would be overwritten, -1 if not told.
    """

    def __init__(self, message: str, offset: int = -1, size: int = -1) -> None:
        super().__init__(message)
        self.message, self.offset, self.size = message, offset, size


class AtHeader(Misplaced):
    """Something would get the header's cluster: what it is."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Preventing invalid allocation of {what} at offset 0")


class Refcounts(Blocks):
    """The refcounts of an image.

    ``fresh``: clusters from here on were never written
    to, so they read as zeroes.  ``reserved``: clusters up to here need not be reserved in the file.
    """

    def __init__(self, geometry: Geometry, freed: Freed, most_blocks: int) -> None:
        super().__init__(geometry, most_blocks)
        self.freed = freed
        self.table_offset = 0
        self.dirty_entries: tuple[int, int] | None = None  # of the table
        self.moved = False  # the table has a new place that the header does not tell yet
        self.fresh = 0
        self.reserved = 0
        self.filled = Filled()  # of those that are to be reserved
        self.packed_end = 0  # byte up to which the last cluster with compressed data is full
        self.lazy = False  # what is on disk may be wrong
        self.noted: dict[int, Counts] = {}  # how lazy blocks were when a table was allocated
        self._missing = 0
        self.metadata: Callable[[int], str | None] = lambda cluster: None  # what a cluster has

    def replace(self, table: Table, offset: int, clusters: int) -> None:
        """Begin anew with a table that is in the file; nothing may wait to be written.

        ``clusters``: how many the file has.
        """
        self.table, self.table_offset, self.moved = table, offset, False
        self.blocks, self.dirty, self.dirty_entries = {}, set(), None
        self.cursor, self.fresh, self.reserved, self.lying = 0, clusters, clusters, False

    def begin_anew(self, used: int, clusters: int) -> None:
        """Begin anew with a table in cluster 1 and a block in cluster 2, which the table tells.

        ``used``: how many clusters from the first on are in use; ``clusters``: how many the file
        has.  The block waits to be written.
        """
        table = np.zeros(self.geometry.cluster_size // 8, np.uint64)
        table[0] = 2 * self.geometry.cluster_size
        self.replace(table, self.geometry.cluster_size, clusters)
        self.blocks[0] = empty_counts(self.geometry.refcount_order, self.per)
        self.noted.clear()
        self.packed_end = 0
        self._set_ones(0, used)
        self.cursor = used

    # Taking

    def take(
        self, want: int, *, exact: bool = False, near: int = 0
    ) -> tuple[int, int, bool] | None:
        """Take up to ``want`` free clusters in a row; return the first, how many, and if fresh.

        None: call ``Image.ready`` and try again.  With ``exact`` all or none; then None may also
        mean that fewer are free in a row.  ``near``: the cluster to begin with, if that is free.

        Raises:
            OSError: EFBIG, the file cannot have so many clusters.
            Misplaced: the image is corrupt; nothing was taken.

        """
        if near and near != self.cursor:
            if not self._at_hand(near):
                return None
            if got := self._free_at(near, want):
                return self._take_at(near, got)
        while True:
            at = self.cursor
            index, local = divmod(at, self.per)
            block = self.blocks.get(index)
            if block is None:
                if self.exists(index):
                    self._missing = index
                    return None
                if index < len(self.table):
                    return self._take_new(at, 0, want, exact=exact)
                self._missing = index
                return None
            local, got = first_free(block, local, want)
            if not got:
                self.cursor = (index + 1) * self.per
                continue
            first = index * self.per + local
            if got < want and local + got == self.per and self._is_next_new(index):
                return self._take_new(first, got, want, exact=exact)
            if exact and got < want:
                return None
            self._check_end(first + got)
            block[local : local + got] = 1
            self.dirty.add(index)
            return self._taken(first, got)

    def _at_hand(self, near: int) -> bool:
        """Tell whether the block of a cluster is in memory, or does not exist."""
        index = near // self.per
        if index in self.blocks:
            return True
        if self.exists(index):
            self._missing = index
            return False
        if not self.cursor:  # the first block comes first, and would get the header's place
            raise AtHeader("refcount block")
        return True

    def _free_at(self, near: int, want: int) -> int:
        """Return how many clusters are free from ``near`` on, as far as one block tells."""
        index, local = divmod(near, self.per)
        block = self.blocks.get(index)
        if block is None or block[local]:
            return 0
        used = np.flatnonzero(block[local : local + want])
        return int(used[0]) if len(used) else min(want, self.per - local)

    def _take_at(self, first: int, got: int) -> tuple[int, int, bool]:
        """Take clusters that are free, wherever the cursor is (qcow2_alloc_clusters_at)."""
        self._check_end(first + got)
        fresh = first >= self.fresh
        self._set_ones(first, first + got)
        return first, got, fresh

    def _is_next_new(self, index: int) -> bool:
        """Tell whether the block after this one does not exist, and the table has room for it."""
        return index + 1 < len(self.table) and not self.exists(index + 1)

    def _take_new(
        self, first: int, got: int, want: int, *, exact: bool
    ) -> tuple[int, int, bool] | None:
        """Take ``got`` clusters up to where no block counts any more, and more beyond.

        The block for these follows the last of them (after alloc_refcount_block).
        """
        index, per = (first + got) // self.per, self.per
        more = min(want - got, per - 1)
        if exact and got + more < want:
            return None
        end = first + got + more
        self._check_end(end + 1)
        what = self.metadata(end)
        if what is not None:
            message = f"Preventing invalid write on metadata (overlaps with {what})"
            size = self.geometry.cluster_size
            raise Misplaced(message, end * size, size)
        taken = self._taken(first, got + more)
        self._new_block(index, end)
        self._set_ones(first, end + 1)
        self.lying |= self.suspects(index * self.per, self.blocks[index])
        self.cursor = end + 1
        return taken

    def _check_end(self, end: int) -> None:
        """Raise EFBIG if clusters up to ``end`` would be too many."""
        if (end << self.geometry.cluster_bits) - 1 > MAX_HOST_OFFSET:
            raise os_error(errno.EFBIG)

    def take_bytes(self, size: int) -> int | None:
        """Take room for a compressed cluster, behind the last one if it fits; return its offset.

        None: call ``Image.ready`` and try again.  Cluster 0 is not to be used, but to be put back.
        After qcow2_alloc_bytes, block/qcow2-refcount.c.
        """
        bits, whole = self.geometry.cluster_bits, self.geometry.cluster_size
        start = self.packed_end
        index, local = divmod(start >> bits, self.per)
        if start and index not in self.blocks:
            self._missing = index
            return None
        if start and self.blocks[index][local] >= self.geometry.refcount_max:
            start = 0
        if -start & whole - 1 < size:
            taken = self.take(1)
            if taken is None:
                return None
            first = taken[0]
            self.reserved = max(self.reserved, first + 1)  # the file need not have all of it
            if not start or first != (start >> bits) + 1:
                self.packed_end = (first << bits) + size  # never a whole cluster
                return first << bits
        self.blocks[index][local] += 1
        self.dirty.add(index)
        end = start + size
        self.packed_end = end if end & whole - 1 else 0
        return start

    def note(self, cluster: int) -> None:
        """If refcounts are lazy, remember how they are now around a cluster just taken."""
        if self.lazy:
            index = cluster // self.per
            self.noted[index] = self.blocks[index].copy()

    def put_back(self, cluster: int) -> None:
        """Undo ``take`` of one cluster; its block may have been written back since."""
        index, local = divmod(cluster, self.per)
        self.blocks[index][local] = 0
        self.dirty.add(index)
        self.cursor = min(self.cursor, cluster)

    def take_beyond(self, count: int) -> int:
        """Take clusters in a row beyond all that are in use, for a table; return the first.

        The block ``last_block`` must be at hand.
        """
        start = self._extend(self._end(), count)
        self._set_ones(start, start + count)
        return start

    @contextmanager
    def for_table(self) -> Iterator[None]:
        """Take clusters for a table: the file ends with that, not with its last cluster."""
        whole = self.reserved == self.fresh
        yield
        if whole:
            self.reserved = self.fresh

    def move_beyond(self, count: int, more: int) -> int:
        """Take clusters as ``take_beyond`` does, behind a new table that just counts them.

        There will be blocks for ``more`` clusters, too.
        """
        start, lacking, clusters = self._beyond(count, more)
        self._move_table(start + len(lacking), clusters)
        first = self._add_blocks(start, lacking, clusters)
        self._set_ones(first, first + count)
        return first

    def place_beyond(self, count: int, more: int) -> int:
        """Return which clusters ``move_beyond`` would take."""
        start, lacking, clusters = self._beyond(count, more)
        return start + len(lacking) + clusters

    def _beyond(self, count: int, more: int) -> tuple[int, list[int], int]:
        """Return where blocks would begin, which ones, and how many clusters the table has then."""
        start = self._end()
        _, blocks = self.geometry.refcount_sizes(start + count + more)
        lacking = [i for i in range(start // self.per, blocks) if not self.exists(i)]
        return start, lacking, self._table_clusters(max(len(self.table), blocks) * 8)

    async def take_row(self, count: int, file: Edge) -> int:
        """Take clusters in a row, the first that are free within a block; return the first.

        Without such a row they come from beyond all that are in use.
        """
        for index in range(self.cursor // self.per, len(self.table)):
            block = await self.block(index, file)
            if block is None:
                continue
            local, got = first_free(block, max(0, self.cursor - index * self.per), count)
            if got == count:
                first = index * self.per + local
                self._check_end(first + count)
                block[local : local + count] = 1
                self.dirty.add(index)
                with self.for_table():
                    self.fresh = max(self.fresh, first + count)
                if first == self.cursor:
                    self.cursor += count
                return first
        await self.block(self.last_block, file)
        with self.for_table():
            return self.take_beyond(count)

    def enter(self, index: int, counts: I64) -> None:
        """Set all counts of a block at hand, where they differ."""
        block = self.blocks[index]
        new = counts.astype(block.dtype)
        if not np.array_equal(block, new):
            block[:] = new
            self.dirty.add(index)

    def enter_new(self, index: int, counts: I64) -> None:
        """Make a block that is missing, beyond all that is in use, and set its counts.

        The block ``last_block`` must be at hand.
        """
        if index not in self.blocks:
            at = self._extend(self._end(), 1)
            if index not in self.blocks:  # it is not the one that counts what is at the end
                self._set_ones(at, at + 1)
                self._new_block(index, at)
        block = self.blocks[index]
        block[:] = np.maximum(block, counts.astype(block.dtype))

    def counts_nothing(self, index: int) -> bool:
        """Tell whether a block at hand counts nothing but itself."""
        block, own = self.blocks[index], self.host(index) >> self.geometry.cluster_bits
        used = np.flatnonzero(block) + index * self.per
        return not len(used) or (len(used) == 1 and int(used[0]) == own)

    def drop_block(self, index: int) -> None:
        """Do without a block at hand; whoever counts it goes on doing so."""
        del self.blocks[index]
        self.dirty.discard(index)
        self._enter(index, 0)

    def last_used(self) -> int:
        """Return the last cluster in use; the block ``last_block`` must be at hand."""
        last = self.last_block
        used = np.flatnonzero(self.blocks[last])
        return last * self.per + (int(used[-1]) if len(used) else 0)

    def is_fresh(self) -> bool:
        """Tell whether the next cluster to be taken is surely one that was never written to."""
        return self.cursor >= self.fresh

    # What ``take`` missed

    async def ready(self, file: Edge) -> None:
        """Load the block that ``take`` missed."""
        await self.block(self._missing, file)

    @property
    def full(self) -> bool:
        """Whether no cluster is free that the table has room to count."""
        return self.cursor // self.per >= len(self.table)

    def grow(self) -> None:
        """Make a larger table, and the block that is missing (after alloc_refcount_block).

        Behind all that this block counts come others, and the table, all of which they count.
        """
        at, index = self.cursor, self.cursor // self.per
        start = (index + 1) * self.per
        table, blocks = self.geometry.refcount_sizes(start)
        _, blocks = self.geometry.refcount_sizes(start + (table + 1) // 2)
        clusters = self._table_clusters((blocks + (blocks + 1) // 2) * 8)
        lacking = list(range(index + 1, blocks))
        self._check_end(start + len(lacking) + clusters)
        self._move_table(start + len(lacking), clusters)
        self._new_block(index, at)
        self._set_ones(at, at + 1)
        self._add_blocks(start, lacking, clusters)

    # Giving back

    async def drop(self, clusters: I64, file: Edge) -> int:
        """Lower the refcounts of clusters by one for each time they are named.

        Returns how many times there was nothing to lower.
        """
        wrong = 0
        unique, times = counted(clusters)
        which = unique // self.per
        for index in distinct(which).tolist():
            mine = which == index
            block = await self.block(index, file)
            if block is None:
                wrong += int(times[mine].sum())
                continue
            local, by = unique[mine] - index * self.per, times[mine].astype(np.uint64)
            have = block[local].astype(np.uint64)
            short = have < by
            wrong += int(by[short].sum())
            left = np.where(short, have, have - by)
            block[local] = left.astype(block.dtype)
            self.dirty.add(index)
            free = local[(left == 0) & ~short]
            if len(free):
                self.cursor = min(self.cursor, index * self.per + int(free[0]))
        if not self.count(self.packed_end >> self.geometry.cluster_bits):
            self.packed_end = 0  # who takes that cluster next may fill it
        return wrong

    # Helpers

    def _taken(self, first: int, got: int) -> tuple[int, int, bool]:
        fresh = first >= self.fresh
        self.cursor = first + got
        self.fresh = max(self.fresh, self.cursor)
        return first, got, fresh

    def _end(self) -> int:
        """Return the first cluster after which none is in use; the last block is at hand."""
        last = self.last_block
        block = self.blocks.get(last)
        used = [] if block is None else np.flatnonzero(block)[-1:].tolist()
        beyond = last * self.per + (used[0] + 1 if used else 0)
        return max(beyond, self.fresh)

    def _extend(self, start: int, extra: int) -> int:
        """See that clusters beyond all that are in use can be counted; return where they begin.

        Behind ``start`` come the blocks that are missing for that, and a larger table, if it takes
        one, with room for half as much again (after qcow2_refcount_area); then ``extra`` clusters.
        """
        per = self.per
        missing: list[int] = []
        table = 0
        while True:
            end = start + len(missing) + table + extra
            last = (end - 1) // per
            lacking = [i for i in range(start // per, last + 1) if not self.exists(i)]
            entries = (last + 1) + (last + 2) // 2
            needed = 0 if last < len(self.table) else self._table_clusters(entries * 8)
            if (len(lacking), needed) == (len(missing), table):
                break
            missing, table = lacking, needed
        if table:
            self._move_table(start + len(missing), table)
        return self._add_blocks(start, missing, table)

    def _table_clusters(self, size: int) -> int:
        """Return how many clusters a table of ``size`` bytes takes; EFBIG if that is too many."""
        clusters = self.geometry.clusters(size)
        if clusters << self.geometry.cluster_bits > MAX_REFTABLE_BYTES:
            raise os_error(errno.EFBIG)
        return clusters

    def _add_blocks(self, start: int, missing: list[int], table: int) -> int:
        """Put blocks from ``start`` on, and before ``table`` clusters; return what comes then."""
        for at, index in enumerate(missing, start):
            self._new_block(index, at)
        end = start + len(missing) + table
        self._set_ones(start, end)
        return end

    def _move_table(self, cluster: int, clusters: int) -> None:
        old, bits = self.table, self.geometry.cluster_bits
        self.freed.add_table(self.table_offset >> bits, len(old) * 8 >> bits)
        self.table = np.zeros(clusters << bits - 3, np.uint64)
        self.table[: len(old)] = old
        self.table_offset = cluster << bits
        self.moved = True

    def _new_block(self, index: int, at: int) -> None:
        self.blocks[index] = empty_counts(self.geometry.refcount_order, self.per)
        self.dirty.add(index)
        self._enter(index, at << self.geometry.cluster_bits)

    def _enter(self, index: int, host: int) -> None:
        self.table[index] = host
        low, high = self.dirty_entries or (index, index + 1)
        self.dirty_entries = min(low, index), max(high, index + 1)

    def _set_ones(self, start: int, end: int) -> None:
        self.fresh = max(self.fresh, end)
        while start < end:
            index, local = divmod(start, self.per)
            some = min(end - start, self.per - local)
            self.blocks[index][local : local + some] = 1
            self.dirty.add(index)
            start += some
