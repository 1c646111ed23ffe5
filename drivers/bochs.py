"""bochs: the growing disk images of the Bochs emulator, to be read."""

import errno
from typing import TYPE_CHECKING, Annotated

import numpy as np

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.edge import Edge
from blockemu.errors import ReadOnlyImage
from blockemu.images import bochs
from blockemu.images.bochs import HEADER_BYTES, SECTOR, UNALLOCATED, Header
from blockemu.node import Limits, Node
from blockemu.perm import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BlockdevOptionsBochs(NodeOptions, tag="bochs", since="2.9"):
    """Options of Bochs images.

    @file: the node that holds the image
    """

    file: Annotated[BlockdevRef, Role.IMAGE]


class Bochs(Node[BlockdevOptionsBochs]):
    """An image, read-only.  The catalog is in memory, extents' bitmaps are not."""

    Options = BlockdevOptionsBochs
    is_format = True
    file: Edge
    header: Header
    catalog: "NDArray[np.uint32]"  # of shape (extents,): which extent in the file each is

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Look for the signature."""
        return 100 if len(head) >= HEADER_BYTES and Header.unpack(head).is_known else 0

    async def open(self) -> None:
        """Read the header and the catalog."""
        if not self.flags.read_only:
            if not self.flags.auto_read_only:
                raise ReadOnlyImage(errno=errno.EACCES)
            self.flags.read_only = True
        raw = memoryview(bytearray(HEADER_BYTES))
        await self.file.pread(0, raw)
        header = bochs.parse_header(raw)
        entries = memoryview(bytearray(header.catalog_entries * 4))
        await self.file.pread(header.header_size, entries)
        bochs.check_sizes(header)
        self.catalog = np.frombuffer(entries, "<u4").astype(np.uint32)
        self.limits = Limits(request_alignment=SECTOR)
        self.header = header

    @property
    def length(self) -> int:
        """The disk's size, in whole sectors."""
        return self.header.disk_size if "header" in vars(self) else 0

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read extent by extent."""
        size = self.header.extent_size
        while len(buf):
            inside = offset % size
            part = buf[: size - inside]
            place = int(self.catalog[offset // size])
            if place == UNALLOCATED:
                part[:] = bytes(len(part))
            else:
                await self._read_extent(place, inside, part)
            offset += len(part)
            buf = buf[len(part) :]

    async def _read_extent(self, place: int, inside: int, buf: memoryview) -> None:
        """Read from one extent in the file: its bitmap first, then each run of sectors."""
        start = self.header.data_offset + place * self.header.stride
        first, count = inside // SECTOR, len(buf) // SECTOR
        raw = memoryview(bytearray((first + count + 7) // 8 - first // 8))
        await self.file.pread(start + first // 8, raw)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        written = bits[first % 8 : first % 8 + count]
        breaks = (np.flatnonzero(np.diff(written)) + 1).tolist()
        for low, high in zip([0, *breaks], [*breaks, count], strict=True):
            part = buf[low * SECTOR : high * SECTOR]
            if written[low]:
                data = start + self.header.bitmap_bytes
                await self.file.pread(data + inside + low * SECTOR, part)
            else:
                part[:] = bytes(len(part))
