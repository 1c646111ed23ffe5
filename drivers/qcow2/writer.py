"""Writing: where the front of a write goes, and what around it must go along.

=================================  =============================================================
what is there                      what happens
=================================  =============================================================
NORMAL, this image's alone         written in place
ZERO_ALLOC, UNALLOCATED_ALLOC,     written in place, whole subclusters; then marked as allocated
  this image's alone
anything else                      new clusters; what the write leaves of the old ones is copied
=================================  =============================================================

New clusters are mapped by the commit; until then other writes to them wait, reads see the old.
"""

import errno
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.freed import I64, NONE, Discard
from blockemu.drivers.qcow2.image import Image, c_hex
from blockemu.drivers.qcow2.mapping import L2
from blockemu.drivers.qcow2.reader import BELOW, Reader
from blockemu.drivers.qcow2.room import NOTHING, Room, Span
from blockemu.drivers.qcow2.stepwise import Flush, Stepwise
from blockemu.images.qcow2.constants import COMPRESSED as COMPRESSED_FLAG
from blockemu.images.qcow2.constants import COPIED, KIND, OFFSET, READS_ZERO, SUBCLUSTERS
from blockemu.images.qcow2.tables import (
    COMPRESSED,
    HAS_HOST,
    INVALID,
    NORMAL,
    Bools,
    Run,
    Table,
    allocated_around,
    compressed_extents,
    contiguous,
    has_offset,
    sub_range,
)
from blockemu.node import Write
from blockemu.requests import Request
from blockemu.route import Commit, Segment, Segments

MERGED_READ: Final = 16 << 10  # bytes of data between two parts that are copied by one read
MOST_FREED: Final = 256 << 20  # bytes let go of that may wait for a flush, to be used again
WORTH_FLUSH: Final = 16 << 20  # bytes that are worth one, if clusters are wanted
_OWNED, _COPIED = np.uint64(COPIED | COMPRESSED_FLAG), np.uint64(COPIED)


class Writer:
    """Writes to one image."""

    def __init__(self, image: Image, reader: Reader, flush: Flush) -> None:
        self.image = image
        self.reader = reader
        self.flush = flush
        self.stepwise = Stepwise(image, flush)
        self.geometry = image.geometry
        self.bits = image.geometry.cluster_bits

    async def pwrite(self, offset: int, buf: memoryview) -> None:
        """Write ``buf``, run by run, in place or to new clusters."""
        image = self.image
        host = self._in_place(offset, len(buf)) if len(buf) else -1
        if host < 0:
            await self.relieve(growing=True)
        ticket = image.in_flight.enter()
        try:
            if host >= 0:
                if image.debug is not None:
                    await image.debug("write_aio")
                await image.write_data(host, offset, buf)
                return
            near = 0
            while len(buf):
                room = await self.reserve(offset, len(buf), near)
                await self._fill(room, offset, buf[: room.length])
                offset += room.length
                buf = buf[room.length :]
                near = room.host + room.length >> self.bits
        finally:
            image.in_flight.leave(ticket)

    async def _fill(self, room: Room, offset: int, data: memoryview) -> None:
        good = False
        try:
            whole = data
            if len(room.head) or len(room.tail):
                whole = memoryview(b"".join((room.head, data, room.tail)))
            if self.image.debug is not None:
                await self.image.debug("write_aio")
                if whole is not data:
                    await self.image.debug("cow_write")
            self.image.check_alive()  # another request may have found it corrupt meanwhile
            before = len(room.head)
            await self.image.write_data(room.host - before, offset - before, whole)
            good = True
        finally:
            if room.commit is not None:
                room.commit(good)

    def _in_place(self, offset: int, length: int) -> int:
        """Return where a range lies, if it is in one cluster to be written in place, else -1."""
        bits, geometry = self.bits, self.geometry
        if not self.image.mapping.simple:
            found = self.image.mapping.spot(offset, length)
            return found[1] if found is not None and found[2] and found[0] == NORMAL else -1
        cluster = offset >> bits
        view = self.image.mapping.views.get(cluster >> geometry.l2_bits)
        if view is None or (offset + length - 1) >> bits != cluster:
            return -1
        entry: int = view[cluster & geometry.l2_size - 1]
        host = entry & OFFSET
        if entry & KIND != COPIED or not host or host & (1 << bits) - 1:
            return -1
        return host + offset - (cluster << bits)

    async def place(self, offset: int, length: int) -> tuple[Segments, Commit | None]:
        """Allocate for a whole range; copy what lies around it in its first and last cluster."""
        image = self.image
        await self.relieve(growing=True)
        ticket = image.in_flight.enter()
        rooms: list[Room] = []

        def commit(good: bool) -> None:
            for room in rooms:
                if room.commit is not None:
                    room.commit(good)
            image.in_flight.leave(ticket)

        try:
            while length:
                room = await self.reserve(offset, length)
                rooms.append(room)
                image.data.route.reached(room.host + room.length)
                offset += room.length
                length -= room.length
                if len(room.head):
                    await image.data.pwrite(room.host - len(room.head), room.head)
                if len(room.tail):
                    await image.data.pwrite(room.host + room.length, room.tail)
        except BaseException:
            commit(False)
            raise
        if image.data.route.linear is None:
            commit(False)
            raise NotImplementedError
        leaf, delta = image.data.route.linear
        segments: list[Segment] = [(leaf, room.host + delta, room.length) for room in rooms]
        return segments, commit

    async def relieve(self, *, growing: bool = False) -> None:
        """Write tables back if too many are changed, or if much space waits for that.

        ``growing``: clusters are wanted, and without that the file may grow in vain.
        """
        if self.needs_relief(growing=growing):
            await self.flush()

    def needs_relief(self, *, growing: bool) -> bool:
        """Tell whether ``relieve`` would write tables back."""
        image, freed = self.image, self.image.freed
        if image.mapping.crowded() or freed.count << self.bits > MOST_FREED:
            return True
        return growing and freed.sole << self.bits >= WORTH_FLUSH

    # Finding room

    async def reserve(self, offset: int, length: int, near: int = 0) -> Room:
        """Find or make room for the front of a write: one run, within one L2 table.

        ``near``: the cluster that follows what was written before, for new ones to begin there.
        """
        image, bits = self.image, self.bits
        told = False
        while True:
            index, first = divmod(offset >> bits, self.geometry.l2_size)
            clusters = (offset + length - 1 >> bits) - (offset >> bits) + 1
            table = await image.table(index)
            entries = table.entries[first : first + clusters]
            count = len(entries)
            length = min(length, ((offset >> bits) + count << bits) - offset)
            owned = self.owned(entries)
            if owned[0]:
                runs = self._together(self.reader.runs(table, offset, length))
                host, length = runs[0].host, sum(run.length for run in runs)
                await self._check_owned(runs[0])
                if table.suspect:
                    await image.check_overlap(host, length)
                if all(run.kind == NORMAL for run in runs):
                    return Room(length, host)
                count = self.geometry.clusters((offset & (1 << bits) - 1) + length)
            else:
                count = int(owned.argmax()) or count
                await self._check_new_entries(table, offset, count)
            cluster = offset >> bits
            other = image.mapping.clash(cluster, cluster + count)
            if other is not None:
                await other.finished()
                continue
            if self.image.mapping.tables.get(index) is not table:
                continue  # thrown out while it was checked
            length = min(length, (cluster + count << bits) - offset)
            span = Span(table, index, first, count, offset, offset + length)
            if owned[0]:
                if image.mapping.own(index) is not None:
                    return await self._refill(span, runs)
                await image.ready()
                continue
            if image.debug is not None and not told and not self.geometry.data_file:
                if not await self.stepwise.table_now(index):
                    told = True
                    await self.stepwise.tell_allocation()
                continue
            room = await self._reserve_new(span, near)
            if room is not None:
                return room
            await image.ready()

    def owned(self, entries: Table) -> Bools:
        """Tell of each entry whether it has a cluster that is this image's alone."""
        alone: Bools = entries & _OWNED == _COPIED
        return alone & has_offset(entries, self.geometry.data_file)

    async def _check_new_entries(self, table: L2, offset: int, count: int) -> None:
        """Raise EIO if entries that are to be replaced make no sense (after calculate_l2_meta)."""
        if table.bitmaps is None:
            return
        start = offset >> self.bits << self.bits
        for run in self.reader.runs(table, start, count << self.bits):
            if run.kind == INVALID:
                await self._check_owned(run)

    async def _check_owned(self, run: Run) -> None:
        """Raise EIO for entries that make no sense (after handle_copied)."""
        if run.kind == INVALID:
            raise await self.image.corrupt(
                f"Invalid cluster entry found ({self.reader.where(run)})"
            )
        offset = run.entry & OFFSET
        if offset & (1 << self.bits) - 1:
            what = "Preallocated zero" if run.entry & READS_ZERO else "Data"
            raise await self.image.corrupt(
                f"{what} cluster offset {offset:#x} unaligned (guest offset: {c_hex(run.start)})"
            )

    def _together(self, runs: list[Run]) -> list[Run]:
        """Return the first runs that lie in one row and may be written in place."""
        end = runs[0].host
        for i, run in enumerate(runs):
            if run.host != end or not HAS_HOST[run.kind] or not run.copied:
                return runs[: max(i, 1)]
            end += run.length
        return runs

    async def _refill(self, span: Span, runs: list[Run]) -> Room:
        """Use room that is there already but holds nothing in parts: fill whole subclusters."""
        size = self.geometry.subcluster_size
        start, end = span.begin, span.end
        if runs[0].kind != NORMAL:
            span.begin = start & -size
        if runs[-1].kind != NORMAL:
            span.end = -(-end // size) * size
        mine = self._allocate_begin(span)

        def commit(good: bool) -> None:
            if good:
                self._map(span, span.table.entries[span.first : span.first + span.count].copy())
            self._allocate_end(mine)

        try:
            host, blank = runs[0].host, all(run.kind != NORMAL for run in runs)
            head, tail = await self._around(span, start, end, host, fresh=False, blank=blank)
        except BaseException:
            commit(False)
            raise
        return Room(end - start, host, head, tail, commit)

    async def _reserve_new(self, span: Span, near: int) -> Room | None:
        """Allocate clusters; None: load what ``ready`` loads and try again."""
        offset, bits = span.begin, self.bits
        new = self.allocate(span, near=near)
        if new is None:
            return None
        host, fresh, commit = new
        if self.image.refcounts.lying:
            at = host + (offset & (1 << bits) - 1)
            await self._check_new(at, span.end - offset, commit)
        end = span.end
        cluster = offset >> bits << bits
        if fresh:  # QEMU zeroes whole clusters first (handle_alloc_space)
            self.image.data.route.reached(host + (span.count << bits))
        self._widen(span)
        try:
            at = host + offset - cluster
            head, tail = await self._around(span, offset, end, at, fresh=fresh)
        except BaseException:
            commit(False)
            raise
        return Room(end - offset, at, head, tail, commit)

    async def _check_new(self, host: int, length: int, commit: Commit) -> None:
        try:
            await self.image.check_overlap(host, length)
        except OSError:
            commit(False)
            raise

    def allocate(
        self, span: Span, *, exact: bool = False, near: int = 0
    ) -> tuple[int, bool, Commit] | None:
        """Take clusters for a span, shortened if there are fewer in a row; they are mapped later.

        Returns where they are, whether they surely read as zeroes, and the commit.
        """
        image, bits = self.image, self.bits
        guest = (span.index << self.geometry.l2_bits) + span.first
        if image.mapping.own(span.index) is None:
            return None
        if self.geometry.data_file:
            host, fresh = guest << bits, False
        else:
            taken = image.refcounts.take(span.count, exact=exact, near=near)
            if taken is None:
                return None
            first, got, fresh = taken
            fresh = fresh and not self.geometry.extended  # the flush would reserve too much
            host = first << bits
            if got < span.count:
                span.count = got
                span.end = min(span.end, guest + got << bits)
        span.table = image.mapping.tables[span.index]
        mine = self._allocate_begin(span)
        whole = not ((span.begin | span.end) & (1 << bits) - 1 or self.geometry.data_file)

        def commit(good: bool) -> None:
            if good and whole:
                image.refcounts.filled.add(host >> bits, span.count)
            if good and span.count == 1 and span.table.bitmaps is None:  # numpy is slow for one
                entries = span.table.entries
                before = int(entries[span.first])
                entries[span.first] = host | COPIED
                image.mapping.own(span.index)
                image.mapping.unsettled = True
                if before & ~READS_ZERO:
                    self.free(np.array([before], np.uint64), Discard.NEVER)
            elif good:
                old = span.table.entries[span.first : span.first + span.count].copy()
                self._map(span, contiguous(host, span.count, bits))
                self.free(old, Discard.NEVER)
            elif not self.geometry.data_file:
                image.freed.add_range(host >> bits, span.count, Discard.NEVER)
            self._allocate_end(mine)

        return host, fresh, commit

    def _allocate_begin(self, span: Span) -> Request:
        guest = (span.index << self.geometry.l2_bits) + span.first
        mine = Request(guest, guest + span.count)
        self.image.mapping.allocating.append(mine)
        return mine

    def _allocate_end(self, mine: Request) -> None:
        self.image.mapping.allocating.remove(mine)
        mine.finish()

    def _map(self, span: Span, entries: Table) -> None:
        """Enter clusters in the table, and what was written of them in the bitmaps."""
        table, first, count = span.table, span.first, span.count
        if table.bitmaps is None:
            if count == 1:
                table.entries[first] = int(entries[0]) & ~READS_ZERO
            else:
                table.entries[first : first + count] = entries & ~np.uint64(READS_ZERO)
        else:
            guest = (span.index << self.geometry.l2_bits) + first
            start, bits = guest << self.bits, self.geometry.subcluster_bits
            written = sub_range(count, span.begin - start >> bits, span.end - start >> bits)
            table.entries[first : first + count] = entries
            bitmaps = table.bitmaps[first : first + count]
            table.bitmaps[first : first + count] = (bitmaps | written) & ~(
                written << np.uint64(SUBCLUSTERS)
            )
        self.image.mapping.own(span.index)  # dirty again, if it was flushed in between
        self.image.mapping.unsettled = True

    def free(self, entries: Table, reason: Discard) -> I64:
        """Let go of what L2 entries point to; with a data file return the guest clusters."""
        if not (entries > READS_ZERO).any():
            return NONE
        found = self.clusters_of(entries)
        if not self.geometry.data_file:
            self.image.freed.add(found, reason)
            self.image.freed.sole += int(np.count_nonzero(entries & _COPIED))
        return found

    def clusters_of(self, entries: Table) -> I64:
        """Return the clusters that L2 entries refer to, by index, once for each reference."""
        bits = self.bits
        if len(entries) == 1 and not int(entries[0]) & (OFFSET | COPIED):
            return np.zeros(0, np.int64)
        packed = entries & np.uint64(COMPRESSED_FLAG) != 0
        plain = entries[~packed & has_offset(entries, self.geometry.data_file)]
        offsets = plain & np.uint64(OFFSET)
        unaligned = offsets & np.uint64((1 << bits) - 1) != 0
        if unaligned.any():
            unfit = int(offsets[int(unaligned.argmax())])
            self.image.report_corruption(f"Cannot free unaligned cluster {unfit:#x}", fatal=False)
            offsets = offsets[~unaligned]
        clusters: I64 = offsets.astype(np.int64) >> bits
        if not packed.any():
            return clusters
        offset, length = compressed_extents(entries[packed], self.geometry)
        first, last = offset >> bits, (offset + length - 1) >> bits
        return np.concatenate((clusters, first, last[last != first]))

    # What a new cluster must keep

    def _widen(self, span: Span) -> None:
        """Let a span's bytes include what must be copied (after calculate_l2_meta)."""
        size = self.geometry.subcluster_size
        start = (span.index << self.geometry.l2_bits) + span.first << self.bits
        first = self._spread(span, 0, span.begin - start >> self.geometry.subcluster_bits)
        low, _ = first
        last_start = start + (span.count - 1 << self.bits)
        inside = span.end - 1 - last_start >> self.geometry.subcluster_bits
        _, high = self._spread(span, span.count - 1, inside)
        span.begin = start + low * size
        span.end = last_start + high * size

    def _spread(self, span: Span, at: int, sub: int) -> tuple[int, int]:
        """Return which subclusters of an old cluster around ``sub`` must be copied."""
        if not self.geometry.extended:
            return 0, 1
        entry = int(span.table.entries[span.first + at])
        assert span.table.bitmaps is not None
        return allocated_around(entry, int(span.table.bitmaps[span.first + at]), sub)

    async def _around(
        self, span: Span, start: int, end: int, host: int, *, fresh: bool, blank: bool = True
    ) -> tuple[memoryview, memoryview]:
        """Return what goes before and behind the data.

        If all is zeroes, the file makes them (handle_alloc_space), unless the room is fresh: then
        they are there and stay; or not ``blank``: a crash must not leave them in place of data.
        """
        before, behind = start - span.begin, span.end - end
        if not before and not behind:
            return NOTHING, NOTHING
        debug = self.image.debug
        if await self._is_zero(span.begin, start) and await self._is_zero(end, span.end):
            if debug is not None:
                await debug("cluster_alloc_space")
                fresh = False
            if await self._zeroed(host - before, span.end - span.begin, fresh, blank):
                return NOTHING, NOTHING
            return memoryview(bytes(before)), memoryview(bytes(behind))
        head, tail = memoryview(bytearray(before)), memoryview(bytearray(behind))
        if before:
            if debug is not None:
                await debug("cow_read")
            await self.reader.read(span.begin, head)
        if behind:
            if debug is not None and not (before and end - start <= MERGED_READ):
                await debug("cow_read")
            await self.reader.read(end, tail)
        return head, tail

    async def _zeroed(self, host: int, length: int, fresh: bool, blank: bool) -> bool:
        """See that a part of the file is zero without a buffer; tell whether that was possible."""
        if self.image.encryption is not None or fresh or not blank:
            return self.image.encryption is None and fresh
        try:
            await self.image.data.write_zeroes(host, length, Write.NO_FALLBACK)
        except OSError as e:
            if e.errno in (errno.ENOTSUP, errno.EAGAIN):
                return False
            raise
        return True

    async def _is_zero(self, start: int, end: int) -> bool:
        """Tell whether a range within one cluster surely reads as zeroes."""
        if start >= end:
            return True
        table = await self.image.table(start >> self.geometry.table_bits)
        backing = self.image.backing
        empty_below = backing is None or start >= backing.length
        for run in self.reader.runs(table, start, end - start):
            await self.reader.check(run)
            if run.kind in (NORMAL, COMPRESSED, INVALID):
                return False
            if run.kind in BELOW and not empty_below:
                return False
        return True
