"""block_set_io_throttle: the limits of a drive."""

from typing import Annotated

from blockemu.backend import Backend
from blockemu.commands.backends import find_backend
from blockemu.commands.context import Context
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Deprecated, Wire
from blockemu.throttling.limits import LIMITS, ThrottleConfig


class NoMedium(QmpError):
    """Limits are for what there is."""

    template = "Device has no medium"


@command(name="block_set_io_throttle", since="1.1")
async def block_set_io_throttle(
    context: Context,
    *,
    device: Annotated[str | None, Deprecated("2.8")] = None,
    id: str | None = None,
    bps: int,
    bps_rd: Annotated[int, Wire("bps_rd")],
    bps_wr: Annotated[int, Wire("bps_wr")],
    iops: int,
    iops_rd: Annotated[int, Wire("iops_rd")],
    iops_wr: Annotated[int, Wire("iops_wr")],
    bps_max: Annotated[int | None, Wire("bps_max")] = None,
    bps_rd_max: Annotated[int | None, Wire("bps_rd_max")] = None,
    bps_wr_max: Annotated[int | None, Wire("bps_wr_max")] = None,
    iops_max: Annotated[int | None, Wire("iops_max")] = None,
    iops_rd_max: Annotated[int | None, Wire("iops_rd_max")] = None,
    iops_wr_max: Annotated[int | None, Wire("iops_wr_max")] = None,
    bps_max_length: Annotated[int | None, Wire("bps_max_length")] = None,
    bps_rd_max_length: Annotated[int | None, Wire("bps_rd_max_length")] = None,
    bps_wr_max_length: Annotated[int | None, Wire("bps_wr_max_length")] = None,
    iops_max_length: Annotated[int | None, Wire("iops_max_length")] = None,
    iops_rd_max_length: Annotated[int | None, Wire("iops_rd_max_length")] = None,
    iops_wr_max_length: Annotated[int | None, Wire("iops_wr_max_length")] = None,
    iops_size: Annotated[int | None, Wire("iops_size")] = None,
    group: str | None = None,
) -> None:
    """Change a drive's limits; those of a group it is in change for all members.

    All zeroes take it out of its group.
    """
    given = locals()
    backend = find_backend(context.emu, device, id)
    if backend.inserted is None:
        raise NoMedium
    values = {name: given[key] for name, key in LIMITS.items() if given[key] is not None}
    config = ThrottleConfig().change_unchecked(values)
    config.check()
    await set_limits(context.emu, backend, config, group, device if device is not None else id)


async def set_limits(
    emu: Emulator, backend: Backend, config: ThrottleConfig, group: str | None, name: str | None
) -> None:
    """Give a backend limits, or none; ``name`` is that of a group of its own."""
    if not config.limits_anything:
        await backend.limit(None)
        return
    groups = emu.throttle_groups
    if backend.throttle is None or group is not None:
        await backend.limit(groups.get(group if group is not None else name or ""))
    assert backend.throttle is not None
    backend.throttle.group.configure(config)
    backend.throttle.restart()
