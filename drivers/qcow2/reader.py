"""Reading: run by run, in the image, decompressed, or below."""

import errno
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from blockemu.drivers.qcow2.image import Image, c_hex
from blockemu.images.qcow2.constants import COMPRESSED, OFFSET, READS_ZERO
from blockemu.images.qcow2.tables import (
    COMPRESSED as COMPRESSED_KIND,
)
from blockemu.images.qcow2.tables import (
    HAS_HOST,
    INVALID,
    NORMAL,
    UNALLOCATED,
    UNALLOCATED_ALLOC,
    ZERO,
    ZERO_ALLOC,
    Run,
    runs,
)
from blockemu.os_errors import os_error

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.mapping import L2

DECOMPRESSED: Final = 2 << 20  # bytes that are decompressed side by side
SHARE: Final = 64 << 10  # bytes of small clusters that one thread takes in one go
BELOW = (UNALLOCATED, UNALLOCATED_ALLOC)
ZEROES = (ZERO, ZERO_ALLOC)
_SPECIAL = COMPRESSED | READS_ZERO


class Reader:
    """Reads one image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.bits = image.geometry.cluster_bits
        self.at_once = max(1, DECOMPRESSED >> self.bits)  # compressed clusters read together

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``."""
        image = self.image
        ticket = image.in_flight.enter()
        try:
            if await self._read_one(offset, buf):
                return
            await self.read(offset, buf)
        finally:
            image.in_flight.leave(ticket)

    async def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``, for a request that is counted already."""
        span = 1 << self.image.geometry.table_bits
        end = offset + len(buf)
        while offset < end:
            size = min(end - offset, span - offset % span)
            table = await self.image.table(offset // span)
            packed: list[tuple[Run, memoryview]] = []
            for run in self.runs(table, offset, size):
                part = buf[run.start + len(buf) - end :][: run.length]
                if run.kind == COMPRESSED_KIND:
                    await self.check(run)
                    packed.append((run, part))
                else:
                    await self._read_run(run, part)
            for first in range(0, len(packed), self.at_once):
                await self._read_packed(packed[first : first + self.at_once])
            offset += size

    def runs(self, table: "L2", offset: int, length: int) -> list[Run]:
        """Return the runs of a range that one table maps."""
        geometry = self.image.geometry
        first = offset >> self.bits & geometry.l2_size - 1
        last = (offset + length - 1) >> self.bits & geometry.l2_size - 1
        entries = table.entries[first : last + 1]
        bitmaps = None if table.bitmaps is None else table.bitmaps[first : last + 1]
        return runs(entries, bitmaps, geometry, offset, length)

    async def _read_one(self, offset: int, buf: memoryview) -> bool:
        """Read from a single plain cluster, if it is one; numpy is slow for so little."""
        bits, geometry = self.bits, self.image.geometry
        cluster = offset >> bits
        if (offset + len(buf) - 1) >> bits != cluster:
            return False
        view = self.image.mapping.views.get(cluster >> geometry.l2_bits)
        if view is None:
            return False
        entry: int = view[cluster & geometry.l2_size - 1]
        host = entry & OFFSET
        if entry & _SPECIAL or host & (1 << bits) - 1:
            return False
        if host:
            if self.image.debug is not None:
                await self.image.debug("read_aio")
            await self.image.read_data(host + offset - (cluster << bits), offset, buf)
        else:
            await self._read_below(offset, buf)
        return True

    async def _read_run(self, run: Run, buf: memoryview) -> None:
        if run.kind == NORMAL:
            await self.check(run)
            if self.image.debug is not None:
                await self.image.debug("read_aio")
            await self.image.read_data(run.host, run.start, buf)
        elif run.kind in BELOW:
            await self.check(run)
            await self._read_below(run.start, buf)
        elif run.kind in ZEROES:
            await self.check(run)
            buf[:] = bytes(len(buf))
        else:
            raise await self.invalid(run)

    async def _read_below(self, offset: int, buf: memoryview) -> None:
        """Read from the backing node; beyond its end there are zeroes."""
        backing, have = self.image.backing, 0
        if backing is not None:
            if self.image.debug is not None:
                await self.image.debug("read_backing_aio")
            have = max(0, min(len(buf), backing.length - offset))
            if have:
                await backing.pread(offset, buf[:have])
        if have < len(buf):
            buf[have:] = bytes(len(buf) - have)

    async def _read_packed(self, parts: Sequence[tuple[Run, memoryview]]) -> None:
        """Read from compressed clusters, which threads decompress side by side."""
        from blockemu.images.qcow2.compression import DECOMPRESS  # start-up: few images have any

        image, packed = self.image, []
        for run, _ in parts:
            packed.append(await self._read_raw(run.entry))
        unpack = partial(DECOMPRESS[image.header.compression_type], size=1 << self.bits)
        share = max(1, SHARE >> self.bits)
        wholes = await image.node.pool.map(unpack, packed, share=share)
        for (run, buf), whole in zip(parts, wholes, strict=True):
            if whole is None:
                raise os_error(errno.EIO)
            lead = run.start & (1 << self.bits) - 1
            buf[:] = whole[lead : lead + len(buf)]

    async def _read_raw(self, entry: int) -> memoryview:
        """Read what a compressed cluster's L2 entry points to."""
        geometry = self.image.geometry
        offset = entry & geometry.compressed_offset
        sectors = (entry >> geometry.compressed_shift & geometry.compressed_sectors) + 1
        packed = memoryview(bytearray(sectors * 512 - (offset & 511)))
        if self.image.debug is not None:
            await self.image.debug("read_compressed")
        await self.image.file.pread(offset, packed)
        return packed

    # Corruption, in the words of qcow2_get_host_offset

    async def check(self, run: Run) -> None:
        """Raise EIO if a run's entry makes no sense."""
        image, geometry = self.image, self.image.geometry
        if run.kind in ZEROES and geometry.version < 3:
            raise await image.corrupt(
                f"Zero cluster entry found in pre-v3 image ({self.where(run)})"
            )
        if run.kind == COMPRESSED_KIND and geometry.data_file:
            raise await image.corrupt(
                "Compressed cluster entry found in image with external data file "
                f"({self.where(run)})"
            )
        if not HAS_HOST[run.kind]:
            return
        offset = run.entry & OFFSET
        lead = run.start & geometry.cluster_size - 1
        if (run.host - lead) & geometry.cluster_size - 1:
            raise await image.corrupt(
                f"Cluster allocation offset {offset:#x} unaligned ({self.where(run)})"
            )
        if geometry.data_file and run.host != run.start:
            index = self._index(run)
            raise await image.corrupt(
                f"External data file host cluster offset {c_hex(offset)} does not match guest "
                f"cluster offset: {c_hex(run.start - lead)}, L2 index: {c_hex(index)})"
            )

    async def invalid(self, run: Run) -> OSError:
        """Tell of an entry that cannot be; return the error to raise."""
        if run.kind != INVALID:
            raise AssertionError(run)
        return await self.image.corrupt(f"Invalid cluster entry found  ({self.where(run)})")

    def where(self, run: Run) -> str:
        """Return where a run's entry is, as messages say it."""
        image = self.image
        l2_offset = image.mapping.l2_offset(run.start >> image.geometry.table_bits)
        return f"L2 offset: {c_hex(l2_offset)}, L2 index: {c_hex(self._index(run))}"

    def _index(self, run: Run) -> int:
        return run.start >> self.bits & self.image.geometry.l2_size - 1
