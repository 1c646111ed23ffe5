"""copy-on-read: keeps what was read from the backing chain.  After block/copy-on-read.c."""

from typing import Annotated, Any

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.chain import freeze, unfreeze
from blockemu.copying.copy_on_read import populate
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED
from blockemu.filter import Filter
from blockemu.node import Node, Write
from blockemu.perm import Perm, Role
from blockemu.qmp_server.qapi import Since
from blockemu.records import replace
from blockemu.route import Route
from blockemu.walk import allocated_above

_PASSED = Perm.CONSISTENT_READ | Perm.WRITE | Perm.RESIZE


class CopyOnReadOptions(NodeOptions, tag="copy-on-read", since="3.0"):
    """Options of copy-on-read.

    @file: the node below
    @bottom: only what this node and those above it have is copied
    """

    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    bottom: Annotated[str | None, Since("6.0")] = None


class NoBottom(QmpError):
    """There is no such node."""

    template = "Bottom node '{}' not found"


class BottomIsFilter(QmpError):
    """Filters hold no data of their own."""

    template = "Bottom node '{}' is a filter"


class CopyOnRead(Filter[CopyOnReadOptions]):
    """Fetches into the image below what reads find in its backing chain."""

    Options = CopyOnReadOptions
    keeps_size = False
    can_reopen = False
    file: Edge
    bottom: Node[Any] | None = None

    async def open(self) -> None:
        """Keep the chain down to the bottom as it is."""
        name = self.options.bottom
        if name is None:
            return
        try:
            bottom = self.services.find_node(name)
        except QmpError:
            raise NoBottom(name) from None
        if bottom.name != name:
            raise NoBottom(name)
        if bottom.is_filter:
            raise BottomIsFilter(name)
        freeze(self, bottom)
        bottom.holds += 1
        self.bottom = bottom

    def thaw(self) -> None:
        """Let the chain be changed again."""
        if self.bottom is not None:
            unfreeze(self, self.bottom)
            self.bottom.holds -= 1
            self.bottom = None

    async def close(self) -> None:
        """Let go of the chain."""
        self.thaw()

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Write what does not change anything (cor_child_perm)."""
        needed = perm & _PASSED
        if not self.flags.inactive:
            needed |= Perm.WRITE_UNCHANGED
        return needed, (shared & _PASSED) | (Perm.ALL & ~_PASSED)

    def route(self) -> Route:
        """Let writes through; see each read."""
        return replace(self.file.route, read=None, linear=None)

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Fetch, and read what is there already."""
        if self.bottom is None:
            await populate(self.file, offset, len(buf), buf)
            return
        await self.prefetch(offset, len(buf))
        await self.file.pread(offset, buf)

    async def pwrite_compressed(self, offset: int, buf: memoryview) -> None:
        """Have it compressed further down."""
        await self.pwrite(offset, buf, Write.COMPRESSED)

    async def prefetch(self, offset: int, length: int) -> None:
        """Fetch what is allocated above the bottom, and not in the image itself."""
        if self.bottom is None:
            await populate(self.file, offset, length)
            return
        edge, ranges = self.file, []
        async for batch in edge.extents(offset, length):
            for start, count, status, _ in batch.merged(ignore_host=True):
                if not status & ALLOCATED:
                    async for lower in allocated_above(edge, start, count, self.bottom):
                        ranges += [(s, n) for s, n, found, _ in lower if found & ALLOCATED]
        for start, count in ranges:
            await populate(edge, start, count)
