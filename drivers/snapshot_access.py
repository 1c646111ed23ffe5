"""snapshot-access: the disk as it was when the copy-before-write filter below it came.

What image fleecing exports.  After block/snapshot-access.c and bdrv_co_preadv_snapshot, block/io.c.
"""

import errno
from typing import Annotated, Protocol, runtime_checkable

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.edge import Edge
from blockemu.extents import Extents
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role


class SnapshotAccessOptions(NodeOptions, tag="snapshot-access", since="7.0"):
    """Options of snapshot-access.

    @file: the node that keeps a snapshot
    """

    file: Annotated[BlockdevRef, Role.DATA | Role.PRIMARY]


@runtime_checkable
class KeepsSnapshot(Protocol):
    """A node that can still show its data as it was at some moment."""

    async def pread_snapshot(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``.  Raises OSError."""

    async def snapshot_status(self, offset: int, length: int) -> Extents:
        """Describe what follows ``offset``, as ``Node.block_status`` does.  Raises OSError."""

    async def discard_snapshot(self, offset: int, length: int) -> None:
        """Keep a range no longer.  Raises OSError."""


class SnapshotAccess(Node[SnapshotAccessOptions]):
    """Reads a snapshot; a discard says that a part of it is not needed any more."""

    Options = SnapshotAccessOptions
    can_reopen = False
    file: Edge
    _length = 0

    async def open(self) -> None:
        """Take the size as it is now."""
        self._length = self.file.length

    @property
    def length(self) -> int:
        """The size at the time of opening."""
        return self._length

    @property
    def _keeper(self) -> KeepsSnapshot:
        """The node below, if it keeps a snapshot."""
        node = self.file.node
        if not isinstance(node, KeepsSnapshot):
            raise _not_supported()
        return node

    def gather_filename(self) -> None:
        """Show the name of what is below."""
        file = self.children.get("file")  # not there yet when the node is being made
        self.exact_filename = file.node.full_filename if file is not None else ""

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Need nothing: the snapshot does not change (snapshot_access_child_perm)."""
        return Perm.NONE, Perm.ALL

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read the snapshot."""
        await self._keeper.pread_snapshot(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Refuse: a snapshot stays as it is."""
        raise _not_supported()

    async def discard(self, offset: int, length: int) -> None:
        """Drop a part of the snapshot, and what was saved of it."""
        await self._keeper.discard_snapshot(offset, length)

    async def block_status(self, offset: int, length: int) -> Extents:
        """Answer for the snapshot."""
        return await self._keeper.snapshot_status(offset, length)


def _not_supported() -> OSError:
    return os_error(errno.ENOTSUP)
