"""Filters' edges: a filter keeps its size, so its child may have become shorter by itself."""

import errno

from blockemu.edge import Edge
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.requests import Request
from blockemu.route import NO_ROUTE, Route


class FilteredEdge(Edge):
    """A filter's way to a child, beyond the end of which it reads zeroes and writes nothing."""

    __slots__ = ()

    def _compile(self) -> Route:
        assert self.parent is not None
        return NO_ROUTE if self.parent.length > self.length else super()._compile()

    async def pread(self, offset: int, buf: bytearray | memoryview) -> None:
        """Fill ``buf`` from ``offset``."""
        view = memoryview(buf)
        if self._beyond(offset + len(view)):
            inside = max(self.length - offset, 0)
            view[inside:] = bytes(len(view) - inside)
            view = view[:inside]
        await super().pread(offset, view)

    async def pwrite(
        self, offset: int, buf: bytes | bytearray | memoryview, flags: int = 0
    ) -> None:
        """Write ``buf`` at ``offset``."""
        self._check(offset + len(buf))
        await super().pwrite(offset, buf, flags)

    async def _begin_write(
        self, offset: int, length: int, serialising: bool = False, *, no_wait: bool = False
    ) -> Request:
        self._check(offset + length)
        return await super()._begin_write(offset, length, serialising, no_wait=no_wait)

    def _check(self, end: int) -> None:
        """Refuse to write beyond the end: QEMU dies of an assertion there."""
        if Perm.RESIZE not in self.perm and self._beyond(end):
            raise os_error(errno.EIO)

    def _beyond(self, end: int) -> bool:
        return end > self.length and end > self.fresh_length()
