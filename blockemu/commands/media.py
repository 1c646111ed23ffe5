"""Removable media: trays are opened and closed, media put in and taken out."""

from contextlib import suppress
from typing import Annotated, Any

from blockemu.backend import Backend
from blockemu.commands.backends import find_backend
from blockemu.commands.context import Context
from blockemu.machine.media import (
    NoTray,
    close_tray,
    find_medium,
    insert_medium,
    open_tray,
    remove_medium,
)
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Deprecated, Since
from blockemu.schema.devices import BlockdevChangeReadOnlyMode

OldName = Annotated[str | None, Deprecated("2.8")]


@command(since="0.14")
async def eject(
    context: Context,
    *,
    device: OldName = None,
    id: str | None = None,
    force: bool | None = None,
) -> None:
    """Open a device's tray, if it has one, and take the medium out.

    @device: the drive's name
    @id: the device's id or path
    @force: even if the guest locked the tray; ours never does
    """
    emu = context.emu
    backend = find_backend(emu, device, id)
    name = id or device or ""
    with suppress(NoTray):
        open_tray(emu.emit, backend, name)
    await remove_medium(emu.graph, emu.emit, backend, device or id or "")


@command(since="2.3")
def blockdev_open_tray(
    context: Context,
    *,
    device: OldName = None,
    id: str | None = None,
    force: bool | None = None,
) -> None:
    """Open a device's tray, if it has one.

    @device: the drive's name
    @id: the device's id or path
    @force: even if the guest locked the tray; ours never does
    """
    backend = find_backend(context.emu, device, id)
    with suppress(NoTray):
        open_tray(context.emu.emit, backend, id or device or "")


@command(since="2.3")
def blockdev_close_tray(context: Context, *, device: OldName = None, id: str | None = None) -> None:
    """Close a device's tray, if it has one.

    @device: the drive's name
    @id: the device's id or path
    """
    backend = find_backend(context.emu, device, id)
    close_tray(context.emu.emit, backend, device or id or "")


@command(since="2.12")
async def blockdev_remove_medium(context: Context, *, id: str) -> None:
    """Take the medium out of a device whose tray, if it has one, is open.

    @id: the device's id or path
    """
    emu = context.emu
    await remove_medium(emu.graph, emu.emit, find_backend(emu, None, id), id)


@command(since="2.12")
async def blockdev_insert_medium(context: Context, *, id: str, node_name: str) -> None:
    """Put a node into a device whose tray, if it has one, is open.

    @id: the device's id or path
    @node-name: the node
    """
    emu = context.emu
    backend = find_backend(emu, None, id)
    await insert_medium(emu.graph, emu.emit, backend, find_medium(emu.graph, node_name))


@command(since="2.5")
async def blockdev_change_medium(
    context: Context,
    *,
    device: OldName = None,
    id: str | None = None,
    filename: str,
    format: str | None = None,
    force: Annotated[bool | None, Since("7.1")] = None,
    read_only_mode: BlockdevChangeReadOnlyMode | None = None,
) -> None:
    """Open an image and have a device hold it instead of what it holds now.

    @device: the drive's name
    @id: the device's id or path
    @filename: the image
    @format: its format
    @force: even if the guest locked the tray; ours never does
    @read-only-mode: whether it is read-only; as the old one is unless given
    """
    emu = context.emu
    backend = find_backend(emu, device, id)
    name = device or id or ""
    mode = read_only_mode or BlockdevChangeReadOnlyMode.RETAIN
    options = {"driver": format} if format is not None else {}
    node = await emu.opener.open(
        options, filename=filename, defaults=_options_of_new_medium(backend, mode)
    )
    node.holds += 1
    try:
        with suppress(NoTray):
            open_tray(emu.emit, backend, id or device or "")
        await remove_medium(emu.graph, emu.emit, backend, name)
        await insert_medium(emu.graph, emu.emit, backend, node)
        close_tray(emu.emit, backend, name)
    finally:
        node.holds -= 1
        await emu.graph.release(node)


def _options_of_new_medium(backend: Backend, mode: BlockdevChangeReadOnlyMode) -> dict[str, Any]:
    """Return what the new medium has in common with the last one (blk_update_root_state)."""
    backend.remember_medium()
    flags = backend.last_medium
    read_only = flags.read_only
    if mode is not BlockdevChangeReadOnlyMode.RETAIN:
        read_only = mode is BlockdevChangeReadOnlyMode.READ_ONLY
    return {
        "read-only": read_only,
        "cache": {"direct": flags.direct, "no-flush": flags.no_flush},
        "discard": "unmap" if flags.unmap else "ignore",
        "detect-zeroes": "on" if flags.detect_zeroes != "off" else "off",
    }
