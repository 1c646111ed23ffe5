"""Plans: where a request's bytes lie, told without waiting (see blockemu.route).

The common case, a request within one cluster of an image without subclusters and data file, is a
few integer operations; the rest goes over runs of L2 entries.
"""

from typing import TYPE_CHECKING

from blockemu.drivers.qcow2.around import Around
from blockemu.drivers.qcow2.reader import BELOW, ZEROES
from blockemu.drivers.qcow2.refcounts import Misplaced
from blockemu.drivers.qcow2.room import NOTHING, Span
from blockemu.images.qcow2.constants import COPIED, KIND, OFFSET, READS_ZERO
from blockemu.images.qcow2.tables import NORMAL, Run
from blockemu.route import NO_ROUTE, Commit, Leaf, Plan, Route, Segment, Segments, WritePlan

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.parts import Parts


class Planner:
    """Makes an image's route."""

    def __init__(self, parts: "Parts") -> None:
        self.image = parts.image
        self.reader = parts.reader
        self._parts = parts
        self._placing: tuple[Route, WritePlan] = (NO_ROUTE, lambda at, length: None)

    def route(self) -> Route:
        """Look clusters up in the tables at hand."""
        if self.image.broken:
            return NO_ROUTE
        route = self.image.data.route
        if route.linear is None:
            return NO_ROUTE
        leaf, delta = route.linear
        read = self._read_plan(leaf, delta) if route.read is not None else None
        writable = route.write is not None and not route.marks
        write = self._write_plan(route) if writable else None
        below = NO_ROUTE if self.image.backing is None else self.image.backing.route
        solid, unsure, sparse = below.solid, below.unsure, self.image.sparse
        if not sparse:  # holes where clusters are allocated mean nothing, or who knows
            solid, unsure = (solid, unsure | {leaf}) if sparse is None else (solid | {leaf}, unsure)
        return Route(read, write, solid=solid, unsure=unsure)

    # Reading

    def _read_plan(self, leaf: Leaf, delta: int) -> Plan:
        geometry, view = self.image.geometry, self.image.mapping.views.get
        if not self.image.mapping.simple:
            return self._odd_read_plan(leaf, delta)
        bits, table_bits = geometry.cluster_bits, geometry.table_bits
        index, inside = geometry.l2_size - 1, geometry.cluster_size - 1
        # Anything but a plain cluster, or one that lies where no cluster begins.
        special = KIND & ~COPIED | OFFSET & inside
        old = geometry.version < 3

        def read(offset: int, length: int) -> Segments | None:
            entries = view(offset >> table_bits)
            if entries is None:
                return self._read_runs(offset, length, leaf, delta)
            at = offset & inside
            entry: int = entries[offset >> bits & index]
            if at + length > inside + 1:
                if not entry & special and entry & OFFSET and _row(entries, offset, length, bits):
                    return ((leaf, (entry & OFFSET) + at + delta, length),)
                return self._read_runs(offset, length, leaf, delta)
            if not entry & special:
                host = entry & OFFSET
                if host:
                    return ((leaf, host + at + delta, length),)
                return self._below(offset, length)
            if entry & KIND == READS_ZERO and not entry & OFFSET and not old:
                return ((None, 0, length),)
            return None

        return read

    def _odd_read_plan(self, leaf: Leaf, delta: int) -> Plan:
        """Plan reads of an image with subclusters or a data file."""
        spot, old = self.image.mapping.spot, self.image.geometry.version < 3

        def read(offset: int, length: int) -> Segments | None:
            found = spot(offset, length)
            if found is None:
                return self._read_runs(offset, length, leaf, delta)
            kind, host, _ = found
            if kind == NORMAL:
                return ((leaf, host + delta, length),)
            if kind in ZEROES:
                return None if old else ((None, 0, length),)
            return self._below(offset, length)

        return read

    def _below(self, offset: int, length: int) -> Segments | None:
        backing = self.image.backing
        if backing is None:
            return ((None, 0, length),)
        rest = backing.length - offset
        if rest <= 0:
            return ((None, 0, length),)
        read = backing.route.read
        if read is None:
            return None
        if rest >= length:
            return read(offset, length)
        segments = read(offset, rest)
        return segments and (*segments, (None, 0, length - rest))

    def _read_runs(self, offset: int, length: int, leaf: Leaf, delta: int) -> Segments | None:
        segments: list[Segment] = []
        span, end = 1 << self.image.geometry.table_bits, offset + length
        while offset < end:
            size = min(end - offset, span - offset % span)
            found = self._runs(offset, size)
            if found is None:
                return None
            offset += size
            for run in found:
                if run.kind == NORMAL:
                    segments.append((leaf, run.host + delta, run.length))
                elif run.kind in ZEROES:
                    segments.append((None, 0, run.length))
                else:
                    below = self._below(run.start, run.length)
                    if below is None:
                        return None
                    segments += below
        return segments

    def _runs(self, offset: int, length: int) -> list[Run] | None:
        """Return the runs of a range in one table at hand, if nothing about them is unusual."""
        geometry = self.image.geometry
        index = offset >> geometry.table_bits
        table = self.image.mapping.tables.get(index)
        if table is None or table.suspect or (offset + length - 1) >> geometry.table_bits != index:
            return None
        inside = geometry.cluster_size - 1
        found = self.reader.runs(table, offset, length)
        for run in found:
            if run.kind == NORMAL:
                if (run.host ^ run.start) & inside:
                    return None
                if geometry.data_file and run.host != run.start:
                    return None
            elif run.kind not in BELOW and (run.kind not in ZEROES or geometry.version < 3):
                return None
        return found

    # Writing

    def place(self, offset: int, length: int) -> tuple[Segments, Commit] | None:
        """Make room for a whole range, if that takes no waiting."""
        image = self.image
        route = image.data.route
        if route.linear is None or route.write is None or route.marks:
            raise NotImplementedError
        known, plan = self._placing
        if known is not route:
            plan = self._write_plan(route, around=False)
            self._placing = route, plan
        found = plan(offset, length)
        if found is None:
            return None
        segments, mapped = found
        ticket = image.in_flight.enter()  # the caller takes its time

        def commit(good: bool) -> None:
            if mapped is not None:
                mapped(good)
            image.in_flight.leave(ticket)

        return segments, commit

    def _write_plan(self, route: Route, *, around: bool = True) -> WritePlan:
        """Plan writes, and note below how far they go: what is planned is written.

        ``around``: also those into new clusters that must get more than what is written.
        """
        leaf, delta = _linear(route)
        geometry, view, reached = self.image.geometry, self.image.mapping.views.get, route.reached
        if not self.image.mapping.simple:
            return self._odd_write_plan(route)
        read = self._read_plan(leaf, delta) if around and route.read is not None else None
        bits, table_bits = geometry.cluster_bits, geometry.table_bits
        index, inside = geometry.l2_size - 1, geometry.cluster_size - 1
        kind = KIND | OFFSET & inside
        empty = READS_ZERO if geometry.version >= 3 else 0
        highest = 0

        def write(offset: int, length: int) -> tuple[Segments, Commit | None] | None:
            nonlocal highest
            entries = view(offset >> table_bits)
            if entries is None:
                return self._write_runs(offset, length, route, read)
            at = offset & inside
            entry: int = entries[offset >> bits & index]
            inner = at + length <= inside + 1
            if entry & kind != COPIED or not entry & OFFSET:
                new = inner or (entry <= empty and _highest(entries, offset, length, bits) <= empty)
                plan = self._write_new if new else self._write_runs
                return plan(offset, length, route, read)
            if not inner and not _row(entries, offset, length, bits):
                return self._write_runs(offset, length, route, read)
            host = (entry & OFFSET) + at
            if host + length > highest:
                highest = host + length
                reached(highest)
            return ((leaf, host + delta, length),), None

        return write

    def _odd_write_plan(self, route: Route) -> WritePlan:
        """Plan writes to an image with subclusters or a data file."""
        spot, (leaf, delta) = self.image.mapping.spot, _linear(route)

        def write(offset: int, length: int) -> tuple[Segments, Commit | None] | None:
            found = spot(offset, length)
            if found is None or not found[2] or found[0] != NORMAL:
                return self._write_runs(offset, length, route)
            route.reached(found[1] + length)
            return ((leaf, found[1] + delta, length),), None

        return write

    def _write_runs(
        self, offset: int, length: int, route: Route, read: Plan | None = None
    ) -> tuple[Segments, Commit | None] | None:
        found = self._runs(offset, length)
        if found is None:
            return None
        if all(run.kind == NORMAL and run.copied for run in found):
            leaf, delta = _linear(route)
            route.reached(max(run.host + run.length for run in found))
            return [(leaf, run.host + delta, run.length) for run in found], None
        return self._write_new(offset, length, route, read)

    def _write_new(
        self, offset: int, length: int, route: Route, read: Plan | None
    ) -> tuple[Segments, Commit] | None:
        """Allocate at once, if what is around the data is zero or can be had by ``read``."""
        image, geometry = self.image, self.image.geometry
        bits, mapping = geometry.cluster_bits, image.mapping
        cluster, last = offset >> bits, (offset + length - 1) >> bits
        index, first = divmod(cluster, geometry.l2_size)
        table, count = mapping.tables.get(index), last - cluster + 1
        if table is None or table.bitmaps is not None or geometry.data_file:
            return None
        if first + count > geometry.l2_size or mapping.clash(cluster, last + 1) is not None:
            return None
        old = table.entries[first : first + count]
        if count == 1:
            if int(old[0]) & COPIED:
                return None
        elif self._parts.writer.owned(old).any():
            return None
        if image.refcounts.lying or self._parts.writer.needs_relief(growing=True):
            return None
        end, inside = offset + length, geometry.cluster_size - 1
        zero = self._is_zero(int(old[0]), offset) and self._is_zero(int(old[-1]), end)
        head = tail = NOTHING
        if not zero:
            found = self._around(cluster << bits, offset, end, last + 1 << bits, read)
            if found is None:
                return None
            head, tail = found
        elif (offset | end) & inside and not image.refcounts.is_fresh():
            return None
        try:
            span = Span(table, index, first, count, offset, offset + length)
            new = self._parts.writer.allocate(span, exact=True)
        except (OSError, Misplaced):
            return None  # a plan does not raise: the coroutine will
        if new is None:
            return None
        host, fresh, commit = new
        if zero and not fresh and (offset | end) & inside:
            commit(False)
            return None
        leaf, delta = _linear(route)
        route.reached(host + (count << bits))  # QEMU zeroes whole clusters first
        if not zero:
            leaf = Around(leaf, head, tail)
        host += offset - (cluster << bits)
        return ((leaf, host + delta, length),), commit

    def _is_zero(self, entry: int, edge: int) -> bool:
        """Tell whether what a write leaves of the cluster that it begins or ends in is zero."""
        return not edge & self.image.geometry.cluster_size - 1 or self._reads_zero(entry)

    def _around(
        self, start: int, offset: int, end: int, stop: int, read: Plan | None
    ) -> tuple[memoryview, memoryview] | None:
        """Return what is there before and behind a write, if it is at hand."""
        if read is None or stop > self.image.length:
            return None
        buf = memoryview(bytearray(offset - start + stop - end))
        head, tail = buf[: offset - start], buf[offset - start :]
        for at, part in ((start, head), (end, tail)):
            segments = read(at, len(part)) if len(part) else ()
            if segments is None:
                return None
            for leaf, host, size in segments:
                if leaf is not None and not leaf.read_now(host, part[:size]):
                    return None
                part = part[size:]
        return head, tail

    def _reads_zero(self, entry: int) -> bool:
        """Tell whether a cluster that is to be replaced surely reads as zeroes."""
        if entry & OFFSET or entry & KIND & ~READS_ZERO:
            return False
        return bool(entry & READS_ZERO) or self.image.backing is None


def _row(entries: memoryview, offset: int, length: int, bits: int) -> bool:
    """Tell whether all clusters of a range lie in one row and are alike, all in one table.

    Saves numpy's dozen calls for what is mostly so (``make bench``: NBD, qcow2, 1 MiB; nbdcopy).
    """
    first, last = offset >> bits, offset + length - 1 >> bits
    local, count = first & len(entries) - 1, last - first + 1
    entry = entries[local]
    wanted = list(range(entry, entry + (count << bits), 1 << bits))
    return entries[local : local + count].tolist() == wanted


def _highest(entries: memoryview, offset: int, length: int, bits: int) -> int:
    """Return the highest entry of a range in this table: of clusters that do not exist it is small.

    Saves numpy's calls likewise, where a new image is filled (``make bench``: convert, mirror).
    """
    first, last = offset >> bits, offset + length - 1 >> bits
    local = first & len(entries) - 1
    return max(entries[local : local + last - first + 1].tolist())


def _linear(route: Route) -> tuple[Leaf, int]:
    """Return where the bytes of a file are, of one that is known to lie in one leaf."""
    assert route.linear is not None
    return route.linear
