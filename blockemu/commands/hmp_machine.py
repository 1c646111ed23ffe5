"""The human monitor's commands about the machine itself and what it is made of."""

from typing import Any

from blockemu.commands import guest_memory, machine, machine_facts, networks
from blockemu.commands.chardev import chardev_remove, chardev_send_break, query_chardev
from blockemu.commands.context import Context
from blockemu.commands.hmp_displays import choose
from blockemu.commands.hmp_line import HmpCommand, Number, Rest, Switch, Values, Word, Write
from blockemu.commands.objects import object_del
from blockemu.errors import QmpError
from blockemu.objects.object_options import ObjectHelp, parse_object
from blockemu.qmp_server.errors import ProtocolError
from blockemu.schema.run_state import WatchdogAction


async def info_name(context: Context, write: Write, values: Values) -> None:
    """Tell what the machine's user calls it."""
    title = context.emu.machine.title
    if title is not None:
        write(f"{title}\n")


async def info_uuid(context: Context, write: Write, values: Values) -> None:
    """Tell the machine's UUID."""
    write(f"{context.emu.machine.uuid}\n")


async def info_chardev(context: Context, write: Write, values: Values) -> None:
    """List the chardevs."""
    for each in query_chardev(context):
        write(f"{each.label}: filename={each.filename}\n")


async def info_iothreads(context: Context, write: Write, values: Values) -> None:
    """List the I/O threads."""
    for each in machine_facts.query_iothreads(context):
        write(f"{each.id}:\n  thread_id={each.thread_id}\n  poll-max-ns={each.poll_max_ns}\n")
        write(f"  poll-grow={each.poll_grow}\n  poll-shrink={each.poll_shrink}\n")
        write(f"  aio-max-batch={each.aio_max_batch}\n")


def _says(text: str) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        write(text)

    return run


def _refused(query: Any) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        query(context)

    return run


async def info_mice(context: Context, write: Write, values: Values) -> None:
    """List the mice."""
    found = machine_facts.query_mice(context)
    for each in found:
        mark, end = "*" if each.current else " ", " (absolute)" if each.absolute else ""
        write(f"{mark} Mouse #{each.index}: {each.name}{end}\n")
    if not found:
        write("No mouse devices connected\n")


async def info_cpus(context: Context, write: Write, values: Values) -> None:
    """List the CPUs; the one that is looked at is marked."""
    for each in machine_facts.query_cpus_fast(context):
        mark = "*" if each.cpu_index == context.emu.devices.hardware.looked_at else " "
        write(f"{mark} CPU #{each.cpu_index}: thread_id={each.thread_id}\n")


async def info_cpu_places(context: Context, write: Write, values: Values) -> None:
    """List the places for CPUs."""
    found = machine_facts.query_hotpluggable_cpus(context)
    write("Hotpluggable CPUs:\n")
    for each in found:
        write(f'  type: "{each.type}"\n  vcpus_count: "{each.vcpus_count}"\n')
        if each.qom_path is not None:
            write(f'  qom_path: "{each.qom_path}"\n')
        write("  CPUInstance Properties:\n")
        for name in ("node", "socket", "die", "cluster", "core", "thread"):
            number = getattr(each.props, f"{name}_id")
            if number is not None:
                write(f'    {name}-id: "{number}"\n')


async def info_memory_size(context: Context, write: Write, values: Values) -> None:
    """Show how much memory there is."""
    found = machine_facts.query_memory_size_summary(context)
    write(f"base memory: {found.base_memory}\nplugged memory: {found.plugged_memory}\n")


async def info_numa(context: Context, write: Write, values: Values) -> None:
    """Show the nodes: one, if memory may come later, else none."""
    hardware = context.emu.devices.hardware
    write(f"{hardware.nodes} nodes\n")
    if hardware.nodes:
        write(f"node 0 cpus:{''.join(f' {cpu.number}' for cpu in hardware.cpus)}\n")
        write(f"node 0 size: {hardware.memory >> 20} MB\nnode 0 plugged: 0 MB\n")


async def powerdown(context: Context, write: Write, values: Values) -> None:
    """Ask the guest to end."""
    machine.system_powerdown(context)


async def wakeup(context: Context, write: Write, values: Values) -> None:
    """Wake the guest up."""
    machine.system_wakeup(context)


async def nmi(context: Context, write: Write, values: Values) -> None:
    """Interrupt the CPUs."""
    machine.inject_nmi(context)


async def set_link(context: Context, write: Write, values: Values) -> None:
    """Plug a network cable in, or out."""
    networks.set_link(context, name=str(values["name"]), up=bool(values["up"]))


async def watchdog_action(context: Context, write: Write, values: Values) -> None:
    """Say what a watchdog does."""
    machine.watchdog_set_action(context, action=choose(WatchdogAction, values["action"]))


async def info_memdev(context: Context, write: Write, values: Values) -> None:
    """Show what memory for the guest was made of (hmp_info_memdev, hw/core/machine-hmp-cmds.c)."""
    for each in guest_memory.query_memdev(context):
        write(f"memory backend: {each.id}\n  size:  {each.size}\n")
        for name in ("merge", "dump", "prealloc", "share", "reserve"):
            write(f"  {name}: {'true' if getattr(each, name) else 'false'}\n")
        nodes = ",".join(map(str, each.host_nodes))
        write(f"  policy: {each.policy.value}\n  host nodes: {nodes}\n")
    write("\n")


async def add_object(context: Context, write: Write, values: Values) -> None:
    """Create an object."""
    try:
        options = parse_object(str(values["object"]), context.emu.profile)
    except ObjectHelp as e:
        write(f"{e}\n")
    except ProtocolError as e:
        write(f"Error: {e}\n")
    else:
        context.emu.objects.add(options)


async def delete_object(context: Context, write: Write, values: Values) -> None:
    """Delete an object."""
    object_del(context, id=str(values["id"]))


async def remove_chardev(context: Context, write: Write, values: Values) -> None:
    """Remove a chardev."""
    chardev_remove(context, id=str(values["id"]))


async def send_break(context: Context, write: Write, values: Values) -> None:
    """Send a break on a chardev."""
    chardev_send_break(context, id=str(values["id"]))


async def trace_event(context: Context, write: Write, values: Values) -> None:
    """Trace events, or do not."""
    try:
        machine.trace_event_set_state(
            context, name=str(values["name"]), enable=bool(values["option"])
        )
    except QmpError as e:
        write(f"{e}\n")


async def info_trace_events(context: Context, write: Write, values: Values) -> None:
    """Tell which events are traced."""
    try:
        machine.trace_event_get_state(context, name=str(values["name"]) or "*")
    except QmpError as e:
        write(f"{e}\n")


_ID = (Word("id"),)
INFO = (
    HmpCommand("name", (), "", "show the current VM name", info_name),
    HmpCommand("uuid", (), "", "show the current VM UUID", info_uuid),
    HmpCommand("chardev", (), "", "show the character devices", info_chardev),
    HmpCommand("iothreads", (), "", "show iothreads", info_iothreads),
    HmpCommand("kvm", (), "", "show KVM information", _says("kvm support: disabled\n")),
    HmpCommand(
        "mice",
        (),
        "",
        "show which guest mouse is receiving events",
        info_mice,
    ),
    HmpCommand("tpm", (), "", "show the TPM device", _says("")),
    HmpCommand("vnc", (), "", "show the vnc server status", _says("None\n")),
    HmpCommand("spice", (), "", "show the spice server status", _says("Server: disabled\n")),
    HmpCommand(
        "balloon", (), "", "show balloon information", _refused(machine_facts.query_balloon)
    ),
    HmpCommand("numa", (), "", "show NUMA information", info_numa),
    HmpCommand("cpus", (), "", "show infos for each CPU", info_cpus),
    HmpCommand("memdev", (), "", "show memory backends", info_memdev),
    HmpCommand("memory-devices", (), "", "show memory devices", _says("")),
    HmpCommand(
        "memory_size_summary",
        (),
        "",
        "show the amount of initially allocated and present hotpluggable (if enabled) "
        "memory in bytes.",
        info_memory_size,
    ),
    HmpCommand(
        "hotpluggable-cpus",
        (),
        "",
        "Show information about hotpluggable CPUs",
        info_cpu_places,
    ),
    HmpCommand(
        "vm-generation-id",
        (),
        "",
        "Show Virtual Machine Generation ID",
        _refused(machine_facts.query_vm_generation_id),
    ),
    HmpCommand(
        "replay", (), "", "show record/replay information", _says("Record/replay is not active\n")
    ),
    HmpCommand("roms", (), "", "show roms", _says("")),
    HmpCommand(
        "trace-events",
        (Word("name", optional=True), Number("vcpu", optional=True, narrow=True)),
        "[name] [vcpu]",
        "show available trace-events & their state (name: event name pattern; vcpu: "
        "vCPU to query, default is any)",
        info_trace_events,
    ),
)
COMMANDS = (
    HmpCommand("system_powerdown", (), "", "send system power down event", powerdown),
    HmpCommand("system_wakeup", (), "", "wakeup guest from suspend", wakeup),
    HmpCommand("nmi", (), "", "inject an NMI", nmi),
    HmpCommand(
        "set_link",
        (Word("name"), Switch("up")),
        "name on|off",
        "change the link status of a network adapter",
        set_link,
    ),
    HmpCommand(
        "object_add",
        (Rest("object", optional=False),),
        "[qom-type=]type,id=str[,prop=value][,...]",
        "create QOM object",
        add_object,
    ),
    HmpCommand("object_del", _ID, "id", "destroy QOM object", delete_object),
    HmpCommand("chardev-remove", _ID, "id", "remove chardev", remove_chardev),
    HmpCommand("chardev-send-break", _ID, "id", "send a break on chardev", send_break),
    HmpCommand(
        "watchdog_action",
        (Word("action"),),
        "[reset|shutdown|poweroff|pause|debug|none]",
        "change watchdog action",
        watchdog_action,
    ),
    HmpCommand(
        "trace-event",
        (Word("name"), Switch("option"), Number("vcpu", optional=True, narrow=True)),
        "name on|off [vcpu]",
        "changes status of a specific trace event (vcpu: vCPU to set, default is all)",
        trace_event,
    ),
)
