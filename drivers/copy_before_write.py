"""copy-before-write: saves what a write is about to destroy to another node.

The filter behind backup jobs, and of image fleecing.  After block/copy-before-write.c.
"""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any

import numpy as np

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.copying.block_copy import DEFAULT_CLUSTER, BlockCopy
from blockemu.copying.copy_calls import Call
from blockemu.dirty import DirtyBitmap, bitmaps_of
from blockemu.edge import Edge
from blockemu.errors import MissingParameter, QmpError, Wrapped
from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO, Extents
from blockemu.filter import Filter
from blockemu.find_bitmap import find_bitmap
from blockemu.node import Node, Write
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role
from blockemu.qmp_server.qapi import U32, QEnum, Since
from blockemu.records import replace
from blockemu.requests import Request
from blockemu.route import Placed, Ranges, Route
from blockemu.schema.bitmaps import BlockDirtyBitmap

UNKNOWN_CLUSTER = (
    "The target block device doesn't provide information about the block size and it doesn't have "
    "a backing file. The default block size of {} bytes is used. If the actual block size of the "
    "target exceeds this default, the backup may be unusable"
)


class OnCbwError(QEnum):
    """Who suffers when saving the old data fails: the guest's write, or the snapshot."""

    BREAK_GUEST_WRITE = "break-guest-write"
    BREAK_SNAPSHOT = "break-snapshot"


class CopyBeforeWriteOptions(NodeOptions, tag="copy-before-write", since="6.2"):
    """Options of copy-before-write.

    @file: the node below
    @target: where old data is saved to
    @bitmap: which parts of the disk are to be saved
    @on-cbw-error: what to do when saving fails
    @cbw-timeout: seconds after which saving counts as failed, 0 for never
    """

    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    target: Annotated[BlockdevRef, Role.DATA]
    bitmap: Annotated[BlockDirtyBitmap | None, Since("7.0")] = None
    on_cbw_error: Annotated[OnCbwError | None, Since("7.1")] = None
    cbw_timeout: Annotated[U32 | None, Since("7.1")] = None


class CopyBeforeWrite(Filter[CopyBeforeWriteOptions]):
    """Lets a write through once the old data of its clusters is on the target."""

    Options = CopyBeforeWriteOptions
    can_reopen = False
    file: Edge
    target: Edge
    copier: BlockCopy
    snapshot_error = 0  # errno that broke the snapshot, if the policy is to break that

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._bitmaps: list[DirtyBitmap] = []
        self._late: set[asyncio.Task[None]] = set()  # copies that took longer than the timeout
        self._readers: dict[Request, None] = {}  # of the snapshot, where the disk still has it

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Miss the target as QAPI does, wherever the options come from (cbw_parse_options)."""
        super().read_texts(options)
        if "target" not in options:
            raise MissingParameter("target")

    async def open(self) -> None:
        """Begin with everything, or what the bitmap says, still to be saved."""
        self._policy = self.options.on_cbw_error or OnCbwError.BREAK_GUEST_WRITE
        self.timeout = self._nanoseconds(self.options.cbw_timeout or 0)  # ns; 0: none
        named = self._named_bitmap()
        size = self._cluster_size()
        # Nameless, yet queries show them: what is to be copied, what was saved, what may be read.
        for owner in (self.file.node, self, self):
            self._bitmaps.append(bitmaps_of(owner).add(None, size, enabled=False))
        to_copy, self._done, self._access = (each.bits for each in self._bitmaps)
        if named is None:
            to_copy.mark(0, to_copy.length)
        else:
            _merge(named, self._bitmaps[0])
        self._access.merge(to_copy)
        clock = self.services.clocks.realtime
        self.copier = BlockCopy(self.file, self.target, to_copy, self.pool, clock)

    def _cluster_size(self) -> int:
        """Return the bytes that are saved together (block_copy_calculate_cluster_size)."""
        target = self.target.node
        size = target.cluster_size
        if size is None and _has_backing(target):
            return DEFAULT_CLUSTER
        if size is None:
            self.services.warn(f"warning: {UNKNOWN_CLUSTER.format(DEFAULT_CLUSTER)}")
            return DEFAULT_CLUSTER
        return max(DEFAULT_CLUSTER, size)

    def _nanoseconds(self, seconds: int) -> int:
        """Return a timeout in ns, of which QEMU 7.1 and 7.2 keep 32 bits: 45 s are 2.05 s there."""
        wanted = seconds * 1_000_000_000
        return wanted if self.services.profile.version is None else wanted & 0xFFFFFFFF

    def _named_bitmap(self) -> DirtyBitmap | None:
        wanted = self.options.bitmap
        if wanted is None:
            return None
        return find_bitmap(self.services.find_node, wanted.node, wanted.name)[1]

    def gather_filename(self) -> None:
        """Show the name of what is below."""
        file = self.children.get("file")  # not there yet when the node is being made
        self.exact_filename = file.node.full_filename if file is not None else ""

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Keep others from writing to the source once there are parents (cbw_child_perm)."""
        if name == "target":
            return Perm.WRITE, Perm.ALL & ~Perm.RESIZE
        if self.parents:
            if Perm.WRITE in perm:
                perm |= Perm.CONSISTENT_READ
            shared &= ~(Perm.WRITE | Perm.RESIZE)
        return perm, shared

    def route(self) -> Route:
        """Let reads through; see each write."""
        return self.file.route.reads_only()

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Save, then write."""
        await self._save(offset, len(buf), flags)
        await self.file.pwrite(offset, buf, flags)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Save, then write zeroes."""
        await self._save(offset, length, flags)
        await self.file.write_zeroes(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Save, then discard."""
        await self._save(offset, length, 0)
        await self.file.discard(offset, length)

    async def place(self, ranges: Ranges) -> Placed:
        """Save, then let the child make room."""
        for each in ranges:
            await self._save(*each, 0)
        return await self.file.place(ranges)

    async def _save(self, offset: int, length: int, flags: int) -> None:
        if flags & Write.UNCHANGED or self.snapshot_error:
            return
        size = self.copier.cluster_size
        start, end = offset // size * size, -(-(offset + length) // size) * size
        call = Call(ignore_speed=True)
        error = await self._copy(start, end - start, call)
        if not error:
            self._done.mark(start, min(end, self._done.length) - start)
        elif self._policy is OnCbwError.BREAK_GUEST_WRITE:
            raise os_error(error)
        else:
            self.snapshot_error = self.snapshot_error or error
        while (reader := self._reader(start, end)) is not None:
            await reader.finished()

    async def _copy(self, start: int, length: int, call: Call) -> int:
        """Copy a range; return the errno of a failure, 0 if there was none."""
        if not self.timeout:
            await self.copier.copy(start, length, call)
            return call.error
        work = asyncio.ensure_future(self.copier.copy(start, length, call))
        clock = self.services.clocks.realtime
        over = asyncio.ensure_future(clock.sleep(self.timeout))
        await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            over.cancel()
            work.result()
            return call.error
        call.cancel()
        self._late.add(work)
        work.add_done_callback(self._late.discard)
        return errno.ETIMEDOUT

    # The snapshot, as snapshot-access shows it

    async def pread_snapshot(self, offset: int, buf: memoryview) -> None:
        """Read what the disk held: from the target what was saved, else from the disk itself."""
        while buf:
            edge, length = self._snapshot_part(offset, len(buf))
            with self._reading(edge, offset, len(buf)):
                await edge.pread(offset, buf[:length])
            offset, buf = offset + length, buf[length:]

    async def snapshot_status(self, offset: int, length: int) -> Extents:
        """Describe the snapshot by the one node that holds its bytes, not by what backs that."""
        edge, length = self._snapshot_part(offset, length)
        with self._reading(edge, offset, length):
            async with aclosing(edge.extents(offset, length)) as batches:
                batch = await anext(batches)
        decided = batch.status & np.uint8(DATA | ZERO) != 0
        status = np.where(decided, batch.status | np.uint8(ALLOCATED), batch.status)
        return replace(batch, status=status, host=np.full_like(batch.host, NOWHERE))

    async def discard_snapshot(self, offset: int, length: int) -> None:
        """Give whole clusters up: they can be read no more, and need not be saved."""
        size = self.copier.cluster_size
        start, end = -(-offset // size) * size, offset + length
        if end < self._access.length:
            end = end // size * size
        if start >= end:
            return
        self._access.reset(start, end - start)
        self.copier.bitmap.reset(start, end - start)
        self.copier.tell()
        await self.target.discard(start, end - start)

    def _snapshot_part(self, offset: int, length: int) -> tuple[Edge, int]:
        """Return where the snapshot lies at an offset, and for how many bytes that holds.

        EACCES if any byte of the range is not part of the snapshot, or that is broken.
        """
        if self.snapshot_error or self._access.next_zero(offset, length) is not None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        saved, length = self._done.status(offset, length)
        return (self.target if saved else self.file), length

    @contextmanager
    def _reading(self, edge: Edge, offset: int, length: int) -> Iterator[None]:
        """Keep guests from writing where the snapshot is read from the disk."""
        if edge is not self.file:
            yield
            return
        reader = Request(offset, offset + length)
        self._readers[reader] = None
        try:
            yield
        finally:
            del self._readers[reader]
            reader.finish()

    def _reader(self, start: int, end: int) -> Request | None:
        return next((r for r in self._readers if r.start < end and start < r.end), None)

    async def close(self) -> None:
        """Wait for copies that took too long."""
        if self._late:
            await asyncio.wait(self._late)
        for bitmap in self._bitmaps:
            bitmap.release()
        self._bitmaps.clear()


def _merge(named: DirtyBitmap, into: DirtyBitmap) -> None:
    try:
        into.merge(named)
    except QmpError as e:
        words = f"Failed to merge bitmap '{named.name}' to internal copy-bitmap"
        raise Wrapped("Cannot create block-copy-state", Wrapped(words, e), hint=e.hint) from e


def _has_backing(node: Node[Any]) -> bool:
    """Tell whether an image, looked at through filters, has a backing file."""
    while node.filtered is not None:
        node = node.filtered.node
    return node.backing is not None
