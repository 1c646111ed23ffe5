"""What values the properties of devices take (after qapi/qobject-input-visitor.c)."""

from collections.abc import Callable
from typing import Final

from blockemu.errors import InvalidParameterValue
from blockemu.machine.device_errors import Expects, NotAccepted
from blockemu.machine.error_policies import POLICIES
from blockemu.qmp_server.scalars import parse_signed, parse_size, parse_unsigned

_BOOLS: Final = ("on", "off", "yes", "no", "y", "n", "true", "false")
_VALUES: Final = {"OnOffAuto": ("on", "off", "auto"), "BlockdevOnError": POLICIES}
_UNSIGNED: Final = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}  # bits


def check_value(name: str, kind: str, value: str) -> None:
    """Refuse a value that a property of a kind does not take.

    Raises:
        QmpError: in QEMU's words.

    """
    if kind == "bool" and value not in _BOOLS:
        raise InvalidParameterValue(name, "'on' or 'off'")
    if value not in _VALUES.get(kind, (value,)):
        raise NotAccepted(name, value)
    if kind == "size":
        _parsed(name, "size", parse_size, value)
    elif kind in _UNSIGNED and _parsed(name, "integer", parse_unsigned, value) >> _UNSIGNED[kind]:
        raise Expects(name, f"{kind}_t")
    elif kind == "int32" and name != "addr":  # that may be slot.function
        number = _parsed(name, "integer", parse_signed, value)
        if number >> 31 not in (0, -1):
            raise Expects(name, "int32_t")


def slot(address: str) -> int:
    """Return the slot that a PCI address names, ``slot`` or ``slot.function``; -1 if none."""
    digits = address.partition(".")[0]
    try:
        return int(digits, 16)
    except ValueError:
        return -1


def _parsed(name: str, what: str, parse: Callable[[str], int], value: str) -> int:
    try:
        return parse(value)
    except ValueError:
        raise Expects(name, what) from None
