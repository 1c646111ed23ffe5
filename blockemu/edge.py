"""Edges: the only way to a node (QEMU's BdrvChild).

An edge checks permission, keeps requests within the driver's limits, lets overlapping ones wait
for each other, marks dirty bitmaps, and emulates what a driver lacks.  Requests of other nodes
come in through inner edges; a root edge (``parent`` None) is where requests enter the graph.
"""

import errno
import os
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

from blockemu.errors import BeyondMaximum, CannotResize, ReadOnlyImage
from blockemu.extents import Extents
from blockemu.node import DebugEvent, Node, Write
from blockemu.os_errors import os_error
from blockemu.padding import read_ends
from blockemu.perm import Perm, Role
from blockemu.records import replace
from blockemu.requests import Request, is_zero, split
from blockemu.route import NO_ROUTE, Placed, Ranges, Route

SECTOR = 512
MAX_LENGTH = (2**63 - 1) // 2**30 * 2**30  # bytes: BDRV_MAX_LENGTH
BOUNCE = 1 << 20  # bytes of zeroes written at once where a driver cannot write zeroes
_ZEROES = bytes(BOUNCE)


class Edge:
    """A parent's way to one node."""

    __slots__ = (
        "_length",
        "_perm",
        "_route",
        "can_write",
        "drains",
        "frozen",
        "name",
        "node",
        "parent",
        "role",
        "shared",
    )

    node: Node[Any]
    stays_at_node: ClassVar[bool] = False  # not moved when the node is replaced by another

    def __init__(
        self,
        name: str,
        parent: Node[Any] | None,
        role: Role,
        perm: Perm = Perm.NONE,
        shared: Perm = Perm.ALL,
    ) -> None:
        self.name = name
        self.parent = parent
        self.role = role
        self.shared = shared
        self.frozen = False
        self.drains = 0  # drained sections that the parent is in because of this child
        self._route: Route | None = None
        self._length: int | None = None
        self.perm = perm

    @property
    def perm(self) -> Perm:
        """What the parent may do."""
        return self._perm

    @perm.setter
    def perm(self, perm: Perm) -> None:
        self._perm = perm
        self.can_write = bool(perm & Perm.WRITES)
        self._route = None

    def describe_parent(self) -> str:
        """Return the words for this edge's owner in errors (after bdrv_child_user_desc)."""
        return f"node '{self.parent.name}'" if self.parent is not None else "another user"

    # Without waiting

    @property
    def route(self) -> Route:
        """How to reach the bytes as things stand; do not keep it over an await."""
        if self._route is None:
            self._route = self._compile()
        return self._route

    @property
    def length(self) -> int:
        """The node's size in bytes, whole sectors, as of the last change it told of.

        Whoever finds a request beyond it asks ``fresh_length`` before refusing: a file may have
        grown by a write beyond its end, which is not told.
        """
        if self._length is None:
            self._length = -(-self.node.length // SECTOR) * SECTOR
        return self._length

    def fresh_length(self) -> int:
        """Ask the node for its size, in whole sectors."""
        self._length = None
        return self.length

    def forget(self) -> None:
        """Drop the route and the length, and what the edges above built on them."""
        self._route = self._length = None
        if self.parent is not None:
            self.parent.changed()

    def _compile(self) -> Route:
        node = self.node
        unaligned = node.limits.request_alignment > 1 and not node.plans_by_alignment
        if node.tracker.serialising or unaligned:
            return NO_ROUTE
        route = node.route()
        plain = not (node.before_write or node.write_threshold)
        plain = plain and node.flags.detect_zeroes == "off"
        if not plain or Perm.WRITE not in self._perm:
            route = replace(route, write=None)
        own = tuple((bitmap, 0) for bitmap in node.bitmaps if bitmap.enabled)
        return replace(route, marks=own + route.marks, heights=((node, 0), *route.heights))

    # Drained sections: roots hold requests up, inner edges pass the word on

    def begin_drain(self) -> None:
        """Let the parent know that the node is being drained."""
        self.drains += 1
        if self.parent is not None:
            self.parent.quiesce()
        else:
            self.quiesce()

    def end_drain(self) -> None:
        """Let the parent know that one drained section is over."""
        self.drains -= 1
        if self.parent is not None:
            self.parent.unquiesce()
        else:
            self.resume()

    def match_drains(self, wanted: int) -> None:
        """Bring the parent into as many drained sections as the node at this edge is in."""
        while self.drains < wanted:
            self.begin_drain()
        while self.drains > wanted:
            self.end_drain()

    async def settle(self) -> None:
        """Wait until no request that was planned from here is under way."""

    def quiesce(self) -> None:
        """Let no new request in until ``resume``."""

    async def idle(self) -> None:
        """Wait until no request is under way."""

    def resume(self) -> None:
        """Undo one ``quiesce``."""

    def resized(self) -> None:
        """Hear that the node has a new size."""

    # With waiting

    async def pread(self, offset: int, buf: bytearray | memoryview) -> None:
        """Fill ``buf`` from ``offset``.  No permission is needed for that, only to rely on it."""
        node, view = self.node, memoryview(buf)
        align, most = node.limits.request_alignment, node.limits.max_transfer
        if align > 1 and (offset | len(view)) & (align - 1):
            start, end = offset & -align, -(-(offset + len(view)) // align) * align
            bounce = memoryview(bytearray(end - start))
            await Edge.pread(self, start, bounce)  # for a root, it is let in already
            view[:] = bounce[offset - start :][: len(view)]
            return
        request = Request(offset, offset + len(view))
        blocked = node.tracker.enter(request)
        try:
            if blocked:
                await node.tracker.turn(request)
            if len(view) <= most:
                await node.pread(offset, view)
            else:
                for at in range(0, len(view), most):
                    await node.pread(offset + at, view[at : at + most])
        finally:
            node.tracker.end(request)

    async def pwrite(
        self, offset: int, buf: bytes | bytearray | memoryview, flags: int = 0
    ) -> None:
        """Write ``buf`` at ``offset``."""
        node, view = self.node, memoryview(buf)
        align, most = node.limits.request_alignment, node.limits.max_transfer
        if node.flags.detect_zeroes != "off" and is_zero(view):
            unmap = Write.MAY_UNMAP if node.flags.detect_zeroes == "unmap" else 0
            await self.write_zeroes(offset, len(view), flags | unmap)
            return
        if align > 1 and (offset | len(view)) & (align - 1):
            await self._write_unaligned(offset, view, flags, align)
            return
        serialise = bool(flags & Write.SERIALISING)
        flags &= ~Write.SERIALISING  # the driver's own requests need not be
        watched = node.before_write or node.write_threshold
        if self.can_write and not (watched or node.tracker.serialising or serialise):
            node.tracker.enter(request := Request(offset, offset + len(view)))
        else:
            request = await self._begin_write(offset, len(view), serialise)
        try:
            if flags & Write.COMPRESSED:
                await self._write_compressed(offset, view)
                return
            if node.debug is not None:
                await node.debug("pwritev")
            if len(view) <= most:
                await node.pwrite(offset, view, flags)
            else:
                for at in range(0, len(view), most):
                    await node.pwrite(offset + at, view[at : at + most], flags)
        finally:
            await self._done(request, flags)

    async def _write_compressed(self, offset: int, view: memoryview) -> None:
        """Have the driver compress, as part of a request that is begun already."""
        try:
            await self.node.pwrite_compressed(offset, view)
        except NotImplementedError:
            raise os_error(errno.ENOTSUP) from None

    async def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Make a range read as zeroes, by writing them if the driver cannot.

        What is not aligned to the driver's blocks at either end is read, changed and written (after
        bdrv_co_do_zero_pwritev, block/io.c).
        """
        node = self.node
        flags &= ~Write.COMPRESSED
        if self.parent is not None and not node.flags.unmap:
            flags &= ~Write.MAY_UNMAP  # roots may say so whatever the node's options are
        align = node.limits.request_alignment
        end = offset + length
        parts = split(offset, length, align, 0)
        if len(parts) == 2 and offset % align and end % align:  # the two blocks go together
            parts = [(offset, length)]
        for start, size in parts:
            if (start | size) & (align - 1):
                zeroes = memoryview(bytes(size))
                await self._write_unaligned(start, zeroes, flags & ~Write.MAY_UNMAP, align)
            else:
                await self._zero(start, size, flags)

    async def _zero(self, offset: int, length: int, flags: int) -> None:
        """Zero a range of whole blocks as one request (after bdrv_co_do_pwrite_zeroes)."""
        node, limits = self.node, self.node.limits
        serialise, no_wait = bool(flags & Write.SERIALISING), bool(flags & Write.NO_WAIT)
        request = await self._begin_write(offset, length, serialise, no_wait=no_wait)
        flags &= ~(Write.SERIALISING | Write.NO_WAIT)
        align = max(limits.write_zeroes_alignment, limits.request_alignment)
        try:
            if node.debug is not None:
                await node.debug("pwritev_zero")
            for start, size in split(offset, length, align, limits.max_write_zeroes):
                try:
                    await node.write_zeroes(start, size, flags)
                except (NotImplementedError, OSError) as e:
                    if isinstance(e, OSError) and e.errno != errno.ENOTSUP:
                        raise
                    if flags & Write.NO_FALLBACK:
                        raise os_error(errno.ENOTSUP) from None
                    await self._write_zero_bytes(start, size, flags & ~Write.MAY_UNMAP)
        finally:
            await self._done(request, flags)

    async def _done(self, request: Request, flags: int) -> None:
        """Tell that a write is over, and end it whatever comes of that."""
        try:
            if self.node.debug is not None:
                await self.node.debug("pwritev_done")
        finally:
            self._end_write(request, flags)
            self._wrote(request)

    async def _write_zero_bytes(self, offset: int, length: int, flags: int) -> None:
        """Write buffers of zeroes, as part of a request that is begun already."""
        node = self.node
        most = min(BOUNCE, node.limits.max_transfer)
        for at in range(0, length, most):
            part = memoryview(_ZEROES)[: min(most, length - at)]
            await node.pwrite(offset + at, part, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range, as far as the node was opened for that and can (bdrv_co_pdiscard)."""
        node = self.node
        if not length or not node.flags.unmap or type(node).discard is Node.discard:
            return
        request = await self._begin_write(offset, length)
        try:
            align = max(node.limits.discard_alignment, node.limits.request_alignment)
            for start, size in split(offset, length, align, node.limits.max_discard):
                try:
                    await node.discard(start, size)
                except NotImplementedError:
                    continue
                except OSError as e:
                    if e.errno != errno.ENOTSUP:
                        raise
        finally:
            self._end_write(request, 0)

    async def flush(self) -> None:
        """Make finished writes durable, unless the node was opened to ignore that."""
        node = self.node
        child = node.primary
        if child is not None and child.node.debug is not None and not node.flags.read_only:
            await self._flush_in_steps(child.node.debug)
        elif node.children or not node.flags.no_flush:
            await node.flush()

    async def _flush_in_steps(self, debug: DebugEvent) -> None:
        """Flush, and tell when what begins (after bdrv_co_flush, block/io.c)."""
        node, writes = self.node, self.node.writes
        await debug("flush_to_os")
        await node.flush_to_os()
        if not node.flags.no_flush and node.flushed != writes:
            await debug("flush_to_disk")
        await node.flush()
        node.flushed = writes

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Change the node's size.

        What is new reads as zeroes if a backing file would show through.  After bdrv_co_truncate,
        block/io.c.

        Raises:
            HostError: where QEMU has words for what is wrong; OSError otherwise.

        """
        if Perm.RESIZE not in self.perm:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        node = self.node
        if length > MAX_LENGTH:
            raise BeyondMaximum(length, MAX_LENGTH, errno=errno.EFBIG)
        if node.flags.read_only:
            raise ReadOnlyImage(errno=errno.EACCES)
        old = self.fresh_length()
        if length > old and node.backing is not None and not node.is_filter:
            zero = zero or node.backing.fresh_length() > old
        start, end = (old, length) if length > old else (length, old)
        request = await self.begin(start, end, serialising=end > old)
        try:
            await node.truncate(length, exact=exact, prealloc=prealloc, zero=zero)
        except NotImplementedError:
            raise CannotResize(errno=errno.ENOTSUP) from None
        finally:
            node.tracker.end(request)
            node.changed()
        self.fresh_length()
        for heard in node.on_resize:
            heard(self.fresh_length())
        for edge in list(node.parents):
            edge.resized()

    async def place(self, ranges: Ranges) -> Placed:
        """Say where writes shall go; the bitmaps are set when they are committed."""
        node = self.node
        if node.limits.request_alignment > 1 or node.flags.detect_zeroes != "off":
            raise NotImplementedError
        requests: list[Request] = []
        try:
            for each in ranges:
                request = await self._begin_write(*each)
                requests.append(request)
            segments, inner = await node.place(ranges)
        except BaseException:
            for request in requests:
                node.tracker.end(request)
            raise

        def commit(good: bool) -> None:
            if inner is not None:
                inner(good)
            for request in requests:
                self._end_write(request, 0)
                self._wrote(request)

        return segments, commit

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extents, None]:
        """Describe a range by this node alone, batch by batch, clipped to it."""
        end = offset + length
        while offset < end:
            batch = await self.node.block_status(offset, end - offset)
            if batch.end > end or batch.start[0] < offset:
                batch = batch.clip(offset, min(batch.end, end))
            yield batch
            offset = batch.end

    # Both

    async def begin(
        self, start: int, end: int, serialising: bool = False, *, no_wait: bool = False
    ) -> Request:
        """Enter a request and wait for those before it that it must not run beside.

        With ``no_wait`` EBUSY is raised instead.
        """
        node = self.node
        request = Request(start, end, serialising)
        blocked = node.tracker.enter(request)
        try:
            if serialising:
                node.changed()  # no more plans
            if blocked and no_wait:
                raise os_error(errno.EBUSY)
            if blocked:
                await node.tracker.turn(request)
            for root in list(node.roots()) if serialising else ():
                await root.settle()  # those under way come to their end
        except BaseException:
            node.tracker.end(request)
            raise
        return request

    async def _begin_write(
        self, offset: int, length: int, serialising: bool = False, *, no_wait: bool = False
    ) -> Request:
        if not self.can_write:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        request = await self.begin(offset, offset + length, serialising, no_wait=no_wait)
        if 0 < self.node.write_threshold < request.end:
            self._pass_threshold(request.end)
        try:
            for hook in self.node.before_write:
                await hook(offset, length)
        except BaseException:
            self.node.tracker.end(request)
            raise
        return request

    def _pass_threshold(self, end: int) -> None:
        """Report a write that goes beyond the threshold, which is no more (write-threshold.c)."""
        from blockemu.schema.io_events import BlockWriteThreshold  # start-up: seldom asked for

        node, threshold = self.node, self.node.write_threshold
        node.write_threshold = 0
        node.changed()
        node.services.emit(
            BlockWriteThreshold(
                node_name=node.name, amount_exceeded=end - threshold, write_threshold=threshold
            )
        )

    def _end_write(self, request: Request, flags: int) -> None:
        self.node.writes += 1
        if request.end > self.length:
            self._grown()
        if not flags & Write.UNCHANGED:
            for bitmap in self.node.bitmaps:
                if bitmap.enabled and request.start < self.length:
                    bitmap.mark(request.start, min(request.end, self.length) - request.start)
        self.node.tracker.end(request)
        if request.serialising:
            self.node.changed()

    def _wrote(self, request: Request) -> None:
        """Note how far was written; a discard does not count."""
        if request.end > self.node.highest_written:
            self.node.highest_written = request.end

    def _grown(self) -> None:
        """Let all know if a write beyond the end made the node longer."""
        old = self.length
        if self.fresh_length() == old:
            return  # known already, or padding of the last block, or a write that failed
        self.node.changed()
        for heard in self.node.on_resize:
            heard(self.fresh_length())

    async def _write_unaligned(self, offset: int, view: memoryview, flags: int, align: int) -> None:
        node, most = self.node, self.node.limits.max_transfer
        start, end = offset & -align, -(-(offset + len(view)) // align) * align
        bounce = memoryview(bytearray(end - start))
        request = await self._begin_write(start, end - start, serialising=True)
        try:
            await read_ends(node, start, bounce, offset - start, end - offset - len(view))
            bounce[offset - start :][: len(view)] = view
            if node.debug is not None:
                await node.debug("pwritev")
            for at in range(0, len(bounce), most):
                await node.pwrite(start + at, bounce[at : at + most], flags & ~Write.SERIALISING)
        finally:
            await self._done(request, flags)
