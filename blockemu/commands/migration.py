"""The commands about migration (migration/migration.c)."""

import os
from typing import Annotated

from blockemu.commands.context import Context
from blockemu.commands.fds import NoNamedFd
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Since
from blockemu.schema.migration import (
    MigrateSetParameters,
    MigrationCapabilityStatus,
    MigrationInfo,
    MigrationParameters,
    MigrationStatus,
)


class BadFdNumber(QmpError):
    """(text)."""

    template = "Invalid file descriptor number '{}'"


def take_named_fd(context: Context, name: str) -> int:
    """Take a descriptor that the client has named (monitor_get_fd).

    Raises:
        NoNamedFd: there is none.

    """
    fd = context.named_fds.pop(name, None)
    if fd is None:
        raise NoNamedFd(name)
    return fd


def numbered_fd(text: str) -> int:
    """Return the descriptor that a number on the command line means.

    Raises:
        BadFdNumber: it is none.

    """
    if not (text.isascii() and text.isdigit()):
        raise BadFdNumber(text)
    try:
        os.fstat(int(text))
    except OSError as e:
        raise BadFdNumber(text) from e
    return int(text)


def _take_fd(context: Context, name: str) -> int:
    """Take a descriptor by its name, or by its number (monitor_fd_param)."""
    return numbered_fd(name) if name[:1].isdigit() else take_named_fd(context, name)


@command(since="0.14")
def migrate(
    context: Context,
    *,
    uri: str,
    blk: bool | None = None,
    inc: bool | None = None,
    detach: bool | None = None,
    resume: Annotated[bool | None, Since("3.0")] = None,
) -> None:
    """Send the machine to another program.

    @uri: where it waits
    @blk: the disks, too
    @inc: the same, but for what their backing files hold
    @detach: always so
    @resume: go on with one that has lost its way
    """
    migration = context.emu.migration

    def take_fd(name: str) -> int:
        return take_named_fd(context, name)

    if resume:
        migration.resume(uri, take_fd)
    else:
        migration.start(uri, take_fd, block=bool(blk), incremental=bool(inc))


@command(since="0.14", name="migrate_cancel")
async def migrate_cancel(context: Context) -> None:
    """Stop a migration; none need be under way."""
    await context.emu.migration.cancel()


@command(since="2.11")
def migrate_continue(context: Context, *, state: MigrationStatus) -> None:
    """End a pause before the switchover.

    @state: the status that the migration must be at
    """
    context.emu.migration.go_on(state)


@command(since="2.3")
def migrate_incoming(context: Context, *, uri: str) -> None:
    """Wait for a machine, where the command line said only that one is to come.

    @uri: where to wait
    """
    context.emu.migration.start_incoming(uri, lambda name: _take_fd(context, name))


@command(since="3.0", oob=True)
def migrate_recover(context: Context, *, uri: str) -> None:
    """Wait for a machine's stream to go on.

    @uri: where to wait
    """
    context.emu.migration.recover()


@command(since="3.0", oob=True)
def migrate_pause(context: Context) -> None:
    """Cut the way that a migration takes, as if it was lost."""
    context.emu.migration.pause()


@command(since="2.5")
def migrate_start_postcopy(context: Context) -> None:
    """Let the machine run on the other side before all is there."""
    context.emu.migration.start_postcopy()


@command(since="0.14")
def query_migrate(context: Context) -> MigrationInfo:
    """Tell how far a migration is."""
    return context.emu.migration.info()


@command(since="1.2")
def migrate_set_capabilities(
    context: Context, *, capabilities: list[MigrationCapabilityStatus]
) -> None:
    """Say what migrations may do.

    @capabilities: what to switch on or off
    """
    context.emu.migration.set_capabilities(capabilities)


@command(since="1.2")
def query_migrate_capabilities(context: Context) -> list[MigrationCapabilityStatus]:
    """Tell what migrations may do."""
    return context.emu.migration.capabilities.status()


@command(since="2.4")
def migrate_set_parameters(context: Context, options: MigrateSetParameters) -> None:
    """Change parameters of migrations."""
    context.emu.migration.set_parameters(options)


@command(since="2.4")
def query_migrate_parameters(context: Context) -> MigrationParameters:
    """Tell the parameters of migrations."""
    return context.emu.migration.parameters.values
