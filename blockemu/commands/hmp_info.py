"""The human monitor's ``info``, whose commands are spread over the families."""

from blockemu.commands import (
    hmp_block,
    hmp_cpu,
    hmp_devices,
    hmp_machine,
    hmp_networks,
    hmp_objects,
    hmp_reports,
)
from blockemu.commands.context import Context
from blockemu.commands.hmp_line import BadLine, HmpCommand, Line, Rest, Values, Write

INFO = (
    *hmp_block.INFO,
    *hmp_cpu.INFO,
    *hmp_devices.INFO,
    *hmp_machine.INFO,
    *hmp_networks.INFO,
    *hmp_objects.INFO,
    *hmp_reports.INFO,
)


def find(name: str) -> HmpCommand | None:
    """Look an ``info`` command up."""
    return next((each for each in INFO if each.name == name), None)


async def info(context: Context, write: Write, values: Values) -> None:
    """Run one of the ``info`` commands."""
    line = Line(str(values["rest"]))
    name = line.name()
    entry = find(name)
    if entry is None:
        write(f"unknown command: 'info {line.text[: line.at]}'\n" if name else list_info())
        return
    try:
        given = line.arguments(name, entry.arguments)
    except BadLine as e:
        context.emu.stdout(e.printed)
        write(f'{e}Try "help info {name}" for more information\n')
        return
    await entry.run(context, write, given)


def list_info() -> str:
    """Return a line for each."""
    rows = sorted(INFO, key=lambda entry: entry.name)
    return "".join(f"info {e.name} {e.usage} -- {e.help}\n" for e in rows)


COMMANDS = (
    HmpCommand(
        "info",
        (Rest("rest"),),
        "[subcommand]",
        "show various information about the system state",
        info,
    ),
)
