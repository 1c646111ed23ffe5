"""Devices of the machine (qapi/qdev.json) and its reset (qapi/run-state.json)."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.run_state import ShutdownCause


class DeviceOptions(Struct):
    """A device's type and place; its properties come beside them."""

    driver: str
    bus: str | None = None
    id: str | None = None


class DeviceDeleted(Event, event="DEVICE_DELETED"):
    """A device is gone, or one behind a proxy.

    @device: its id, if it had one
    @path: its path
    """

    device: str | None = None
    path: str


class Reset(Event, event="RESET"):
    """The machine was reset.

    @guest: whether the guest wanted it
    @reason: why
    """

    guest: bool
    reason: ShutdownCause
