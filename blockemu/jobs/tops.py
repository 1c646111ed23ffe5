"""The filters that mirror and commit jobs put on top of what they work on.

They are the job's own: no user can open one.  A filter without a name that the user gave is
*implicit*: queries do not show it where QEMU's do not.
"""

from typing import TYPE_CHECKING, Any, Final, Protocol

from blockemu.blockdev_options import NodeOptions
from blockemu.edge import Edge
from blockemu.filter import Filter
from blockemu.node import Flags, Node
from blockemu.perm import Perm, Role, default_child_perm
from blockemu.route import Placed, Ranges, Route

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

ROLE: Final = Role.FILTERED | Role.PRIMARY


class Top(Filter[NodeOptions]):
    """What both filters share: the child is called ``backing``."""

    Options = NodeOptions
    child_name = "backing"
    can_reopen = False
    backing: Edge | None

    async def open(self) -> None:
        """Need nothing."""

    def child_role(self, name: str) -> Role:
        """Filter the one child."""
        return ROLE

    def gather_filename(self) -> None:
        """Show the name of what is below."""
        self.exact_filename = self.backing.node.full_filename if self.backing is not None else ""


class CommitTop(Top):
    """Lets readers read while the images below are being merged; wants nothing for itself."""

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Take and refuse nothing (bdrv_commit_top_child_perm)."""
        return Perm.NONE, Perm.ALL

    def route(self) -> Route:
        """Let reads through."""
        return self.child.route.reads_only()


class ActiveWrites(Protocol):
    """A mirror that has each write copied before it is done."""

    async def write(
        self, offset: int, data: memoryview | None, length: int, flags: int, kind: str
    ) -> None:
        """Write to both; ``kind`` is write, zero or discard."""


class MirrorTop(Top):
    """Above the source of a mirror.

    ``active``: where writes go that must reach the target, too; None: through.  ``stopped``: the
    job is about to leave and needs no permissions any more.
    """

    active: ActiveWrites | None = None
    stopped = False
    is_commit = False

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Pass on what the parents want (bdrv_mirror_top_child_perm).

        For a commit consistent reads are not for anybody above the base, and writes are shared, or
        the job would keep itself from writing to the base.
        """
        if self.stopped:
            return Perm.NONE, Perm.ALL
        perm, shared = default_child_perm(
            role, perm, shared, writable=self.flags.writable, inactive=self.flags.inactive
        )
        if self.is_commit:
            return perm & ~Perm.CONSISTENT_READ, shared | Perm.WRITE
        return perm, shared

    def route(self) -> Route:
        """Let all through, unless the mirror must see writes."""
        route = self.child.route
        return route if self.active is None else route.reads_only()

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write below, and to the target if the mirror wants that."""
        if self.active is None:
            await self.child.pwrite(offset, buf, flags)
        else:
            await self.active.write(offset, buf, len(buf), flags, "write")

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Write zeroes likewise."""
        if self.active is None:
            await self.child.write_zeroes(offset, length, flags)
        else:
            await self.active.write(offset, None, length, flags, "zero")

    async def discard(self, offset: int, length: int) -> None:
        """Discard likewise."""
        if self.active is None:
            await self.child.discard(offset, length)
        else:
            await self.active.write(offset, None, length, 0, "discard")

    async def place(self, ranges: Ranges) -> Placed:
        """Let the child make room, unless the mirror must see writes."""
        if self.active is not None:
            raise NotImplementedError
        return await self.child.place(ranges)


def new_top(emu: "Emulator", kind: type[Top], name: str | None, *, read_only: bool) -> Any:
    """Make a filter that stands on nothing yet (bdrv_new_open_driver); the caller holds it."""
    driver = "mirror_top" if kind is MirrorTop else "commit_top"
    flags = Flags(read_only=read_only)
    node = kind(emu.graph.new_name(name), driver, NodeOptions(), flags, emu)
    node.implicit = name is None
    node.never_frozen = True
    node.holds += 1
    emu.graph.add(node)
    return node


async def remove_top(emu: "Emulator", top: Node[Any]) -> None:
    """Take a filter out: its parents go to what is below it, and it is closed."""
    assert top.backing is not None
    emu.graph.replace_node(top, top.backing.node)
    top.holds -= 1
    await emu.graph.release(top)
