"""Devices of the machine (qapi/qdev.json) and its reset (qapi/run-state.json)."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import QEnum, Struct
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


class DeviceUnplugGuestError(Event, event="DEVICE_UNPLUG_GUEST_ERROR", since="6.2"):
    """The guest would not let a device go; without a guest that does not happen.

    @device: its id, if it has one
    @path: its path
    """

    device: str | None = None
    path: str


class BlockdevChangeReadOnlyMode(QEnum):
    """Whether a new medium is read-only: as the old one is, or as it is said here."""

    RETAIN = "retain"
    READ_ONLY = "read-only"
    READ_WRITE = "read-write"


class DeviceTrayMoved(Event, event="DEVICE_TRAY_MOVED"):
    """A tray was opened or closed.

    @device: the drive's name, empty if it has none
    @id: the device's id or path
    @tray-open: whether it is open now
    """

    device: str
    id: str
    tray_open: bool


class Reset(Event, event="RESET"):
    """The machine was reset.

    @guest: whether the guest wanted it
    @reason: why
    """

    guest: bool
    reason: ShutdownCause
