"""human-monitor-command, by which QMP's clients reach the human monitor."""

from blockemu.commands.context import Context
from blockemu.errors import InvalidParameterValue
from blockemu.qmp_server.dispatch import command


@command(since="0.14", features=("savevm-monitor-nodes",))
async def human_monitor_command(
    context: Context, *, command_line: str, cpu_index: int | None = None
) -> str:
    """Run a line of the human monitor and return what it prints there.

    @command-line: the line
    @cpu-index: the CPU that it is about
    """
    hardware = context.emu.devices.hardware
    if cpu_index is not None and not 0 <= cpu_index < len(hardware.cpus):
        raise InvalidParameterValue("cpu-index", "a CPU number")
    from blockemu.commands.hmp import run_line  # start-up: it has as many modules as QMP

    printed: list[str] = []
    looked_at, hardware.looked_at = hardware.looked_at, cpu_index or 0
    try:
        await run_line(context, command_line, printed.append)
    finally:
        hardware.looked_at = looked_at
    return "".join(printed).replace("\n", "\r\n")
