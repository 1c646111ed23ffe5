"""The human monitor's commands about migration and machine snapshots (monitor/hmp-cmds.c)."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from blockemu import snapshots
from blockemu.activation import tops
from blockemu.commands.context import Context
from blockemu.commands.hmp_line import Flag, HmpCommand, Switch, Values, Word, Write
from blockemu.commands.machine_snapshots import go_back
from blockemu.commands.migration import (
    migrate,
    migrate_continue,
    migrate_incoming,
    migrate_pause,
    migrate_recover,
    migrate_start_postcopy,
)
from blockemu.errors import QmpError
from blockemu.image_info import SNAPSHOT_TITLES, snapshot_row
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.migration.savevm import MachineSnapshots, NoPlace, NotChecked
from blockemu.optlist import read_size
from blockemu.qmp_server.qapi import ABSENT, InvalidInput, dump, fields, visit
from blockemu.qmp_server.scalars import parse_size
from blockemu.schema.migration import (
    BitmapMigrationNodeAlias,
    MigrateSetParameters,
    MigrationCapability,
    MigrationCapabilityStatus,
    MigrationInfo,
    MigrationStats,
    MigrationStatus,
)

_GLOBALS: Final = (
    "globals:\nstore-global-state: on\nonly-migratable: off\nsend-configuration: on\n"
    "send-section-footer: on\ndecompress-error-check: on\nclear-bitmap-shift: 18\n"
)


class UnknownValue(QmpError):
    """(value): no such capability, status or parameter."""

    template = "invalid parameter value: {}"


class BadSize(QmpError):
    """(text)."""

    template = "Invalid size {}"


class OnlyByQmp(QmpError):
    """What has no short text."""

    template = "The block-bitmap-mapping parameter can only be set through QMP"


# Migration


async def send(context: Context, write: Write, values: Values) -> None:
    """Send the machine; wait until that is over unless told not to."""
    migration = context.emu.migration
    flags = {name: bool(values[name]) for name in ("blk", "inc", "resume")}
    migrate(context, uri=str(values["uri"]), **flags)
    if values["detach"]:
        return
    if context.monitor is not None:  # others are served by the same
        write("terminal does not allow synchronous migration, continuing detached\n")
    else:
        await asyncio.shield(migration.leaving.over)


async def cancel(context: Context, write: Write, values: Values) -> None:
    """Stop it."""
    await context.emu.migration.cancel()


async def proceed(context: Context, write: Write, values: Values) -> None:
    """End a pause before the switchover."""
    text = str(values["state"])
    try:
        status = MigrationStatus(text)
    except ValueError:
        raise UnknownValue(text) from None
    migrate_continue(context, state=status)


async def receive(context: Context, write: Write, values: Values) -> None:
    """Wait for a machine."""
    migrate_incoming(context, uri=str(values["uri"]))


async def recover(context: Context, write: Write, values: Values) -> None:
    """Wait for a stream to go on."""
    migrate_recover(context, uri=str(values["uri"]))


async def pause(context: Context, write: Write, values: Values) -> None:
    """Cut the way."""
    migrate_pause(context)


async def start_postcopy(context: Context, write: Write, values: Values) -> None:
    """Let the machine run there."""
    migrate_start_postcopy(context)


async def set_capability(context: Context, write: Write, values: Values) -> None:
    """Switch one on or off."""
    text = str(values["capability"])
    try:
        capability = MigrationCapability(text)
    except ValueError:
        raise UnknownValue(text) from None
    wanted = MigrationCapabilityStatus(capability=capability, state=bool(values["state"]))
    context.emu.migration.set_capabilities([wanted])


_SIZES: Final = (
    "announce-initial",
    "announce-max",
    "announce-rounds",
    "announce-step",
    "downtime-limit",
)


async def set_parameter(context: Context, write: Write, values: Values) -> None:
    """Change one."""
    name, text = str(values["parameter"]), str(values["value"])
    known = {member.wire for member in fields(MigrateSetParameters).values()}
    if name not in known:
        raise UnknownValue(name)
    if name == "block-bitmap-mapping":
        raise OnlyByQmp
    value: Any = text
    if name == "max-bandwidth":  # in MiB, unless it says otherwise
        value = _mebibytes(text)
    try:
        if name in _SIZES:
            value = str(read_size(name, text))
        wanted = visit(MigrateSetParameters, {name: value}, keyval=True)
    except InvalidInput as e:  # read by string-input-visitor.c, which has another word for it
        raise QmpError(str(e).replace("expects integer", "expects uint64")) from e
    context.emu.migration.set_parameters(wanted)


def _mebibytes(text: str) -> str:
    try:
        return str(parse_size(text if text[-1:].isalpha() else f"{text}M"))
    except ValueError:
        raise BadSize(text) from None


async def info_migrate(context: Context, write: Write, values: Values) -> None:
    """Tell how far it is."""
    info = context.emu.migration.info()
    write(_GLOBALS + "".join(_info(info)))


def _info(info: MigrationInfo) -> Iterator[str]:
    if info.blocked_reasons:
        yield "Outgoing migration blocked:\n"
        yield from (f"  {reason}\n" for reason in info.blocked_reasons)
    if info.status is not None:
        why = f" ({info.error_desc})" if info.error_desc is not None else ""
        yield f"Migration status: {info.status.value}{why}\n"
        yield f"total time: {info.total_time or 0} ms\n"
        for title, value in (
            ("expected downtime", info.expected_downtime),
            ("downtime", info.downtime),
            ("setup", info.setup_time),
        ):
            if value is not None:
                yield f"{title}: {value} ms\n"
    if info.ram is not None:
        yield from _ram(info.ram)
    if info.socket_address is not None:
        yield "socket address: [\n"
        yield from (f"\t{_uri(dump(address))}\n" for address in info.socket_address)
        yield "]\n"


def _ram(ram: MigrationStats) -> Iterator[str]:
    yield f"transferred ram: {ram.transferred >> 10} kbytes\n"
    yield f"throughput: {ram.mbps:0.2f} mbps\n"
    yield f"remaining ram: {ram.remaining >> 10} kbytes\n"
    yield f"total ram: {ram.total >> 10} kbytes\n"
    yield f"duplicate: {ram.duplicate} pages\n"
    yield f"skipped: {ram.skipped} pages\n"
    yield f"normal: {ram.normal} pages\n"
    yield f"normal bytes: {ram.normal_bytes >> 10} kbytes\n"
    yield f"dirty sync count: {ram.dirty_sync_count}\n"
    yield f"page size: {ram.page_size >> 10} kbytes\n"
    yield f"multifd bytes: {ram.multifd_bytes >> 10} kbytes\n"
    yield f"pages-per-second: {ram.pages_per_second}\n"
    for title, value in (
        ("precopy", ram.precopy_bytes),
        ("downtime", ram.downtime_bytes),
        ("postcopy", ram.postcopy_bytes),
    ):
        if value:
            yield f"{title} ram: {value >> 10} kbytes\n"


def _uri(address: dict[str, Any]) -> str:
    """Return an address as one word (socket_uri)."""
    kind = address["type"]
    if kind == "inet":
        return f"tcp:{address['host']}:{address['port']}"
    if kind == "unix":
        return f"unix:{address['path']}"
    return f"{kind}:{address.get('cid', '')}:{address.get('port', '')}"


async def info_capabilities(context: Context, write: Write, values: Values) -> None:
    """Tell which are on."""
    for each in context.emu.migration.capabilities.status():
        write(f"{each.capability.value}: {'on' if each.state else 'off'}\n")


_UNITS: Final = {  # in the order in which they are told
    "announce_initial": " ms",
    "announce_max": " ms",
    "announce_rounds": "",
    "announce_step": " ms",
    "compress_level": "",
    "compress_threads": "",
    "compress_wait_thread": "",
    "decompress_threads": "",
    "throttle_trigger_threshold": "",
    "cpu_throttle_initial": "",
    "cpu_throttle_increment": "",
    "cpu_throttle_tailslow": "",
    "max_cpu_throttle": "",
    "tls_creds": "",
    "tls_hostname": "",
    "max_bandwidth": " bytes/second",
    "downtime_limit": " ms",
    "x_checkpoint_delay": " ms",
    "block_incremental": "",
    "multifd_channels": "",
    "multifd_compression": "",
    "xbzrle_cache_size": " bytes",
    "max_postcopy_bandwidth": "",
    "tls_authz": "",
}


async def info_parameters(context: Context, write: Write, values: Values) -> None:
    """Tell what they are."""
    parameters = context.emu.migration.parameters.values
    for name, unit in _UNITS.items():
        value = getattr(parameters, name)
        if isinstance(value, bool):
            value = "on" if value else "off"
        shown = f"'{value}'" if name.startswith("tls_") else value
        write(f"{name.replace('_', '-')}: {shown}{unit}\n")
    mapping = parameters.block_bitmap_mapping
    if mapping is not None and mapping is not ABSENT:
        write("block-bitmap-mapping:\n" + "".join(map(_mapped, mapping)))


def _mapped(node: BitmapMigrationNodeAlias) -> str:
    lines = [f"  '{node.node_name}' -> '{node.alias}'\n"]
    lines += [f"    '{each.name}' -> '{each.alias}'\n" for each in node.bitmaps]
    return "".join(lines)


# Snapshots of the machine


async def savevm(context: Context, write: Write, values: Values) -> None:
    """Take one, in place of one of that name."""
    await context.emu.migration.snapshots.save(values.text("name"), overwrite=True)


async def loadvm(context: Context, write: Write, values: Values) -> None:
    """Go back to one."""
    await go_back(context.emu, str(values["name"]))


async def delvm(context: Context, write: Write, values: Values) -> None:
    """Delete one."""
    await context.emu.migration.snapshots.delete(str(values["name"]))


async def info_snapshots(context: Context, write: Write, values: Values) -> None:
    """List them (hmp_info_snapshots)."""
    taken, graph = context.emu.migration.snapshots, context.emu.graph
    try:
        node = taken.place()
    except NoPlace as e:
        write(f"{e}\n")
        return
    able = [each for each in tops(graph) if snapshots.can_snapshot(each)]
    lists = {each: snapshots.listed(each) for each in able}
    if not any(lists.values()):
        write("There is no snapshot available.\n")
        return
    whole = [each for each in snapshots.listed(node) if _everywhere(taken, each.name)]
    write("List of snapshots present on all disks:\n" + (_rows(whole, "--") or "None\n"))
    names = {each.name for each in whole}
    for each, found in lists.items():
        partial = [snapshot for snapshot in found if snapshot.name not in names]
        if partial:
            title = graph.device_name(each)
            write(f"\nList of partial (non-loadable) snapshots on '{title}':\n{_rows(partial)}")


def _everywhere(taken: MachineSnapshots, name: str) -> bool:
    try:
        return taken.everywhere(name)
    except NotChecked:  # a disk that can have none
        return False


def _rows(found: list[Snapshot], ident: str | None = None) -> str:
    if not found:
        return ""
    rows = [snapshot_row(snapshots.info(each), ident) for each in found]
    return "".join(f"{row}\n" for row in [SNAPSHOT_TITLES, *rows])


INFO = (
    HmpCommand("migrate", (), "", "show migration status", info_migrate),
    HmpCommand(
        "migrate_capabilities", (), "", "show current migration capabilities", info_capabilities
    ),
    HmpCommand("migrate_parameters", (), "", "show current migration parameters", info_parameters),
    HmpCommand("snapshots", (), "", "show the currently saved VM snapshots", info_snapshots),
)
COMMANDS = (
    HmpCommand(
        "migrate",
        (
            *(Flag("detach", "d"), Flag("blk", "b"), Flag("inc", "i"), Flag("resume", "r")),
            Word("uri"),
        ),
        "[-d] [-b] [-i] [-r] uri",
        "send the machine to another program; -d: do not wait until it is there",
        send,
    ),
    HmpCommand("migrate_cancel", (), "", "cancel the current VM migration", cancel),
    HmpCommand(
        "migrate_continue", (Word("state"),), "state", "continue from a paused state", proceed
    ),
    HmpCommand("migrate_incoming", (Word("uri"),), "uri", "wait for a machine", receive),
    HmpCommand("migrate_recover", (Word("uri"),), "uri", "wait for a stream to go on", recover),
    HmpCommand("migrate_pause", (), "", "pause an ongoing postcopy migration", pause),
    HmpCommand(
        "migrate_set_capability",
        (Word("capability"), Switch("state")),
        "capability state",
        "switch a capability on or off",
        set_capability,
    ),
    HmpCommand(
        "migrate_set_parameter",
        (Word("parameter"), Word("value")),
        "parameter value",
        "change a parameter",
        set_parameter,
    ),
    HmpCommand(
        "migrate_start_postcopy",
        (),
        "",
        "let the machine run on the other side before all is there",
        start_postcopy,
    ),
    HmpCommand(
        "savevm",
        (Word("name", optional=True),),
        "tag",
        "take a snapshot of the machine and its disks, in place of one of that name",
        savevm,
    ),
    HmpCommand("loadvm", (Word("name"),), "tag", "go back to a snapshot", loadvm),
    HmpCommand("delvm", (Word("name"),), "tag", "delete a snapshot", delvm),
)
