"""A machine that begins as another was: one that comes (``-incoming``), or a snapshot."""

from typing import TYPE_CHECKING

from blockemu.errors import QmpError

if TYPE_CHECKING:
    from blockemu.daemon import Daemon
    from blockemu.emulator import Emulator


class CannotCome(QmpError):
    """(URI, why)."""

    template = "-incoming {}: {}"


class NotRestored(QmpError):
    """(why): there is no such machine to begin as."""

    template = "{}"


def prepare(emu: "Emulator", name: str, *, paused: bool, comes: bool) -> None:
    """Give a machine its name in streams and its first run state, before images are opened."""
    emu.machine.type = name
    if paused:
        emu.machine.hold_launch()
    if comes:
        emu.machine.expect()
        emu.graph.incoming = True


def wait_for(daemon: "Daemon", uri: str, program: str) -> None:
    """Let the machine come, if it does; the ``program`` ends with status 1 if that goes wrong.

    Raises:
        CannotCome: it cannot be waited for there.

    """
    daemon.emu.reporter = program
    daemon.emu.not_come = lambda: daemon.stop(1)
    if not uri or uri == "defer":
        return
    from blockemu.commands.migration import numbered_fd  # start-up: few machines come

    try:
        daemon.emu.migration.start_incoming(uri, numbered_fd)
    except QmpError as e:
        raise CannotCome(uri, e) from e


async def restore(daemon: "Daemon", snapshot: str) -> None:
    """Let the machine begin as a snapshot has it, if one is named (``-loadvm``).

    Raises:
        NotRestored: it cannot.

    """
    if snapshot:
        try:
            await daemon.emu.migration.snapshots.load(snapshot)
        except QmpError as e:
            raise NotRestored(e) from e
