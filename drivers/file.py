"""file: a plain file of the host; and what it shares with the drivers for devices."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Annotated, Any

from blockemu.blockdev_options import NodeOptions
from blockemu.create_options import CreationOptions, Creator, Texts
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.file_access import FileAccess
from blockemu.file_creation import (
    TEXT_OPTIONS,
    BlockdevCreateOptionsFile,
    create_file,
    options_of,
    remove_file,
)
from blockemu.host.file_errors import NativeNeedsDirect, NoReservations, NotRegular
from blockemu.host.hostspace import DeviceSpace, FileSpace, drop_pages, status_of
from blockemu.host.sysfile import DirectLeaf, FileLeaf
from blockemu.host.unwatched import UNWATCHED, Watcher
from blockemu.kept_size import KeepsSize
from blockemu.node import Flags, Limits, Node, Write
from blockemu.os_errors import os_error
from blockemu.paths import strip_protocol
from blockemu.perm import Perm
from blockemu.qmp_server.qapi import Features, QEnum, Since, values
from blockemu.records import replace
from blockemu.route import NO_ROUTE, Placed, Ranges, Route, linear
from blockemu.schema.stats import BlockStatsSpecific, BlockStatsSpecificFile
from blockemu.transaction import Transaction

MOST_RUNS = 1024  # described in one go, about 1 us each
QUICK = 4 << 20  # bytes in memory that are dropped in about 1 ms


class OnOffAuto(QEnum):
    """Yes, no, or as fits."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@values(since={"io_uring": "5.0"})
class BlockdevAioOptions(QEnum):
    """How requests are handed to the host; all of them go through threads here."""

    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


class BlockdevOptionsFile(NodeOptions):
    """Options of the drivers for files and devices of the host.

    @filename: path of the file, or ``/dev/fdset/N`` for a descriptor handed over
    @pr-manager: object that handles persistent reservations
    @locking: whether other programs are kept from using the image in conflicting ways
    @aio: how requests are handed to the host
    @aio-max-batch: how many requests are submitted at once
    @drop-cache: whether the page cache is dropped when the image comes from another host
    @x-check-cache-dropped: whether to check that it was
    """

    filename: str
    pr_manager: Annotated[str | None, Since("2.11")] = None
    locking: Annotated[OnOffAuto | None, Since("2.10")] = None
    aio: BlockdevAioOptions | None = None
    aio_max_batch: Annotated[int | None, Since("6.2")] = None
    drop_cache: Annotated[bool | None, Since("3.1")] = None
    x_check_cache_dropped: Annotated[bool | None, Since("3.1"), Features("unstable")] = None


class FileOptions(BlockdevOptionsFile, tag="file", features=("dynamic-auto-read-only",)):
    """Options of the file driver."""


class HostFile(Node[BlockdevOptionsFile]):
    """What the drivers share (after block/file-posix.c)."""

    is_protocol = True
    needs_filename = True
    reopen_options = frozenset({"drop-cache", "x-check-cache-dropped"})
    extra_flags = 0
    has_holes = True
    unmaps_zeroes = True
    always_allocated = True
    fd = -1  # its number, which stays while the node is open
    leaf: FileLeaf | DirectLeaf
    journal: Watcher = UNWATCHED  # what remembers changes, while somebody does
    space: FileSpace | DeviceSpace

    @classmethod
    def parse_filename(cls, filename: str, options: dict[str, Any]) -> None:
        """Take the path after ``file:``."""
        (protocol,) = cls.protocols
        options["filename"] = strip_protocol(filename, f"{protocol}:")

    # Opening

    async def open(self) -> None:
        """Open the file, for reading only if whether there will be writers is to be seen."""
        options = self.options
        self._sync_error = 0
        self._end = 0  # zeroed up to here, without the file being that long
        self._next_flags: Flags | None = None
        self.discards = [0, 0, 0]  # done, failed, bytes
        if options.pr_manager is not None:
            raise NoReservations(options.pr_manager)
        flags = self._open_flags(Perm.NONE)
        self._access = FileAccess(
            self.services,
            options.filename,
            flags,
            locks=self._locks,
            on_change=lambda: self.leaf.recall(),
        )
        self.fd = self._access.fd
        try:
            if options.aio is BlockdevAioOptions.NATIVE and not self._access.direct:
                raise NativeNeedsDirect
            self._check_type(os.fstat(self.fd).st_mode)
            self._set_up()
            self.services.opened(self)
        except BaseException:
            self._access.close()
            self.fd = -1
            raise

    def _check_type(self, mode: int) -> None:
        raise NotImplementedError

    def _make_space(self) -> FileSpace | DeviceSpace:
        raise NotImplementedError

    def _set_up(self) -> None:
        """Set up I/O as the descriptor wants it; direct I/O has its own kind of leaf."""
        align = self._access.align
        self.limits = Limits(request_alignment=align)
        self.leaf = DirectLeaf(self.fd, align) if self._access.direct else FileLeaf(self.fd)
        self.space = self._make_space()

    def _open_flags(self, perm: Perm) -> int:
        """Return the flags of open(2) for these permissions (raw_parse_flags)."""
        flags = self._next_flags or self.flags
        writers = bool(perm & (Perm.WRITES | Perm.RESIZE))
        write = not flags.read_only and (writers or not flags.auto_read_only)
        direct = os.O_DIRECT if flags.direct else 0
        return self.extra_flags | direct | (os.O_RDWR if write else os.O_RDONLY)

    async def close(self) -> None:
        """Close the file, if it was opened; its locks go with it."""
        if self.fd >= 0:
            self.leaf.recall()
            self.leaf.forget_pages()
            self._access.close()
            self.fd = -1

    async def reopen(
        self, options: BlockdevOptionsFile, flags: Flags, transaction: Transaction
    ) -> None:
        """Take note of new flags: the new permissions, which follow, decide what they mean."""

        def done() -> None:
            self._next_flags = None

        self._next_flags = flags
        transaction.on_clean(done)

    async def activate(self) -> None:
        """Forget what is known of the file; drop its pages, unless that is not wanted."""
        self._end = 0
        self.leaf.forget_data()
        self.leaf.recall()
        if isinstance(self.leaf, FileLeaf):
            self.leaf.forget_pages()
            if self.options.drop_cache is not False:
                await self.pool.run(drop_pages, self.fd)

    # Permissions

    def set_perm(self, perm: Perm, shared: Perm, transaction: Transaction) -> None:
        """Lock the image accordingly, and open it for writing when the first writer comes."""
        access, flags = self._access, self._open_flags(perm)

        def settled() -> None:
            if access.direct is not isinstance(self.leaf, DirectLeaf):
                self._set_up()
                self.changed()

        access.set_perm(perm, shared, flags, self.exact_filename, transaction)
        transaction.on_commit(settled)

    def _locks(self) -> bool:
        return self.options.locking is not OnOffAuto.OFF and not self.flags.inactive

    # What it tells of itself

    def image_info(self) -> dict[str, Any]:
        """Tell that there is nothing to repair."""
        return {"dirty-flag": False}

    def driver_stats(self) -> BlockStatsSpecific | None:
        """Return the counts of discards."""
        return self._stats(BlockStatsSpecificFile)

    def _stats(self, kind: type[BlockStatsSpecificFile]) -> BlockStatsSpecificFile:
        done, failed, size = self.discards
        return kind(discard_nb_ok=done, discard_nb_failed=failed, discard_bytes_ok=size)

    @property
    def cluster_size(self) -> int:
        """A file has no unit of its own."""
        return 0

    def allocated_size(self) -> int:
        """Return the blocks that the file takes, in bytes."""
        return os.fstat(self.fd).st_blocks * 512

    # Requests

    def route(self) -> Route:
        """Go straight to the pages; changes do not, while they are remembered."""
        if isinstance(self.leaf, DirectLeaf):
            return NO_ROUTE
        route = linear(self.leaf)
        if not self.has_holes:
            route = replace(route, solid=frozenset({self.leaf}))
        return route if self.journal is UNWATCHED else route.reads_only()

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read, on a thread if the pages are not in memory; zeroes beyond the end."""
        if not self.leaf.read_now(offset, buf):
            await self.pool.run(self.leaf.read, offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write, on a thread if that could wait."""
        entry = self.journal.write(offset, buf)
        if self.leaf.inline_writes:
            self.leaf.recall()
            self.leaf.write_now(offset, buf)
        else:
            await self._on_thread(lambda: self.leaf.write_now(offset, buf))
        entry.done = True
        if flags & Write.FUA:
            await self.flush()

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Let the host zero the range."""
        unmap, fallback = bool(flags & Write.MAY_UNMAP), not flags & Write.NO_FALLBACK
        entry = self.journal.zero(offset, length)
        try:
            await self._change(
                length, lambda: self.space.zero(offset, length, unmap=unmap, fallback=fallback)
            )
        except OSError as e:
            if e.errno == errno.ENOTSUP:
                raise NotImplementedError from e
            raise
        self._end = max(self._end, offset + length)
        entry.done = True
        if flags & Write.FUA:
            await self.flush()

    async def discard(self, offset: int, length: int) -> None:
        """Give the room back, and count it."""
        entry = self.journal.zero(offset, max(0, min(length, self.length - offset)))
        try:
            await self._change(length, lambda: self.space.drop(offset, length))
        except OSError:
            self.discards[1] += 1
            raise
        entry.done = True
        self.discards[0] += 1
        self.discards[2] += length

    async def flush(self) -> None:
        """Sync the data.

        After a failure the kernel takes pages for clean that it has not written: all later
        flushes fail, too.
        """
        if self._sync_error:
            raise os_error(self._sync_error)
        flushed = self.journal.flushing()
        try:
            if isinstance(self.leaf, FileLeaf) and self.leaf.memory:
                os.fdatasync(self.fd)  # nothing to wait for (``make bench``: bitmaps, store)
            else:
                await self.pool.run(os.fdatasync, self.fd)
        except OSError as e:
            if not self._access.direct:
                self._sync_error = e.errno or errno.EIO
            raise
        flushed()

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Set the size; what is new reads as zeroes in any case."""
        entry = self.journal.resize(length)
        await self._change(1 << 63, lambda: self._resize(length, exact, prealloc))
        entry.done = True
        self._resized()

    def truncate_now(self, length: int) -> None:
        """Set the size, on the event loop's thread."""
        self.leaf.forget_data()
        self.leaf.recall()
        entry = self.journal.resize(length)
        self._resize(length, True, "off")
        entry.done = True
        self._resized()

    def _resized(self) -> None:
        self._end = 0
        self.leaf.forget_pages()

    def _resize(self, length: int, exact: bool, prealloc: str) -> None:
        self.space.resize(length, exact=exact, prealloc=prealloc)

    async def place(self, ranges: Ranges) -> Placed:
        """Answer the same ranges."""
        if isinstance(self.leaf, DirectLeaf) or self.journal is not UNWATCHED:
            raise NotImplementedError
        return [(self.leaf, *each) for each in ranges], None

    async def _change(self, size: int, function: Callable[[], None]) -> None:
        """Call what may make holes; on a thread unless soon done (``make bench``: store)."""
        self.leaf.forget_data()
        if self.leaf.memory and size <= QUICK:
            self.leaf.recall()
            return function()
        try:
            await self._on_thread(function)
        finally:
            self.leaf.forget_data()  # somebody may have looked meanwhile

    async def _on_thread(self, function: Callable[[], None]) -> None:
        """Call what changes the file on a thread, with no window into it lent meanwhile."""
        leaf = self.leaf
        leaf.recall()
        leaf.writing += 1
        try:
            await self.pool.run(function)
        finally:
            leaf.writing -= 1


class File(KeepsSize[BlockdevOptionsFile], HostFile):
    """A regular file; grows when written beyond its end."""

    Options = FileOptions
    CreateOptions = BlockdevCreateOptionsFile
    text_options = TEXT_OPTIONS
    protocols = ("file",)
    has_zero_init = True

    @classmethod
    async def create(cls, options: CreationOptions, creator: Creator) -> None:
        """Make the file, or empty it, and give it its size (raw_co_create)."""
        assert isinstance(options, BlockdevCreateOptionsFile)
        await create_file(options, creator)

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Make the file that a name means."""
        await create_file(options_of(strip_protocol(filename, "file:"), texts), creator)

    async def delete_file(self) -> None:
        """Remove the file that an attempt to create an image left."""
        remove_file(self.options.filename)

    def _check_type(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise NotRegular(self.driver, self.exact_filename)

    def _make_space(self) -> FileSpace:
        return FileSpace(self.fd)

    def size_below(self) -> int:
        """Return the size of the file now: a parent may have written beyond its end."""
        return max(os.fstat(self.fd).st_size, self._end)

    async def block_status(self, offset: int, length: int) -> Extents:
        """Ask the file system for holes."""
        end = offset + length
        leaf = self.leaf
        if leaf.data_start <= offset < (known := leaf.data_end):
            return Extents.one(offset, min(end, known) - offset, DATA | ALLOCATED, offset)
        if leaf.memory and length <= 1 << 20:  # to find a hole 1 GiB further on takes 15 ms
            runs = leaf.ask(offset, end, MOST_RUNS)
        else:
            runs = await self.pool.run(leaf.ask, offset, end, MOST_RUNS)
        if runs:
            leaf.data_start, leaf.data_end = runs[-1]
            end = min(end, runs[-1][1]) if len(runs) == MOST_RUNS else end
        return status_of(runs, offset, end, self.limits.request_alignment)
