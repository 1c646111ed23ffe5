"""Filters: nodes that let requests through to one child."""

import errno
from typing import ClassVar, Generic, TypeVar

from blockemu.blockdev_options import NodeOptions
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, ZERO, Extents
from blockemu.kept_size import KeepsSize
from blockemu.os_errors import os_error
from blockemu.route import Placed, Ranges, Route

O = TypeVar("O", bound=NodeOptions)  # noqa: E741


class Filter(KeepsSize[O], Generic[O]):
    """Forwards all to its filtered child; a subclass overrides what it meddles with.

    A filter with nothing to do for now costs nothing: its route is its child's.  ``child_name``
    says which option holds the child: QEMU's filters have it as ``file`` or as ``backing``.
    """

    is_filter: ClassVar[bool] = True
    child_name: ClassVar[str] = "file"

    @property
    def child(self) -> Edge:
        """The edge to what is filtered."""
        return self.children[self.child_name]

    def size_below(self) -> int:
        """Return the child's size."""
        return self.child.length

    def route(self) -> Route:
        """Take the child's."""
        return self.child.route

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Forward."""
        await self.child.pread(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Forward."""
        await self.child.pwrite(offset, buf, flags)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Forward."""
        await self.child.write_zeroes(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Forward."""
        await self.child.discard(offset, length)

    async def flush(self) -> None:
        """Forward."""
        await self.child.flush()

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Forward."""
        await self.child.truncate(length, exact=exact, prealloc=prealloc, zero=zero)

    def truncate_now(self, length: int) -> None:
        """Forward."""
        shrink(self.child, length)

    async def place(self, ranges: Ranges) -> Placed:
        """Forward."""
        return await self.child.place(ranges)

    async def block_status(self, offset: int, length: int) -> Extents:
        """Answer as the child; what it leaves open, its chain decides."""
        rest = self.child.length - offset
        if rest <= 0:  # the child has become shorter by itself
            return Extents.one(offset, length, ZERO | ALLOCATED)
        return await self.child.node.block_status(offset, min(length, rest))


def shrink(edge: Edge, length: int) -> None:
    """Make a node shorter without waiting, while nothing is in flight.  Raises OSError."""
    node = edge.node
    try:
        node.truncate_now(length)
    except NotImplementedError:
        raise os_error(errno.ENOTSUP) from None
    node.changed()
    for heard in node.on_resize:
        heard(edge.fresh_length())
