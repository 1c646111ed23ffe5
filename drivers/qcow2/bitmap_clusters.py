"""What one stored bitmap has in an image: clusters of bits, and a table that says where they are.

After block/qcow2-bitmap.c.
"""

import errno
from itertools import pairwise
from typing import Final

import numpy as np

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.drivers.qcow2 import bitmap_errors as wrong
from blockemu.drivers.qcow2.freed import I64, Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.edge import MAX_LENGTH
from blockemu.images.lengths import turns
from blockemu.images.qcow2 import bitmaps as codec
from blockemu.images.qcow2.bitmaps import CLUSTER, StoredBitmap
from blockemu.images.qcow2.tables import Table
from blockemu.os_errors import os_error
from blockemu.records import replace

AT_ONCE: Final = 512 << 10  # bytes of a bitmap read or written by one request, few for the cache
_CLUSTER = np.uint64(CLUSTER)

Taken = list[tuple[int, int, Discard]]  # clusters: first, count


class BitmapClusters:
    """Reads, writes and frees the bits of bitmaps of one image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.bits = image.geometry.cluster_bits

    async def read(self, stored: StoredBitmap, into: Bitmap) -> None:
        """Set the bits that are stored.

        Raises:
            QmpError: in QEMU's words; part of them may be set.

        """
        try:
            table = await self._table(stored.table_offset, stored.table_size)
        except OSError as e:
            raise wrong.UnreadableTable(stored.name, wrong.why(e)) from e
        try:
            if len(table) != self._table_size(into):
                raise wrong.invalid()
            await self._read_bits(table, into)
        except OSError as e:
            raise wrong.UnreadableBitmap(stored.name, wrong.why(e)) from e

    async def _read_bits(self, table: Table, into: Bitmap) -> None:
        """Read run by run: entries of ones, or of clusters in a row, whatever is between them."""
        covers, size = into.serial_coverage(1 << self.bits), 1 << self.bits
        offsets = (table & _CLUSTER).astype(np.int64)
        ones = (offsets == 0) & (table & np.uint64(codec.ALL_ONES) != 0)
        for first, end in turns(ones).reshape(-1, 2).tolist():
            start, stop = first * covers, min(end * covers, into.length)
            into.mark(start, stop - start)
        data = np.flatnonzero(offsets)
        hosts, most = offsets[data], max(1, AT_ONCE >> self.bits)
        runs = np.flatnonzero(hosts[1:] - hosts[:-1] != size) + 1
        room = memoryview(bytearray(min(most, len(data)) * size))
        for first, end in pairwise([0, *runs.tolist(), len(data)]):
            for at in range(first, end, most):
                await self._read_row(int(hosts[at]), data[at : min(at + most, end)], into, room)

    async def _read_row(self, host: int, entries: I64, into: Bitmap, room: memoryview) -> None:
        """Read clusters in a row, whose entries in the table need not be."""
        covers, size = into.serial_coverage(1 << self.bits), 1 << self.bits
        start, last = int(entries[0]) * covers, int(entries[-1]) * covers
        if last - start == (len(entries) - 1) * covers:
            length = min(last + covers, into.length) - start
            if (place := into.room(start, length)) is not None:
                await self._pread(host, place)
                into.filled(start, length)
                return
        rest = into.serial_size(last, min(covers, into.length - last))
        got = room[: (len(entries) - 1) * size + rest]
        await self._pread(host, got)
        runs = np.flatnonzero(entries[1:] - entries[:-1] != 1) + 1
        for first, end in pairwise([0, *runs.tolist(), len(entries)]):
            start = int(entries[first]) * covers
            length = min((end - first) * covers, into.length - start)
            raw = got[first * size :][: into.serial_size(start, length)]
            into.deserialise(start, length, raw)

    async def _table(self, offset: int, entries: int) -> Table:
        """Read a table; raise OSError EINVAL if it makes no sense."""
        await self._pread(offset, raw := bytearray(entries * 8))
        table: Table = np.frombuffer(raw, ">u8").astype(np.uint64)
        try:
            codec.check_table(table, 1 << self.bits)
        except codec.BadTable:
            raise wrong.invalid() from None
        return table

    async def _pread(self, offset: int, room: bytearray | memoryview) -> None:
        if offset + len(room) > MAX_LENGTH:
            raise os_error(errno.EIO)
        await self.image.file.pread(offset, room)

    def _table_size(self, bits: Bitmap) -> int:
        """Return the entries of a bitmap's table."""
        return self.image.geometry.clusters(bits.serial_size(0, bits.length) if bits.length else 0)

    async def write(self, stored: StoredBitmap, bitmap: Bitmap, taken: Taken) -> StoredBitmap:
        """Write the bits and the table to new clusters, which are noted in ``taken``.

        Returns ``stored`` with its new place.

        Raises:
            QmpError: in QEMU's words; what is in ``taken`` is to be let go of.

        """
        image, name, size = self.image, stored.name, self._table_size(bitmap)
        if size > codec.MAX_TABLE or size << self.bits > codec.MAX_BYTES:
            raise wrong.TooBig(name)
        if not size:
            raise wrong.NoMemory
        table: Table = np.zeros(size, np.uint64)
        parts, at = bitmap.stored_parts(1 << self.bits), 0
        most = min(len(parts), max(1, AT_ONCE >> self.bits))
        room = np.empty(most << self.bits >> 3, np.uint64)
        while at < len(parts):
            want = min(len(parts) - at, most)
            first, got = await self._take(want, name)
            taken.append((first, got, Discard.ALWAYS))
            some = parts[at : at + got]
            table[some] = np.arange(first, first + got) << self.bits
            await self._write(first, bitmap.stored(some, 1 << self.bits, room), name)
            at += got
        count = image.geometry.clusters(size * 8)
        try:
            first = await image.refcounts.take_row(count, image.file)
        except OSError as e:
            raise wrong.NoClusters(name, wrong.why(e)) from e
        taken.append((first, count, Discard.OTHER))
        await self._write(first, memoryview(table.byteswap().tobytes()), name)
        return replace(stored, table_offset=first << self.bits, table_size=size)

    async def _take(self, want: int, name: str) -> tuple[int, int]:
        image = self.image
        try:
            while (taken := image.refcounts.take(want)) is None:
                await image.ready()
        except OSError as e:
            raise wrong.NoClusters(name, wrong.why(e)) from e
        return taken[:2]

    async def _write(self, first: int, data: memoryview, name: str) -> None:
        host = first << self.bits
        try:
            await self.image.check_overlap(host, len(data))
        except OSError as e:
            raise wrong.Overlaps(wrong.why(e)) from e
        try:
            await self.image.file.pwrite(host, data)
        except OSError as e:
            raise wrong.CannotWrite(name, wrong.why(e)) from e

    async def free(self, offset: int, entries: int) -> None:
        """Let go of a table and of what it points to; not if it makes no sense."""
        try:
            table = await self._table(offset, entries)
        except OSError:
            return
        freed, hosts = self.image.freed, (table & _CLUSTER).astype(np.int64)
        clusters: I64 = hosts[hosts != 0] >> self.bits
        freed.add(clusters, Discard.ALWAYS)
        freed.add_range(
            offset >> self.bits, self.image.geometry.clusters(entries * 8), Discard.OTHER
        )
