"""The human monitor's commands about drives, devices and images.

After block/monitor/block-hmp-cmds.c.
"""

import errno
import os
from typing import Any

from blockemu.chain import skip_implicit
from blockemu.commands import hmp_migration
from blockemu.commands.backup import drive_backup
from blockemu.commands.blockdev import block_resize, blockdev_del
from blockemu.commands.context import Context
from blockemu.commands.devices import device_add, device_del, system_reset
from blockemu.commands.hmp_line import Flag, HmpCommand, Size, Values, Word, Write
from blockemu.commands.jobs import query_block_jobs
from blockemu.commands.query import query_block, query_named_block_nodes
from blockemu.errors import MissingParameter, QmpError
from blockemu.filenames import nest
from blockemu.image_info import image_text
from blockemu.jobs.commit_now import commit_all, commit_now
from blockemu.machine.drives import NUMBERS, DuplicateDrive
from blockemu.machine.questions import of_device
from blockemu.node import Flags
from blockemu.optlist import parse_any
from blockemu.schema.backup import DriveBackup, MirrorSyncMode, NewImageMode
from blockemu.schema.images import ImageInfo
from blockemu.schema.nodes import BlockDeviceInfo, BlockInfo
from blockemu.schema.run_state import RunState


async def info_block(context: Context, write: Write, values: Values) -> None:
    """Describe devices, or nodes."""
    wanted, verbose = values.text("device"), bool(values["verbose"])
    printed = False
    if not values["nodes"]:
        for i, device in enumerate(await query_block(context)):
            if wanted is not None and device.device != wanted:
                continue
            write("\n" * bool(i))
            _print_device(context, write, device, device.inserted, verbose)
            printed = True
        if printed or wanted is None:
            return
    for i, node in enumerate(await query_named_block_nodes(context)):
        if wanted is not None and node.node_name != wanted:
            continue
        write("\n" * bool(i))
        _print_device(context, write, None, node, verbose)


def _print_device(
    context: Context,
    write: Write,
    device: BlockInfo | None,
    inserted: BlockDeviceInfo | None,
    verbose: bool,
) -> None:
    node_name = inserted.node_name if inserted is not None else None
    if device is not None and device.device:
        write(device.device + (f" ({node_name})" if node_name else ""))
    else:
        write(node_name or (device.qdev if device else None) or "<anonymous>")
    if inserted is None:
        write(": [not inserted]\n")
    else:
        marks = ", read-only" * inserted.ro + ", encrypted" * inserted.encrypted
        write(f": {inserted.file} ({inserted.drv}{marks})\n")
    if device is not None:
        _print_guest_side(write, device)
    if inserted is not None:
        _print_medium(write, inserted)
        if verbose:
            write("\nImages:\n")
            _print_images(write, inserted)


_WAYS = ("", "_rd", "_wr")


def _print_guest_side(write: Write, device: BlockInfo) -> None:
    if device.qdev:
        write(f"    Attached to:      {device.qdev}\n")
    if device.io_status is not None and device.io_status.value != "ok":
        write(f"    I/O status:       {device.io_status.value}\n")
    if device.removable:
        locked = "" if device.locked else "not "
        tray = "open" if device.tray_open else "closed"
        write(f"    Removable device: {locked}locked, tray {tray}\n")


def _print_medium(write: Write, inserted: BlockDeviceInfo) -> None:
    cache = inserted.cache
    mode = "writeback" if cache.writeback else "writethrough"
    mode += ", direct" * cache.direct + ", ignore flushes" * cache.no_flush
    write(f"    Cache mode:       {mode}\n")
    if inserted.backing_file is not None:
        depth = inserted.backing_file_depth
        write(f"    Backing file:     {inserted.backing_file} (chain depth: {depth})\n")
    if inserted.detect_zeroes.value != "off":
        write(f"    Detect zeroes:    {inserted.detect_zeroes.value}\n")
    limits = inserted.bps, inserted.bps_rd, inserted.bps_wr
    if any((*limits, inserted.iops, inserted.iops_rd, inserted.iops_wr)):
        shown = " ".join(f"{name}={getattr(inserted, name) or 0}" for name in _LIMITS)
        write(f"    I/O throttling:   {shown} group={inserted.group}\n")


_LIMITS = (
    *(f"{unit}{way}{burst}" for unit in ("bps", "iops") for burst in ("", "_max") for way in _WAYS),
    "iops_size",
)


def _print_images(write: Write, inserted: BlockDeviceInfo) -> None:
    image: ImageInfo | None = inserted.image
    while image is not None:
        write(image_text(image))
        image = image.backing_image


async def info_block_jobs(context: Context, write: Write, values: Values) -> None:
    """List the block jobs."""
    found = await query_block_jobs(context)
    if not found:
        write("No active jobs\n")
    for job in found:
        kind = job.type
        what = "Streaming device" if kind == "stream" else f"Type {kind}, device"
        write(
            f"{what} {job.device}: Completed {job.offset} of {job.len} bytes, "
            f"speed limit {job.speed} bytes/s\n"
        )


async def info_status(context: Context, write: Write, values: Values) -> None:
    """Tell whether the machine runs."""
    machine = context.emu.machine
    state = machine.state
    more = "" if state in (RunState.RUNNING, RunState.PAUSED) else f" ({state.value})"
    steps = " (single step mode)" if machine.single_steps else ""
    write(f"VM status: {'running' if machine.running else 'paused'}{steps}{more}\n")


async def info_version(context: Context, write: Write, values: Values) -> None:
    """Tell the version."""
    write(".".join(map(str, context.emu.profile.greeting_version)) + "\n")


async def resize(context: Context, write: Write, values: Values) -> None:
    """Change the size of a drive's image."""
    await block_resize(context, device=str(values["device"]), size=int(values["size"]))


async def commit(context: Context, write: Write, values: Values) -> None:
    """Merge a drive's image into its backing file, or each drive's that has one."""
    emu, name = context.emu, str(values["device"])
    try:
        if name == "all":
            await commit_all(emu, write)
            return
        backend = emu.graph.named(name)
        if backend is None:
            write(f"Device '{name}' not found\n")
        elif backend.inserted is None or backend.tray_open:
            write(f"Device '{name}' has no medium\n")
        else:
            await commit_now(emu, skip_implicit(backend.inserted), write)
    except OSError as e:
        write(f"'commit' error for '{name}': {os.strerror(e.errno or errno.EIO)}\n")


async def backup_drive(context: Context, write: Write, values: Values) -> None:
    """Copy a drive as it is now."""
    options = DriveBackup(
        device=str(values["device"]),
        target=str(values["target"]),
        format=values.text("format"),
        sync=MirrorSyncMode.FULL if values["full"] else MirrorSyncMode.TOP,
        mode=NewImageMode.EXISTING if values["reuse"] else NewImageMode.ABSOLUTE_PATHS,
        compress=bool(values["compress"]) or None,
    )
    await drive_backup(context, options)


async def drive_add(context: Context, write: Write, values: Values) -> None:
    """Add a drive, or with -n a node."""
    emu, text = context.emu, str(values["opts"])
    try:
        if values["node"]:
            await _add_node(context, text)
            return
        backend = await emu.drives.add_text(text, "ide", write)
    except QmpError as e:
        write(f"{e}\n{e.hint}")
        return
    interface = emu.drives.places[backend].interface
    if interface == "none":
        write("OK\n")
        return
    write(f"Can't hot-add drive to type {NUMBERS.get(interface, -1)}\n")
    await emu.devices.delete_drive(backend)


class NoNodeName(QmpError):
    """A node that nobody could name again."""

    template = "'node-name' needs to be specified"


async def _add_node(context: Context, text: str) -> None:
    options = parse_any(text, lambda warning: None)
    if options.get("id") in context.emu.graph.backends:
        raise DuplicateDrive(options["id"])
    if "node-name" not in options:
        raise NoNodeName
    common = {"cache.direct": "off", "cache.no-flush": "off", "read-only": "off"}
    flags = Flags(inactive=context.emu.graph.incoming)
    node = await context.emu.opener.open(nest(common | options), flags=flags)
    node.monitor_owned = True


async def drive_del(context: Context, write: Write, values: Values) -> None:
    """Delete a node, or take a drive from its device and delete it."""
    name, emu = str(values["id"]), context.emu
    backend = emu.graph.named(name)
    try:
        if name in emu.graph.nodes:
            await blockdev_del(context, node_name=name)
        elif backend is None:
            write(f"Device '{name}' not found\n")
        else:
            if backend.inserted is not None:
                emu.graph.check_unblocked(backend.inserted, "drive-del")
            await emu.devices.delete_drive(backend)
    except QmpError as e:
        write(f"{e}\n")


async def add_device(context: Context, write: Write, values: Values) -> None:
    """Plug a device in."""
    text = str(values["device"])
    if not text:
        raise MissingParameter("driver")
    answer = of_device(text)
    if answer is not None:
        write(answer.text or f"{answer.error}\n")
        return
    given: Any = parse_options_of_device(text)
    await device_add(context, given)


def parse_options_of_device(text: str) -> dict[str, str]:
    """Read ``TYPE,property=value,...``.

    Raises:
        QmpError: the id is no identifier.

    """
    head, comma, rest = text.partition(",")
    if "=" not in head:
        text = f"driver={head}{comma}{rest}"
    return parse_any(text, lambda warning: None)


async def delete_device(context: Context, write: Write, values: Values) -> None:
    """Ask a device to leave."""
    await device_del(context, id=str(values["id"]))


async def reset(context: Context, write: Write, values: Values) -> None:
    """Reset the machine."""
    await system_reset(context)


async def stop(context: Context, write: Write, values: Values) -> None:
    """Stop the machine."""
    await context.emu.pause_machine()


async def cont(context: Context, write: Write, values: Values) -> None:
    """Let the machine run."""
    await context.emu.continue_machine()


_DEVICE = Word("device", "block device name")
INFO = (
    HmpCommand(
        "block",
        (
            Flag("nodes", "n"),
            Flag("verbose", "v"),
            Word("device", "block device name", optional=True),
        ),
        "[-n] [-v] [device]",
        "show info of one block device or all block devices "
        "(-n: show named nodes; -v: show details)",
        info_block,
    ),
    HmpCommand(
        "block-jobs", (), "", "show progress of ongoing block device operations", info_block_jobs
    ),
    HmpCommand("status", (), "", "show the current VM status (running|paused)", info_status),
    HmpCommand("version", (), "", "show the version", info_version),
    *hmp_migration.INFO,
)
COMMANDS = (
    HmpCommand(
        "block_resize",
        (_DEVICE, Size("size")),
        "device size",
        "resize a block image",
        resize,
    ),
    HmpCommand("commit", (_DEVICE,), "device|all", "commit changes to the disk images", commit),
    HmpCommand(
        "drive_backup",
        (
            *(Flag("reuse", "n"), Flag("full", "f"), Flag("compress", "c")),
            *(_DEVICE, Word("target"), Word("format", optional=True)),
        ),
        "[-n] [-f] [-c] device target [format]",
        "copy a drive as it is now to an image; -n: one that exists, -f: whole, -c: compressed",
        backup_drive,
    ),
    HmpCommand(
        "drive_add",
        (Flag("node", "n"), Word("pci_addr"), Word("opts")),
        "[-n] [[<domain>:]<bus>:]<slot>\n[file=file][,if=type][,bus=n]\n"
        "[,unit=m][,media=d][,index=i]\n[,snapshot=on|off][,cache=on|off]\n"
        "[,readonly=on|off][,copy-on-read=on|off]",
        "add drive to PCI storage controller",
        drive_add,
    ),
    HmpCommand(
        "drive_del",
        (Word("id", "block device name"),),
        "device",
        "remove host block device",
        drive_del,
    ),
    HmpCommand(
        "device_add",
        (Word("device", "", optional=True),),
        "driver[,prop=value][,...]",
        "add device, like -device",
        add_device,
    ),
    HmpCommand("device_del", (Word("id"),), "device", "remove device", delete_device),
    HmpCommand("system_reset", (), "", "reset the system", reset),
    HmpCommand("stop|s", (), "", "stop emulation", stop),
    HmpCommand("cont|c", (), "", "resume emulation", cont),
)
