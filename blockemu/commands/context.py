"""What a command gets to work with."""

from typing import TYPE_CHECKING, Protocol

from blockemu.emulator import Emulator

if TYPE_CHECKING:
    from blockemu.chardevs import Chardevs
    from blockemu.qmp_server.dispatch import Registry
    from blockemu.qmp_server.transport import Monitor


class Context(Protocol):
    """The emulator a command acts on, and the monitor it came by.

    ``named_fds`` are the descriptors that ``getfd`` keeps; they belong to the monitor.
    """

    emu: Emulator
    monitor: "Monitor"
    chardevs: "Chardevs"
    registry: "Registry"
    named_fds: dict[str, int]

    def take_fd(self) -> int | None:
        """Take the descriptor that the client sent last, if any is left."""

    def shut_down(self, reason: str) -> None:
        """Let the program end; the reply to the command comes last."""
