"""``--monitor``'s argument, read without QAPI's machinery: the greeting waits for it."""

from typing import Any, NamedTuple

from blockemu.qmp_server.invalid import (
    InvalidInput,
    Missing,
    NotAccepted,
    Unexpected,
    WrongType,
    WrongValue,
)
from blockemu.qmp_server.keyval import parse_option

_MODES = ("readline", "control")
_BOOLEANS = {
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}


class MonitorOptions(NamedTuple):
    """The QAPI type MonitorOptions."""

    chardev: str
    hmp: bool = False
    pretty: bool = False

    @classmethod
    def parse(cls, text: str) -> "MonitorOptions":
        """Read ``[chardev=]NAME[,id=ID][,mode=MODE][,pretty=on|off]``, or JSON.

        Raises:
            ProtocolError: it is something else.
        """
        given, keyval = parse_option(text, "chardev")
        _string(given, "id")
        mode = _string(given, "mode")
        if mode is not None and mode not in _MODES:
            raise _at(NotAccepted(mode), "mode")
        pretty = _boolean(given, "pretty", keyval=keyval)
        chardev = _string(given, "chardev")
        if chardev is None:
            raise _at(Missing(), "chardev")
        for key in given:
            if key not in ("id", "mode", "pretty", "chardev"):
                raise _at(Unexpected(), key)
        return cls(chardev, mode == "readline", pretty)


def _string(given: dict[str, Any], key: str) -> str | None:
    value = given.get(key)
    if key in given and not isinstance(value, str):
        raise _at(WrongType("string"), key)
    return value


def _boolean(given: dict[str, Any], key: str, *, keyval: bool) -> bool:
    value = given.get(key, False)
    if keyval and isinstance(value, str):
        value = _BOOLEANS.get(value)
        if value is None:
            raise _at(WrongValue("'on' or 'off'"), key)
    if not isinstance(value, bool):
        raise _at(WrongType("boolean"), key)
    return value


def _at(error: InvalidInput, key: str) -> InvalidInput:
    error.parts.append(key)
    return error
