"""preallocate: makes room behind the end of a file before it is needed.  After block/preallocate.c.

It belongs between a format and a protocol node.  From outside the file ends where the data does
(``data_end``); behind that are zeroes up to ``_file_end``, which go when the last one who may
write and resize does.
"""

import errno
import os
from typing import Annotated

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.edge import SECTOR, Edge
from blockemu.errors import HostError, InvalidParameterValue, QmpError
from blockemu.filter import Filter, shrink
from blockemu.node import Flags, Write
from blockemu.optlist import SIZE_HINT, SIZE_WANTED
from blockemu.perm import Perm, Role
from blockemu.route import Placed, Ranges, Route
from blockemu.transaction import Transaction

UNKNOWN = -1
ALIGN = 1 << 20  # bytes, by default
SIZE = 128 << 20
_OWNED = Perm.WRITE | Perm.RESIZE


class BlockdevOptionsPreallocate(NodeOptions, tag="preallocate", since="6.0"):
    """Options of preallocate.

    @file: the node below
    @prealloc-align: the file's end is put at a multiple of this; 1 MiB by default
    @prealloc-size: bytes of room that are made at a time; 128 MiB by default
    """

    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    prealloc_align: int | None = None
    prealloc_size: int | None = None


class NotSectors(QmpError):
    """The alignment is not one of sectors."""

    template = "prealloc-align parameter of preallocate filter is not aligned to {}"


class NotAligned(QmpError):
    """The file below could not be written to there."""

    template = (
        "prealloc-align parameter of preallocate filter is not aligned to underlying node request "
        "alignment ({})"
    )


class CannotDrop(QmpError):
    """The file would not shrink."""

    template = "Failed to drop preallocation"


class CannotMakeWay(HostError):
    """(error): the same, when the size was to be changed."""

    template = "preallocate-filter: failed to drop write-zero preallocation: {}"


class Preallocate(Filter[BlockdevOptionsPreallocate]):
    """Keeps zeroes behind the data of its file.

    ``data_end``, ``_zero_start`` (where what is known to be zero begins) and ``_file_end`` are
    offsets, known only as long as nobody else may write to the file or resize it.
    """

    Options = BlockdevOptionsPreallocate
    reopen_options = frozenset({"prealloc-align", "prealloc-size"})
    kept_options = size_options = reopen_options
    file: Edge
    data_end = UNKNOWN
    _zero_start = UNKNOWN
    _file_end = UNKNOWN

    async def open(self) -> None:
        """Check the options."""
        self._align, self._size = self._sizes(self.options)

    async def reopen(
        self, options: BlockdevOptionsPreallocate, flags: Flags, transaction: Transaction
    ) -> None:
        """Change the sizes."""
        sizes = self._sizes(options)

        def change() -> None:
            self._align, self._size = sizes

        transaction.on_commit(change)

    def _sizes(self, options: BlockdevOptionsPreallocate) -> tuple[int, int]:
        """Return alignment and size (preallocate_absorb_opts)."""
        align = ALIGN if options.prealloc_align is None else options.prealloc_align
        size = SIZE if options.prealloc_size is None else options.prealloc_size
        for name, value in (("prealloc-align", align), ("prealloc-size", size)):
            if value < 0:
                raise InvalidParameterValue(name, SIZE_WANTED, hint=SIZE_HINT)
        if align % SECTOR:
            raise NotSectors(SECTOR)
        below = self.file.node.limits.request_alignment
        if align % below:
            raise NotAligned(below)
        return align, size

    async def close(self) -> None:
        """Drop what nobody came to use."""
        if self.data_end != UNKNOWN and self.data_end < self._end():
            try:
                await self.file.truncate(self.data_end)
            except OSError:
                return

    # Permissions

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Let nobody else at the file where we know more of it than it says."""
        return perm, shared & ~_OWNED if perm & _OWNED == _OWNED else shared

    def set_perm(self, perm: Perm, shared: Perm, transaction: Transaction) -> None:
        """Begin to know, or drop what is ahead of the data and know no more.

        The latter at once: afterwards the file may not be changed any more.
        """
        if perm & _OWNED == _OWNED:
            transaction.on_commit(self._begin)
            return
        if self.data_end != UNKNOWN:
            self._drop()
        transaction.on_commit(self._forget)

    def _begin(self) -> None:
        if self.data_end == UNKNOWN:
            self.data_end = self._zero_start = self._file_end = self.file.fresh_length()
            self.changed()

    def _forget(self) -> None:
        if self.data_end != UNKNOWN:
            self.data_end = self._zero_start = self._file_end = UNKNOWN
            self.changed()

    def _drop(self) -> None:
        if self.data_end >= self._end():
            return
        try:
            shrink(self.file, self.data_end)
        except OSError as e:
            self._file_end = UNKNOWN
            raise CannotDrop from e
        self._file_end = self.data_end

    @property
    def _owned(self) -> bool:
        return self.file.perm & _OWNED == _OWNED

    def _end(self) -> int:
        """Return where the file really ends."""
        if self._file_end == UNKNOWN:
            self._file_end = self.file.fresh_length()
        return self._file_end

    # Requests

    @property
    def length(self) -> int:
        """Where the data ends."""
        return self.data_end if self.data_end != UNKNOWN else self.file.fresh_length()

    def route(self) -> Route:
        """See writes where there is a file's end to look after."""
        route = self.file.route
        return route.reads_only() if self._owned else route

    async def place(self, ranges: Ranges) -> Placed:
        """Make room, then let the file say where."""
        for each in ranges:
            await self._make_room(*each, zeroes=False)
        return await self.file.place(ranges)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Make room, then write."""
        await self._make_room(offset, len(buf), zeroes=False)
        await self.file.pwrite(offset, buf, flags)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Make room; that may be all that is to be done."""
        plain = not flags & ~Write.NO_FALLBACK
        if not await self._make_room(offset, length, zeroes=plain):
            await self.file.write_zeroes(offset, length, flags)

    async def _make_room(self, offset: int, length: int, *, zeroes: bool) -> bool:
        """Note that data reaches further, and make the file longer if need be (handle_write).

        Return whether the range reads as zeroes already, where ``zeroes`` asks for that.
        """
        end = offset + length
        if not self._owned:
            return False
        if self.data_end == UNKNOWN:
            self.data_end = self._end()
        if end <= self.data_end:
            return False
        self.data_end = end
        if self._zero_start == UNKNOWN or not zeroes:
            self._zero_start = end
        file_end = self._end()
        if end <= file_end:
            return zeroes and offset >= self._zero_start
        unit = self.file.node.limits.request_alignment
        start = _up(min(offset, file_end) if zeroes else file_end, unit)
        new_end = _up(max(start, end) + self._size, max(self._align, unit))
        flags = Write.NO_FALLBACK | Write.SERIALISING | Write.NO_WAIT
        try:
            await self.file.write_zeroes(start, new_end - start, flags)
        except OSError:  # then there will be no room ahead this time
            self._file_end = UNKNOWN
            return False
        self._file_end = new_end
        return zeroes and start <= offset

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Change where the data ends, and with it the file (preallocate_co_truncate)."""
        if self.data_end != UNKNOWN and length > self.data_end:
            if prealloc == "falloc" and length <= self._end():
                self.data_end = length  # what is asked for is there already
                return
            if prealloc != "falloc":
                await self._make_way()
            self.data_end = length
        try:
            await self.file.truncate(length, exact=exact, prealloc=prealloc, zero=zero)
        except OSError:
            self.data_end = self._zero_start = self._file_end = UNKNOWN
            raise
        if self._owned:
            self.data_end = self._zero_start = self._file_end = length

    async def _make_way(self) -> None:
        """Drop what is ahead, so that the room behind the data is made as the user wants it."""
        if self.data_end >= self._end():
            return
        try:
            await self.file.truncate(self.data_end)
        except OSError as e:
            self._file_end = UNKNOWN
            words = os.strerror(e.errno or errno.EIO) if not isinstance(e, HostError) else str(e)
            raise CannotMakeWay(words, errno=e.errno or errno.EIO) from e
        self._file_end = self.data_end


def _up(value: int, unit: int) -> int:
    """Return the least multiple of ``unit`` that is not below ``value``; 0 is no unit."""
    return -(-value // unit) * unit if unit else value
