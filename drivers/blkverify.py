"""blkverify: compares what a driver under test does with a raw copy.  After block/blkverify.c."""

import errno
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar

import numpy as np

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.eager import side_by_side
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.filter import Filter
from blockemu.node import Node
from blockemu.perm import Role
from blockemu.route import NO_ROUTE, Placed, Ranges, Route

LONGEST_NAME = 4095  # bytes


class BlockdevOptionsBlkverify(NodeOptions, tag="blkverify", since="2.9"):
    """Options of blkverify.

    @raw: the copy to compare with
    @test: the node to be tested
    """

    raw: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    test: Annotated[BlockdevRef, Role.DATA]


class NoImagePath(QmpError):
    """A file name without its second colon."""

    template = "blkverify requires raw copy and original image path"


class Blkverify(Filter[BlockdevOptionsBlkverify]):
    """Does all to both children, and ends the program when they differ."""

    Options = BlockdevOptionsBlkverify
    unmaps_zeroes = False
    is_protocol: ClassVar[bool] = True
    child_name = "raw"
    protocols = ("blkverify",)
    can_reopen = False
    has_dirname = False  # there are two
    discard = Node.discard  # nothing is dropped: what is left need not be the same in both
    raw: Edge
    test: Edge

    @classmethod
    def parse_filename(cls, filename: str, options: dict[str, Any]) -> None:
        """Split ``blkverify:RAW:TEST``; without the prefix all of it is the image under test."""
        del options["filename"]
        if not filename.startswith("blkverify:"):
            options["x-test"] = filename
            return
        raw, colon, test = filename.removeprefix("blkverify:").partition(":")
        if not colon:
            raise NoImagePath
        options |= {"x-raw": raw, "x-test": test}

    def gather_filename(self) -> None:
        """Be ``blkverify:RAW:TEST`` where both have such names."""
        edges = [self.children.get(name) for name in ("raw", "test")]
        names = [edge.node.exact_filename if edge is not None else "" for edge in edges]
        name = ":".join(["blkverify", *names])
        self.exact_filename = name if all(names) and len(name) <= LONGEST_NAME else ""

    def can_replace(self, goal: Node[Any]) -> bool:
        """Look below both children: both show what this node does, or else the program ends."""
        return goal is self or any(e.node.can_replace(goal) for e in self.children.values())

    def size_below(self) -> int:
        """Return the size of what is tested."""
        return self.test.length

    def route(self) -> Route:
        """See each request."""
        return NO_ROUTE

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read both, and compare."""
        copy = memoryview(bytearray(len(buf)))
        parts = {self.test: buf, self.raw: copy}
        await self._both("read", offset, len(buf), lambda edge: edge.pread(offset, parts[edge]))
        if bytes(buf) != copy.obj:
            differ = np.frombuffer(buf, np.uint8) != np.frombuffer(copy, np.uint8)
            at = offset + int(np.argmax(differ))
            self._give_up("read", offset, len(buf), f"contents mismatch at offset {at}")

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write to both."""
        await self._both("write", offset, len(buf), lambda edge: edge.pwrite(offset, buf, flags))

    async def _both(
        self, what: str, offset: int, length: int, ask: Callable[[Edge], Awaitable[None]]
    ) -> None:
        """Do something to both children; both must fail alike."""
        errors: dict[Edge, int] = {}
        error: OSError | None = None

        async def one(edge: Edge) -> None:
            nonlocal error
            try:
                await ask(edge)
            except OSError as e:
                errors[edge] = e.errno or errno.EIO
                error = e

        await side_by_side(one(edge) for edge in (self.test, self.raw))
        test, raw = (-errors.get(edge, 0) for edge in (self.test, self.raw))
        if test != raw:
            self._give_up(what, offset, length, f"return value mismatch {test} != {raw}")
        if error is not None:
            raise error

    def _give_up(self, what: str, offset: int, length: int, why: str) -> None:
        self.services.give_up(f"blkverify: {what} offset={offset} bytes={length} {why}")

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Have zeroes written, so that both get the same."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Flush what is tested."""
        await self.test.flush()

    async def place(self, ranges: Ranges) -> Placed:
        """See each write."""
        raise NotImplementedError
