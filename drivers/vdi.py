"""vdi: VirtualBox's image format."""

import asyncio
import errno
import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.check import CheckResult
from blockemu.create_options import CreationOptions, Creator, PreallocMode, TextOption, Texts
from blockemu.edge import Edge
from blockemu.errors import HostError, QmpError
from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO, Extent, Extents, refine
from blockemu.images import vdi
from blockemu.images.vdi import BLOCK, DISCARDED, SECTOR, UNALLOCATED, Header
from blockemu.node import Node
from blockemu.optlist import is_on
from blockemu.os_errors import os_error
from blockemu.perm import Role
from blockemu.qmp_server.qapi import Size
from blockemu.records import replace

if TYPE_CHECKING:
    from numpy.typing import NDArray

Map: TypeAlias = "NDArray[np.uint32]"
ENTRIES_AT_ONCE = 4 << 20  # of a new map: the largest takes 2 GiB


class BlockdevOptionsVdi(NodeOptions, tag="vdi"):
    """Options of VDI.

    @file: the node that holds the image
    """

    file: Annotated[BlockdevRef, Role.IMAGE]


class BlockdevCreateOptionsVdi(CreationOptions, tag="vdi"):
    """A VDI image to be created.

    @file: the node that shall hold the image
    @size: size of the disk in bytes
    @preallocation: off, or metadata for a static image
    """

    file: BlockdevRef
    size: Size
    preallocation: PreallocMode | None = None


class NoSuchPreallocation(QmpError):
    """All or nothing is allocated."""

    template = "Preallocation mode not supported for vdi"


class HeaderNotWritten(HostError):
    """The reason is not told, in QEMU neither."""

    template = "Error writing header"


class MapNotWritten(HostError):
    """The reason is not told, in QEMU neither."""

    template = "Error writing bmap"


class NotAllocated(HostError):
    """(why), without a blank as in QEMU."""

    template = "Failed to statically allocate file{}"


class Vdi(Node[BlockdevOptionsVdi]):
    """An image.  The map is in memory whole; the file's is up to date after each write."""

    Options = BlockdevOptionsVdi
    CreateOptions = BlockdevCreateOptionsVdi
    text_options = (
        TextOption("size", "size", "Virtual disk size"),
        TextOption("static", "bool", "VDI static (pre-allocated) image", "off"),
    )
    is_format = True
    migratable = False
    file: Edge
    header: Header
    map: Map  # of shape (blocks,): where each block lies

    @classmethod
    async def create(cls, options: CreationOptions, creator: Creator) -> None:
        """Create an image in a node (vdi_co_do_create)."""
        assert isinstance(options, BlockdevCreateOptionsVdi)
        mode = options.preallocation or PreallocMode.OFF
        if mode not in (PreallocMode.OFF, PreallocMode.METADATA):
            raise NoSuchPreallocation
        static = mode is PreallocMode.METADATA
        ids = [uuid.uuid4().bytes_le for _ in range(2)]
        header = vdi.new_header(options.size, static=static, uuid=ids[0], snapshot_uuid=ids[1])
        async with creator.node(options.file) as node, creator.root(node) as root:
            await _write_fresh(root, header)

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Create the file and the image in it (vdi_co_create_opts)."""
        size = -(-int(texts["size"]) // SECTOR) * SECTOR
        rest = {name: text for name, text in texts.items() if name not in ("size", "static")}
        mode = PreallocMode.METADATA if is_on(texts.get("static")) else None
        await creator.create_file(filename, rest)
        async with creator.protocol(filename) as node:
            options = BlockdevCreateOptionsVdi(file=node.name, size=size, preallocation=mode)
            await cls.create(options, creator)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Look for the signature."""
        if len(head) < Header.CODEC.size:
            return 0
        return 100 if Header.unpack(head).signature == vdi.SIGNATURE else 0

    async def open(self) -> None:
        """Read the header and the map."""
        raw = memoryview(bytearray(Header.CODEC.size))
        await self.file.pread(0, raw)
        self.header = header = vdi.parse_header(raw)
        entries = memoryview(bytearray(header.map_bytes))
        await self.file.pread(header.offset_bmap, entries)
        self.map = np.frombuffer(entries, "<u4").astype(np.uint32)
        self._allocating = asyncio.Lock()

    @property
    def has_zero_init(self) -> bool:
        """Unless all blocks lie in the file from the beginning, which decides then."""
        return self.header.image_type != vdi.STATIC or self.file.node.has_zero_init

    @property
    def length(self) -> int:
        """The disk's size, in whole sectors."""
        return self.header.disk_size if "header" in vars(self) else 0

    @property
    def cluster_size(self) -> int:
        """Bytes of a block."""
        return BLOCK

    def image_info(self) -> dict[str, Any]:
        """Tell that there is nothing to repair."""
        return {"dirty-flag": False}

    # Requests

    def _runs(self, offset: int, length: int) -> Extents:
        """Return what the map tells of a range, blocks that follow one another in the file as one.

        ``host`` counts from the file's beginning.
        """
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        places = self.map[first : last + 1].astype(np.int64)
        allocated = places < DISCARDED
        host = np.where(allocated, self.header.offset_data + places * BLOCK, NOWHERE)
        follows = np.where(allocated[1:], np.diff(host) == BLOCK, True)
        breaks = np.flatnonzero((allocated[1:] != allocated[:-1]) | ~follows) + 1
        begin = np.concatenate(([0], breaks))
        status = np.where(allocated[begin], DATA | ALLOCATED, ZERO | ALLOCATED).astype(np.uint8)
        start = (first + begin) * BLOCK
        whole = Extents(start.astype(np.int64), status, host[begin], (last + 1) * BLOCK)
        return whole.clip(offset, offset + length)

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read run by run."""
        for part, run in _parts(self._runs(offset, len(buf)), offset, buf):
            if run.status & ZERO:
                part[:] = bytes(len(part))
            else:
                await self.file.pread(run.host, part)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write where blocks are; allocate the others, as the last ones in the file."""
        runs = self._runs(offset, len(buf))
        if not (runs.status & ZERO).any():
            for part, run in _parts(runs, offset, buf):
                await self.file.pwrite(run.host, part)
            return
        async with self._allocating:
            changed: list[int] = []
            try:
                for part, run in _parts(self._runs(offset, len(buf)), offset, buf):
                    if run.status & ZERO:
                        changed += await self._write_new(run.start, part)
                    else:
                        await self.file.pwrite(run.host, part)
            finally:
                self.changed()
            if changed:
                await self._write_map(min(changed), max(changed))

    async def _write_new(self, offset: int, data: memoryview) -> tuple[int, int]:
        """Allocate the blocks of a range that has none; return the first and the last of them."""
        end = offset + len(data)
        first, last = offset // BLOCK, (end - 1) // BLOCK
        place, count = self.header.blocks_allocated, last + 1 - first
        host = self.header.offset_data + place * BLOCK
        head, tail = offset - first * BLOCK, (last + 1) * BLOCK - end
        self.header.blocks_allocated += count
        if head:
            await self.file.pwrite(host, memoryview(bytes(head)))
        await self.file.pwrite(host + head, data)
        if tail:
            await self.file.pwrite(host + count * BLOCK - tail, memoryview(bytes(tail)))
        self.map[first : last + 1] = np.arange(place, place + count, dtype=np.uint32)
        return first, last

    async def _write_map(self, first: int, last: int) -> None:
        """Write the header, then the sectors of the map with these entries."""
        await self.file.pwrite(0, self.header.pack())
        per = SECTOR // 4
        begin, end = first // per, last // per + 1
        entries = self.map[begin * per : end * per].astype("<u4").tobytes()
        await self.file.pwrite(self.header.offset_bmap + begin * SECTOR, entries)

    async def flush(self) -> None:
        """Nothing is kept in memory."""

    async def block_status(self, offset: int, length: int) -> Extents:
        """Describe what the map tells; of a static image also what the file does."""
        runs = self._runs(offset, length)
        if self.header.image_type != vdi.STATIC or not (runs.status & DATA).any():
            return runs
        data = runs.status & DATA != 0
        low = int(runs.host[data].min())
        high = int((runs.host + runs.length)[data].max())
        parts = [part async for part in self.file.extents(low, high - low)]
        fine = refine(runs, Extents.concat(parts))
        was, _ = runs.at(fine.start)
        return replace(fine, status=fine.status | was & np.uint8(DATA))

    async def check(self, fix: int) -> CheckResult:
        """Check the map (vdi_co_check); nothing can be repaired."""
        if fix:
            raise os_error(errno.ENOTSUP)
        blocks, result = self.header.blocks_in_image, CheckResult()
        entries = self.map[:blocks]
        used = np.flatnonzero(entries < DISCARDED)
        places = entries[used].astype(np.int64)
        fits = places < blocks
        _, firsts = np.unique(places[fits], return_index=True)
        twice = np.ones(int(fits.sum()), np.bool_)
        twice[firsts] = False
        double = set(used[fits][twice].tolist())
        wrong = sorted(double | set(used[~fits].tolist()))
        for block in wrong:
            place = int(entries[block])
            if block in double:
                _tell(f"block index {place} also used by {place}")
            else:
                _tell(f"block index {block} too large, is {place}")
        result.corruptions = len(wrong)
        count = int(fits.sum())
        if count != self.header.blocks_allocated:
            _tell(
                f"allocated blocks mismatch, is {count}, should be {self.header.blocks_allocated}"
            )
            result.corruptions += 1
        return result


def _tell(text: str) -> None:
    print(f"ERROR: {text}", file=sys.stderr, flush=True)


def _parts(runs: Extents, offset: int, buf: memoryview) -> Iterator[tuple[memoryview, Extent]]:
    """Yield each run with its part of a buffer for the whole range."""
    for run in runs:
        at = run.start - offset
        yield buf[at : at + run.length], run


async def _write_fresh(root: Edge, header: Header) -> None:
    """Write an image without contents."""
    static = header.image_type == vdi.STATIC
    try:
        await root.pwrite(0, header.pack())
    except OSError as e:
        raise HeaderNotWritten(errno=e.errno or 0) from e
    blocks, most = header.blocks_in_image, header.map_bytes // 4
    try:
        for first in range(0, most, ENTRIES_AT_ONCE):
            entries = np.arange(first, min(first + ENTRIES_AT_ONCE, most), dtype="<u4")
            inside = entries[: max(0, blocks - first)]
            entries[len(inside) :] = 0  # up to the sector's end
            if not static:
                inside[:] = UNALLOCATED
            await root.pwrite(header.offset_bmap + first * 4, entries.data.cast("B"))
    except OSError as e:
        raise MapNotWritten(errno=e.errno or 0) from e
    if static:
        try:
            await root.truncate(header.offset_data + blocks * BLOCK, exact=False)
        except HostError as e:
            raise NotAllocated(e, errno=e.errno or 0) from e
