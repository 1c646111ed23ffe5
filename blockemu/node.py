"""Nodes: what a block driver is.

A driver is a ``Node`` subclass and an options class in one file under ``drivers/``.  A node is
reached only through its parents' edges (``blockemu.edge``), which check, align, split and emulate.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, get_origin

from blockemu.blockdev_options import NodeOptions
from blockemu.create_options import Creatable
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.optlist import read_size
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role, default_child_perm
from blockemu.qmp_server.qapi import members
from blockemu.records import record
from blockemu.requests import Tracker
from blockemu.route import NO_ROUTE, Marks, Placed, Ranges, Route
from blockemu.services import Services
from blockemu.snapshotting import Snapshotting

if TYPE_CHECKING:
    from blockemu.check import CheckResult
    from blockemu.dirty import BitmapSet
    from blockemu.edge import Edge
    from blockemu.transaction import Transaction


class Write:
    """Flags of a write: plain ints, since enum.Flag costs half a microsecond an operation."""

    NONE: Final = 0
    FUA: Final = 1  # durable before the request completes
    MAY_UNMAP: Final = 2  # zeroes may be made by dropping what is there
    NO_FALLBACK: Final = 4  # fail with ENOTSUP rather than write zeroes from a buffer
    SERIALISING: Final = 16  # nothing that overlaps may run beside it
    COMPRESSED: Final = 32  # compress; the driver may insist on whole clusters not yet in use
    NO_WAIT: Final = 64  # with SERIALISING: fail with EBUSY rather than wait for another request
    UNCHANGED: Final = 8  # the guest's view stays: needs WRITE_UNCHANGED only, marks no bitmap


@record(frozen=True)
class Limits:
    """The sizes a driver copes with, in bytes; the edge splits and pads requests to fit.

    0 means no wish.  ``opt_transfer`` and ``min_alignment`` are hints.
    """

    request_alignment: int = 1
    max_transfer: int = 1 << 31
    opt_transfer: int = 0
    write_zeroes_alignment: int = 0
    max_write_zeroes: int = 0
    discard_alignment: int = 0
    max_discard: int = 0
    min_alignment: int = 1


@record
class Flags:
    """How a node was opened; what its children's defaults are taken from."""

    read_only: bool = False
    auto_read_only: bool = False
    force_share: bool = False
    direct: bool = False
    no_flush: bool = False
    unmap: bool = False  # pass discards on
    detect_zeroes: str = "off"
    no_backing: bool = False
    no_io: bool = False
    inactive: bool = False  # another machine may have the image (BDRV_O_INACTIVE)
    check: bool = False  # to be checked: what cannot be used may be opened all the same

    @property
    def writable(self) -> bool:
        """Whether the node may be written to as things stand (bdrv_is_writable)."""
        return not (self.read_only or self.inactive)


O = TypeVar("O", bound=NodeOptions)  # noqa: E741
BeforeWrite = Callable[[int, int], Awaitable[None]]
DebugEvent = Callable[[str], Awaitable[None]]


@record(frozen=True)
class Blocker:
    """A reason why a node may not be used for some things (after bdrv_op_block, block.c)."""

    reason: str
    allowed: frozenset[str] = frozenset()  # operations that are allowed all the same


class Node(Creatable, Snapshotting, ABC, Generic[O]):
    """A block driver's instance: subclass it in ``drivers/NAME.py`` and it is known.

    Requests reach a driver aligned and split to ``limits``, and inside ``length`` unless the parent
    may resize; it raises OSError to fail one.  ``NotImplementedError`` from an optional request
    makes the edge emulate it.  A driver whose data can be located without waiting also says so in
    ``route``; what ``route`` answers and what the coroutines do must agree byte for byte.
    """

    Options: ClassVar[type[NodeOptions]]
    is_filter: ClassVar[bool] = False  # shows its one child's data unchanged
    is_format: ClassVar[bool] = False  # interprets its file child's bytes
    plans_by_alignment: ClassVar[bool] = False  # its route has no plan for what is not aligned
    is_protocol: ClassVar[bool] = False  # reaches storage itself, has no file child
    supports_backing: ClassVar[bool] = False
    needs_filename: ClassVar[bool] = False
    protocols: ClassVar[tuple[str, ...]] = ()  # "nbd" for nbd:…; file needs none
    has_dirname: ClassVar[bool] = True  # whether its primary child's folder is its own
    can_reopen: ClassVar[bool] = True
    migratable: ClassVar[bool] = True  # another machine sees at once what this one has written
    reopen_options: ClassVar[frozenset[str]] = frozenset()  # driver options that may change
    kept_options: ClassVar[frozenset[str]] = frozenset()  # of those, what must be said again
    late_children: ClassVar[frozenset[str]] = frozenset()  # ``open`` opens them: ``said_late``
    size_options: ClassVar[frozenset[str]] = frozenset()  # numbers of bytes: as text, with suffix
    file: "Edge | None" = None
    backing: "Edge | None" = None
    debug: "DebugEvent | None" = None  # blkdebug's: tell it what requests from above come by
    storing_bitmaps = False  # whether it is writing its bitmaps to its image
    writes = 0  # requests that changed something, without those that were planned
    flushed = 0  # how many of them are on disk, where the child's ``debug`` is told of flushes

    def __init__(
        self, name: str, driver: str, options: O, flags: Flags, services: Services
    ) -> None:
        self.name = name
        self.driver = driver
        self.options = options
        self.flags = flags
        self.services = services
        self.pool = services.pool
        self.limits = Limits()
        self.children: dict[str, Edge] = {}
        self.parents: list[Edge] = []
        self.tracker = Tracker()
        self.bitmaps: list[Marks] = []  # what writes are to be marked in
        self.bitmap_set: BitmapSet | None = None  # the named ones; made when the first is added
        self.before_write: list[BeforeWrite] = []
        self.on_resize: list[Callable[[int], None]] = []
        self.blockers: list[Blocker] = []
        self.write_threshold = 0
        self.highest_written = 0  # end of the last byte ever written
        self.quiesce_counter = 0  # drained sections that this node is in
        self.monitor_owned = False
        self.holds = 0  # references besides parents and the monitor
        self.implicit = False  # a filter that QEMU put in by itself
        self.never_frozen = False  # a job's filter, which that job must be able to take out
        self.probed = False
        self.inherits_from: Node[Any] | None = None
        self.said_late: dict[str, str | dict[str, Any]] = {}  # of ``late_children``
        self.explicit: dict[str, Any] = {}  # options as the user gave them, without children
        self.effective: dict[str, Any] = {}  # the same with what was inherited
        self.backing_file: str | None = None  # as the image's header says
        self.backing_format: str | None = None
        self.auto_backing: str | None = None  # file name of the backing node opened from the header
        self.exact_filename = ""
        self.full_filename = ""
        self.full_options: dict[str, Any] = {}

    # Control path: errors are QmpError, or FormatError from ``images``, or OSError

    async def open(self) -> None:
        """Make the node ready.  The children that options name are attached already.

        The backing child is not: it is opened afterwards, from the options or from the
        ``backing_file`` and ``backing_format`` that this leaves.
        """

    async def close(self) -> None:
        """Release what ``open`` took; nothing is in flight and children are still attached."""

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Turn options that came as text, by a command line or a file name, into what they mean.

        In place, where QAPI's own reading of text would not do: QEMU's drivers take sizes with
        suffixes there (QEMU_OPT_SIZE), which QMP does not.

        Raises:
            QmpError: a text makes no sense.

        """
        for name in cls.size_options:
            text = options.get(name)
            if isinstance(text, str):
                options[name] = read_size(name, text)

    @classmethod
    def join_options(cls, options: dict[str, Any], old: dict[str, Any]) -> None:
        """Add old options to the new ones of a reopen, flat both (bdrv_join_options)."""
        for name, value in old.items():
            options.setdefault(name, value)

    def child_role(self, name: str) -> Role:
        """Return the role of a child, as its option declares it."""
        hint = members(type(self.options))[name.partition(".")[0]][1]
        return next(m for m in hint.__metadata__ if isinstance(m, Role))

    @classmethod
    def child_lists(cls) -> list[str]:
        """Return the options that define any number of children: ``NAME.0``, ``NAME.1``, ..."""
        hints = members(cls.Options)
        return [name for name in cls.child_names() if get_origin(hints[name][1].__origin__) is list]

    @classmethod
    def child_names(cls) -> list[str]:
        """Return the options that define children."""
        return [
            name
            for name, (_, hint) in members(cls.Options).items()
            if any(isinstance(m, Role) for m in getattr(hint, "__metadata__", ()))
        ]

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Return what this node needs of a child and shares on it, given its parents' wishes."""
        return default_child_perm(
            role, perm, shared, writable=self.flags.writable, inactive=self.flags.inactive
        )

    def set_perm(self, perm: Perm, shared: Perm, transaction: "Transaction") -> None:
        """Take note of what all parents together may do and share; lock files, and the like.

        Raises QmpError if that cannot be; what was done is undone by ``transaction``.
        """

    async def reopen(self, options: O, flags: Flags, transaction: "Transaction") -> None:
        """Check and prepare new options; ``transaction`` makes them final or takes them back."""

    async def reopened(self) -> None:
        """Hear that a reopen is done, of all nodes that took part; what fails now is told only."""

    async def inactivate(self) -> None:
        """Write back what changed: another machine is about to use the image (bdrv_inactivate).

        Nothing is in flight.  OSError keeps it from being used.
        """

    async def activate(self) -> None:
        """Read anew what another machine may have changed (bdrv_co_invalidate_cache).

        Raises QmpError or FormatError.
        """

    def cancel_in_flight(self) -> None:
        """Have requests that wait for what may not come fail now (bdrv_cancel_in_flight)."""
        for edge in self.children.values():
            edge.node.cancel_in_flight()

    async def change_backing_file(self, filename: str | None, fmt: str | None) -> None:
        """Write another backing file name into the header; NotImplementedError: no such format."""
        raise NotImplementedError

    async def check(self, fix: int) -> "CheckResult":
        """Check the image, and repair what ``fix`` (see ``blockemu.check.Fix``) says.

        Nothing may be in flight.  ``NotImplementedError``: the format has no checks.

        Raises:
            OSError: the check could not be carried on.

        """
        raise NotImplementedError

    async def materialise(self) -> None:
        """Make storage look as if nothing of the work on it had been put off."""

    def gather_filename(self) -> None:
        """Set ``exact_filename`` from the options, if they can be said by one plain name."""
        name = getattr(self.options, "filename", None)
        self.exact_filename = name or ""

    def strong_options(self) -> dict[str, Any]:
        """Return the driver's own options that change what the guest sees, for json: names."""
        return {}

    def child_options(self, *, overridden: bool) -> dict[str, Any]:
        """Return what opens the children, for json: names; the newest comes first, as in QEMU.

        Without the backing file, unless it is another than the image says: then it is
        ``overridden``.
        """
        return {
            edge.name: edge.node.full_options
            for edge in reversed(self.children.values())
            if edge is not self.backing or overridden
        }

    def can_replace(self, goal: "Node[Any]") -> bool:
        """Tell whether a node with this one's data may take the place of ``goal``, here or below.

        That is so where it makes no difference to anybody (bdrv_recurse_can_replace, block.c).
        """
        filtered = self.filtered
        return goal is self or (filtered is not None and filtered.node.can_replace(goal))

    def specific_info(self) -> Any:
        """Return ImageInfoSpecific as a struct, None if there is nothing to tell."""
        return None

    def image_info(self) -> dict[str, Any]:
        """Return more members of ImageInfo: cluster-size, encrypted, dirty-flag, ..."""
        return {}

    @property
    def title(self) -> str:
        """The name of a backend on it, or else its own: how messages call it."""
        titles = (getattr(edge, "title", "") for edge in self.parents)
        return next((title for title in titles if title), self.name)

    @property
    def cluster_size(self) -> int | None:
        """Bytes of the natural unit, 0 if there is none, None if unknown (bdrv_get_info)."""
        return self.filtered.node.cluster_size if self.filtered is not None else None

    @property
    def vm_state_offset(self) -> int:
        """Where a machine's state would be stored, beyond the disk's end; 0 if nowhere."""
        return self.filtered.node.vm_state_offset if self.filtered is not None else 0

    @property
    def has_zero_init(self) -> bool:
        """Whether what was never written reads as zeroes in a new image (bdrv_has_zero_init)."""
        return self.filtered is not None and self.filtered.node.has_zero_init

    @property
    def unmaps_zeroes(self) -> bool:
        """Whether zeroes can be made by dropping what is there (BDRV_REQ_MAY_UNMAP)."""
        return self.filtered is not None and self.filtered.node.unmaps_zeroes

    @property
    def always_allocated(self) -> bool:
        """Whether each byte counts as allocated here, data or not, so that nobody need look."""
        return False

    @property
    def can_compress(self) -> bool:
        """Whether compressed writes are possible (after bdrv_supports_compressed_writes)."""
        if type(self).pwrite_compressed is Node.pwrite_compressed:
            return False
        return self.filtered is None or self.filtered.node.can_compress

    @property
    def supports_bitmaps(self) -> bool:
        """Whether the image can store bitmaps."""
        return False

    def driver_stats(self) -> Any:
        """Return BlockStatsSpecific as a struct, None if there are none."""
        return None

    def allocated_size(self) -> int | None:
        """Return the bytes taken on the host, None if unknown."""
        if self.is_protocol:
            return None
        if (filtered := self.filtered) is not None:
            return filtered.node.allocated_size()  # not what else it has, such as a target
        storage = [edge for edge in self.children.values() if not edge.role & Role.COW]
        sizes = [edge.node.allocated_size() for edge in storage]
        return sum(s for s in sizes if s is not None) if all(s is not None for s in sizes) else None

    # Bookkeeping

    def changed(self) -> None:
        """Forget the routes and lengths that parents worked out.

        To be called, before the next await, whenever what ``route`` or ``length`` answered may be
        different now: a child replaced, a bitmap added, a filter's rule set, the size changed.
        """
        for edge in self.parents:
            edge.forget()

    def add_bitmap(self, bitmap: Marks) -> None:
        """Let ``bitmap`` record writes from now on; nothing may be in flight."""
        self.bitmaps.append(bitmap)
        self.changed()

    def remove_bitmap(self, bitmap: Marks) -> None:
        """Stop recording; nothing may be in flight."""
        self.bitmaps.remove(bitmap)
        self.changed()

    def roots(self) -> "Iterator[Edge]":
        """Yield the edges by which requests enter the graph above this node."""
        for edge in self.parents:
            if edge.parent is None:
                yield edge
            else:
                yield from edge.parent.roots()

    def quiesce(self) -> None:
        """Begin a drained section for this node and all above it; see ``backend.drained``."""
        self.quiesce_counter += 1
        for edge in list(self.parents):
            edge.begin_drain()

    def unquiesce(self) -> None:
        """End a drained section."""
        self.quiesce_counter -= 1
        for edge in list(self.parents):
            edge.end_drain()

    def cumulative_perm(self) -> tuple[Perm, Perm]:
        """Return what all parents together may do, and what all of them share."""
        perm, shared = Perm.NONE, Perm.ALL
        for edge in self.parents:
            perm |= edge.perm
            shared &= edge.shared
        return perm, shared

    @property
    def primary(self) -> "Edge | None":
        """The child whose data this node shows: the filtered or the file child."""
        return next((e for e in self.children.values() if e.role & Role.PRIMARY), None)

    @property
    def filtered(self) -> "Edge | None":
        """The child of a filter."""
        return self.primary if self.is_filter else None

    @property
    def below(self) -> "Edge | None":
        """The child that decides about what this node has not allocated."""
        return self.filtered or self.backing

    # Data path, without waiting

    def route(self) -> Route:
        """Return how a parent can reach the bytes without asking this node; built on children's."""
        return NO_ROUTE

    # Data path

    @property
    @abstractmethod
    def length(self) -> int:
        """The size in bytes."""

    @abstractmethod
    async def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``."""

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write ``buf`` at ``offset``."""
        raise os_error(errno.EACCES)

    async def pwrite_compressed(self, offset: int, buf: memoryview) -> None:
        """Write ``buf`` compressed; not split to ``limits``."""
        raise NotImplementedError

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Make a range read as zeroes, without a buffer."""
        raise NotImplementedError

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range; what it reads as is undefined."""

    async def flush(self) -> None:
        """Make finished writes durable."""

    async def flush_to_os(self) -> None:
        """Write to the children what is kept in memory; asked for where events must be in order."""

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Change the size to ``length`` bytes (``zero``: what is new must read as zeroes)."""
        raise NotImplementedError

    def truncate_now(self, length: int) -> None:
        """Make the node shorter without waiting; nothing is in flight.

        ``NotImplementedError``: it cannot, or not without waiting.
        """
        raise NotImplementedError

    async def make_empty(self) -> None:
        """Drop all that this image holds, so that its backing file shows; nothing is in flight.

        ``NotImplementedError``: the format cannot.
        """
        raise NotImplementedError

    async def place(self, ranges: Ranges) -> Placed:
        """Say where a write of whole ranges shall go, making room for all of them or none.

        The ranges are in order, and no two have a part of one cluster.
        The caller writes the segments, in order, by whatever means and then calls the commit, if
        there is one, with whether all went well.  ``NotImplementedError``: only ``pwrite`` can.
        """
        raise NotImplementedError

    async def block_status(self, offset: int, length: int) -> Extents:
        """Describe what follows ``offset``: all runs that one bounded step finds, at least one."""
        return Extents.one(offset, length, DATA | ALLOCATED)
