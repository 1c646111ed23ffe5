"""compress: a filter that has all data compressed by the format below."""

from typing import Annotated

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.errors import QmpError
from blockemu.filter import Filter
from blockemu.node import Limits, Node, Write
from blockemu.perm import Role
from blockemu.route import Placed, Ranges, Route


class CompressOptions(NodeOptions, tag="compress", since="5.0"):
    """Options of compress.

    @file: the image that is written to
    """

    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]


class CannotCompress(QmpError):
    """(driver)."""

    template = "Compression is not supported for underlying format: {}"


class Compress(Filter[CompressOptions]):
    """Turns writes into compressed ones of whole clusters."""

    Options = CompressOptions
    keeps_size = False
    can_reopen = False

    async def open(self) -> None:
        """Check that the image can, and ask for requests of whole clusters."""
        below = self.child.node
        if type(below).pwrite_compressed is Node.pwrite_compressed:  # nobody asks those below it
            raise CannotCompress(below.driver)
        self.limits = Limits(request_alignment=below.cluster_size or 1)

    def route(self) -> Route:
        """Let reads through."""
        return self.child.route.reads_only()

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write compressed."""
        await self.child.pwrite(offset, buf, flags | Write.COMPRESSED)

    async def place(self, ranges: Ranges) -> Placed:
        """Nobody but the format below can write compressed."""
        raise NotImplementedError
