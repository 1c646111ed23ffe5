"""The parts of the driver that work on an open image: each is made at its first use.

What a part is made of is imported then, too: most runs of a tool open an image and use one or two.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.bitmaps import StoredBitmaps
    from blockemu.drivers.qcow2.compressor import Compressor
    from blockemu.drivers.qcow2.image import Image
    from blockemu.drivers.qcow2.placer import Placer
    from blockemu.drivers.qcow2.planner import Planner
    from blockemu.drivers.qcow2.reader import Reader
    from blockemu.drivers.qcow2.resize import Resizer
    from blockemu.drivers.qcow2.snapshots import Snapshots
    from blockemu.drivers.qcow2.status import Status
    from blockemu.drivers.qcow2.writeback import Writeback
    from blockemu.drivers.qcow2.writer import Writer
    from blockemu.drivers.qcow2.zeroer import Zeroer

SHAPED: Final = (  # go by numbers in the header
    "compressor",
    "placer",
    "planner",
    "reader",
    "resizer",
    "snapshots",
    "status",
    "writer",
    "zeroer",
)
ALL: Final = (*SHAPED, "bitmaps_stored", "writeback")


class Parts:
    """The parts of one image."""

    image: "Image"

    def forget_parts(self, *names: str) -> None:
        """Have parts made anew when they are used next."""
        for name in names:
            vars(self).pop(name, None)

    @cached_property
    def bitmaps_stored(self) -> "StoredBitmaps":
        """Bitmaps that the image keeps."""
        from blockemu.drivers.qcow2.bitmaps import StoredBitmaps

        return StoredBitmaps(self.image, self.writeback)

    @cached_property
    def compressor(self) -> "Compressor":
        """Writes compressed clusters."""
        from blockemu.drivers.qcow2.compressor import Compressor

        return Compressor(self.image, self.writer)

    @cached_property
    def placer(self) -> "Placer":
        """Makes room for many ranges at once."""
        from blockemu.drivers.qcow2.placer import Placer

        return Placer(self.image, self.planner, self.writer)

    @cached_property
    def planner(self) -> "Planner":
        """Tells where bytes lie, without waiting."""
        from blockemu.drivers.qcow2.planner import Planner

        return Planner(self)

    @cached_property
    def reader(self) -> "Reader":
        """Reads."""
        from blockemu.drivers.qcow2.reader import Reader

        return Reader(self.image)

    @cached_property
    def resizer(self) -> "Resizer":
        """Makes the disk longer or shorter."""
        from blockemu.drivers.qcow2.resize import Resizer

        return Resizer(self)

    @cached_property
    def snapshots(self) -> "Snapshots":
        """Internal snapshots."""
        from blockemu.drivers.qcow2.snapshots import Snapshots

        return Snapshots(self.image, self.writeback, self.zeroer, self.resizer)

    @cached_property
    def status(self) -> "Status":
        """Tells what is data, zero or not allocated."""
        from blockemu.drivers.qcow2.status import Status

        return Status(self.image, self.reader, self.materialise)

    @cached_property
    def writeback(self) -> "Writeback":
        """Brings metadata to the disk."""
        from blockemu.drivers.qcow2.writeback import Writeback

        return Writeback(self.image)

    @cached_property
    def writer(self) -> "Writer":
        """Writes."""
        from blockemu.drivers.qcow2.writer import Writer

        return Writer(self.image, self.reader, self.writeback.flush)

    @cached_property
    def zeroer(self) -> "Zeroer":
        """Zeroes and discards."""
        from blockemu.drivers.qcow2.zeroer import Zeroer

        return Zeroer(self.image, self.reader, self.writer)

    async def materialise(self) -> None:
        """Let the file have the clusters that were only begun (see ``Writeback.reserve``)."""
        if self.image.writable and not self.image.broken:
            await self.writeback.reserve()
