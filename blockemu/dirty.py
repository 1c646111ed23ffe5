"""Dirty bitmaps on nodes: names and states around the engine of ``blockemu.bitmaps.bitmap``.

A bitmap that a job works on has a *successor*: an unnamed bitmap beside it, which records writes in
its place.  When the job is done, the successor either takes its place (``abdicate``) or is merged
back into it (``reclaim``).  After block/dirty-bitmap.c.
"""

import enum
import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, runtime_checkable

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.errors import QmpError
from blockemu.records import record
from blockemu.route import Marks

MAX_NAME = 1023  # bytes of UTF-8
MIN_GRANULARITY = 512
_SECTOR = 512
_DEFAULT = (4096, 65536)  # bytes: what the default granularity is kept within; the latter if unsure


class BitmapBusy(QmpError):
    """A job or an export uses the bitmap."""

    template = "Bitmap '{}' is currently in use by another operation and cannot be used"


class BitmapReadOnly(QmpError):
    """The image that the bitmap is stored in is open read-only."""

    template = "Bitmap '{}' is readonly and cannot be modified"


class BitmapInconsistent(QmpError):
    """The bitmap was not stored properly and means nothing."""

    template = "Bitmap '{}' is inconsistent and cannot be used"

    def __init__(self, name: object) -> None:
        hint = "Try block-dirty-bitmap-remove to delete this bitmap from disk\n"
        super().__init__(name, hint=hint)


class BitmapExists(QmpError):
    """The node has a bitmap of this name."""

    template = "Bitmap already exists: {}"


class BitmapNameTooLong(QmpError):
    """The name does not fit into an image."""

    template = "Bitmap name too long: {}"


class BitmapSizes(QmpError):
    """Bitmaps over disks of different size do not mix."""

    template = (
        "Bitmaps are of different sizes (destination size is {}, source size is {}) "
        "and can't be merged"
    )


class HasSuccessor(QmpError):
    """A bitmap can be frozen once only."""

    template = "Cannot create a successor for a bitmap that already has one"


class NoSuccessorToYieldTo(QmpError):
    """A bitmap abdicates without being frozen."""

    template = "Cannot relinquish control if there's no successor present"


class NoSuccessorToReclaim(QmpError):
    """A bitmap is thawed without being frozen."""

    template = "Cannot reclaim a successor when none is present"


class NoLength(QmpError):
    """The size of the node cannot be found out."""

    template = "could not get length of device: {}"


class NoRoom(QmpError):
    """More bits than memory has addresses for; QEMU dies of fewer."""

    template = "Could not allocate memory for the bitmap: {}"


class Refuse(enum.Flag):
    """The states that keep a bitmap from being used for something."""

    BUSY = 1
    READ_ONLY = 2
    INCONSISTENT = 4


ALLOW_NONE = Refuse.BUSY | Refuse.READ_ONLY | Refuse.INCONSISTENT
ALLOW_READONLY = Refuse.BUSY | Refuse.INCONSISTENT
ALLOW_INCONSISTENT = Refuse.BUSY | Refuse.READ_ONLY


class Owner(Protocol):
    """What a set of bitmaps needs of its node."""

    name: str
    bitmaps: list[Marks]
    bitmap_set: "BitmapSet | None"
    on_resize: list[Callable[[int], None]]
    before_write: list[Callable[[int, int], Awaitable[None]]]

    @property
    def length(self) -> int:
        """The size in bytes."""

    def changed(self) -> None:
        """Hear that what records writes is different now."""

    def add_bitmap(self, bitmap: Marks) -> None:
        """Let a bitmap record writes."""

    def remove_bitmap(self, bitmap: Marks) -> None:
        """Let a bitmap record no more."""


@runtime_checkable
class StoresBitmaps(Protocol):
    """A node whose format stores bitmaps: a driver that can has these methods."""

    def can_store_bitmap(self, name: str, granularity: int) -> None:
        """Raise QmpError if one more bitmap, like this, could not be stored."""

    async def remove_stored_bitmap(self, name: str) -> None:
        """Drop a bitmap from the image, if it is there.  Raises QmpError."""


@record(frozen=True)
class BitmapInfo:
    """What queries tell of a bitmap; ``count`` is bytes, ``status`` is the older interface's."""

    name: str | None
    count: int
    granularity: int
    recording: bool
    busy: bool
    persistent: bool
    inconsistent: bool
    status: str


class DirtyBitmap:
    """A bitmap of a node, with or without a name.  ``BitmapSet.add`` makes one.

    ``bits`` is what records; it stays the same object as long as the bitmap lives.
    """

    def __init__(self, owner: "BitmapSet", name: str | None, bits: Bitmap) -> None:
        self.owner = owner
        self._name = name
        self.bits = bits
        self.busy = False
        self._readonly = False
        self.persistent = False
        self.inconsistent = False
        self.skip_store = False  # is being migrated or removed: not to be stored
        self.successor: DirtyBitmap | None = None

    def __repr__(self) -> str:
        return f"<DirtyBitmap {self.name!r} {self.status}, {self.bits.count} bits>"

    # State

    @property
    def name(self) -> str | None:
        """The name, None if a job made it for itself."""
        return self._name

    @property
    def readonly(self) -> bool:
        """Whether it is as stored and must stay so: as long as it is, the node takes no writes."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        if value != self._readonly:
            self._readonly = value
            self.owner.count_readonly(1 if value else -1)

    @property
    def length(self) -> int:
        """The size of the disk it covers, in bytes."""
        return self.bits.length

    @property
    def granularity(self) -> int:
        """Bytes for each bit."""
        return self.bits.granularity

    @property
    def enabled(self) -> bool:
        """Whether this very bitmap records writes."""
        return self.bits.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.bits.enabled = value
        self.owner.node.changed()

    @property
    def recording(self) -> bool:
        """Whether writes are recorded, here or in the successor."""
        return self.enabled or (self.successor is not None and self.successor.enabled)

    @property
    def stored(self) -> bool:
        """Whether the bitmap is to be kept in the image."""
        return self.persistent and not self.skip_store

    @property
    def status(self) -> str:
        """The state in one word, as interfaces before 6.0 have it."""
        if self.inconsistent:
            return "inconsistent"
        if self.successor is not None:
            return "frozen"
        if self.busy:
            return "locked"
        return "active" if self.enabled else "disabled"

    def set_inconsistent(self) -> None:
        """Note that a stored bitmap is no good; it then only waits to be removed."""
        self.persistent = True
        self.inconsistent = True
        self.enabled = False

    def check(self, refuse: Refuse = ALLOW_NONE) -> None:
        """Raise BitmapBusy, BitmapReadOnly or BitmapInconsistent for a state in ``refuse``."""
        if self.busy and refuse & Refuse.BUSY:
            raise BitmapBusy(self.name)
        if self.readonly and refuse & Refuse.READ_ONLY:
            raise BitmapReadOnly(self.name)
        if self.inconsistent and refuse & Refuse.INCONSISTENT:
            raise BitmapInconsistent(self.name)

    def info(self) -> BitmapInfo:
        """Return what queries tell."""
        return BitmapInfo(
            name=self.name,
            count=self.bits.dirty_bytes,
            granularity=self.granularity,
            recording=self.recording,
            busy=self.busy,
            persistent=self.persistent,
            inconsistent=self.inconsistent,
            status=self.status,
        )

    # Contents

    def merge(self, source: "DirtyBitmap") -> None:
        """Set what is set in ``source``.  Raises what ``check_merge`` does."""
        self.check_merge(source)
        self.bits.merge(source.bits)

    def check_merge(self, source: "DirtyBitmap") -> None:
        """Raise QmpError if either may not be used for a merge, or if their sizes differ."""
        self.check()
        source.check(ALLOW_READONLY)
        if source.length != self.length:
            raise BitmapSizes(self.length, source.length)

    # Freezing

    def create_successor(self) -> None:
        """Freeze the bitmap: from now on an unnamed one beside it records in its place."""
        self.check(Refuse.BUSY)
        if self.successor is not None:
            raise HasSuccessor
        self.successor = self.owner.add(None, self.granularity, enabled=self.enabled)
        self.enabled = False
        self.busy = True

    def abdicate(self) -> "DirtyBitmap":
        """Give name and place to the successor, and return it."""
        successor = self.successor
        if successor is None:
            raise NoSuccessorToYieldTo
        self.owner.rename(self, successor)
        successor.persistent, self.persistent = self.persistent, False
        self.successor = None
        self.busy = False
        self.release()
        return successor

    def reclaim(self) -> "DirtyBitmap":
        """Take back what the successor recorded, and record again if it did."""
        successor = self.successor
        if successor is None:
            raise NoSuccessorToReclaim
        self.bits.merge(successor.bits)
        self.enabled = successor.enabled
        self.busy = False
        self.successor = None
        successor.release()
        return self

    def release(self) -> None:
        """Let the bitmap be no more; nobody may use it.  What is stored stays."""
        if self.busy or self.successor is not None:
            raise RuntimeError(f"{self!r} is in use")
        self.owner.discard(self)


class BitmapSet:
    """The bitmaps of one node, named or not; iterates from the newest, as queries list them."""

    def __init__(self, node: Owner) -> None:
        self.node = node
        self._bitmaps: dict[DirtyBitmap, None] = {}  # the oldest first
        self._named: dict[str, DirtyBitmap] = {}
        self._readonly = 0
        node.on_resize.append(self.resize)

    def __iter__(self) -> Iterator[DirtyBitmap]:
        return iter(tuple(reversed(self._bitmaps)))

    def __len__(self) -> int:
        return len(self._bitmaps)

    def find(self, name: str) -> DirtyBitmap | None:
        """Return the bitmap of this name, if there is one."""
        return self._named.get(name)

    def add(
        self,
        name: str | None,
        granularity: int,
        *,
        enabled: bool = True,
        persistent: bool = False,
    ) -> DirtyBitmap:
        """Make a bitmap over the node, with no bit set.

        ``granularity`` is a power of two, at least ``MIN_GRANULARITY``.  Raises QmpError.
        """
        if name is not None:
            if self.find(name) is not None:
                raise BitmapExists(name)
            if len(name.encode(errors="surrogateescape")) > MAX_NAME:
                raise BitmapNameTooLong(name)
        length = self._length()
        try:
            bits = Bitmap(length, granularity)
        except OSError as e:
            raise NoRoom(os.strerror(e.errno or errno.ENOMEM)) from e
        bitmap = DirtyBitmap(self, name, bits)
        bitmap.persistent = persistent
        bitmap.bits.enabled = enabled
        self._bitmaps[bitmap] = None
        if name is not None:
            self._named[name] = bitmap
        self.node.add_bitmap(bitmap.bits)
        return bitmap

    def rename(self, old: DirtyBitmap, new: DirtyBitmap) -> None:
        """Give the name of one bitmap to another, which has none."""
        new._name, old._name = old._name, None
        if new._name is not None:
            self._named[new._name] = new

    def discard(self, bitmap: DirtyBitmap) -> None:
        """Forget a bitmap; see ``DirtyBitmap.release``."""
        del self._bitmaps[bitmap]
        if bitmap.name is not None:
            del self._named[bitmap.name]
        self.node.remove_bitmap(bitmap.bits)
        bitmap.readonly = False

    def resize(self, length: int) -> None:
        """Follow the node to its new size, in whole sectors."""
        for bitmap in self._bitmaps:
            bitmap.bits.resize(length)

    @property
    def has_named(self) -> bool:
        """Whether there is any but jobs' own."""
        return bool(self._named)

    def info(self) -> list[BitmapInfo]:
        """Return what queries tell, the newest bitmap first."""
        return [each.info() for each in self]

    def count_readonly(self, change: int) -> None:
        """Hear of a bitmap that became read-only, or is no more."""
        before, self._readonly = self._readonly, self._readonly + change
        if bool(before) == bool(self._readonly):
            return
        if self._readonly:
            self.node.before_write.append(_refuse)
        else:
            self.node.before_write.remove(_refuse)
        self.node.changed()

    def _length(self) -> int:
        try:
            length = self.node.length
        except OSError as e:
            raise NoLength(os.strerror(e.errno or 0)) from e
        return -(-length // _SECTOR) * _SECTOR


async def _refuse(offset: int, length: int) -> None:
    """Fail a write that a bitmap could not record (bdrv_has_readonly_bitmaps)."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def bitmaps_of(node: Owner) -> BitmapSet:
    """Return the bitmaps of a node; of one that had none so far, an empty set."""
    if node.bitmap_set is None:
        node.bitmap_set = BitmapSet(node)
    return node.bitmap_set


def default_granularity(cluster_size: int | None) -> int:
    """Return the granularity of a bitmap when none is asked for.

    After bdrv_get_default_bitmap_granularity, block/dirty-bitmap.c.
    """
    low, high = _DEFAULT
    return min(max(low, cluster_size), high) if cluster_size else high
