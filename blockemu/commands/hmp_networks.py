"""The human monitor's commands about networks, switches and virtqueues."""

from collections.abc import Mapping
from typing import Any, Final

from blockemu.commands import rocker, virtqueues
from blockemu.commands.context import Context
from blockemu.commands.hmp_cpu import says
from blockemu.commands.hmp_line import Flag, HmpCommand, Number, Values, Word, Write
from blockemu.errors import MissingParameter
from blockemu.machine.device import Device
from blockemu.machine.networks import NoForwarding, read_netdev
from blockemu.optlist import parse_any
from blockemu.qmp_server.errors import ProtocolError
from blockemu.qmp_server.qapi import Unexpected
from blockemu.schema.virtqueues import VirtioDeviceFeatures


async def add_network(context: Context, write: Write, values: Values) -> None:
    """Make a network."""
    given = parse_any(str(values["netdev"]), lambda _: None, "type")
    if "id" not in given:
        raise MissingParameter("id")
    if given["id"] in context.emu.networks.known:
        context.emu.warnings(f"Duplicate ID '{given['id']}' for netdev")
        write('Try "help netdev_add" for more information\n')
        return
    try:
        context.emu.networks.add(read_netdev(given))
    except Unexpected as e:
        write(f"Error: Invalid parameter '{e.parts[0] if e.parts else ''}'\n")
    except ProtocolError as e:
        write(f"Error: {e}\n")


async def remove_network(context: Context, write: Write, values: Values) -> None:
    """Remove a network."""
    context.emu.networks.remove(str(values["id"]))


async def info_network(context: Context, write: Write, values: Values) -> None:
    """List the networks."""
    write(context.emu.networks.describe())


async def info_user(context: Context, write: Write, values: Values) -> None:
    """List the connections of networks that the program plays."""
    for each in context.emu.networks.played():
        hub = context.emu.networks.hub_of(each.name)
        write(f"Hub {hub} ({each.name}):\n")
        write("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n")


def _forwarding(context: Context, write: Write, values: Values) -> str | None:
    """Return the rule, or tell that there is no network for it (slirp_lookup, net/slirp.c)."""
    first, second = str(values["arg1"]), str(values["arg2"])
    networks = context.emu.networks
    if second:
        if first not in networks.known:
            write(f"unrecognized netdev id '{first}'\n")
            return None
        if not any(each.name == first for each in networks.played()):
            write("invalid device specified\n")
            return None
        return second
    if not any(True for _ in networks.played()):
        write("user mode network stack not in use\n")
        return None
    return first


async def forward(context: Context, write: Write, values: Values) -> None:
    """Let a port of the host lead to the guest: nobody would answer."""
    rule = _forwarding(context, write, values)
    if rule is not None:
        write(f"{NoForwarding(rule)}\n")


async def forward_no_more(context: Context, write: Write, values: Values) -> None:
    """Let a port of the host lead to the guest no more."""
    rule = _forwarding(context, write, values)
    if rule is not None:
        write(f"host forwarding rule for {rule} not found\n")


async def inject(context: Context, write: Write, values: Values) -> None:
    """Let a PCI express device report an error."""
    name = str(values["id"])
    buses = context.emu.devices.buses
    found = (each for bus in buses for each in bus.devices if name and each.id == name)
    write(_why_not(name, next(found, None)))


def _why_not(name: str, device: Device | None) -> str:
    if device is None or device.model.bus != "PCI":
        return f"id or pci device path is invalid or device not found. {name}\n"
    return f"the device doesn't support pci express. {name}\n"


def _refused(query: Any, *keys: str) -> Any:
    """Return what asks a command, which refuses."""

    async def run(context: Context, write: Write, values: Values) -> None:
        query(context, **{key: values[key] for key in keys if key in values})

    return run


# Virtio


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(rows: Mapping[str, object], width: int) -> str:
    return "".join(f"  {name + ':':<{width}} {_word(value)}\n" for name, value in rows.items())


def _features(title: str, found: VirtioDeviceFeatures) -> str:
    lines = f"  {title}:\n" + ",\n".join(f"\t{each}" for each in found.transports) + "\n"
    if found.dev_features:
        lines += ",\n".join(f"\t{each}" for each in found.dev_features) + "\n"
    if found.unknown_dev_features is not None:
        lines += f"  unknown-features({found.unknown_dev_features:#018x})\n"
    return lines


async def info_virtio_status(context: Context, write: Write, values: Values) -> None:
    """Describe a virtio device."""
    path = str(values["path"])
    it = virtqueues.x_query_virtio_status(context, path=path)
    rows = {
        "device_name": f"{it.name} ",
        "device_id": it.device_id,
        "vhost_started": it.vhost_started,
        "bus_name": it.bus_name or "(null)",
        "broken": it.broken,
        "disabled": it.disabled,
        "disable_legacy_check": it.disable_legacy_check,
        "started": it.started,
        "use_started": it.use_started,
        "start_on_kick": it.start_on_kick,
        "use_guest_notifier_mask": it.use_guest_notifier_mask,
        "vm_running": it.vm_running,
        "num_vqs": it.num_vqs,
        "queue_sel": it.queue_sel,
        "isr": it.isr,
        "endianness": it.device_endian,
    }
    write(f"{path}:\n{_rows(rows, 24)}  status:\n\n")
    write(_features("Guest features", it.guest_features))
    write(_features("Host features", it.host_features))
    write(_features("Backend features", it.backend_features))


async def info_queue_status(context: Context, write: Write, values: Values) -> None:
    """Describe a queue of a virtio device."""
    path = str(values["path"])
    it = virtqueues.x_query_virtio_queue_status(context, path=path, queue=int(values["queue"]))
    rows = {
        "device_name": it.name,
        "queue_index": it.queue_index,
        "inuse": it.inuse,
        "used_idx": it.used_idx,
        "signalled_used": it.signalled_used,
        "signalled_used_valid": it.signalled_used_valid,
        "last_avail_idx": it.last_avail_idx,
        "shadow_avail_idx": it.shadow_avail_idx,
    }
    ring = {
        "num": it.vring_num,
        "num_default": it.vring_num_default,
        "align": it.vring_align,
        "desc": f"{it.vring_desc:#018x}",
        "avail": f"{it.vring_avail:#018x}",
        "used": f"{it.vring_used:#018x}",
    }
    write(f"{path}:\n{_rows(rows, 21)}  VRing:\n")
    write("".join(f"  {line}\n" for line in _rows(ring, 13).splitlines()))


_QUEUE: Final = (Word("path"), Number("queue", narrow=True))
_NAME: Final = (Word("name"),)
_RULE: Final = (Word("arg1"), Word("arg2", optional=True))
INFO = (
    HmpCommand("network", (), "", "show the network state", info_network),
    HmpCommand("usernet", (), "", "show user network stack connection states", info_user),
    HmpCommand(
        "usbhost",
        (),
        "",
        "show host USB devices",
        says('Command "info usbhost" is not available.\n'),
    ),
    HmpCommand(
        "rocker", _NAME, "name", "Show rocker switch", _refused(rocker.query_rocker, "name")
    ),
    HmpCommand(
        "rocker-ports",
        _NAME,
        "name",
        "Show rocker ports",
        _refused(rocker.query_rocker_ports, "name"),
    ),
    HmpCommand(
        "rocker-of-dpa-flows",
        (*_NAME, Number("tbl_id", optional=True, narrow=True)),
        "name [tbl_id]",
        "Show rocker OF-DPA flow tables",
        _refused(rocker.query_rocker_of_dpa_flows, "name"),
    ),
    HmpCommand(
        "rocker-of-dpa-groups",
        (*_NAME, Number("type", optional=True, narrow=True)),
        "name [type]",
        "Show rocker OF-DPA groups",
        _refused(rocker.query_rocker_of_dpa_groups, "name"),
    ),
    HmpCommand(
        "virtio-status",
        (Word("path"),),
        "path",
        "Display status of a given virtio device",
        info_virtio_status,
    ),
    HmpCommand(
        "virtio-queue-status",
        _QUEUE,
        "path queue",
        "Display status of a given virtio queue",
        info_queue_status,
    ),
    HmpCommand(
        "virtio-vhost-queue-status",
        _QUEUE,
        "path queue",
        "Display status of a given vhost queue",
        _refused(virtqueues.x_query_virtio_vhost_queue_status, "path", "queue"),
    ),
    HmpCommand(
        "virtio-queue-element",
        (*_QUEUE, Number("index", optional=True, narrow=True)),
        "path queue [index]",
        "Display element of a given virtio queue",
        _refused(virtqueues.x_query_virtio_queue_element, "path", "queue"),
    ),
)
COMMANDS = (
    HmpCommand(
        "announce_self",
        (Word("interfaces", optional=True), Word("id", optional=True)),
        "[interfaces] [id]",
        "tell the network where its cards are",
        says(""),
    ),
    HmpCommand(
        "netdev_add",
        (Word("netdev", "", optional=True),),
        "[user|tap|socket|stream|dgram|vde|bridge|hubport|netmap|vhost-user],"
        "id=str[,prop=value][,...]",
        "add host network device",
        add_network,
    ),
    HmpCommand("netdev_del", (Word("id"),), "id", "remove host network device", remove_network),
    HmpCommand(
        "hostfwd_add",
        _RULE,
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "let a port of the host lead to the guest",
        forward,
    ),
    HmpCommand(
        "hostfwd_remove",
        _RULE,
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "let a port of the host lead to the guest no more",
        forward_no_more,
    ),
    HmpCommand(
        "pcie_aer_inject_error",
        (
            Flag("advisory_non_fatal", "a"),
            Flag("correctable", "c"),
            Word("id"),
            Word("error_status"),
            *(Number(f"header{n}", optional=True, narrow=True) for n in range(4)),
            *(Number(f"prefix{n}", optional=True, narrow=True) for n in range(4)),
        ),
        "[-a] [-c] id <error_status> [<tlp header> [<tlp header prefix>]]",
        "let a PCI express device report an error",
        inject,
    ),
)
