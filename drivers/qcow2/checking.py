"""Checking the image of an open node: flushed before, taken over anew when it was repaired."""

import errno
import os
import sys
from typing import TYPE_CHECKING

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check import check_refcounts
from blockemu.drivers.qcow2.check.snapshot_table import check_snapshot_table
from blockemu.drivers.qcow2.check.storage import Structure
from blockemu.drivers.qcow2.image import Image
from blockemu.edge import MAX_LENGTH
from blockemu.errors import QmpError
from blockemu.images.qcow2.constants import CORRUPT, DIRTY
from blockemu.images.qcow2.tables import Table
from blockemu.os_errors import os_error

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.parts import Parts


class NodeStorage:
    """The file child of an open image."""

    def __init__(self, image: Image) -> None:
        self.image = image

    @property
    def length(self) -> int:
        """The file's size in bytes."""
        return self.image.file.fresh_length()

    async def read(self, offset: int, length: int) -> memoryview:
        """Return some bytes; what lies beyond the end reads as zeroes."""
        data = memoryview(bytearray(length))
        await self.fill(offset, data)
        return data

    async def fill(self, offset: int, data: memoryview) -> None:
        """Read some bytes into ``data``."""
        if not 0 <= offset <= MAX_LENGTH - len(data):
            raise os_error(errno.EIO)
        if not self.image.file.route.read_now(offset, data):
            await self.image.file.pread(offset, data)

    async def write(self, offset: int, data: bytes) -> None:
        """Write some bytes."""
        await self.image.file.pwrite(offset, data)

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range, if the file may."""
        try:
            await self.image.file.discard(offset, length)
        except OSError:
            return  # it was only a wish

    async def grow(self, length: int) -> None:
        """Make the file longer."""
        await self.image.file.truncate(length, exact=False)

    @property
    def broken(self) -> bool:
        """Whether counts are not to be repaired any more: corruption was met."""
        return self.image.broken

    async def guard(self, offset: int, length: int, ignore: frozenset[str]) -> None:
        """Raise EIO if a write would hit metadata."""
        await self.image.check_overlap(offset, length, ignore)

    def moved(self, table: Table, offset: int) -> None:
        """Guard another refcount table."""
        clusters = self.image.geometry.clusters(self.length)
        self.image.refcounts.replace(table, offset, clusters)
        self.image.overlap.forget()

    async def corrupt(self, message: str) -> None:
        """Tell that the image is corrupt."""
        await self.image.corrupt(message)

    def say(self, text: str) -> None:
        """Print on standard error, as QEMU does."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def report(self, text: str) -> None:
        """Print on standard error, with the program's name before."""
        self.say(f"{os.path.basename(sys.argv[0])}: {text}")  # noqa: PTH119


async def check(parts: "Parts", fix: int) -> CheckResult:
    """Check an image that nobody uses meanwhile (after qcow2_co_check_locked).

    Raises:
        OSError: the check could not be carried on.

    """
    image = parts.image
    if image.writable:
        await parts.writeback.settle_all()
    storage, result = NodeStorage(image), CheckResult()
    structure = Structure(
        geometry=image.geometry,
        length=image.length,
        l1=image.mapping.l1,
        l1_offset=image.mapping.l1_offset,
        reftable=image.refcounts.table,
        reftable_offset=image.refcounts.table_offset,
        crypto=image.extensions.crypto,
        bitmaps=image.extensions.bitmaps,
    )
    table = await check_snapshot_table(storage, structure, fix)
    _take_snapshots(image, structure)
    try:
        result = await check_refcounts(storage, structure, fix)
    finally:
        if fix:
            _take_tables(image, structure)
    if table.corruptions and fix & Fix.ERRORS:
        try:
            await parts.snapshots.write_table(image.snapshots)
        except (OSError, QmpError) as e:
            why = os.strerror(getattr(e, "errno", 0) or errno.EFBIG)
            storage.say(f"ERROR failed to update snapshot table: {why}")
            raise
        table.corruptions_fixed += table.corruptions
        table.corruptions = 0
    result.add(table)
    if fix and not result.check_errors and not result.corruptions:
        await _mark_good(image)
    return result


async def _mark_good(image: Image) -> None:
    """Say in the header that the image is neither dirty nor corrupt."""
    for flag in DIRTY, CORRUPT:
        if image.header.incompatible_features & flag:
            await image.file.flush()
            image.header.incompatible_features &= ~flag
            await image.write_header()


def _take_snapshots(image: Image, structure: Structure) -> None:
    """Take over the table of snapshots, as it was found in the file."""
    image.snapshots, image.snapshot_bytes = structure.snapshots, structure.snapshots_size
    image.header.nb_snapshots = len(structure.snapshots)
    image.header.snapshots_offset = structure.snapshots_offset


def _take_tables(image: Image, structure: Structure) -> None:
    """Forget what was in memory of tables that were repaired in the file."""
    image.mapping.replace(structure.l1, structure.l1_offset)
    clusters = image.geometry.clusters(image.file.fresh_length())
    image.refcounts.replace(structure.reftable, structure.reftable_offset, clusters)
    image.overlap.forget()
    image.node.changed()
