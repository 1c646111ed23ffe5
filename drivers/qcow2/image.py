"""What all parts of the driver share: one open image."""

import errno
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from blockemu.drivers.qcow2 import mapping, refcount_blocks, refcounts
from blockemu.drivers.qcow2.freed import Discard, Freed, InFlight
from blockemu.drivers.qcow2.options import Settings
from blockemu.drivers.qcow2.overlap import Overlap
from blockemu.edge import Edge
from blockemu.images.distinct import distinct
from blockemu.images.qcow2.bitmaps import StoredBitmap
from blockemu.images.qcow2.constants import CORRUPT, CRYPT_LUKS, DIRTY
from blockemu.images.qcow2.extensions import Extensions, pack_first_cluster
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.header import INCOMPATIBLE_AT, Header
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.os_errors import os_error
from blockemu.schema.images import BlockImageCorrupted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from blockemu.encryption import Encryption
    from blockemu.node import DebugEvent, Node


MOST_PIECES: Final = 16  # free clusters too few in a row, before they are sought no more


class Image:
    """An image, its metadata in memory, and the edges to where it lies.

    In memory the mapping is always right; on disk as of the last flush.
    """

    def __init__(
        self,
        node: "Node[Any]",
        header: Header,
        extensions: Extensions,
        unknown_fields: bytes,
        settings: Settings,
    ) -> None:
        self.node = node
        self.header = header
        self.extensions = extensions
        self.unknown_fields = unknown_fields
        self.settings = settings
        self.geometry: Geometry = header.geometry()
        self.length = header.size // 512 * 512
        self.backing_file: str | None = None
        self.encryption: Encryption | None = None
        self.snapshots: list[Snapshot] = []
        self.snapshot_bytes = 0
        self.bitmaps: list[StoredBitmap] = []  # as in the file
        self.in_flight = InFlight()
        self.freed = Freed(self.in_flight)
        self.refcounts = refcounts.Refcounts(self.geometry, self.freed, settings.refcount_blocks)
        self.mapping = mapping.Mapping(
            self.geometry, self.refcounts, self.freed, settings.l2_tables
        )
        self.overlap = Overlap(self)
        self.refcounts.lazy = settings.lazy_refcounts
        self.mapping.suspects = self.overlap.touches
        self.mapping.unusable = lambda: self.overlap.unusable
        self.refcounts.suspects = self.overlap.uncounted
        self.refcounts.metadata = self.overlap.at
        self.sparse: bool | None = None  # metadata was preallocated, data was not; None: not known
        self.reach = 0  # where the file must end before tables are written that point into it
        self.grow_table: Callable[[], Awaitable[None]]  # for refcounts: ``Writeback.grow_table``
        self.broken = False  # corruption was met while writing: nothing works any more
        self._told = False

    def adopt(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self.settings = settings
        self.mapping.most_tables = settings.l2_tables
        self.refcounts.most_blocks = settings.refcount_blocks
        self.refcounts.lazy = settings.lazy_refcounts

    def forget_tables(self) -> None:
        """Read L2 tables and refcounts anew, as they are in another file; nothing may wait.

        The header, the L1 and the refcount table stay, as in QEMU, which makes new caches only
        (qcow2_update_options_prepare): files that are exchanged must be laid out alike.
        """
        self.mapping.make_room(0)
        refcounts = self.refcounts
        clusters = self.geometry.clusters(self.file.fresh_length())
        refcounts.replace(refcounts.table, refcounts.table_offset, clusters)
        refcounts.packed_end = 0

    def reshape(self) -> None:
        """Take the sizes of parts from the header anew; nothing may wait to be written."""
        self.geometry = self.mapping.geometry = self.refcounts.geometry = self.header.geometry()
        self.refcounts.per = self.geometry.counts_per_block

    # Where it lies

    @property
    def file(self) -> Edge:
        """The child with the metadata."""
        edge = self.node.file
        assert edge is not None
        return edge

    @property
    def debug(self) -> "DebugEvent | None":
        """What to tell of events, if blkdebug is below and has rules."""
        return self.file.node.debug

    async def tell(self, event: str) -> None:
        """Tell blkdebug of an event, where no time is lost by asking for it in vain."""
        if self.debug is not None:
            await self.debug(event)

    @property
    def data(self) -> Edge:
        """The child with the guest's data."""
        return self.node.children["data-file"] if self.geometry.data_file else self.file

    def read_data(self, host: int, guest: int, buf: memoryview) -> Awaitable[None]:
        """Read the guest's bytes; an image that is encrypted decrypts them."""
        if self.encryption is None:
            return self.data.pread(host, buf)
        return self._read_encrypted(self.encryption, host, guest, buf)

    def write_data(self, host: int, guest: int, buf: memoryview) -> Awaitable[None]:
        """Write the guest's bytes; an image that is encrypted encrypts them."""
        if self.encryption is None:
            return self.data.pwrite(host, buf)
        return self._write_encrypted(self.encryption, host, guest, buf)

    async def _read_encrypted(
        self, encryption: "Encryption", host: int, guest: int, buf: memoryview
    ) -> None:
        await self.data.pread(host, buf)
        await encryption.decrypt(self._counted(host, guest), buf)

    async def _write_encrypted(
        self, encryption: "Encryption", host: int, guest: int, buf: memoryview
    ) -> None:
        data = await encryption.encrypt(self._counted(host, guest), buf)
        await self.data.pwrite(host, data)

    def _counted(self, host: int, guest: int) -> int:
        """Return where sectors are counted from: in the file with LUKS, else on the disk."""
        return host if self.header.crypt_method == CRYPT_LUKS else guest

    @property
    def backing(self) -> Edge | None:
        """The child that decides about what is not allocated."""
        return self.node.backing

    @property
    def writable(self) -> bool:
        """Whether the image may be changed."""
        return self.node.flags.writable

    def check_alive(self) -> None:
        """Raise ENOMEDIUM once the image was found corrupt."""
        if self.broken:
            raise os_error(errno.ENOMEDIUM)

    # Metadata, with corruption told

    async def table(self, index: int) -> mapping.L2:
        """Return an L2 table; see ``Mapping.table``."""
        try:
            return await self.mapping.table(index, self.file)
        except mapping.Unaligned as e:
            offset, index = e.args
            raise await self.corrupt(
                f"L2 table offset {offset:#x} unaligned (L1 index: {c_hex(index)})"
            ) from None

    async def ready(self) -> None:
        """Load the refcount block that allocation lacks, or see that there can be one."""
        try:
            if self.refcounts.full:
                await self.grow_table()
            else:
                await self.refcounts.ready(self.file)
        except refcount_blocks.Unaligned as e:
            raise await self.bad_block(e) from None

    async def take_row(self, count: int) -> int:
        """Take clusters in a row for a table, wherever there are so many; return the first."""
        refcounts = self.refcounts
        pieces: list[tuple[int, int]] = []
        try:
            while len(pieces) < MOST_PIECES:
                with refcounts.for_table():
                    taken = refcounts.take(count)
                if taken is None:
                    await self.ready()
                    continue
                first, got, _ = taken
                if got == count:
                    return first
                pieces.append((first, got))
            await refcounts.block(refcounts.last_block, self.file)
            with refcounts.for_table():
                return refcounts.take_beyond(count)
        finally:
            for first, got in pieces:
                for cluster in range(first, first + got):
                    refcounts.put_back(cluster)

    async def take_fresh_row(self, count: int) -> int:
        """Take clusters in a row that were never written to, so they read as zeroes."""
        refcounts = self.refcounts
        cursor, fresh = refcounts.cursor, refcounts.fresh
        refcounts.cursor = max(cursor, fresh)
        try:
            return await self.take_row(count)
        finally:
            if cursor < fresh:  # what is free before those is so still
                refcounts.cursor = cursor

    async def check_overlap(
        self, host: int, length: int, ignore: frozenset[str] | None = None
    ) -> None:
        """Raise EIO if guest data would be written over metadata.

        With ``ignore`` it is metadata that is written, of a kind that it may replace.
        """
        data = ignore is None
        name = self.overlap.name(host, length, ignore or frozenset(), data=data)
        if name is not None:
            message = f"Preventing invalid write on metadata (overlaps with {name})"
            raise await self.corrupt(message, offset=host, size=length)
        if self.overlap.unusable:
            raise os_error(self.overlap.unusable)

    async def bad_block(self, error: refcount_blocks.Unaligned) -> OSError:
        """Tell of a refcount block that is at no cluster; return the error to raise."""
        offset, index = error.args
        return await self.corrupt(
            f"Refblock offset {offset:#x} unaligned (reftable index: {c_hex(index)})"
        )

    async def check_blocks(self, clusters: "NDArray[np.int64]") -> None:
        """Tell, and once, of refcount blocks of freed clusters that are where none can be.

        The counts themselves are lowered by a later flush.
        """
        for index in distinct(clusters // self.refcounts.per).tolist():
            try:
                self.refcounts.host(index)
            except refcount_blocks.Unaligned as e:
                error = await self.bad_block(e)
                print(f"qcow2_free_clusters failed: {error.strerror}", file=sys.stderr, flush=True)
                return

    @asynccontextmanager
    async def allocating(self) -> AsyncIterator[None]:
        """Turn what allocating finds wrong into EIO, and tell of it."""
        try:
            yield
        except refcounts.Misplaced as e:
            raise await self.misplaced(e) from None
        except refcount_blocks.Unaligned as e:
            raise await self.bad_block(e) from None

    async def misplaced(self, error: refcounts.Misplaced) -> OSError:
        """Tell of something that would overwrite metadata; return the error to raise."""
        return await self.corrupt(error.message, offset=error.offset, size=error.size)

    async def corrupt(self, message: str, *, offset: int = -1, size: int = -1) -> OSError:
        """Tell the world that the image is corrupt; return the error to raise.

        If the image is writable, it is marked so and cannot be used any more.
        """
        if self.report_corruption(message, fatal=True, offset=offset, size=size):
            await self.write_header()
        return os_error(errno.EIO)

    def report_corruption(
        self, message: str, *, fatal: bool, offset: int = -1, size: int = -1
    ) -> bool:
        """Tell the world that the image is corrupt, on standard error and by an event.

        After qcow2_signal_corruption: told once as something that can be lived with, and once as
        fatal, if the image is writable.  Returns whether the header is to be written.
        """
        fatal = fatal and self.writable
        if self._told and (not fatal or self.header.incompatible_features & CORRUPT):
            return False
        self._told = True
        what = "Marking image as corrupt" if fatal else "Image is corrupt"
        kind = "corruption events" if fatal else "non-fatal corruption events"
        text = f"qcow2: {what}: {message}; further {kind} will be suppressed"
        print(text, file=sys.stderr, flush=True)
        self.node.services.emit(
            BlockImageCorrupted(
                device=self._device_name(),
                node_name=self.node.name or None,
                msg=message,
                offset=offset if offset >= 0 else None,
                size=size if size >= 0 else None,
                fatal=fatal,
            )
        )
        if fatal:
            self.header.incompatible_features |= CORRUPT
            self.broken = True
            self.node.changed()
        return fatal

    def _device_name(self) -> str:
        return next((t for e in self.node.parents if (t := getattr(e, "title", ""))), "")

    # The header

    async def write_header(self) -> None:
        """Write the first cluster anew (after qcow2_update_header)."""
        header = self.header
        header.refcount_table_offset = self.refcounts.table_offset
        header.refcount_table_clusters = len(self.refcounts.table) * 8 >> header.cluster_bits
        header.l1_size, header.l1_table_offset = len(self.mapping.l1), self.mapping.l1_offset
        data = pack_first_cluster(header, self.unknown_fields, self.extensions, self.backing_file)
        await self.file.pwrite(0, data)

    async def mark_dirty(self) -> None:
        """Say on disk that refcounts may be wrong."""
        if not self.header.incompatible_features & DIRTY:
            value = self.header.incompatible_features | DIRTY
            await self.file.pwrite(INCOMPATIBLE_AT, struct.pack(">Q", value))
            await self.file.flush()
            self.header.incompatible_features = value

    def passes(self, reason: Discard) -> bool:
        """Tell whether the child with the data is told of what is freed for a reason."""
        settings = self.settings
        return {
            Discard.NEVER: False,
            Discard.ALWAYS: True,
            Discard.REQUEST: settings.pass_request,
            Discard.SNAPSHOT: settings.pass_snapshot,
            Discard.OTHER: settings.pass_other,
        }[reason]

    async def extend(self) -> None:
        """Let the file reach as far as tables say that it does; tried once, as by QEMU.

        Raises:
            OSError, QmpError: it cannot.

        """
        end, self.reach = self.reach, 0
        if end > self.data.fresh_length():
            await self.data.truncate(end, exact=False)

    async def barrier(self, *, leaving: bool = False) -> None:
        """Wait until all that was written is on disk, data first.

        When ``leaving`` the image, tables are written even if a data file cannot be flushed.
        """
        if self.geometry.data_file:
            try:
                await self.data.flush()
            except OSError:
                if not leaving:
                    raise
        await self.file.flush()


def c_hex(value: int) -> str:
    """Format as C's %#x does, which has no prefix for zero."""
    return f"{value:#x}" if value else "0"
