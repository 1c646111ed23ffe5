"""Devices come and go; the machine is reset."""

import asyncio
from typing import Any

from blockemu.commands.context import Context
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.invalid import WrongType
from blockemu.schema.devices import DeviceOptions, Reset
from blockemu.schema.run_state import (
    RebootAction,
    RunState,
    Shutdown,
    ShutdownAction,
    ShutdownCause,
)


@command(
    name="device_add",
    since="0.13",
    gen=False,
    features={"json-cli": "6.2", "json-cli-hotplug": "7.0"},
)
async def device_add(context: Context, options: DeviceOptions) -> None:
    """Plug a device in; its properties stand beside its type and id."""
    given: Any = options  # as it came: which members there are depends on the type
    await context.emu.devices.add({key: _text(key, value) for key, value in given.items()})


@command(name="device_del", since="0.14")
async def device_del(context: Context, *, id: str) -> None:
    """Ask a device to leave.

    @id: the device's id or path
    """
    emu = context.emu
    finish = await emu.devices.request_removal(id)
    if finish is not None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: emu.keep(finish()))  # the reply comes first


@command(name="system_reset", since="0.14")
async def system_reset(context: Context) -> None:
    """Reset the machine, unless that is its end: devices that were asked to leave do."""
    emu = context.emu
    if emu.machine.on_reset is RebootAction.SHUTDOWN:
        await _end_instead(context)
        return
    emu.machine.reset()
    emu.emit(Reset(guest=False, reason=ShutdownCause.HOST_QMP_SYSTEM_RESET))
    asyncio.get_running_loop().call_soon(lambda: emu.keep(emu.devices.reset()))


async def _end_instead(context: Context) -> None:
    """End, or only stop, in place of a reset (main_loop_should_exit, softmmu/runstate.c)."""
    emu, reason = context.emu, ShutdownCause.HOST_QMP_SYSTEM_RESET
    if emu.machine.on_end is ShutdownAction.POWEROFF:
        context.shut_down(reason)
        return
    emu.emit(Shutdown(guest=False, reason=reason))
    await emu.stop_machine(RunState.SHUTDOWN)


def _text(key: str, value: Any) -> str:
    """Return a property's value as the command line would have it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    error = WrongType("string")
    error.parts.append(key)
    raise error
