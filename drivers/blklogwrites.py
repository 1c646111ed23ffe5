"""blklogwrites: logs all writes, in the kernel's format (``images.dm_log_writes``).

After block/blklogwrites.c.
"""

import errno
import os
from contextlib import suppress
from typing import Annotated, Any

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.edge import SECTOR, Edge
from blockemu.errors import QmpError
from blockemu.filter import Filter
from blockemu.images.dm_log_writes import (
    DISCARD,
    ENTRY_SIZE,
    FLUSH,
    KNOWN,
    MAGIC,
    SUPER_SIZE,
    VERSION,
    Entry,
    Super,
    is_sector_size,
)
from blockemu.node import Limits, Write
from blockemu.perm import Role
from blockemu.qmp_server.qapi import U32, U64
from blockemu.route import NO_ROUTE, Placed, Ranges, Route

INTERVAL = 4096  # entries after which the superblock is written, if nobody says otherwise


class BlockdevOptionsBlklogwrites(NodeOptions, tag="blklogwrites", since="3.0"):
    """Options of blklogwrites.

    @file: the node below
    @log: where the log is written
    @log-sector-size: bytes of a sector of the log, 512 by default
    @log-append: go on with the log that is there
    @log-super-update-interval: entries after which the superblock is written; 4096 by default
    """

    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    log: Annotated[BlockdevRef, Role.METADATA]
    log_sector_size: U32 | None = None
    log_append: bool | None = None
    log_super_update_interval: U64 | None = None


class AppendHasSize(QmpError):
    """A log that is there has a sector size."""

    template = "log-append and log-sector-size are mutually exclusive"


class SuperUnreadable(QmpError):
    """(error)."""

    template = "Could not read log superblock: {}"


class NotALog(QmpError):
    """The magic number is another."""

    template = "Invalid log superblock magic"


class UnknownVersion(QmpError):
    """(version)."""

    template = "Unsupported log version {}"


class EntryUnreadable(QmpError):
    """(index, error)."""

    template = "Failed to read log entry {}: {}"


class UnknownFlags(QmpError):
    """(flags in hex, index)."""

    template = "Invalid flags 0x{} in log entry {}"


class BadSectorSize(QmpError):
    """(size)."""

    template = "Invalid log sector size {}"


class BadInterval(QmpError):
    """(interval)."""

    template = "Invalid log superblock update interval {}"


class Blklogwrites(Filter[BlockdevOptionsBlklogwrites]):
    """Does each write and then logs it; ``_sector`` is where the next entry goes."""

    Options = BlockdevOptionsBlklogwrites
    unmaps_zeroes = False
    can_reopen = False
    size_options = frozenset({"log-sector-size"})
    file: Edge
    log: Edge
    _sector = 1
    _entries = 0
    _flushed = 0

    async def open(self) -> None:
        """Begin a log, or find the end of the one that is there."""
        options = self.options
        if options.log_append:
            if options.log_sector_size is not None:
                raise AppendHasSize
            size = await self._continue()
        else:
            size = SECTOR if options.log_sector_size is None else options.log_sector_size
        if not is_sector_size(size):
            raise BadSectorSize(size)
        interval = options.log_super_update_interval
        self._interval = INTERVAL if interval is None else interval
        if not self._interval:
            raise BadInterval(self._interval)
        self.sector_size = size
        self.limits = Limits(request_alignment=size)
        self._flushed = self.writes

    async def _continue(self) -> int:
        """Find the end of the log; return its sector size, which may be a wrong one."""
        if not self.log.fresh_length():
            return SECTOR
        head = bytearray(SUPER_SIZE)
        try:
            await self.log.pread(0, head)
        except OSError as e:
            raise SuperUnreadable(_words(e)) from e
        found = Super.unpack(head)
        if found.magic != MAGIC:
            raise NotALog
        if found.version != VERSION:
            raise UnknownVersion(found.version)
        if is_sector_size(found.sector_size):
            await self._find_end(found)
        return found.sector_size

    async def _find_end(self, found: Super) -> None:
        """Go from entry to entry: only each of them says where the next one is."""
        head = bytearray(ENTRY_SIZE)
        for index in range(found.entries):
            try:
                await self.log.pread(self._sector * found.sector_size, head)
            except OSError as e:
                raise EntryUnreadable(index, _words(e)) from e
            entry = Entry.unpack(head)
            if entry.flags & ~KNOWN:
                raise UnknownFlags(f"{entry.flags:x}", index)
            self._sector += 1 + entry.data_sectors
        self._entries = found.entries

    async def close(self) -> None:
        """Log that what was written since the last flush is flushed."""
        with suppress(OSError):
            await self.flush()

    def strong_options(self) -> dict[str, Any]:
        """Return what decides about the log."""
        names = ("log-append", "log-sector-size")
        return {name: self.effective[name] for name in names if name in self.effective}

    def route(self) -> Route:
        """See each request: they must be of whole sectors of the log."""
        return NO_ROUTE

    async def place(self, ranges: Ranges) -> Placed:
        """See each write."""
        raise NotImplementedError

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write, and log it with the data."""
        error = await _tried(self.file.pwrite(offset, buf, flags))
        await self._log(offset, len(buf), 0, error, data=buf)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Zero, and log that as a write of zeroes."""
        if flags & Write.NO_FALLBACK:
            raise NotImplementedError
        flags &= ~Write.MAY_UNMAP
        error = await _tried(self.file.write_zeroes(offset, length, flags))
        await self._log(offset, length, 0, error, zeroes=length)

    async def discard(self, offset: int, length: int) -> None:
        """Discard, and log it."""
        error = await _tried(self.file.discard(offset, length))
        await self._log(offset, length, DISCARD, error)

    async def flush(self) -> None:
        """Flush, and log that if there was something to be flushed; then flush the log, too."""
        writes = self.writes
        if not self.flags.no_flush and writes != self._flushed:
            error = await _tried(self.file.flush())
            await self._log(0, 0, FLUSH, error)
        for edge in reversed(self.children.values()):
            if edge.can_write:
                await edge.flush()
        self._flushed = writes

    async def _log(
        self,
        offset: int,
        length: int,
        flags: int,
        error: OSError | None,
        *,
        data: bytes | memoryview = b"",
        zeroes: int = 0,
    ) -> None:
        """Append an entry, and now and then write the superblock.

        Where the entry goes is decided before the first wait, so that others can be logged
        meanwhile.  Raises OSError: the log's, or else ``error``, that of the request itself.
        """
        size = self.sector_size
        at = self._sector * size
        self._sector += 1 + (len(data) + zeroes) // size
        self._entries += 1
        must_update = flags & FLUSH or self._entries % self._interval == 0
        head = Entry(offset // size, length // size, flags).pack(size)
        await self.log.pwrite(at, head + data)
        if zeroes:
            await self.log.write_zeroes(at + size, zeroes)
        if must_update:
            await self.log.pwrite(0, Super(self._entries, size).pack())
            await self.log.flush()
        if error is not None:
            raise error


async def _tried(request: Any) -> OSError | None:
    """Await a request; return its error."""
    try:
        await request
    except OSError as e:
        return e
    return None


def _words(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)
