"""The older way to name a chardev: ``stdio``, ``unix:PATH,server=on``, ... (chardev/char.c)."""

from collections.abc import Callable

from blockemu.errors import QmpError
from blockemu.optlist import parse_options

Tell = Callable[[str], None]


class NoCharDriver(QmpError):
    """(text): nothing that it could be."""

    template = "'{}' is not a valid char driver"


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
