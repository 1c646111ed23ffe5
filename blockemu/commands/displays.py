"""Displays, keyboards and mice: there are none, which is what each command says in QEMU's words."""

import os

from blockemu.commands.context import Context
from blockemu.commands.fds import NoNamedFd
from blockemu.errors import DeviceNotFound, InvalidParameterValue, QmpError
from blockemu.objects.qom import Object
from blockemu.qmp_server.dispatch import command
from blockemu.schema.displays import (
    AnyDisplay,
    AnyExpirePassword,
    AnyInput,
    AnyKey,
    AnyReload,
    AnySetPassword,
    AnyUpdate,
    DisplayNone,
    ImageFormat,
    SetPasswordAction,
    SetPasswordOptionsVnc,
    VncInfo2,
)
from blockemu.schema.displays import ExpirePasswordOptionsVnc as ExpireVnc


class NoSpice(QmpError):
    """Nobody asked for SPICE."""

    qmp_class = "DeviceNotActive"
    template = "SPICE is not in use"


class PasswordNotSet(QmpError):
    """There is no display to set it for."""

    template = "Could not set password"


class ExpiryNotSet(QmpError):
    """There is no display to set it for."""

    template = "Could not set password expire time"


class NoVnc(QmpError):
    """There is no VNC display."""

    template = "Can not find vnc display"


class InvalidParameter(QmpError):
    """A parameter that makes no sense here."""

    template = "Invalid parameter '{}'"


class BadClient(QmpError):
    """Nothing takes clients by that name."""

    template = "protocol '{}' is invalid"


class NoConsole(QmpError):
    """There is nothing to see."""

    template = "There is no console to take a screendump from"


class NotAConsole(QmpError):
    """A device without a display: (device, head)."""

    template = "Device {} (head {}) is not bound to a QemuConsole"


class HeadWithoutDevice(QmpError):
    """Which device is it a head of."""

    template = "'head' must be specified together with 'device'"


class NotRunning(QmpError):
    """Nobody would notice."""

    template = "VM not running"


class NoInput(QmpError):
    """No device takes such events."""

    template = "Input handler not found for event type {}"


@command(name="add_client", since="0.14")
def add_client(
    context: Context,
    *,
    protocol: str,
    fdname: str,
    skipauth: bool | None = None,
    tls: bool | None = None,
) -> None:
    """Hand a connection to a display; there is none.

    @protocol: the display, or a chardev
    @fdname: the name of the connection
    @skipauth: whether the client need not say who it is
    @tls: whether it speaks TLS
    """
    fd = context.named_fds.pop(fdname, None)
    if fd is None:
        raise NoNamedFd(fdname)
    os.close(fd)
    if protocol == "spice":
        raise NoSpice
    if protocol != "vnc":
        raise BadClient(protocol)


@command(since="3.1")
def query_display_options(context: Context) -> AnyDisplay:
    """Tell where the machine's picture is seen: nowhere."""
    return DisplayNone()


@command(name="set_password", since="0.14")
def set_password(context: Context, options: AnySetPassword) -> None:
    """Set a display's password; there is none."""
    vnc = isinstance(options, SetPasswordOptionsVnc)
    if vnc and options.connected not in (None, SetPasswordAction.KEEP):
        raise InvalidParameter("connected")
    raise PasswordNotSet if vnc else NoSpice


@command(name="expire_password", since="0.14")
def expire_password(context: Context, options: AnyExpirePassword) -> None:
    """Say when a display's password ends; there is none."""
    raise ExpiryNotSet if isinstance(options, ExpireVnc) else NoSpice


@command(since="1.1")
def change_vnc_password(context: Context, *, password: str) -> None:
    """Set the password of VNC; there is none.

    @password: the password
    """
    raise PasswordNotSet


@command(name="client_migrate_info", since="0.14")
def client_migrate_info(
    context: Context,
    *,
    protocol: str,
    hostname: str,
    port: int | None = None,
    tls_port: int | None = None,
    cert_subject: str | None = None,
) -> None:
    """Tell those who see a display where it will be; nobody does.

    @protocol: ``spice``
    @hostname: the host
    @port: the port
    @tls-port: the port for TLS
    @cert-subject: whom its certificate names
    """
    if protocol != "spice":
        raise InvalidParameterValue("protocol", "'spice'")
    raise NoSpice


@command(since="6.0")
def display_reload(context: Context, options: AnyReload) -> None:
    """Have a display read its files again; there is none."""
    if getattr(options, "tls_certs", None):
        raise NoVnc


@command(since="7.1")
def display_update(context: Context, options: AnyUpdate) -> None:
    """Change a display; there is none."""
    raise NoVnc


@command(since="2.3")
def query_vnc_servers(context: Context) -> list[VncInfo2]:
    """List the VNC displays: none."""
    return []


@command(since="0.14")
def screendump(
    context: Context,
    *,
    filename: str,
    device: str | None = None,
    head: int | None = None,
    format: ImageFormat | None = None,
) -> None:
    """Take a picture of a display; there is none.

    @filename: where to
    @device: the device that it is of
    @head: which of its displays
    @format: the picture's format
    """
    if device is not None:
        raise NotAConsole(_device(context, device).name or device, head or 0)
    raise NoConsole if head is None else HeadWithoutDevice


def _device(context: Context, name: str) -> Object:
    """Find a device by its id or its path (find_device_state)."""
    return context.emu.devices.find(name)


@command(since="1.3")
def send_key(context: Context, *, keys: list[AnyKey], hold_time: int | None = None) -> None:
    """Press keys; no device listens.

    @keys: the keys
    @hold-time: for how long, in milliseconds
    """


@command(since="2.6")
def input_send_event(
    context: Context,
    *,
    device: str | None = None,
    head: int | None = None,
    events: list[AnyInput],
) -> None:
    """Do what a hand would with keys and a mouse; what a machine has of these does nothing.

    @device: the display that it is about
    @head: which of the device's
    @events: what to do
    """
    if device is not None:
        raise DeviceNotFound(device)
    if not context.emu.machine.running:
        raise NotRunning
    buses = context.emu.devices.buses
    has_mouse = any(d.model.name == "ps2-mouse" for bus in buses for d in bus.devices)
    for event in events:
        if not has_mouse or event.tag == "abs":
            raise NoInput(event.tag)
