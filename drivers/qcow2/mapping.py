"""The L1 table and the L2 tables at hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from blockemu.drivers.qcow2.freed import Discard, Freed
from blockemu.drivers.qcow2.refcounts import AtHeader, Refcounts
from blockemu.edge import Edge
from blockemu.images.qcow2.constants import (
    ALL_ALLOCATED,
    COMPRESSED,
    COPIED,
    OFFSET,
    READS_ZERO,
)
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.tables import NORMAL, ZERO, Table, subcluster_kind
from blockemu.os_errors import os_error
from blockemu.requests import Request


class L2:
    """One L2 table; ``bitmaps`` tell about subclusters, None if the image has none."""

    __slots__ = ("bitmaps", "entries", "suspect")

    def __init__(self, entries: Table, bitmaps: Table | None) -> None:
        self.entries = entries
        self.bitmaps = bitmaps
        self.suspect = False  # some of its clusters lie where metadata does


class Unaligned(Exception):
    """An L2 table that is not at a cluster: its offset and L1 index."""


class Mapping:
    """From guest to host offsets.

    ``views`` has, by L1 index, the tables at hand as memoryviews of native 64-bit entries, if a
    look-up there is all that it takes (no subclusters, no data file): a scalar look-up takes 40 ns,
    in a numpy array 100.
    """

    def __init__(
        self, geometry: Geometry, refcounts: Refcounts, freed: Freed, most_tables: int
    ) -> None:
        self.geometry = geometry
        self.refcounts = refcounts
        self.freed = freed
        self.most_tables = most_tables
        self.l1: Table = np.zeros(0, np.uint64)
        self.l1_offset = 0
        self.l1_moved = False  # it has a new place that the header does not tell yet
        self.tables: dict[int, L2] = {}
        self.views: dict[int, memoryview] = {}
        self.dirty: set[int] = set()
        self.unsettled = False  # changed tables show data that may not be on disk yet
        self.writing: set[int] = set()  # tables on their way to the file: not to be dropped
        self.dirty_l1: tuple[int, int] | None = None
        self.allocating: list[Request] = []  # guest clusters, allocated but not yet mapped
        self.suspects: Callable[[Table], bool] = lambda entries: False
        self.unusable: Callable[[], int] = lambda: 0  # why it is not known where metadata is
        self.simple = not geometry.extended and not geometry.data_file
        nothing = np.zeros(geometry.l2_size, np.uint64)
        nothing.flags.writeable = False
        self._empty = L2(nothing, nothing if geometry.extended else None)

    def l2_offset(self, index: int) -> int:
        """Return where an L2 table lies, 0 if there is none.

        Raises:
            Unaligned: at no cluster.

        """
        if index >= len(self.l1):
            return 0
        host = int(self.l1[index]) & OFFSET
        if host & self.geometry.cluster_size - 1:
            raise Unaligned(host, index)
        return host

    async def table(self, index: int, file: Edge) -> L2:
        """Return the L2 table for an L1 index; a shared one of zeroes if there is none."""
        known = self.tables.get(index)
        if known is not None:
            return known
        host = self.l2_offset(index)
        if host:
            if file.node.debug is not None:
                await file.node.debug("l2_load")
            table = self.split(await self._read(host, self.geometry.cluster_size, file))
        else:
            table = self._empty
        if index not in self.tables:  # else another request was faster, and may have changed it
            table.suspect = host != 0 and self.suspects(table.entries)
            self.make_room(self.most_tables - 1)
            self._keep(index, table)
        return self.tables[index]

    def spot(self, offset: int, length: int) -> tuple[int, int, bool] | None:
        """Return kind, host offset and whether to be written in place, of a range within a cluster.

        For images that ``views`` are not enough for.  None: the table is not at hand, or the range
        is of several kinds, or compressed, or there is something wrong about it.
        """
        geometry = self.geometry
        table = self.tables.get(offset >> geometry.table_bits)
        at = offset & geometry.cluster_size - 1
        if table is None or table.suspect or at + length > geometry.cluster_size:
            return None
        index = offset >> geometry.cluster_bits & geometry.l2_size - 1
        entry = int(table.entries[index])
        host = entry & OFFSET
        has = host != 0 or (geometry.data_file and entry & COPIED != 0)
        if entry & COMPRESSED or host & geometry.cluster_size - 1:
            return None
        if geometry.data_file and has and host != offset - at:
            return None
        if table.bitmaps is None:
            zero = entry & READS_ZERO != 0
            kind = ZERO + has if zero else NORMAL * has
        else:
            bits = geometry.subcluster_bits
            bitmap = int(table.bitmaps[index])
            found = subcluster_kind(bitmap, at >> bits, at + length - 1 >> bits)
            if found is None or (bitmap & ALL_ALLOCATED and not has):
                return None
            kind = found if found == NORMAL else found + has
        return kind, host + at, entry & COPIED != 0

    def own(self, index: int) -> L2 | None:
        """Return an L2 table for writing: allocated if there was none, copied if it is shared.

        An existing table must be at hand.  None: a refcount block must be loaded first.

        Raises:
            Misplaced: the image is corrupt; nothing was allocated.
            OSError: nothing can be allocated, since it is not known where metadata is.

        """
        entry = int(self.l1[index])
        old = entry & OFFSET
        if not old or not entry & COPIED:
            taken = self.refcounts.take(1)
            if taken is None:
                return None
            if not taken[0]:
                self.refcounts.put_back(0)
                raise AtHeader("L2 table")
            if code := self.unusable():
                self.refcounts.put_back(taken[0])
                raise os_error(code)
            self.refcounts.note(taken[0])
            bits = self.geometry.cluster_bits
            if old:
                self.freed.add_range(old >> bits, 1, Discard.OTHER)
            if self.is_empty(self.tables[index]):
                bitmaps = np.zeros_like(self._empty.entries) if self.geometry.extended else None
                self._keep(index, L2(np.zeros_like(self._empty.entries), bitmaps))
            self.set_l1(index, taken[0] << bits | COPIED)
        self.dirty.add(index)
        return self.tables[index]

    def set_l1(self, index: int, entry: int) -> None:
        """Change an L1 entry."""
        self.l1[index] = entry
        low, high = self.dirty_l1 or (index, index + 1)
        self.dirty_l1 = min(low, index), max(high, index + 1)

    def move_l1(self, l1: Table, offset: int) -> None:
        """Give the L1 table a new, larger place."""
        self.l1, self.l1_offset, self.l1_moved = l1, offset, True
        self.dirty_l1 = 0, len(l1)

    def replace(self, l1: Table, offset: int) -> None:
        """Begin anew with an L1 table that is in the file; nothing may wait to be written."""
        self.l1, self.l1_offset, self.l1_moved, self.dirty_l1 = l1, offset, False, None
        for index in list(self.tables):
            self.forget(index)

    def is_empty(self, table: L2) -> bool:
        """Tell whether this is the shared table of zeroes."""
        return table is self._empty

    async def stretch(self, first: int, count: int, file: Edge) -> L2:
        """Return the entries of ``count`` whole tables in one, without disturbing the cache."""
        size, bits = self.geometry.l2_size, self.geometry.cluster_bits
        width = self.geometry.entry_size // 8
        hosts = [self.l2_offset(first + i) for i in range(count)]
        new = np.empty if all(hosts) else np.zeros
        raw: Table = new(count * size * width, np.uint64)
        at, step = 0, size * width
        while at < count:
            end = at + 1
            if hosts[at] and first + at not in self.tables:
                # Tables that lie one after the other are read at once.
                while (
                    end < count
                    and first + end not in self.tables
                    and hosts[end] == hosts[at] + (end - at << bits)
                ):
                    end += 1
                part = raw[at * step : end * step]
                data = part.data.cast("B")
                if not file.route.read_now(hosts[at], data):
                    await file.pread(hosts[at], data)
                part.byteswap(inplace=True)
            at = end
        whole = self.split(raw)
        for i in range(count):
            known = self.tables.get(first + i)
            if known is not None:  # as things stand now: it may have been loaded and changed
                whole.entries[i * size : (i + 1) * size] = known.entries
                if whole.bitmaps is not None and known.bitmaps is not None:
                    whole.bitmaps[i * size : (i + 1) * size] = known.bitmaps
        return whole

    def clash(self, first: int, end: int) -> Request | None:
        """Return an allocation under way that touches a range of guest clusters."""
        for request in self.allocating:
            if request.start < end and first < request.end:
                return request
        return None

    # Between disk and memory

    def split(self, raw: Table) -> L2:
        """Tell entries and bitmaps apart."""
        if not self.geometry.extended:
            return L2(raw, None)
        return L2(raw[0::2].copy(), raw[1::2].copy())

    def encode(self, index: int) -> bytes:
        """Return the bytes of a table at hand."""
        table = self.tables[index]
        if table.bitmaps is None:
            return table.entries.byteswap().tobytes()
        raw = np.empty(2 * len(table.entries), np.uint64)
        raw[0::2], raw[1::2] = table.entries, table.bitmaps
        return raw.byteswap(inplace=True).tobytes()

    async def _read(self, offset: int, length: int, file: Edge) -> Table:
        table = np.empty(length // 8, np.uint64)
        await file.pread(offset, table.data.cast("B"))
        return table.byteswap(inplace=True)

    def _keep(self, index: int, table: L2) -> None:
        self.tables[index] = table
        if self.simple and not table.suspect:
            self.views[index] = table.entries.data

    def forget(self, index: int) -> None:
        """Drop a table from memory, changed or not."""
        self.tables.pop(index, None)
        self.views.pop(index, None)
        self.dirty.discard(index)

    def busy_tables(self) -> set[int]:
        """Return the L1 indexes of tables that must stay in memory."""
        bits = self.geometry.l2_bits
        busy = {c >> bits for r in self.allocating for c in (r.start, r.end - 1)}
        return busy | self.dirty | self.writing

    def make_room(self, most: int) -> None:
        """Drop the oldest tables until no more than ``most`` are left, but none that is busy."""
        if len(self.tables) <= most:
            return
        busy = self.busy_tables()
        idle = (index for index in self.tables if index not in busy)
        for index in list(islice(idle, len(self.tables) - most)):
            self.forget(index)

    def crowded(self) -> bool:
        """Tell whether changed tables fill so much of the cache that they should be written.

        Never if there is room for all that the disk can have.
        """
        return len(self.dirty) > max(2, self.most_tables // 2) and self.most_tables < len(self.l1)
