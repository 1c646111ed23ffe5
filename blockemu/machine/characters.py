"""The older way to name a chardev: ``stdio``, ``unix:PATH,server=on``, ... (chardev/char.c)."""

from collections.abc import Callable
from typing import Final

from blockemu.chardevs import Chardevs
from blockemu.errors import QmpError
from blockemu.optlist import parse_options

Tell = Callable[[str], None]


class NoCharDriver(QmpError):
    """(text): nothing that it could be."""

    template = "'{}' is not a valid char driver"


class BadPort(QmpError):
    """A port that leads to nothing: (kind, where to)."""

    template = "could not connect {} device to character backend '{}'"


_ALONE: Final = ("none", "null", "pty", "msmouse", "wctablet", "braille", "testdev", "stdio", "vc")
_BEFORE: Final = (
    *("vc:", "con:", "COM", "file:", "pipe:", "tcp:", "telnet:", "tn3270:", "websocket:"),
    *("udp:", "unix:", "/dev/"),
)


def check_port(kind: str, value: str, chardevs: Chardevs, tell: Tell) -> None:
    """Refuse a port that leads to nothing (qemu_chr_parse_compat).  Raises BadPort."""
    text = value.removeprefix("mon:")
    name = text.removeprefix("chardev:")
    if name != text:
        known = any(each.name == name for each in chardevs)
    else:
        known = text in _ALONE or text.startswith(_BEFORE)
        if not known:
            tell(str(NoCharDriver(text)))
    if not known:
        raise BadPort(kind, value)


def parse_character(text: str, warn: Tell, types: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return backend and options, as ``-chardev`` would have them.

    Raises:
        QmpError: it is none.

    """
    kind, colon, rest = text.partition(":")
    if not colon and kind in ("null", "stdio"):
        return kind, {}
    if kind == "unix" and colon:
        return "socket", parse_options(rest, "path", types, warn)
    if kind in ("file", "pipe") and colon:
        return kind, {"path": rest}
    if kind in ("tcp", "telnet") and colon:
        address, comma, more = rest.partition(",")
        host, _, port = address.rpartition(":")
        options = parse_options(more, "", types, warn) if comma else {}
        return "socket", {"host": host.strip("[]"), "port": port, **options}
    raise NoCharDriver(text)
