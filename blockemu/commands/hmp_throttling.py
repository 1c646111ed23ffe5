"""The human monitor's block_set_io_throttle (after hmp_block_set_io_throttle)."""

from blockemu.commands.context import Context
from blockemu.commands.hmp_line import HmpCommand, Number, Values, Word, Write
from blockemu.commands.throttling import block_set_io_throttle

_LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


async def set_limits(context: Context, write: Write, values: Values) -> None:
    """Change the limits of a drive, or of a device's if no drive has the name."""
    name = str(values["device"])
    by = "id" if context.emu.graph.named(name) is None else "device"
    limits = {limit: int(values[limit]) for limit in _LIMITS}
    await block_set_io_throttle(context, **{by: name}, **limits)


COMMANDS = (
    HmpCommand(
        "block_set_io_throttle",
        (Word("device", "block device name"), *(Number(limit) for limit in _LIMITS)),
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "change I/O throttle limits for a block drive",
        set_limits,
    ),
)
