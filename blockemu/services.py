"""What nodes use of the emulator that they live in."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from blockemu.perm import Role
from blockemu.qmp_server.qapi import Struct

if TYPE_CHECKING:
    from blockemu.clocks import Clocks
    from blockemu.edge import Edge
    from blockemu.host.fdsets import FdSets
    from blockemu.host.pool import Pool
    from blockemu.node import Node
    from blockemu.qmp_server.qapi import Profile
    from blockemu.throttling.group import ThrottleGroups


class Services(Protocol):
    """What a node may use of the emulator it lives in."""

    pool: "Pool"
    profile: "Profile"
    clocks: "Clocks"
    stdout: Callable[[str], None]  # what QEMU itself would print there
    is_machine: bool  # like qemu-system, which does not take all that the tools do

    @property
    def throttle_groups(self) -> "ThrottleGroups":
        """Limits that several may share."""

    @property
    def fdsets(self) -> "FdSets":
        """Descriptors that clients handed over."""

    async def open_child(
        self, parent: "Node[Any]", name: str, role: Role, child: "str | dict[str, Any]"
    ) -> "Edge":
        """Open (or look up, by node name) a child and attach it."""

    def find_node(self, name: str) -> "Node[Any]":
        """Look up a node or device by name."""

    def find_object(self, name: str) -> object | None:
        """Look up what ``object-add`` made."""

    def refresh_permissions(self, node: "Node[Any]") -> None:
        """Work out the permissions of a node's children anew; all is as it was if they conflict."""

    def opened(self, node: "Node[Any]") -> None:
        """Hear of a node that keeps its data outside of the graph."""

    def emit(self, event: Struct) -> None:
        """Send an event to the monitors."""

    def note(self, text: str) -> None:
        """Print what only a person wants to know."""

    def warn(self, text: str) -> None:
        """Tell the user on standard error."""

    def report(self, text: str) -> None:
        """Tell the user on standard error, with the program's name."""

    def give_up(self, text: str) -> NoReturn:
        """Say why, and end the program at once: no image may be trusted or written to any more."""
