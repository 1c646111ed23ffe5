"""throttle: keeps requests to the limits of a group.  After block/throttle.c."""

from typing import Annotated, Any

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.errors import QmpError
from blockemu.filter import Filter
from blockemu.node import Flags, Write
from blockemu.perm import Role
from blockemu.route import NO_ROUTE, Placed, Ranges, Route
from blockemu.throttling.group import Member, ThrottleGroup
from blockemu.transaction import Transaction


class ThrottleOptions(NodeOptions, tag="throttle", since="2.11"):
    """Options of throttle.

    @throttle-group: the name of the group, which must exist
    @file: the node below
    """

    throttle_group: str
    file: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]


class NoSuchGroup(QmpError):
    """(name)."""

    template = "Throttle group '{}' does not exist"


class GroupNotGiven(QmpError):
    """A command line left the group out."""

    template = "Please specify a throttle group"


class Throttle(Filter[ThrottleOptions]):
    """Holds requests up as its group says; without limits it costs nothing."""

    Options = ThrottleOptions
    kept_options = reopen_options = frozenset({"throttle-group"})
    member: Member | None = None

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Let what a command line left out be said in this driver's words."""
        super().read_texts(options)
        if "throttle-group" not in options:
            raise GroupNotGiven

    async def open(self) -> None:
        """Join the group."""
        self.member = Member(self._group(self.options), self.changed)

    async def close(self) -> None:
        """Leave the group."""
        if self.member is not None:
            self.member.leave()
            self.member = None

    async def reopen(
        self, options: ThrottleOptions, flags: Flags, transaction: Transaction
    ) -> None:
        """Change to another group."""
        group, member = self._group(options), self.member
        if member is not None and group is not member.group:
            transaction.on_commit(lambda: member.move(group))

    def strong_options(self) -> dict[str, Any]:
        """Return the group's name."""
        return {"throttle-group": self.effective["throttle-group"]}

    def _group(self, options: ThrottleOptions) -> ThrottleGroup:
        group = self.services.throttle_groups.by_name.get(options.throttle_group)
        if group is None:
            raise NoSuchGroup(options.throttle_group)
        return group

    def quiesce(self) -> None:
        """Let what waits go, too."""
        super().quiesce()
        if self.member is not None:
            self.member.begin_drain()

    def unquiesce(self) -> None:
        """Keep to the limits again."""
        if self.member is not None:
            self.member.end_drain()
        super().unquiesce()

    def route(self) -> Route:
        """Take the child's while there are no limits."""
        return NO_ROUTE if self._limited else self.child.route

    @property
    def _limited(self) -> bool:
        return self.member is not None and self.member.limited

    async def _admit(self, length: int, *, is_write: bool) -> None:
        if self.member is not None:
            await self.member.admit(length, is_write=is_write)

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Wait, then read."""
        await self._admit(len(buf), is_write=False)
        await self.child.pread(offset, buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Wait, then write."""
        await self._admit(len(buf), is_write=True)
        await self.child.pwrite(offset, buf, flags)

    async def pwrite_compressed(self, offset: int, buf: memoryview) -> None:
        """Have it compressed further down."""
        await self.pwrite(offset, buf, Write.COMPRESSED)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Wait as for a write."""
        await self._admit(length, is_write=True)
        await self.child.write_zeroes(offset, length, flags)

    async def discard(self, offset: int, length: int) -> None:
        """Wait as for a write."""
        await self._admit(length, is_write=True)
        await self.child.discard(offset, length)

    async def place(self, ranges: Ranges) -> Placed:
        """Forward what need not wait."""
        if self._limited:
            raise NotImplementedError
        return await self.child.place(ranges)
