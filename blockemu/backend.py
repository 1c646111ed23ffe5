"""Backends: where exports, jobs and devices put their requests in (QEMU's BlockBackend)."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from blockemu.edge import Edge
from blockemu.node import Flags, Node, Write
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role
from blockemu.records import replace
from blockemu.route import NO_ROUTE, Route
from blockemu.stats import Stats
from blockemu.waiting import wake

if TYPE_CHECKING:
    from blockemu.throttling.group import Member, ThrottleGroup


class Backend(Edge):
    """A root edge: checks bounds, plans where it can, counts, and stands still while drained.

    It belongs to nobody's graph until ``Graph.insert`` puts it on a node.  ``in_flight`` counts
    whole requests on either path.  A user that still holds something planned when it goes back to
    the event loop (unsent windows, writes on a thread) says so with ``hold``.

    ``queues``: whether requests made while drained wait for its end; a job's do not, since the job
    itself is paused then.  ``drain_hooks`` are called with True and False when the first drained
    section begins and the last one ends.
    """

    __slots__ = (
        "_holders",
        "_idle",
        "_quiesced",
        "_resumed",
        "allow_beyond_end",
        "allow_inactivate",
        "device",
        "device_id",
        "drain_hooks",
        "error_actions",
        "in_flight",
        "io_status",
        "last_medium",
        "media_hooks",
        "plans",
        "queues",
        "removable",
        "removed_hooks",
        "reports_errors",
        "resize_hooks",
        "stats",
        "suspended",
        "throttle",
        "title",
        "tray",
        "tray_open",
        "write_cache",
    )

    def __init__(
        self,
        title: str = "",
        perm: Perm = Perm.NONE,
        shared: Perm = Perm.ALL,
        *,
        plans: bool = True,
    ) -> None:
        super().__init__("root", None, Role.NONE, perm, shared)
        self.title = title  # QEMU's BlockBackend name; empty for one that is not named
        self.device = ""  # QOM path of the device it serves
        self.device_id = ""
        self.removable = True  # unless a device says that its medium stays
        self.tray = False
        self.tray_open = False
        self.last_medium = Flags(read_only=True)  # how the next one will be opened
        self.media_hooks: list[Callable[[bool], None]] = []  # put in, or taken out
        self.reports_errors = False  # whether its device has an I/O status
        self.error_actions = ("report", "enospc")  # of reads, of writes
        self.io_status = "ok"  # or which error stopped the machine first: "failed", "nospace"
        self.plans = plans
        self.queues = True
        self.allow_beyond_end = False
        self.allow_inactivate = False  # even if it writes: a mirror's target is another machine's
        self.suspended: tuple[Perm, Perm] | None = None  # what it will take when it is active again
        self.write_cache = True  # else each write is durable before it is done
        self.throttle: Member | None = None  # limits that its requests keep to
        self.in_flight = 0
        self.stats = Stats()
        self.drain_hooks: list[Callable[[bool], None]] = []
        self.resize_hooks: list[Callable[[], None]] = []
        self.removed_hooks: list[Callable[[], object]] = []  # when the node goes from under it
        self._quiesced = 0
        self._idle: list[asyncio.Future[None]] = []
        self._resumed: list[asyncio.Future[None]] = []
        self._holders: dict[object, Callable[[], None]] = {}

    @property
    def inserted(self) -> Node[Any] | None:
        """The node, if there is one."""
        return getattr(self, "node", None)

    @property
    def has_io_status(self) -> bool:
        """Whether an error of its device may stop the machine (blk_iostatus_is_enabled)."""
        read, write = self.error_actions
        return self.reports_errors and (write in ("enospc", "stop") or read == "stop")

    def reset_io_status(self) -> None:
        """Forget the error that stopped the machine."""
        if self.has_io_status:
            self.io_status = "ok"

    def remember_medium(self) -> None:
        """Note how the node is open, for whatever takes its place (blk_update_root_state)."""
        if self.inserted is not None:
            self.last_medium = replace(self.inserted.flags)

    def describe_parent(self) -> str:
        """Name the backend or the device (after blk_root_get_parent_desc)."""
        if self.title:
            return f"block device '{self.title}'"
        return f"block device '{self.device}'" if self.device else "an unnamed block device"

    @property
    def can_be_suspended(self) -> bool:
        """Whether it may be without permissions for a while (blk_can_inactivate).

        A guest's device may, it stands still; others only if they do not write.
        """
        return bool(
            self.device or self.title or self.allow_inactivate or not self.perm & Perm.WRITES
        )

    def resized(self) -> None:
        """Tell who uses this backend."""
        for hook in self.resize_hooks:
            hook()

    # Limits

    async def limit(self, group: "ThrottleGroup | None") -> None:
        """Keep to a group's limits from now on, to none if None."""
        from blockemu.throttling.group import Member  # start-up: few have limits

        if self.throttle is not None and self.throttle.group is group:
            return
        self.quiesce()
        await self.idle()
        if self.throttle is not None:
            self.throttle.leave()
            self.throttle = None
        if group is not None:
            self.throttle = Member(group, self.forget)
            self.throttle.begin_drain()  # which the end of this one undoes
        self.resume()

    # Without waiting

    def _compile(self) -> Route:
        held = self._quiesced or not self.plans or (self.throttle and self.throttle.limited)
        return NO_ROUTE if held or self.tray_open else super()._compile()

    def check(self, offset: int, length: int) -> None:
        """Raise EIO for a request out of bounds; a file may have grown unannounced."""
        if self.inserted is None or self.tray_open:
            raise os_error(errno.ENOMEDIUM)
        if self.allow_beyond_end:
            return
        if offset < 0 or (offset + length > self.length and offset + length > self.fresh_length()):
            raise os_error(errno.EIO)

    # With waiting

    async def pread(self, offset: int, buf: bytearray | memoryview) -> None:
        """Fill ``buf``."""
        view = memoryview(buf)
        self.check(offset, len(view))
        read = self.route.read
        if read is not None and (segments := read(offset, len(view))) is not None:
            at = 0
            for leaf, host, length in segments:
                if leaf is None:
                    view[at : at + length] = bytes(length)
                elif not leaf.read_now(host, view[at : at + length]):
                    break
                at += length
            else:
                return
        await self.enter()
        try:
            if self.throttle is not None:
                await self.throttle.admit(len(view), is_write=False)
            await super().pread(offset, view)
        finally:
            self.leave()

    async def pwrite(
        self, offset: int, buf: bytes | bytearray | memoryview, flags: int = 0
    ) -> None:
        """Write ``buf``."""
        view = memoryview(buf)
        self.check(offset, len(view))
        flags |= 0 if self.write_cache else Write.FUA
        await self.enter()
        try:
            if self.throttle is not None:
                await self.throttle.admit(len(view), is_write=True)
            await super().pwrite(offset, view, flags)
            if flags & Write.FUA:
                await super().flush()
        finally:
            self.leave()

    async def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Make a range read as zeroes."""
        self.check(offset, length)
        flags |= 0 if self.write_cache else Write.FUA
        await self.enter()
        try:
            if self.throttle is not None:
                await self.throttle.admit(length, is_write=True)
            await super().write_zeroes(offset, length, flags)
            if flags & Write.FUA:
                await super().flush()
        finally:
            self.leave()

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range."""
        self.check(offset, length)
        await self.enter()
        try:
            await super().discard(offset, length)
        finally:
            self.leave()

    async def flush(self) -> None:
        """Make finished writes durable."""
        await self.enter()
        try:
            await super().flush()
        finally:
            self.leave()

    async def enter(self) -> None:
        """Count a request in, once no drained section holds it up."""
        while self._quiesced and self.queues:
            self._resumed.append(asyncio.get_running_loop().create_future())
            await self._resumed[-1]
        self.in_flight += 1

    def leave(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if not self.in_flight:
            wake(self._idle)

    # Drain

    def hold(self, holder: object, settle: Callable[[], None]) -> None:
        """Note that ``holder`` is not done with planned segments; ``settle`` hurries it."""
        self._holders[holder] = settle

    def release(self, holder: object) -> None:
        """Note that ``holder`` is done with its segments."""
        if self._holders.pop(holder, None) is not None and not self._holders:
            wake(self._idle)

    async def settle(self) -> None:
        """Wait until nothing planned is held any more."""
        for settle in list(self._holders.values()):
            settle()
        while self._holders:
            await self._wait_idle()

    def quiesce(self) -> None:
        """Let no request in until as many calls of ``resume``."""
        self._quiesced += 1
        self.forget()
        if self._quiesced == 1:
            for hook in self.drain_hooks:
                hook(True)
            if self.throttle is not None:
                self.throttle.begin_drain()

    async def idle(self) -> None:
        """Wait until no request is under way."""
        await self.settle()
        while self.in_flight:
            await self._wait_idle()

    def resume(self) -> None:
        """Undo one ``quiesce``."""
        self._quiesced -= 1
        self.forget()
        if not self._quiesced:
            if self.throttle is not None:
                self.throttle.end_drain()
            for hook in self.drain_hooks:
                hook(False)
            wake(self._resumed)

    async def _wait_idle(self) -> None:
        self._idle.append(asyncio.get_running_loop().create_future())
        await self._idle[-1]


@asynccontextmanager
async def drained(*nodes: Node[Any]) -> AsyncIterator[None]:
    """Hold off and await all requests that can reach ``nodes`` or come from them.

    After bdrv_drained_begin and bdrv_drained_end, block/io.c.  A job that stood still because of
    the section goes on before this returns; requests that it held up do in the next turn.
    """
    for node in nodes:
        node.quiesce()
    try:
        for root in {root: None for node in nodes for root in node.roots()}:
            await root.idle()
        yield
    finally:
        for node in nodes:
            node.unquiesce()


async def flush(node: Node[Any]) -> None:
    """Make a node's finished writes durable, as a parent's request would.  Raises OSError."""
    edge = Edge("flush", None, Role.NONE, Perm.NONE, Perm.ALL)
    edge.node = node
    await edge.flush()


@asynccontextmanager
async def guests_held(nodes: Iterable[Node[Any]]) -> AsyncIterator[None]:
    """Hold off the requests of devices and exports, and only these: jobs hear nothing of it.

    QEMU needs no such thing: nothing else runs while it carries out a transaction.
    """
    roots = [
        edge for node in nodes for edge in node.parents if isinstance(edge, Backend) and edge.queues
    ]
    for root in roots:
        root.quiesce()
    try:
        for root in roots:
            await root.idle()
        yield
    finally:
        for root in roots:
            root.resume()


async def drain(nodes: Iterable[Node[Any]]) -> None:
    """Bring everything to rest for a moment, as transactions begin (bdrv_drain_all).

    Jobs pause and go on in the order of the nodes that they claim.
    """
    roots = [edge for node in nodes for edge in node.parents if edge.parent is None]
    for edge in roots:
        edge.quiesce()
    try:
        for edge in roots:
            await edge.idle()
    finally:
        for edge in roots:
            edge.resume()
