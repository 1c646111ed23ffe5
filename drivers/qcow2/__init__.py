"""qcow2: QEMU's image format.

One image is spread over the modules of this package::

    opening --- image: header, settings, refcounts, mapping, freed
                  |
    planner   reader   writer   compressor   zeroer   status   resize   snapshots   checking
                  |                                                                     |
              writeback: metadata goes to disk in stages                              check

``parts`` makes the lower ones when they are first used.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blockemu.check import CheckResult, Fix
from blockemu.create_options import CreationOptions, Creator, Texts
from blockemu.drivers.qcow2 import parts
from blockemu.drivers.qcow2.cleaner import Cleaner
from blockemu.drivers.qcow2.handover import put_away, take_back
from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.info import ImageInfoSpecificQCow2Wrapper, specific_info
from blockemu.drivers.qcow2.new_options import AMEND_TEXTS, CREATE_TEXTS, BlockdevCreateOptionsQcow2
from blockemu.drivers.qcow2.opening import open_image, probe
from blockemu.drivers.qcow2.options import (
    CHANGEABLE,
    SIZES,
    Qcow2EncryptionTexts,
    Qcow2Options,
    settings,
    strong,
)
from blockemu.drivers.qcow2.parts import Parts
from blockemu.drivers.qcow2.refcounts import Misplaced
from blockemu.drivers.qcow2.texts import check_overlap_texts, join
from blockemu.edge import SECTOR, Edge
from blockemu.errors import HostError, QmpError
from blockemu.extents import Extents
from blockemu.images.qcow2.constants import (
    DATA_FILE_RAW,
    DIRTY,
    KNOWN_AUTOCLEAR,
    MAX_BACKING_NAME,
)
from blockemu.images.qcow2.extensions import HeaderFullError
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.measuring import Measured
from blockemu.node import Flags, Limits, Node
from blockemu.os_errors import os_error
from blockemu.qmp_server.qapi import Struct
from blockemu.route import NO_ROUTE, Placed, Ranges, Route
from blockemu.transaction import Transaction

if TYPE_CHECKING:
    from blockemu.encryption import LuksVolume


class CannotRepair(HostError):
    """(why): an image with refcounts left wrong could not be set right."""

    template = "Could not repair dirty image: {}"


class Qcow2(Parts, Node[Qcow2Options]):
    """An image.  In memory the mapping is always right; on disk as of the last flush."""

    Options = Qcow2Options
    CreateOptions = BlockdevCreateOptionsQcow2
    text_options = CREATE_TEXTS
    amend_options = AMEND_TEXTS
    is_format = True
    late_children = frozenset({"data-file"})
    supports_backing = True
    reopen_options = CHANGEABLE
    kept_options = frozenset({"encrypt"})
    size_options = SIZES
    image: Image
    volume: "LuksVolume | None" = None  # where the key is, if there is a header for it
    _wrote_back = False  # by the first half of a flush

    @classmethod
    async def create(cls, options: CreationOptions, creator: Creator) -> None:
        """Create an image in a node."""
        from blockemu.drivers.qcow2.create import create  # late: images are mostly there already

        assert isinstance(options, BlockdevCreateOptionsQcow2)
        await create(options, creator)

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Create an image in a new file."""
        from blockemu.drivers.qcow2.create import create_by_text  # late: the same

        await create_by_text(filename, texts, creator)

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Read sizes with suffixes, and how to check for overlaps and how to decrypt."""
        super().read_texts(options)
        encrypt = options.get("encrypt")
        if isinstance(encrypt, dict) and all(isinstance(v, str) for v in encrypt.values()):
            options["encrypt"] = Qcow2EncryptionTexts.of(encrypt)
        check_overlap_texts(options)

    @classmethod
    def join_options(cls, options: dict[str, Any], old: dict[str, Any]) -> None:
        """Add old options to new ones, but not what these contradict."""
        join(options, old)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Tell how sure it is that a file is a qcow2 image."""
        return probe(head)

    async def open(self) -> None:
        """Read the header and the tables' roots; repair refcounts that were left wrong."""
        await self.load()

    async def load(self) -> None:
        """Read the image's metadata, and what was left undone when it was closed last."""
        image = await open_image(self, self.options)
        if image.header.crypt_method and "image" not in vars(self):
            from blockemu.drivers.qcow2.encryption import open_encryption  # late: seldom needed

            key_secret = getattr(self.options.encrypt, "key_secret", None)
            self.volume = await open_encryption(image, key_secret)
        self.image = image
        self.forget_parts(*parts.ALL)
        image.grow_table = lambda: self.writeback.grow_table()
        self.cleaner = Cleaner(image)
        self.backing_file = image.backing_file
        self.backing_format = image.extensions.backing_format
        self.limits = Limits(
            request_alignment=SECTOR if image.header.crypt_method else 1,
            write_zeroes_alignment=image.geometry.subcluster_size,
            discard_alignment=image.geometry.cluster_size,
        )
        header = image.header
        stale = header.autoclear_features & ~KNOWN_AUTOCLEAR or image.extensions.stale_bitmaps
        if image.writable:
            header.autoclear_features &= KNOWN_AUTOCLEAR
        loads = bool(image.bitmaps) and not self.flags.inactive
        told = loads and await self.bitmaps_stored.load()
        if image.writable and stale and not told:
            await image.write_header()
        if image.snapshots:
            await self.snapshots.guard()
        if image.writable and header.incompatible_features & DIRTY and not self.flags.check:
            await self._repair()
        self.cleaner.start()

    def reshape(self) -> None:
        """Go by the header's numbers, which were changed in place; nothing is in flight."""
        self.image.reshape()
        self.forget_parts(*parts.SHAPED)
        self.changed()

    async def amend(
        self, texts: Texts, tell: Callable[[int, int], None], *, force: bool = False
    ) -> None:
        """Change the image's own options."""
        from blockemu.drivers.qcow2.amend import Amender  # late: seldom needed

        self.image.check_alive()
        async with self.image.allocating():
            await Amender(self, tell).amend(texts, force=force)

    async def amend_by_options(self, options: Struct, *, force: bool) -> None:
        """Change the encryption's key slots (qcow2_co_amend)."""
        from blockemu.drivers.qcow2.encryption import amend_by_options  # late: seldom needed

        await amend_by_options(self.image, self.volume, options, force=force)

    async def _repair(self) -> None:
        """Set refcounts right that were left wrong on purpose, as lazy refcounts do."""
        try:
            result = await self.check(Fix.ALL)
        except OSError as e:
            code = e.errno or errno.EIO
            raise CannotRepair(os.strerror(code), errno=code) from e
        if result.check_errors:
            raise CannotRepair(os.strerror(errno.EIO), errno=errno.EIO)

    async def check(self, fix: int) -> CheckResult:
        """Check refcounts and the like; nothing may be in flight."""
        from blockemu.drivers.qcow2.checking import check

        self.image.check_alive()
        return await check(self, fix)

    async def close(self) -> None:
        """Write back what changed."""
        if "image" not in vars(self):
            return  # it could not be opened
        self.cleaner.stop()
        if not self.flags.inactive:
            await put_away(self)

    async def inactivate(self) -> None:
        """Leave the image to another machine."""
        code = await put_away(self)
        if code:
            raise os_error(code)

    async def activate(self) -> None:
        """Open the image anew."""
        await take_back(self)

    async def reopen(self, options: Qcow2Options, flags: Flags, transaction: Transaction) -> None:
        """Take over new options; write back before becoming read-only."""
        image = self.image
        new = settings(options, image.header, flags)
        if flags.read_only:
            await self.bitmaps_stored.make_readonly()
        strict = image.settings.lazy_refcounts and not new.lazy_refcounts
        if image.writable and (flags.read_only or strict):
            await self.writeback.close()
        elif image.writable:
            await self.writeback.settle_all()  # the file may become another one
        before = image.file.node

        def commit() -> None:
            image.adopt(new)
            if image.file.node is not before:
                image.forget_tables()
            self.cleaner.start()

        transaction.on_commit(commit)

    async def reopened(self) -> None:
        """Let bitmaps record again, if the image may be written to."""
        if self.flags.read_only:
            return
        try:
            await self.bitmaps_stored.make_writable()
        except QmpError as e:
            text = f"{self.name}: Failed to make dirty bitmaps writable: {e}"
            print(text, file=sys.stderr, flush=True)

    async def change_backing_file(self, filename: str | None, fmt: str | None) -> None:
        """Write another backing file name into the header (qcow2_change_backing_file)."""
        image = self.image
        raw_data = bool(image.header.autoclear_features & DATA_FILE_RAW)
        if filename and (raw_data or len(os.fsencode(filename)) > MAX_BACKING_NAME):
            raise os_error(errno.EINVAL)
        old = image.backing_file, image.extensions.backing_format
        image.backing_file = filename or None
        image.extensions.backing_format = fmt if filename else None
        try:
            await image.write_header()
        except (HeaderFullError, OSError) as e:
            image.backing_file, image.extensions.backing_format = old
            code = (e.errno if isinstance(e, OSError) else None) or errno.ENOSPC
            raise os_error(code) from e
        self.backing_file = self.auto_backing = image.backing_file
        self.backing_format = image.extensions.backing_format

    # Bitmaps

    def can_store_bitmap(self, name: str, granularity: int) -> None:
        """Raise QmpError if one more bitmap, like this, could not be stored."""
        self.bitmaps_stored.check_new(name, granularity)

    async def remove_stored_bitmap(self, name: str) -> None:
        """Drop a bitmap from the image, if it is there."""
        await self.bitmaps_stored.remove(name)

    # Internal snapshots

    def snapshot_list(self) -> list[Snapshot]:
        """Return the snapshots, oldest first."""
        if self.image.geometry.data_file:
            raise os_error(errno.ENOTSUP)
        return list(self.image.snapshots)

    async def snapshot_create(self, wanted: Snapshot) -> Snapshot:
        """Take a snapshot, with the name, dates and sizes of a machine's state that are given."""
        self.image.check_alive()
        async with self.image.allocating():
            return await self.snapshots.create(wanted)

    async def snapshot_goto(self, ident: str) -> None:
        """Apply the snapshot with an id, or else a name."""
        self.image.check_alive()
        if self.image.geometry.data_file:
            raise os_error(errno.ENOTSUP)
        found = self.snapshots.find(ident, None) or self.snapshots.find(None, ident)
        if found is None:
            raise os_error(errno.ENOENT)
        async with self.image.allocating():
            await self.snapshots.apply(found)

    async def snapshot_delete(self, ident: str | None, name: str | None) -> None:
        """Delete the first snapshot with an id, a name, or both."""
        self.image.check_alive()
        if self.image.geometry.data_file:
            raise os_error(errno.ENOTSUP)
        found = self.snapshots.at_hand(ident, name)
        async with self.image.allocating():
            await self.snapshots.delete(found)

    async def snapshot_load_tmp(self, ident: str | None, name: str | None) -> None:
        """Let the disk read as a snapshot has it; only if it is read-only."""
        await self.snapshots.show(ident, name)

    async def save_vmstate(self, offset: int, data: memoryview) -> None:
        """Write a part of a machine's state, which lies beyond the disk's end."""
        self.image.check_alive()
        at = self.vm_state_offset + offset
        async with self.image.allocating():
            await self.resizer.grow_l1_for(at + len(data))
            await self.writer.pwrite(at, data)

    async def load_vmstate(self, offset: int, buf: memoryview) -> None:
        """Read a part of a machine's state."""
        self.image.check_alive()
        await self.reader.pread(self.vm_state_offset + offset, buf)

    # What queries tell

    def strong_options(self) -> dict[str, Any]:
        """Return the secret's name."""
        return strong(self.effective)

    @property
    def length(self) -> int:
        """The disk's size."""
        return self.image.length if "image" in vars(self) else 0

    @property
    def below(self) -> Edge | None:
        """The backing child."""
        return self.backing

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return self.image.geometry.cluster_size

    @property
    def vm_state_offset(self) -> int:
        """What the last L2 table that the disk needs could map ends there."""
        bits = self.image.geometry.table_bits
        return -(-self.image.header.size >> bits) << bits

    @classmethod
    async def measure(cls, texts: Texts, source: Edge | None) -> Measured:
        """Count clusters."""
        from blockemu.drivers.qcow2.measure import measure  # start-up: it is seldom asked for

        return await measure(texts, source)

    @property
    def has_zero_init(self) -> bool:
        """Whether nothing is there yet; where metadata is, what it points to decides."""
        l1 = self.image.mapping.l1
        preallocated = len(l1) > 0 and bool(l1[0])  # that is what preallocation leaves
        if self.backing is not None or (preallocated and self.image.header.crypt_method):
            return False
        return not preallocated or self.image.data.node.has_zero_init

    @property
    def unmaps_zeroes(self) -> bool:
        """Version 3 can mark clusters as zero."""
        return self.image.header.version >= 3

    @property
    def supports_bitmaps(self) -> bool:
        """Version 2 has no header extensions that are known to be up to date."""
        return self.image.header.version >= 3

    def specific_info(self) -> ImageInfoSpecificQCow2Wrapper:
        """Describe the image."""
        return specific_info(self.image, self.volume)

    def image_info(self) -> dict[str, Any]:
        """Return whether refcounts may be wrong, and whether it is encrypted."""
        header = self.image.header
        return {
            "dirty-flag": bool(header.incompatible_features & DIRTY),
            "encrypted": True if header.crypt_method else None,
        }

    # Requests

    def route(self) -> Route:
        """Look clusters up in the tables at hand."""
        hidden = self.image.broken or self.image.header.crypt_method
        return NO_ROUTE if hidden else self.planner.route()

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read run by run."""
        self.image.check_alive()
        await self.reader.pread(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write run by run, in place or to new clusters."""
        self.image.check_alive()
        try:
            await self.writer.pwrite(offset, buf)
        except Misplaced as e:  # the others use a context manager, which takes longer
            raise await self.image.misplaced(e) from None

    async def pwrite_compressed(self, offset: int, buf: memoryview) -> None:
        """Compress whole clusters that nothing is allocated for."""
        self.image.check_alive()
        async with self.image.allocating():
            await self.compressor.pwrite(offset, buf)

    async def place(self, ranges: Ranges) -> Placed:
        """Allocate for whole ranges."""
        self.image.check_alive()
        if self.image.header.crypt_method:
            raise NotImplementedError  # only ``pwrite`` encrypts
        return await self.placer.place(ranges)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Mark subclusters as zero."""
        self.image.check_alive()
        async with self.image.allocating():
            await self.zeroer.write_zeroes(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Drop whole clusters."""
        self.image.check_alive()
        async with self.image.allocating():
            await self.zeroer.discard(offset, length)

    async def flush(self) -> None:
        """Write back the tables."""
        if self._wrote_back:
            self._wrote_back = False
            await self.writeback.settle()
        elif not self.image.broken:  # else there is nothing that could be flushed
            await self.writeback.flush()

    async def flush_to_os(self) -> None:
        """Write back the tables, and leave it to ``flush`` to wait until they are on disk."""
        if not self.image.broken:
            await self.writeback.flush(settle=False)
            self._wrote_back = True

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Change the disk's size."""
        self.image.check_alive()
        async with self.image.allocating():
            await self.resizer.truncate(length, exact=exact, prealloc=prealloc, zero=zero)

    async def make_empty(self) -> None:
        """Let the backing file show through everywhere."""
        from blockemu.drivers.qcow2.emptying import Emptier  # late: seldom needed

        self.image.check_alive()
        async with self.image.allocating():
            await Emptier(self.image, self.writeback, self.zeroer).run()

    async def block_status(self, offset: int, length: int) -> Extents:
        """Describe as much as some L2 tables tell."""
        self.image.check_alive()
        return await self.status.block_status(offset, length)
