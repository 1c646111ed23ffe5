"""The human monitor's commands about media (after hmp_eject and hmp_change)."""

from blockemu.commands.context import Context
from blockemu.commands.hmp_line import Flag, HmpCommand, Values, Word, Write
from blockemu.commands.media import blockdev_change_medium
from blockemu.commands.media import eject as qmp_eject
from blockemu.errors import QmpError
from blockemu.schema.devices import BlockdevChangeReadOnlyMode

_DEVICE = Word("device", "block device name")


class NoSuchMode(QmpError):
    """Not one of the ways to open a medium."""

    template = "invalid parameter value: {}"


async def eject(context: Context, write: Write, values: Values) -> None:
    """Open a drive's tray and take the medium out."""
    await qmp_eject(context, device=str(values["device"]), force=bool(values["force"]))


async def change(context: Context, write: Write, values: Values) -> None:
    """Put another medium into a drive."""
    if values["device"] == "vnc":
        _refuse_vnc(write, values)
        return
    mode = values.text("mode")
    if mode is not None and mode not in BlockdevChangeReadOnlyMode.__members__.values():
        raise NoSuchMode(mode)
    await blockdev_change_medium(
        context,
        device=str(values["device"]),
        filename=str(values["target"]),
        format=values.text("arg"),
        force=bool(values["force"]),
        read_only_mode=BlockdevChangeReadOnlyMode(mode) if mode is not None else None,
    )


class NoVnc(QmpError):
    """There is no display to have a password."""

    template = "Could not set password"


def _refuse_vnc(write: Write, values: Values) -> None:
    if values["mode"]:
        write("Parameter 'read-only-mode' is invalid for VNC\n")
    elif values["target"] not in ("passwd", "password"):
        write("Expected 'password' after 'vnc'\n")
    else:
        raise NoVnc


COMMANDS = (
    HmpCommand(
        "eject",
        (Flag("force", "f"), _DEVICE),
        "[-f] device",
        "eject a removable medium (use -f to force it)",
        eject,
    ),
    HmpCommand(
        "change",
        (
            *(_DEVICE, Flag("force", "f"), Word("target", "filename")),
            *(Word("arg", optional=True), Word("mode", optional=True)),
        ),
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format, use -f to force the operation",
        change,
    ),
)
