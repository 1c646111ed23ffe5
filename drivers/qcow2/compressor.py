"""Compressed writes: clusters are compressed side by side on threads, then packed one by one.

A compressed cluster takes as many bytes as it needs, wherever they begin; several share a host
cluster, whose refcount is how many of them have a part of it.  What does not become shorter is
written as any other data (after qcow2_co_pwritev_compressed_part, block/qcow2.c).
"""

import errno
from itertools import groupby
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.freed import Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.refcounts import AtHeader
from blockemu.drivers.qcow2.writer import Writer
from blockemu.images.qcow2.compression import COMPRESS
from blockemu.images.qcow2.constants import OFFSET
from blockemu.images.qcow2.tables import Table, compressed_entries
from blockemu.os_errors import os_error
from blockemu.requests import Request

BATCH: Final = 2 << 20  # bytes that are compressed before any of them is written
SHARE: Final = 256 << 10  # bytes of clusters that one thread takes in one go, some 5 ms of work
_OFFSET: Final = np.uint64(OFFSET)


class Compressor:
    """Writes compressed clusters to one image."""

    def __init__(self, image: Image, writer: Writer) -> None:
        self.image = image
        self.writer = writer
        self.bits = image.geometry.cluster_bits

    async def pwrite(self, offset: int, buf: memoryview) -> None:
        """Write whole clusters, none of them in use; only the disk's last may be a part of one.

        An empty write makes the file end with a sector.
        """
        image, inside = self.image, (1 << self.bits) - 1
        if image.geometry.data_file:
            raise os_error(errno.ENOTSUP)
        if not len(buf):
            await image.file.truncate(image.file.fresh_length(), exact=False)
            return
        if offset & inside or (len(buf) & inside and offset + len(buf) != image.length):
            raise os_error(errno.EINVAL)
        ticket = image.in_flight.enter()
        try:
            for at in range(0, len(buf), BATCH):
                await self.writer.relieve()
                await self._write_batch(offset + at, buf[at : at + BATCH])
        finally:
            image.in_flight.leave(ticket)

    async def _write_batch(self, offset: int, buf: memoryview) -> None:
        size = 1 << self.bits
        parts = [buf[at : at + size] for at in range(0, len(buf), size)]
        if len(parts[-1]) < size:
            parts[-1] = memoryview(bytes(parts[-1]).ljust(size, b"\0"))
        compress = COMPRESS[self.image.header.compression_type]
        share = max(1, SHARE >> self.bits)
        packed = await self.image.node.pool.background.map(compress, parts, share=share)
        first = offset >> self.bits
        for fits, group in groupby(enumerate(packed), lambda pair: pair[1] is not None):
            found = list(group)
            low, high = found[0][0], found[-1][0] + 1
            if fits:
                await self._store(first + low, [data for _, data in found if data is not None])
            else:
                data = buf[low << self.bits : high << self.bits]
                await self.writer.pwrite(first + low << self.bits, data)

    # Clusters in a row that fit

    async def _store(self, first: int, packed: list[bytes]) -> None:
        per = self.image.geometry.l2_size
        while packed:
            count = min(len(packed), per - first % per)
            await self._store_in_table(first, packed[:count])
            first += count
            packed = packed[count:]

    async def _store_in_table(self, first: int, packed: list[bytes]) -> None:
        """Pack clusters that one table maps; EIO at the first that is in use."""
        mapping = self.image.mapping
        index, at = divmod(first, self.image.geometry.l2_size)
        count = await self._claim(index, at, len(packed))
        mine = Request(first, first + count)
        mapping.allocating.append(mine)
        try:
            entries = await self._write_packed(packed[:count])
            table = mapping.tables[index]
            table.entries[at : at + count] = entries
            if table.bitmaps is not None:
                table.bitmaps[at : at + count] = 0
            mapping.own(index)  # dirty again, if it was flushed in between
        finally:
            mapping.allocating.remove(mine)
            mine.finish()
        if count < len(packed):
            raise os_error(errno.EIO)

    async def _claim(self, index: int, at: int, count: int) -> int:
        """Have a table for writing in which nothing is allocated for some clusters; how many."""
        image, mapping = self.image, self.image.mapping
        first = (index << image.geometry.l2_bits) + at
        while True:
            table = await image.table(index)
            other = mapping.clash(first, first + count)
            if other is not None:
                await other.finished()
                continue
            if mapping.tables.get(index) is not table:
                continue
            used = table.entries[at : at + count] & _OFFSET != 0
            free = int(used.argmax()) if used.any() else count
            if not free:
                raise os_error(errno.EIO)
            if image.debug is not None and await self.writer.stepwise.table_now(index):
                continue
            if mapping.own(index) is not None:
                return free
            await image.ready()

    async def _write_packed(self, packed: list[bytes]) -> Table:
        """Find room for compressed clusters and write them; return their L2 entries."""
        image = self.image
        hosts: list[int] = []
        good = False
        try:
            for data in packed:
                host = await self._room(len(data))
                hosts.append(host)  # one by one: those before a failure are let go of
            entries = compressed_entries(hosts, [len(data) for data in packed], image.geometry)
            await image.tell("l2_update_compressed")
            for host, data in _rows(hosts, packed):
                if image.refcounts.lying:
                    await image.check_overlap(host, len(data))
                await image.tell("write_compressed")
                await image.file.pwrite(host, data)
            good = True
        finally:
            if not good:
                sizes = [len(data) for data in packed[: len(hosts)]]
                lost = compressed_entries(hosts, sizes, image.geometry)
                self.writer.free(lost, Discard.NEVER)
        return entries

    async def _room(self, size: int) -> int:
        image = self.image
        await image.tell("cluster_alloc_bytes")
        while (host := image.refcounts.take_bytes(size)) is None:
            await image.ready()
        if not host:
            image.refcounts.put_back(0)
            image.refcounts.packed_end = 0
            raise AtHeader("compressed cluster")
        return host


def _rows(hosts: list[int], packed: list[bytes]) -> list[tuple[int, bytes]]:
    """Join what lies in a row."""
    rows: list[tuple[int, list[bytes]]] = []
    end = -1
    for host, data in zip(hosts, packed, strict=True):
        if host != end:
            rows.append((host, []))
        rows[-1][1].append(data)
        end = host + len(data)
    return [(host, b"".join(parts)) for host, parts in rows]
