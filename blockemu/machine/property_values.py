"""What values the properties of devices take (after qapi/qobject-input-visitor.c)."""

from collections.abc import Callable
from typing import Any, Final

from blockemu.errors import InvalidParameterValue
from blockemu.machine.device_errors import Expects, NotAccepted
from blockemu.machine.error_policies import POLICIES
from blockemu.machine.pci import parse_address
from blockemu.machine.refusals import BadPropertyValue, BlockSizePower, BlockSizeRange
from blockemu.qmp_server.scalars import parse_signed, parse_size, parse_unsigned

_BOOLS: Final = ("on", "off", "yes", "no", "y", "n", "true", "false")
_VALUES: Final = {
    "OnOffAuto": ("on", "off", "auto"),
    "BlockdevOnError": POLICIES,
    "FdcDriveType": ("144", "288", "120", "none", "auto"),
    "PCIELinkSpeed": ("2_5", "5", "8", "16"),
    "PCIELinkWidth": ("1", "2", "4", "8", "12", "16", "32"),
    "LostTickPolicy": ("discard", "delay", "slew"),
    "OffAutoPCIBAR": ("off", "auto", "bar0", "bar1", "bar2", "bar3", "bar4", "bar5"),
    "on|off|split": ("on", "off", "split"),
    "BiosAtaTranslation": ("auto", "none", "lba", "large", "rechs"),
}
_UNSIGNED: Final = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}  # bits


def parse_value(owner: str, name: str, kind: str, value: str) -> Any:
    """Return the value that a text stands for, for a property of a type of devices.

    Raises:
        QmpError: the property does not take it, in QEMU's words.

    """
    if kind == "bool":
        if value not in _BOOLS:
            raise InvalidParameterValue(name, "'on' or 'off'")
        return value in ("on", "yes", "y", "true")
    if kind in _VALUES:
        if value not in _VALUES[kind]:
            raise NotAccepted(name, value)
    elif kind == "size":
        return _parsed(name, "size", parse_size, value)
    elif kind in _UNSIGNED:
        number = _parsed(name, "integer", parse_unsigned, value)
        if number >> _UNSIGNED[kind]:
            raise Expects(name, f"{kind}_t")
        return number
    elif kind == "int32" and name == "addr":
        found = parse_address(value)
        if found is None:
            raise BadPropertyValue(owner, name, value)
        return found
    elif kind == "int64":
        return _parsed(name, "integer", parse_signed, value)
    elif kind == "int32":
        number = _parsed(name, "integer", parse_signed, value)
        if number >> 31 not in (0, -1):
            raise Expects(name, "int32_t")
        return number
    return value


def check_block_size(id_: str, name: str, value: int) -> None:
    """Refuse a size of blocks that cannot be (util/block-helpers.c)."""
    if value and not 512 <= value <= 2 << 20:
        raise BlockSizeRange(id_, name, value)
    if value & (value - 1):
        raise BlockSizePower(id_, name, value)


def _parsed(name: str, what: str, parse: Callable[[str], int], value: str) -> int:
    try:
        return parse(value)
    except ValueError:
        raise Expects(name, what) from None
