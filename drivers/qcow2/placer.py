"""Where bulk copies go: room for many ranges at once."""

from itertools import pairwise
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.freed import I64, Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.mapping import L2
from blockemu.drivers.qcow2.planner import Planner
from blockemu.drivers.qcow2.refcounts import Misplaced
from blockemu.drivers.qcow2.writer import Writer
from blockemu.images.qcow2.tables import contiguous
from blockemu.requests import Request
from blockemu.route import Commit, Placed, Ranges, Segment

Part = tuple[int, I64]  # the index of an L2 table, and entries there
LACKING: Final = -1  # a refcount block is, perhaps


class Placer:
    """Answers ``Node.place``."""

    def __init__(self, image: Image, planner: Planner, writer: Writer) -> None:
        self.image = image
        self.planner = planner
        self.writer = writer

    async def place(self, ranges: Ranges) -> Placed:
        """Allocate for whole ranges: in one row of clusters if possible, else for each."""
        if len(ranges) > 1 and (placed := await self._place_row(ranges)) is not None:
            return placed
        segments: list[Segment] = []
        commits: list[Commit | None] = []

        def commit(good: bool) -> None:
            for each in commits:
                if each is not None:
                    each(good)

        try:
            for offset, length in ranges:
                placed = self.planner.place(offset, length)
                if placed is None:
                    async with self.image.allocating():
                        placed = await self.writer.place(offset, length)
                segments += placed[0]
                commits.append(placed[1])
        except BaseException:
            commit(False)
            raise
        return segments, commit

    async def _place_row(self, ranges: Ranges) -> Placed | None:
        """Take one row of new clusters for ranges of whole clusters that lie here and there.

        One by one they take three times as long (``make bench``: jobs, incremental).  None: some
        are not whole, or to be written in place, or something else is unusual.
        """
        image, bits = self.image, self.image.geometry.cluster_bits
        route, whole = image.data.route, np.array(ranges, np.int64)
        if route.linear is None or route.write is None or route.marks:
            return None
        if not image.mapping.simple or (whole & (1 << bits) - 1).any():
            return None
        parts = self._parts(whole >> bits)
        for index, _ in parts:
            await image.table(index)
        count = sum(len(local) for _, local in parts)
        first = self._take(parts, count)
        if first == LACKING:
            async with image.allocating():
                await image.ready()
            first = self._take(parts, count)
        if first <= 0:
            return None
        commit = self._entering(parts, first, count)
        route.reached(first + count << bits)
        leaf, delta = route.linear
        return ((leaf, (first << bits) + delta, count << bits),), commit

    def _parts(self, clusters: I64) -> list[Part]:
        """Return the entries of rows of clusters, of shape (n, 2): first and count."""
        first, count = clusters.T
        total = int(count.sum())
        each = np.repeat(first - np.cumsum(count) + count, count) + np.arange(total)
        tables, inside = each >> self.image.geometry.l2_bits, self.image.geometry.l2_size - 1
        cuts = [0, *(np.flatnonzero(tables[1:] != tables[:-1]) + 1).tolist(), total]
        return [(int(tables[a]), each[a:b] & inside) for a, b in pairwise(cuts)]

    def _take(self, parts: list[Part], count: int) -> int:
        """Take a row of clusters for entries, none of which is to be written in place.

        Returns the first; 0 if they are no such entries or there is no such row, or LACKING.
        """
        image, mapping = self.image, self.image.mapping
        if image.refcounts.lying or self.writer.needs_relief(growing=True):
            return 0
        for index, local in parts:
            table, span = mapping.tables.get(index), self._span(index, local)
            if table is None or table.suspect or mapping.clash(*span) is not None:
                return 0
            if self.writer.owned(table.entries[local]).any():
                return 0
        try:
            if any(mapping.own(index) is None for index, _ in parts):
                return LACKING
            taken = image.refcounts.take(count, exact=True)
        except (OSError, Misplaced):
            return 0  # it will be met, and told, one by one
        return taken[0] if taken is not None else LACKING

    def _span(self, index: int, local: I64) -> tuple[int, int]:
        """Return the first of ascending entries of a table, and the one after the last."""
        base = index << self.image.geometry.l2_bits
        return base + int(local[0]), base + int(local[-1]) + 1

    def _entering(self, parts: list[Part], first: int, count: int) -> Commit:
        """Keep other writes from entries until the commit, which maps clusters in a row there."""
        image, mapping = self.image, self.image.mapping
        mine = [Request(*self._span(index, local)) for index, local in parts]
        tables: list[L2] = [mapping.tables[index] for index, _ in parts]
        mapping.allocating += mine
        ticket = image.in_flight.enter()

        def commit(good: bool) -> None:
            if good:
                bits, at = image.geometry.cluster_bits, 0
                new = contiguous(first << bits, count, bits)
                image.refcounts.filled.add(first, count)
                for (index, local), table in zip(parts, tables, strict=True):
                    old = table.entries[local]
                    table.entries[local] = new[at : at + len(local)]
                    at += len(local)
                    mapping.own(index)  # dirty again, if it was flushed in between
                    self.writer.free(old, Discard.NEVER)
                mapping.unsettled = True
            else:
                image.freed.add_range(first, count, Discard.NEVER)
            for request in mine:
                mapping.allocating.remove(request)
                request.finish()
            image.in_flight.leave(ticket)

        return commit
