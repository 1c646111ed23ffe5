"""raw: its file as it is, or a window onto it."""

import errno
import os
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.create_options import Creator, TextOption, Texts
from blockemu.edge import SECTOR, Edge
from blockemu.errors import HostError, InvalidParameterValue, QmpError
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.filter import shrink
from blockemu.measuring import Measured
from blockemu.node import Flags, Limits, Node
from blockemu.optlist import SIZE_WANTED, size
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role, default_child_perm
from blockemu.probing import probe
from blockemu.records import replace
from blockemu.route import Placed, Ranges, Route
from blockemu.transaction import Transaction

T = TypeVar("T")

PROBED = SECTOR  # bytes at the beginning that must not turn into another format's magic


class OffsetBeyondEnd(QmpError):
    """(offset, file's size)."""

    template = "Offset ({}) cannot be greater than size of the containing file ({})"


class WindowBeyondEnd(QmpError):
    """(offset, size, file's size)."""

    template = (
        "The sum of offset ({}) and size ({}) has to be smaller or equal to the "
        " actual size of the containing file ({})"
    )


class SizeNotSectors(QmpError):
    """A partial sector would be rounded up, beyond the window."""

    template = "Specified size is not multiple of 512"


class FixedSize(HostError):
    """A window has the size that its options say."""

    template = "Cannot resize fixed-size raw disks"


class TooLarge(HostError):
    """The file would be larger than a file can be."""

    template = "Disk size too large for the chosen offset"


GUESSED_RAW = """\
WARNING: Image format was not specified for '{}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on \
block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions."""


class BlockdevOptionsRaw(NodeOptions, tag="raw"):
    """Options of the raw format.

    @file: the node that holds the data
    @offset: where the data begins in it
    @size: how much of it is data
    """

    file: Annotated[BlockdevRef, Role.DATA | Role.PRIMARY]
    offset: int | None = None
    size: int | None = None


class Raw(Node[BlockdevOptionsRaw]):
    """The raw format.

    Reads and writes go on at ``offset`` of the file.  With a ``size`` nothing may leave the window
    (raw_adjust_offset, block/raw-format.c).
    """

    Options = BlockdevOptionsRaw
    is_format = True
    plans_by_alignment = True
    text_options = (TextOption("size", "size", "Virtual disk size"),)
    reopen_options = frozenset({"offset", "size"})
    size_options = reopen_options
    file: Edge
    offset = 0
    size: int | None = None

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Create the file, which is all there is."""
        await creator.create_file(filename, texts)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """Be any image that is nothing else."""
        return 1

    async def open(self) -> None:
        """Check the window."""
        if self.probed:
            self.limits = Limits(request_alignment=PROBED)
            if not self.flags.read_only:
                self.services.warn(GUESSED_RAW.format(self.file.node.full_filename))
        self.offset, self.size = self._window(self.options)

    async def reopen(
        self, options: BlockdevOptionsRaw, flags: Flags, transaction: Transaction
    ) -> None:
        """Move the window."""
        window = self._window(options)

        def move() -> None:
            self.offset, self.size = window
            self.changed()

        transaction.on_commit(move)

    def _window(self, options: BlockdevOptionsRaw) -> tuple[int, int | None]:
        """Check offset and size (raw_apply_options, block/raw-format.c)."""
        offset, size = options.offset or 0, options.size
        for name, value in (("offset", offset), ("size", size or 0)):
            if value < 0:
                raise InvalidParameterValue(name, SIZE_WANTED)
        real = self.file.fresh_length()
        if offset > real:
            raise OffsetBeyondEnd(offset, real)
        if size is not None and size > real - offset:
            raise WindowBeyondEnd(offset, size, real)
        if size is not None and size % SECTOR:
            raise SizeNotSectors
        return offset, size

    @property
    def vm_state_offset(self) -> int:
        """As of the file."""
        return self.file.node.vm_state_offset

    @property
    def cluster_size(self) -> int | None:
        """The file's (raw_get_info)."""
        return self.file.node.cluster_size

    @classmethod
    async def measure(cls, texts: Texts, source: Edge | None) -> Measured:
        """Be as large as the disk."""
        wanted = size(texts.get("size", "0")) or 0
        whole = source.length if source is not None else -(-wanted // SECTOR) * SECTOR
        return Measured(whole, whole)

    @property
    def has_zero_init(self) -> bool:
        """As of the file."""
        return self.file.node.has_zero_init

    def child_role(self, name: str) -> Role:
        """Be much like a filter where the window is the whole file."""
        if self.options.offset or self.options.size is not None:
            return Role.DATA | Role.PRIMARY
        return Role.FILTERED | Role.PRIMARY

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Write and resize only if a parent does (raw_child_perm)."""
        own, shared = default_child_perm(
            role, perm, shared, writable=self.flags.writable, inactive=self.flags.inactive
        )
        more = Perm.WRITE | Perm.RESIZE
        return own & ~more | perm & more, shared

    def strong_options(self) -> dict[str, Any]:
        """Return the window."""
        return {k: self.effective[k] for k in ("offset", "size") if k in self.effective}

    def image_info(self) -> dict[str, Any]:
        """Tell what the file tells of itself."""
        info = self.file.node.image_info()
        return {k: info[k] for k in ("cluster-size", "dirty-flag") if k in info}

    @property
    def unmaps_zeroes(self) -> bool:
        """As the file."""
        return self.file is not None and self.file.node.unmaps_zeroes

    @property
    def always_allocated(self) -> bool:
        """As the file."""
        return self.file is not None and self.file.node.always_allocated

    @property
    def length(self) -> int:
        """The window's size, less if the file has shrunk."""
        rest = max(self.file.fresh_length() - self.offset, 0)
        return rest if self.size is None else min(rest, self.size)

    def route(self) -> Route:
        """Take the file's, moved."""
        route = self.file.route
        moved = route.shifted(self.offset) if self.offset else route
        if self.size is None and not self.probed:
            return moved
        return replace(
            moved,
            read=_only(self._may_read, moved.read),
            write=_only(self._may_write, moved.write),
            linear=None,
        )

    def _may_read(self, offset: int, length: int) -> bool:
        """Tell whether there is a plan: within the window, and of whole blocks if it was probed."""
        whole = not self.probed or not (offset | length) & (PROBED - 1)
        return whole and (self.size is None or offset + length <= self.size)

    def _may_write(self, offset: int, length: int) -> bool:
        return self._may_read(offset, length) and not (self.probed and offset < PROBED)

    def _at(self, offset: int, length: int, code: int) -> int:
        """Return an offset in the file; raise ``code`` if the range leaves the window."""
        if self.size is not None and offset + length > self.size:
            raise os_error(code)
        return self.offset + offset

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read from the window."""
        if self.file.node.debug is not None:
            await self.file.node.debug("read_aio")
        await self.file.pread(self._at(offset, len(buf), errno.EINVAL), buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write to the window, but not another format's magic where raw was only guessed."""
        if self.probed and offset < PROBED and len(buf):
            self._keep_raw(bytes(buf[:PROBED]))
        if self.file.node.debug is not None:
            await self.file.node.debug("write_aio")
        await self.file.pwrite(self._at(offset, len(buf), errno.ENOSPC), buf, flags)

    def _keep_raw(self, head: bytes) -> None:
        from blockemu.drivers import load_drivers  # late: that package imports this module

        if probe(head, "", load_drivers()) != self.driver:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Zero part of the window."""
        await self.file.write_zeroes(self._at(offset, length, errno.ENOSPC), length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Drop part of the window."""
        await self.file.discard(self._at(offset, length, errno.ENOSPC), length)

    async def flush(self) -> None:
        """Flush the file."""
        await self.file.flush()

    def cancel_in_flight(self) -> None:
        """Hand on to the file."""
        if self.file is not None:
            self.file.node.cancel_in_flight()

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Resize the file."""
        if self.size is not None:
            raise FixedSize(errno=errno.ENOTSUP)
        if length + self.offset > 2**63 - 1:
            raise TooLarge(errno=errno.EINVAL)
        await self.file.truncate(length + self.offset, exact=exact, prealloc=prealloc, zero=zero)

    def truncate_now(self, length: int) -> None:
        """Make the file shorter."""
        if self.size is not None:
            raise NotImplementedError
        shrink(self.file, length + self.offset)

    async def place(self, ranges: Ranges) -> Placed:
        """Place in the window."""
        if self.probed and any(offset < PROBED for offset, _ in ranges):
            raise NotImplementedError
        return await self.file.place([(self._at(*each, errno.ENOSPC), each[1]) for each in ranges])

    async def block_status(self, offset: int, length: int) -> Extents:
        """Answer for the file; what its own backing decides is data here, yet not allocated."""
        by = self.offset
        batch = await self.file.node.block_status(by + offset, length)
        status = batch.status
        if self.file.node.below is not None:
            status = status.copy()
            status[status & ALLOCATED == 0] = DATA
        return Extents(batch.start - by, status, batch.start, batch.end - by)


def _only(
    may: Callable[[int, int], bool], plan: Callable[[int, int], T] | None
) -> Callable[[int, int], T | None] | None:
    """Return a plan that does not answer for all requests."""
    if plan is None:
        return None
    return lambda offset, length: plan(offset, length) if may(offset, length) else None
