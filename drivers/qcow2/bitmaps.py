"""Persistent bitmaps: loaded when an image is opened, stored when it is let go of.

While an image is open for writing its bitmaps are marked *in use* on disk: what is stored is not
kept up to date.  Who finds them so later knows that they were not stored since, and takes them for
inconsistent.  After block/qcow2-bitmap.c.

Whatever is new is written and flushed before the header tells of it, and what is old is freed
after that, so a crash leaks clusters at worst.
"""

import errno
import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.bitmap import Bitmap
from blockemu.dirty import BitmapExists, DirtyBitmap, bitmaps_of
from blockemu.drivers.qcow2 import bitmap_errors as wrong
from blockemu.drivers.qcow2.freed import I64, Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.edge import MAX_LENGTH
from blockemu.errors import QmpError, Wrapped
from blockemu.images.qcow2 import bitmaps as codec
from blockemu.images.qcow2.bitmaps import AUTO, CLUSTER, IN_USE, StoredBitmap
from blockemu.images.qcow2.constants import BITMAPS, MAX_BITMAP_DIRECTORY, MAX_BITMAPS
from blockemu.images.qcow2.extensions import BitmapsExtension, HeaderFullError
from blockemu.images.qcow2.tables import Table
from blockemu.perm import Perm

if TYPE_CHECKING:
    from blockemu.dirty import BitmapSet
    from blockemu.drivers.qcow2.writeback import Writeback

AT_ONCE: Final = 512 << 10  # bytes of a bitmap read or written by one request, few for the cache
MANY: Final = MAX_BITMAP_DIRECTORY // 1048 - 1  # fewer always fit, even with the longest names
_CLUSTER = np.uint64(CLUSTER)


@dataclass
class Plan:
    """What is about to be stored.

    ``stored``: the directory to be; ``live``: bitmaps in memory by their index there; ``replaced``:
    tables that nothing will refer to, (offset, entries).
    """

    stored: list[StoredBitmap]
    live: dict[int, DirtyBitmap] = field(default_factory=dict)
    replaced: list[tuple[int, int]] = field(default_factory=list)
    taken: list[tuple[int, int, Discard]] = field(default_factory=list)  # clusters: first, count

    @property
    def changed(self) -> list[int]:
        """The indexes of bitmaps to be written."""
        return [i for i, bitmap in self.live.items() if not bitmap.readonly]


class StoredBitmaps:
    """The bitmaps that one image stores; ``image.bitmaps`` is its directory as it is on disk."""

    def __init__(self, image: Image, writeback: "Writeback") -> None:
        self.image = image
        self.writeback = writeback
        self.bits = image.geometry.cluster_bits

    @property
    def live(self) -> "BitmapSet":
        """The bitmaps in memory."""
        return bitmaps_of(self.image.node)

    # Opening

    async def load(self) -> bool:
        """Load all bitmaps and mark them as in use; return whether the header was written.

        After qcow2_load_dirty_bitmaps.

        Raises:
            QmpError: in QEMU's words; no bitmap is left in memory.

        """
        image = self.image
        if not image.bitmaps:
            return False
        before = set(self.live)
        update = image.writable and not all(stored.in_use for stored in image.bitmaps)
        try:
            for stored in image.bitmaps:
                if not (stored.in_use and self.live.find(stored.name)):
                    await self._load_one(stored)
            if update:
                await self._mark_in_use(wrong.CannotUpdateDirectory)
        except BaseException:
            for bitmap in set(self.live) - before:
                bitmap.release()
            raise
        for bitmap in set(self.live) - before:
            bitmap.readonly = not image.writable
        return update

    async def _load_one(self, stored: StoredBitmap) -> DirtyBitmap:
        granularity = 1 << stored.granularity_bits
        bitmap = self.live.add(stored.name, granularity, enabled=bool(stored.flags & AUTO))
        bitmap.persistent = True
        if stored.in_use:
            bitmap.set_inconsistent()
            return bitmap
        try:
            await self._read(stored, bitmap.bits)
        except BaseException:
            bitmap.release()
            raise
        return bitmap

    async def _read(self, stored: StoredBitmap, into: Bitmap) -> None:
        try:
            table = await self._table(stored.table_offset, stored.table_size)
        except OSError as e:
            raise wrong.UnreadableTable(stored.name, _why(e)) from e
        try:
            if len(table) != self._table_size(into):
                raise _invalid()
            await self._read_bits(table, into)
        except OSError as e:
            raise wrong.UnreadableBitmap(stored.name, _why(e)) from e

    async def _read_bits(self, table: Table, into: Bitmap) -> None:
        """Read run by run: entries of ones, or of clusters in a row, whatever is between them."""
        covers, size = into.serial_coverage(1 << self.bits), 1 << self.bits
        offsets = (table & _CLUSTER).astype(np.int64)
        ones = (offsets == 0) & (table & np.uint64(codec.ALL_ONES) != 0)
        turns = np.flatnonzero(np.diff(ones, prepend=False, append=False))
        for first, end in turns.reshape(-1, 2).tolist():
            start, stop = first * covers, min(end * covers, into.length)
            into.mark(start, stop - start)
        data = np.flatnonzero(offsets)
        hosts, most = offsets[data], max(1, AT_ONCE >> self.bits)
        runs = np.flatnonzero(np.diff(hosts) != size) + 1
        room = memoryview(bytearray(min(most, len(data)) * size))
        for first, end in pairwise([0, *runs.tolist(), len(data)]):
            for at in range(first, end, most):
                await self._read_row(int(hosts[at]), data[at : min(at + most, end)], into, room)

    async def _read_row(self, host: int, entries: I64, into: Bitmap, room: memoryview) -> None:
        """Read clusters in a row, whose entries in the table need not be."""
        covers, size = into.serial_coverage(1 << self.bits), 1 << self.bits
        last = int(entries[-1]) * covers
        rest = into.serial_size(last, min(covers, into.length - last))
        got = room[: (len(entries) - 1) * size + rest]
        await self._pread(host, got)
        runs = np.flatnonzero(np.diff(entries) != 1) + 1
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
            raise _invalid() from None
        return table

    async def _pread(self, offset: int, room: bytearray | memoryview) -> None:
        if offset + len(room) > MAX_LENGTH:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        await self.image.file.pread(offset, room)

    def _table_size(self, bits: Bitmap) -> int:
        return self.image.geometry.clusters(bits.serial_size(0, bits.length) if bits.length else 0)

    # Reopening

    async def make_writable(self) -> None:
        """Mark all as in use, and let them record again (after qcow2_reopen_bitmaps_rw).

        Raises:
            QmpError: in QEMU's words; the bitmaps stay as they are.

        """
        image, name = self.image, self.image.node.exact_filename
        if not image.bitmaps:
            return
        readonly = []
        for stored in image.bitmaps:
            bitmap = self.live.find(stored.name)
            if bitmap is None:
                raise wrong.UnexpectedBitmap(stored.name, name)
            if not stored.in_use and not bitmap.readonly:
                raise wrong.NotInUseNorReadOnly(stored.name, name)
            if not stored.in_use and bitmap.inconsistent:
                raise wrong.InconsistentNotInUse(stored.name, name)
            if stored.in_use and bitmap.readonly and not bitmap.inconsistent:
                raise wrong.InUseButReadOnly(stored.name, name)
            if bitmap.readonly:
                readonly.append(bitmap)
        if not all(stored.in_use for stored in image.bitmaps):
            if image.file.node.flags.read_only or Perm.WRITE not in image.file.perm:
                raise wrong.NoAccessToFile
            await self._mark_in_use(wrong.CannotUpdateAtReopen)
        for bitmap in readonly:
            bitmap.readonly = False

    async def make_readonly(self) -> None:
        """Store all and keep them as they are (after qcow2_reopen_bitmaps_ro).

        Raises:
            QmpError: in QEMU's words.

        """
        await self.store(release=False)
        for bitmap in self.live:
            if bitmap.stored:
                bitmap.readonly = True

    async def _mark_in_use(self, error: type[QmpError]) -> None:
        """Write the directory in place, the bitmaps being unknown while that is under way.

        After update_ext_header_and_dir_in_place.
        """
        image, ext = self.image, self.image.extensions.bitmaps
        marked = [replace(stored, flags=stored.flags | IN_USE) for stored in image.bitmaps]
        try:
            image.header.autoclear_features &= ~BITMAPS
            await self._write_header()
            directory = codec.pack_directory(marked, image.length, 1 << self.bits)
            if ext is None or len(directory) != ext.directory_size:
                raise _invalid()
            await image.file.pwrite(ext.directory_offset, directory)
            await self._write_header()
            image.header.autoclear_features |= BITMAPS
            await self._write_header()
        except (OSError, HeaderFullError, codec.BadEntry) as e:
            raise error(_why(e)) from e
        image.bitmaps = marked

    # Storing

    async def store(self, *, release: bool) -> None:
        """Write the bitmaps that changed; with ``release`` forget all that the image has.

        After qcow2_store_persistent_dirty_bitmaps.

        Raises:
            QmpError: in QEMU's words; the image is as it was.

        """
        plan = self._plan()
        if plan.changed:
            if not self.image.writable:
                raise wrong.NoWriteAccess
            image = self.image
            image.node.storing_bitmaps = True
            try:
                for i in plan.changed:
                    plan.stored[i] = await self._store_one(plan, plan.stored[i], plan.live[i])
                await self._write_directory(plan.stored)
            except BaseException:
                for taken in plan.taken:
                    image.freed.add_range(*taken)
                raise
            finally:
                image.node.storing_bitmaps = False
            for offset, entries in plan.replaced:
                await self._free(offset, entries)
        if release:
            for bitmap in plan.live.values():
                if bitmap.successor is None and not bitmap.busy:
                    bitmap.release()

    def _plan(self) -> Plan:
        """Check what is to be stored, and decide where it goes in the directory."""
        image, plan = self.image, Plan(list(self.image.bitmaps))
        known = {stored.name: i for i, stored in reversed(list(enumerate(image.bitmaps)))}
        size = sum(codec.entry_size(stored.name) for stored in image.bitmaps)
        for bitmap in self.live:
            if not bitmap.stored or bitmap.inconsistent or bitmap.name is None:
                continue
            name, at = bitmap.name, known.get(bitmap.name)
            if bitmap.readonly:
                if at is not None:
                    plan.live[at] = bitmap
                continue
            try:
                self._check_constraints(name, bitmap.granularity)
            except QmpError as e:
                raise Wrapped(f"Bitmap '{name}' doesn't satisfy the constraints", e) from e
            if at is None:
                size += codec.entry_size(name)
                if len(plan.stored) >= MAX_BITMAPS:
                    raise wrong.TooManyToStore
                if size > MAX_BITMAP_DIRECTORY:
                    raise wrong.DirectoryTooLarge
                at = len(plan.stored)
                plan.stored.append(StoredBitmap(name, 0, 0, 0, 0))
            elif plan.stored[at].in_use:
                plan.replaced.append((plan.stored[at].table_offset, plan.stored[at].table_size))
            else:
                raise wrong.AlreadyStored(name)
            plan.live[at] = bitmap
            shift, flags = bitmap.granularity.bit_length() - 1, AUTO if bitmap.enabled else 0
            plan.stored[at] = StoredBitmap(name, 0, 0, flags, shift)
        plan.live = dict(sorted(plan.live.items()))
        return plan

    async def _store_one(
        self, plan: Plan, stored: StoredBitmap, bitmap: DirtyBitmap
    ) -> StoredBitmap:
        """Write the bits and the table to new clusters."""
        image, name, size = self.image, stored.name, self._table_size(bitmap.bits)
        if size > codec.MAX_TABLE or size << self.bits > codec.MAX_BYTES:
            raise wrong.TooBig(name)
        if not size:
            raise wrong.NoMemory
        table: Table = np.zeros(size, np.uint64)
        parts, at = bitmap.bits.stored_parts(1 << self.bits), 0
        most = min(len(parts), max(1, AT_ONCE >> self.bits))
        room = np.empty(most << self.bits >> 3, np.uint64)
        while at < len(parts):
            want = min(len(parts) - at, most)
            first, got = await self._take(want, name)
            plan.taken.append((first, got, Discard.ALWAYS))
            some = parts[at : at + got]
            table[some] = np.arange(first, first + got) << self.bits
            await self._write(first, bitmap.bits.stored(some, 1 << self.bits, room), name)
            at += got
        count = image.geometry.clusters(size * 8)
        try:
            first = await image.refcounts.take_row(count, image.file)
        except OSError as e:
            raise wrong.NoClusters(name, _why(e)) from e
        plan.taken.append((first, count, Discard.OTHER))
        await self._write(first, memoryview(table.byteswap().tobytes()), name)
        return replace(stored, table_offset=first << self.bits, table_size=size)

    async def _take(self, want: int, name: str) -> tuple[int, int]:
        image = self.image
        try:
            while (taken := image.refcounts.take(want)) is None:
                await image.ready()
        except OSError as e:
            raise wrong.NoClusters(name, _why(e)) from e
        return taken[:2]

    async def _write(self, first: int, data: memoryview, name: str) -> None:
        host = first << self.bits
        try:
            await self.image.check_overlap(host, len(data))
        except OSError as e:
            raise wrong.Overlaps(_why(e)) from e
        try:
            await self.image.file.pwrite(host, data)
        except OSError as e:
            raise wrong.CannotWrite(name, _why(e)) from e

    async def _write_directory(self, bitmaps: list[StoredBitmap]) -> None:
        """Write a directory to new clusters and have the header tell of it.

        After update_ext_header_and_dir.
        """
        image = self.image
        header, old, features = (
            image.header,
            image.extensions.bitmaps,
            image.header.autoclear_features,
        )
        count, new = 0, None
        try:
            if bitmaps:
                directory = codec.pack_directory(bitmaps, image.length, 1 << self.bits)
                count = image.geometry.clusters(len(directory))
                first = await image.refcounts.take_row(count, image.file)
                new = BitmapsExtension(
                    nb_bitmaps=len(bitmaps),
                    directory_size=len(directory),
                    directory_offset=first << self.bits,
                )
                await image.check_overlap(new.directory_offset, new.directory_size)
                await image.file.pwrite(new.directory_offset, directory)
                header.autoclear_features |= BITMAPS
            else:
                header.autoclear_features &= ~BITMAPS
            image.extensions.bitmaps = new
            await self._write_header()
        except (OSError, HeaderFullError, codec.BadEntry) as e:
            image.extensions.bitmaps, header.autoclear_features = old, features
            if new is not None:
                image.freed.add_range(new.directory_offset >> self.bits, count, Discard.OTHER)
            raise wrong.CannotUpdateExtension(_why(e)) from e
        image.bitmaps = bitmaps
        if old is not None:
            clusters = image.geometry.clusters(old.directory_size)
            image.freed.add_range(old.directory_offset >> self.bits, clusters, Discard.OTHER)

    async def _write_header(self) -> None:
        """Write the header, and wait until it is on disk with all that it tells of."""
        image = self.image
        await self.writeback.flush()
        while image.refcounts.moved or image.mapping.l1_moved:  # by a request, meanwhile
            await self.writeback.flush()
        await image.write_header()
        await image.file.flush()

    async def _free(self, offset: int, entries: int) -> None:
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

    # Commands

    def check_new(self, name: str, granularity: int) -> None:
        """Raise QmpError if one more bitmap could not be stored.

        After qcow2_co_can_store_new_dirty_bitmap.
        """
        node = self.image.node
        if self.live.find(name) is not None:
            raise BitmapExists(name)
        try:
            if self.image.geometry.version < 3:
                raise wrong.OldVersion
            self._check_constraints(name, granularity)
            if len(self.live) >= MANY:
                self._check_room(name)
        except QmpError as e:
            where = f"Can't make bitmap '{name}' persistent in '{node.title}'"
            raise Wrapped(where, e) from e

    def _check_room(self, name: str) -> None:
        kept = [each.name or "" for each in self.live if each.stored]
        if len(kept) >= MAX_BITMAPS:
            raise wrong.TooManyToAdd
        if sum(map(codec.entry_size, [*kept, name])) > MAX_BITMAP_DIRECTORY:
            raise wrong.NoSpaceInDirectory

    def _check_constraints(self, name: str, granularity: int) -> None:
        """After check_constraints_on_bitmap."""
        if granularity > 1 << codec.MAX_GRANULARITY_BITS:
            raise wrong.GranularityTooLarge
        if granularity < 1 << codec.MIN_GRANULARITY_BITS:
            raise wrong.GranularityTooSmall
        size = codec.bytes_needed(self.image.length, granularity)
        if size > codec.MAX_BYTES or size > codec.MAX_TABLE << self.bits:
            raise wrong.TooMuchSpace
        if len(codec.encode_name(name)) > codec.MAX_NAME:
            raise wrong.NameTooLong

    async def remove(self, name: str) -> None:
        """Drop a bitmap from the image, if it is there.

        After qcow2_co_remove_persistent_dirty_bitmap.

        Raises:
            QmpError: in QEMU's words; the bitmap is there still.

        """
        stored = next((each for each in self.image.bitmaps if each.name == name), None)
        if stored is None:
            return
        await self._write_directory([each for each in self.image.bitmaps if each is not stored])
        await self._free(stored.table_offset, stored.table_size)

    def check_resize(self) -> None:
        """Raise QmpError if a bitmap could not follow the disk to another size.

        After qcow2_truncate_bitmaps_check.
        """
        for stored in self.image.bitmaps:
            bitmap = self.live.find(stored.name)
            if bitmap is None:
                raise wrong.BitmapsNotLoaded
            bitmap.check()


def _invalid() -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _why(e: Exception) -> str:
    """Return what the C library says of an error."""
    if isinstance(e, HeaderFullError):
        return os.strerror(errno.ENOSPC)
    code = e.errno if isinstance(e, OSError) else None
    return os.strerror(code or errno.EINVAL)
