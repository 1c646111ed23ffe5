"""Persistent bitmaps: loaded when an image is opened, stored when it is let go of.

While an image is open for writing its bitmaps are marked *in use* on disk: what is stored is not
kept up to date.  Who finds them so later knows that they were not stored since, and takes them for
inconsistent.  After block/qcow2-bitmap.c.

Whatever is new is written and flushed before the header tells of it, and what is old is freed
after that, so a crash leaks clusters at worst.
"""

from typing import TYPE_CHECKING, Final

from blockemu.dirty import BitmapExists, DirtyBitmap, bitmaps_of
from blockemu.drivers.qcow2 import bitmap_errors as wrong
from blockemu.drivers.qcow2.bitmap_clusters import BitmapClusters, Taken
from blockemu.drivers.qcow2.freed import Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.errors import QmpError, Wrapped
from blockemu.images.qcow2 import bitmaps as codec
from blockemu.images.qcow2.bitmaps import AUTO, IN_USE, StoredBitmap
from blockemu.images.qcow2.constants import BITMAPS, MAX_BITMAP_DIRECTORY, MAX_BITMAPS
from blockemu.images.qcow2.extensions import BitmapsExtension, HeaderFullError
from blockemu.perm import Perm
from blockemu.records import field, record, replace

if TYPE_CHECKING:
    from blockemu.dirty import BitmapSet
    from blockemu.drivers.qcow2.writeback import Writeback

MANY: Final = MAX_BITMAP_DIRECTORY // 1048 - 1  # fewer always fit, even with the longest names


@record
class Plan:
    """What is about to be stored.

    ``stored``: the directory to be; ``live``: bitmaps in memory by their index there; ``replaced``:
    tables that nothing will refer to, (offset, entries).
    """

    stored: list[StoredBitmap]
    live: dict[int, DirtyBitmap] = field(default_factory=dict)
    replaced: list[tuple[int, int]] = field(default_factory=list)
    taken: Taken = field(default_factory=list)

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
        self.clusters = BitmapClusters(image)

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
            await self.clusters.read(stored, bitmap.bits)
        except BaseException:
            bitmap.release()
            raise
        return bitmap

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
            await self._put_header()
            directory = codec.pack_directory(marked, image.length, 1 << self.bits)
            if ext is None or len(directory) != ext.directory_size:
                raise wrong.invalid()
            await image.file.pwrite(ext.directory_offset, directory)
            await self._put_header()
            image.header.autoclear_features |= BITMAPS
            await self._put_header()
        except (OSError, HeaderFullError, codec.BadEntry) as e:
            raise error(wrong.why(e)) from e
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
                    plan.stored[i] = await self.clusters.write(
                        plan.stored[i], plan.live[i].bits, plan.taken
                    )
                await self._write_directory(plan.stored)
            except BaseException:
                for taken in plan.taken:
                    image.freed.add_range(*taken)
                raise
            finally:
                image.node.storing_bitmaps = False
            for offset, entries in plan.replaced:
                await self.clusters.free(offset, entries)
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
            raise wrong.CannotUpdateExtension(wrong.why(e)) from e
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
        await self._put_header()

    async def _put_header(self) -> None:
        await self.image.write_header()
        await self.image.file.flush()

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
        await self.clusters.free(stored.table_offset, stored.table_size)

    def check_resize(self) -> None:
        """Raise QmpError if a bitmap could not follow the disk to another size.

        After qcow2_truncate_bitmaps_check.
        """
        for stored in self.image.bitmaps:
            bitmap = self.live.find(stored.name)
            if bitmap is None:
                raise wrong.BitmapsNotLoaded
            bitmap.check()
