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
from blockemu.commands.hmp_line import HmpCommand, Values, Write

INFO = (
    *hmp_block.INFO,
    *hmp_cpu.INFO,
    *hmp_devices.INFO,
    *hmp_machine.INFO,
    *hmp_networks.INFO,
    *hmp_objects.INFO,
    *hmp_reports.INFO,
)


async def info(context: Context, write: Write, values: Values) -> None:
    """List the ``info`` commands."""
    write(list_info())


def list_info() -> str:
    """Return a line for each."""
    rows = sorted(INFO, key=lambda entry: entry.name)
    return "".join(f"info {e.name} {e.usage} -- {e.help}\n" for e in rows)


COMMANDS = (
    HmpCommand(
        "info",
        (),
        "[subcommand]",
        "show various information about the system state",
        info,
        INFO,
    ),
)
