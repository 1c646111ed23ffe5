"""The human monitor's commands about displays, mice and sound, of which a machine has none."""

from typing import Any, Final, TypeVar

from blockemu.commands import displays
from blockemu.commands.context import Context
from blockemu.commands.hmp_cpu import says
from blockemu.commands.hmp_line import HmpCommand, Number, Option, Values, Word, Write
from blockemu.errors import QmpError
from blockemu.qmp_server.qapi import QEnum
from blockemu.schema.displays import (
    DisplayProtocol,
    ExpirePasswordOptionsSpice,
    ExpirePasswordOptionsVnc,
    ImageFormat,
    SetPasswordAction,
    SetPasswordOptionsSpice,
    SetPasswordOptionsVnc,
)

Words = TypeVar("Words", bound=QEnum)
_DISPLAY: Final = Option("display", "d")
_OPTIONAL: Final = ("freq", "bits", "nchannels")


class BadWord(QmpError):
    """(word)."""

    template = "invalid parameter value: {}"


def choose(kind: type[Words], word: object) -> Words:
    """Return the value that a word stands for.

    Raises:
        BadWord: it stands for none.

    """
    try:
        return kind(str(word))
    except ValueError:
        raise BadWord(word) from None


def _display(values: Values) -> str | None:
    return str(values["display"]) if "display" in values else None


async def set_password(context: Context, write: Write, values: Values) -> None:
    """Set a display's password."""
    protocol = choose(DisplayProtocol, values["protocol"])
    word, password = values["connected"], str(values["password"])
    connected = choose(SetPasswordAction, word) if word else SetPasswordAction.KEEP
    options: Any
    if protocol is DisplayProtocol.VNC:
        options = SetPasswordOptionsVnc(
            password=password, connected=connected, display=_display(values)
        )
    else:
        options = SetPasswordOptionsSpice(password=password, connected=connected)
    displays.set_password(context, options)


async def expire_password(context: Context, write: Write, values: Values) -> None:
    """Say when a display's password ends."""
    time = str(values["time"])
    options: Any = ExpirePasswordOptionsSpice(time=time)
    if choose(DisplayProtocol, values["protocol"]) is DisplayProtocol.VNC:
        options = ExpirePasswordOptionsVnc(time=time, display=_display(values))
    displays.expire_password(context, options)


async def screendump(context: Context, write: Write, values: Values) -> None:
    """Write what is seen to a file."""
    format_ = choose(ImageFormat, values["format"]) if "format" in values else None
    displays.screendump(
        context,
        filename=str(values["filename"]),
        device=values.text("device"),
        head=int(values["head"]) if "head" in values else None,
        format=format_,
    )


async def tell_clients(context: Context, write: Write, values: Values) -> None:
    """Tell who sees the display where the machine goes."""
    displays.client_migrate_info(
        context,
        protocol=str(values["protocol"]),
        hostname=str(values["hostname"]),
        port=int(values["port"]) if "port" in values else None,
        tls_port=int(values["tls_port"]) if "tls_port" in values else None,
        cert_subject=values.text("cert_subject"),
    )


async def choose_mouse(context: Context, write: Write, values: Values) -> None:
    """Say which mouse is moved."""
    try:
        context.emu.devices.listeners.choose(int(values["index"]))
    except QmpError as e:
        write(f"{e}\n")


async def record_sound(context: Context, write: Write, values: Values) -> None:
    """Write what is heard to a file."""
    write(f"Audiodev '{values['audiodev']}' not found\n")


COMMANDS = (
    HmpCommand(
        "set_password",
        (Word("protocol"), Word("password"), _DISPLAY, Word("connected", optional=True)),
        "protocol password [-d display] [action-if-connected]",
        "set spice/vnc password",
        set_password,
    ),
    HmpCommand(
        "expire_password",
        (Word("protocol"), Word("time"), _DISPLAY),
        "protocol time [-d display]",
        "set spice/vnc password expire-time",
        expire_password,
    ),
    HmpCommand(
        "screendump",
        (
            Word("filename", "filename"),
            Option("format", "f"),
            Word("device", optional=True),
            Number("head", optional=True, narrow=True),
        ),
        "filename [-f format] [device [head]]",
        "write what is seen to a file, as 'png' or 'ppm'",
        screendump,
    ),
    HmpCommand(
        "client_migrate_info",
        (
            Word("protocol"),
            Word("hostname"),
            Number("port", optional=True, narrow=True),
            Number("tls_port", optional=True, narrow=True),
            Word("cert_subject", optional=True),
        ),
        "protocol hostname port tls-port cert-subject",
        "set migration information for remote display",
        tell_clients,
    ),
    HmpCommand(
        "mouse_move",
        (Word("dx"), Word("dy"), Word("dz", optional=True)),
        "dx dy [dz]",
        "send mouse move events",
        says(""),
    ),
    HmpCommand(
        "mouse_button",
        (Number("button_state", narrow=True),),
        "state",
        "change mouse button state (1=L, 2=M, 4=R)",
        says(""),
    ),
    HmpCommand(
        "mouse_set",
        (Number("index", narrow=True),),
        "index",
        "set which mouse device receives events",
        choose_mouse,
    ),
    HmpCommand(
        "wavcapture",
        (
            Word("path", "filename"),
            Word("audiodev"),
            *(Number(key, optional=True, narrow=True) for key in _OPTIONAL),
        ),
        "path audiodev [frequency [bits [channels]]]",
        "write what is heard to a file",
        record_sound,
    ),
    HmpCommand(
        "stopcapture", (Number("n", narrow=True),), "capture index", "stop capture", says("")
    ),
)
