"""What Xen's tools ask: the machine's state in a file, without its memory; replication.

After qmp_xen_save_devices_state, migration/savevm.c, and migration/colo.c.
"""

import errno
import os
from typing import Any

from blockemu.activation import inactivate_all
from blockemu.commands.context import Context
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.migration import sections
from blockemu.migration.savevm import reading_status
from blockemu.qmp_server.dispatch import command
from blockemu.schema.run_state import RunState
from blockemu.schema.xen import ReplicationStatus

_MODE = 0o660


class NotOpened(QmpError):
    """(file, why)."""

    template = "Unable to open {}: {}"


class NotDone(QmpError):
    """A file that cannot be written, or that has no machine's state."""

    template = "An IO error has occurred"


class StillRuns(QmpError):
    """The machine must stand still."""

    template = "Cannot update device state while vm is running"


class NotInactivated(QmpError):
    """(number of an error)."""

    template = "qmp_xen_save_devices_state: bdrv_inactivate_all() failed ({})"


class OnlyAtTheEnd(QmpError):
    """Nobody fails over at the begin."""

    template = "Parameter 'failover' is only for stopping replication"


def _open(filename: str, flags: int) -> Any:
    try:
        return os.fdopen(os.open(filename, flags, _MODE), "r+b" if flags else "rb")
    except OSError as e:
        raise NotOpened(filename, os.strerror(e.errno or errno.EIO)) from e


@command(since="1.1")
async def xen_save_devices_state(
    context: Context, *, filename: str, live: bool | None = None
) -> None:
    """Write to a file what the machine is doing; one that stands still lets go of its images.

    @filename: the file
    @live: whether the machine is about to run elsewhere
    """
    emu = context.emu
    ran = emu.machine.running
    await emu.stop_machine(RunState.SAVE_VM)
    try:
        _save(emu, filename)
        if live is not False and not ran:
            await _let_go(emu)
    finally:
        if ran:
            emu.machine.resume()


def _save(emu: Emulator, filename: str) -> None:
    state = sections.bare(emu.clocks.virtual.now(), RunState.RUNNING.value)
    with _open(filename, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
        try:
            file.write(state)
            file.flush()
        except OSError as e:
            raise NotDone from e


async def _let_go(emu: Emulator) -> None:
    try:
        await inactivate_all(emu.graph)
    except OSError as e:
        raise NotInactivated(-(e.errno or errno.EIO)) from e


@command(since="2.7")
def xen_load_devices_state(context: Context, *, filename: str) -> None:
    """Do what the machine in a file did.

    @filename: the file
    """
    emu = context.emu
    if emu.machine.running:
        raise StillRuns
    with _open(filename, os.O_RDONLY) as file:
        data = file.read()
    if reading_status(emu, data) < 0:
        raise NotDone


@command(since="1.3")
def xen_set_global_dirty_log(context: Context, *, enable: bool) -> None:
    """Note what is written to memory, or do not: there is none.

    @enable: whether to note it
    """


@command(since="2.9")
def xen_set_replication(
    context: Context, *, enable: bool, primary: bool, failover: bool | None = None
) -> None:
    """Begin or end to copy disks to another machine: none is copied.

    @enable: whether to begin
    @primary: whether this machine's are copied, not the other's
    @failover: whether the other machine is lost
    """
    if enable and failover is not None:
        raise OnlyAtTheEnd


@command(since="2.9")
def query_xen_replication_status(context: Context) -> ReplicationStatus:
    """Tell whether a copy has failed."""
    return ReplicationStatus(error=False)


@command(since="2.9")
def xen_colo_do_checkpoint(context: Context) -> None:
    """Let the copies be of one moment."""
