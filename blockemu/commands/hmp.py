"""The human monitor: its commands, and how a line of it is run."""

from collections.abc import Sequence
from typing import Any

from blockemu.backend import Backend
from blockemu.commands import (
    hmp_block,
    hmp_cpu,
    hmp_displays,
    hmp_info,
    hmp_jobs,
    hmp_machine,
    hmp_media,
    hmp_migration,
    hmp_networks,
    hmp_objects,
    hmp_reports,
    hmp_throttling,
)
from blockemu.commands.backends import backend_of_device
from blockemu.commands.context import Context
from blockemu.commands.hmp_line import BadLine, Flag, HmpCommand, Line, Rest, Values, Word, Write
from blockemu.emulator import Emulator
from blockemu.errors import PermissionConflict, QmpError
from blockemu.machine.questions import LOG_ITEMS
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.qemu_io.interpreter import Interpreter, Output


async def run_line(context: Context, text: str, write: Write) -> None:
    """Run a line; what goes wrong is written too (after handle_hmp_command, monitor/hmp.c)."""
    machine = context.emu.machine
    line = Line(text, machine.look)
    if line.ended:
        return
    entry = find(line.name())
    while entry is not None and entry.parts and not line.ended:
        entry = find(line.name(), entry.parts)
    called = text[: line.at]
    if entry is None:
        write(f"unknown command: '{called}'\n")
        return
    try:
        values = line.arguments(entry.name, entry.arguments)
    except BadLine as e:
        context.emu.stdout(e.printed)
        write(f'{e}Try "help {called}" for more information\n')
        return
    finally:
        machine.look = line.look
    try:
        await entry.run(context, write, values)
    except QmpError as e:
        write(f"Error: {e}\n{e.hint}")


def find(name: str, table: Sequence[HmpCommand] | None = None) -> HmpCommand | None:
    """Look a command up by one of its names."""
    return next((entry for entry in table or COMMANDS if entry.called(name)), None)


async def help_(context: Context, write: Write, values: Values) -> None:
    """List the commands, or those of ``info``, or one (help_cmd, monitor/hmp.c)."""
    first, _, rest = str(values["name"]).strip().partition(" ")
    second = rest.strip().partition(" ")[0]
    if first == "log" and not second:
        write(LOG_ITEMS)
    elif first == "info":
        one = find(second, hmp_info.INFO) if second else None
        if second and one is None:
            write(f"unknown command: 'info {second}'\n")
            return
        write(_explain(one, "info ") if one else hmp_info.list_info())
    else:
        entry = find(first)
        if first and entry is None:
            write(f"unknown command: '{first}'\n")
            return
        for each in [entry] if entry else sorted(COMMANDS, key=lambda entry: entry.name):
            write(_explain(each))


def _explain(one: HmpCommand, before: str = "") -> str:
    return f"{before}{one.name} {one.usage} -- {one.help}\n"


async def quit_(context: Context, write: Write, values: Values) -> None:
    """End the program."""
    context.shut_down("host-qmp-quit")


async def qemu_io(context: Context, write: Write, values: Values) -> None:
    """Run a line of qemu-io on a device's backend, or on a node (after hmp_qemu_io).

    A node gets a backend for the time of the command, requests that it began included; a device's
    own keeps the permissions that the command needed.
    """
    emu, name = context.emu, str(values["device"])
    output = Output(out=emu.stdout, err=emu.warn, report=write, tell=write)
    backend = backend_of_device(emu, name) if values["qdev"] else emu.graph.named(name)
    temporary = backend is None
    if backend is None:
        backend = on_node(emu, emu.graph.lookup_either("", name))
    interpreter = Interpreter(backend, output, graph=emu.graph, clocks=emu.clocks, tasks=emu.tasks)
    try:
        await interpreter.run(str(values["command"]))
    finally:
        if temporary:
            await interpreter.settle()
            await emu.graph.remove(backend)


def on_node(emu: Emulator, node: Node[Any]) -> Backend:
    """Return a new backend on a node.

    It wants consistent reads as the way to them, though QEMU's does not, but not where they would
    be in somebody's way.
    """
    backend = Backend(perm=Perm.CONSISTENT_READ)
    try:
        emu.graph.insert(backend, node)
    except PermissionConflict:
        backend = Backend()
        emu.graph.insert(backend, node)
    return backend


COMMANDS = (
    HmpCommand("help|?", (Rest("name"),), "[cmd]", "show the help", help_),
    HmpCommand("quit|q", (), "", "quit the emulator", quit_),
    HmpCommand(
        "qemu-io",
        (Flag("qdev", "d"), Word("device", "block device name"), Word("command")),
        '[-d] [device] "[command]"',
        "run a qemu-io command on a block device\n\t\t\t"
        "-d: [device] is a device ID rather than a drive ID or node name",
        qemu_io,
    ),
    *hmp_block.COMMANDS,
    *hmp_cpu.COMMANDS,
    *hmp_displays.COMMANDS,
    *hmp_info.COMMANDS,
    *hmp_jobs.COMMANDS,
    *hmp_machine.COMMANDS,
    *hmp_media.COMMANDS,
    *hmp_migration.COMMANDS,
    *hmp_networks.COMMANDS,
    *hmp_objects.COMMANDS,
    *hmp_reports.COMMANDS,
    *hmp_throttling.COMMANDS,
)
