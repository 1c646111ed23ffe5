"""The human monitor's commands about block jobs, snapshots of drives, and the NBD server.

After block/monitor/block-hmp-cmds.c.
"""

from typing import Any

from blockemu.commands.chain_jobs import block_stream
from blockemu.commands.context import Context
from blockemu.commands.exports import (
    nbd_server_add,
    nbd_server_remove,
    nbd_server_stop,
    start_server,
)
from blockemu.commands.external_snapshots import blockdev_snapshot_sync
from blockemu.commands.hmp_line import Flag, HmpCommand, Size, Values, Word, Write
from blockemu.commands.jobs import (
    block_job_cancel,
    block_job_complete,
    block_job_pause,
    block_job_resume,
    block_job_set_speed,
)
from blockemu.commands.mirror import drive_mirror
from blockemu.commands.query import query_block
from blockemu.commands.snapshots import (
    blockdev_snapshot_delete_internal_sync,
    blockdev_snapshot_internal_sync,
)
from blockemu.errors import MissingParameter, QmpError
from blockemu.qmp_server.qapi import visit
from blockemu.schema.backup import MirrorSyncMode, NewImageMode
from blockemu.schema.exports import BlockExportRemoveMode, NbdServerAddOptions, NbdServerOptions
from blockemu.schema.mirror import DriveMirror
from blockemu.schema.transactions import BlockdevSnapshotInternal, BlockdevSnapshotSync

_DEVICE = Word("device", "block device name")


class WritableOfAll(QmpError):
    """It does not say which one would be writable."""

    template = "-w only valid together with -a"


class PortMissing(QmpError):
    """(address)."""

    template = "error parsing address '{}'"


def _mode(values: Values) -> NewImageMode:
    return NewImageMode.EXISTING if values["reuse"] else NewImageMode.ABSOLUTE_PATHS


async def stream(context: Context, write: Write, values: Values) -> None:
    """Copy what is below an image into it."""
    device = str(values["device"])
    base = values.text("base")
    speed = int(values["speed"] or 0) or None
    await block_stream(context, job_id=device, device=device, base=base, speed=speed)


async def set_speed(context: Context, write: Write, values: Values) -> None:
    """Limit a job's bytes a second."""
    await block_job_set_speed(context, device=str(values["device"]), speed=int(values["speed"]))


async def cancel(context: Context, write: Write, values: Values) -> None:
    """Cancel a job."""
    await block_job_cancel(context, device=str(values["device"]), force=bool(values["force"]))


def _on_job(command: Any) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        await command(context, device=str(values["device"]))

    return run


async def mirror(context: Context, write: Write, values: Values) -> None:
    """Keep a new image the same as a disk."""
    options = DriveMirror(
        device=str(values["device"]),
        target=str(values["target"]),
        format=values.text("format"),
        sync=MirrorSyncMode.FULL if values["full"] else MirrorSyncMode.TOP,
        mode=_mode(values),
        unmap=True,
    )
    await drive_mirror(context, options)


async def snapshot(context: Context, write: Write, values: Values) -> None:
    """Let a disk go on in a new image."""
    if not values["file"]:
        raise MissingParameter("snapshot-file")
    options = BlockdevSnapshotSync(
        device=str(values["device"]),
        snapshot_file=str(values["file"]),
        format=values.text("format"),
        mode=_mode(values),
    )
    await blockdev_snapshot_sync(context, options)


async def snapshot_inside(context: Context, write: Write, values: Values) -> None:
    """Take an internal snapshot."""
    options = BlockdevSnapshotInternal(device=str(values["device"]), name=str(values["name"]))
    await blockdev_snapshot_internal_sync(context, options)


async def delete_snapshot(context: Context, write: Write, values: Values) -> None:
    """Delete an internal snapshot."""
    await blockdev_snapshot_delete_internal_sync(
        context,
        device=str(values["device"]),
        name=str(values["name"]),
        id=values.text("id"),
    )


def _address(uri: str) -> dict[str, str]:
    """Read what socket_parse (util/qemu-sockets.c) reads."""
    kind, _, rest = uri.partition(":")
    if kind == "unix":
        return {"type": "unix", "path": rest}
    if kind == "fd":
        return {"type": "fd", "str": rest}
    host, colon, port = uri.removeprefix("tcp:").rpartition(":")
    if not colon or not port:
        raise PortMissing(uri)
    return {"type": "inet", "host": host.strip("[]"), "port": port.partition(",")[0]}


async def start_nbd(context: Context, write: Write, values: Values) -> None:
    """Begin to listen for NBD clients; with -a export all drives."""
    if values["writable"] and not values["all"]:
        raise WritableOfAll
    options: Any = visit(NbdServerOptions, {"addr": _address(str(values["uri"]))})
    await start_server(context.emu, options)
    if not values["all"]:
        return
    try:
        for drive in await query_block(context):
            if drive.inserted is not None:
                wanted = NbdServerAddOptions(device=drive.device, writable=bool(values["writable"]))
                await nbd_server_add(context, wanted)
    except QmpError:
        await nbd_server_stop(context)
        raise


async def add_nbd(context: Context, write: Write, values: Values) -> None:
    """Export a drive by NBD."""
    options = NbdServerAddOptions(
        device=str(values["device"]),
        name=values.text("name"),
        writable=bool(values["writable"]),
    )
    await nbd_server_add(context, options)


async def remove_nbd(context: Context, write: Write, values: Values) -> None:
    """Let an export go."""
    mode = BlockExportRemoveMode.HARD if values["force"] else BlockExportRemoveMode.SAFE
    await nbd_server_remove(context, name=str(values["name"]), mode=mode)


async def stop_nbd(context: Context, write: Write, values: Values) -> None:
    """Let all exports go, and listen no more."""
    await nbd_server_stop(context)


_REUSE, _FULL = Flag("reuse", "n"), Flag("full", "f")
_FORMAT = Word("format", optional=True)
COMMANDS = (
    HmpCommand(
        "block_stream",
        (_DEVICE, Size("speed", optional=True), Word("base", optional=True)),
        "device [speed [base]]",
        "copy data from a backing file into a block device",
        stream,
    ),
    HmpCommand(
        "block_job_set_speed",
        (_DEVICE, Size("speed")),
        "device speed",
        "set maximum speed for a background block operation",
        set_speed,
    ),
    HmpCommand(
        "block_job_cancel",
        (Flag("force", "f"), _DEVICE),
        "[-f] device",
        "stop an active background block operation (use -f\n\t\t\t if you want to abort the "
        "operation immediately\n\t\t\t instead of keep running until data is in sync)",
        cancel,
    ),
    HmpCommand(
        "block_job_complete",
        (_DEVICE,),
        "device",
        "stop an active background block operation",
        _on_job(block_job_complete),
    ),
    HmpCommand(
        "block_job_pause",
        (_DEVICE,),
        "device",
        "pause an active background block operation",
        _on_job(block_job_pause),
    ),
    HmpCommand(
        "block_job_resume",
        (_DEVICE,),
        "device",
        "resume a paused background block operation",
        _on_job(block_job_resume),
    ),
    HmpCommand(
        "drive_mirror",
        (_REUSE, _FULL, _DEVICE, Word("target"), _FORMAT),
        "[-n] [-f] device target [format]",
        "copy a drive to a new image and keep that the same; -n: one that exists, -f: whole",
        mirror,
    ),
    HmpCommand(
        "snapshot_blkdev",
        (_REUSE, _DEVICE, Word("file", optional=True), _FORMAT),
        "[-n] device [new-image-file] [format]",
        "let a drive go on in a new image; -n: one that exists",
        snapshot,
    ),
    HmpCommand(
        "snapshot_blkdev_internal",
        (_DEVICE, Word("name")),
        "device name",
        "take an internal snapshot of a drive",
        snapshot_inside,
    ),
    HmpCommand(
        "snapshot_delete_blkdev_internal",
        (_DEVICE, Word("name"), Word("id", optional=True)),
        "device name [id]",
        "delete an internal snapshot of a drive",
        delete_snapshot,
    ),
    HmpCommand(
        "nbd_server_start",
        (Flag("all", "a"), Flag("writable", "w"), Word("uri")),
        "nbd_server_start [-a] [-w] host:port",
        "serve block devices on the given host and port",
        start_nbd,
    ),
    HmpCommand(
        "nbd_server_add",
        (Flag("writable", "w"), _DEVICE, Word("name", optional=True)),
        "nbd_server_add [-w] device [name]",
        "export a block device via NBD",
        add_nbd,
    ),
    HmpCommand(
        "nbd_server_remove",
        (Flag("force", "f"), Word("name")),
        "nbd_server_remove [-f] name",
        "remove an export previously exposed via NBD",
        remove_nbd,
    ),
    HmpCommand(
        "nbd_server_stop",
        (),
        "nbd_server_stop",
        "stop serving block devices using the NBD protocol",
        stop_nbd,
    ),
)
