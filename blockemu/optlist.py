"""The older command-line syntax, ``backend,key=value,flag``: QEMU's QemuOpts.

After util/qemu-option.c.  Types are "string", "bool", "number" and "size".
"""

from collections.abc import Callable, Mapping

from blockemu.errors import InvalidParameterValue, QmpError, ValueOutOfRange, ValueTooLarge
from blockemu.qmp_server.scalars import TooLarge, parse_size

SIZE_WANTED = "a non-negative number below 2^64"
SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively.\n"
)
IDENTIFIER_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n"


class InvalidParameter(QmpError):
    """No such option."""

    template = "Invalid parameter '{}'"


class HelpWanted(Exception):
    """``help`` was among the options, or another word for it, which is given."""


def parse_options(
    text: str, implied: str, types: Mapping[str, str], warn: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Return the options in ``text``, the last one of each name; the first may omit its key.

    Raises:
        HelpWanted: the user asks for help.
        QmpError: a name is unknown or a value does not fit; ``warn`` hears of bare flags, which
            are good ones for an image to be made.
    """
    pairs = list(_pairs(text, implied))
    found: dict[str, str] = {}
    name = next((value for key, value, _ in pairs if key == "id"), None)
    if name is not None and not is_identifier(name):
        raise InvalidParameterValue("id", "an identifier", hint=IDENTIFIER_HINT)
    for key, value, flag in pairs:
        if flag is not None and key in ("help", "?"):
            raise HelpWanted(key)
        if flag is not None and warn is not None:
            warn(f"short-form boolean option '{flag}' deprecated\nPlease use {key}={value} instead")
        found[key] = value
        if key != "id":
            if key not in types:
                raise InvalidParameter(key)
            _check(key, value, types[key])
    return found


def parse_any(text: str, warn: Callable[[str], None], implied: str = "") -> dict[str, str]:
    """Return the options in ``text``, whatever their names; the first may omit its key.

    Raises:
        QmpError: ``id`` is among them and no identifier; ``warn`` hears of bare flags.
    """
    found = {}
    for key, value, flag in _pairs(text, implied):
        if key == "id" and not is_identifier(value):
            raise InvalidParameterValue("id", "an identifier", hint=IDENTIFIER_HINT)
        if flag is not None and key not in ("help", "?"):
            warn(f"short-form boolean option '{flag}' deprecated\nPlease use {key}={value} instead")
        found[key] = value
    return found


def _pairs(text: str, implied: str) -> list[tuple[str, str, str | None]]:
    """Return (key, value, flag as written) of each item; ``,,`` is a comma in a value.

    In a flag it is none: there it ends the flag, and an empty one follows (get_opt_name_value,
    util/qemu-option.c).
    """
    pairs: list[tuple[str, str, str | None]] = []
    rest = text
    while rest:
        key = rest[: min((at for at in map(rest.find, "=,") if at >= 0), default=len(rest))]
        if rest[len(key) :].startswith("="):
            value, rest = _value(rest[len(key) + 1 :])
            pairs.append((key, value, None))
        elif implied and not pairs:
            value, rest = _value(rest)
            pairs.append((implied, value, None))
        else:
            off = key.startswith("no")
            pairs.append((key[2:] if off else key, "off" if off else "on", key))
            rest = rest[len(key) + 1 :]
    return pairs


def _value(text: str) -> tuple[str, str]:
    """Return a value and what follows on the comma behind it."""
    value, _, rest = text.replace(",,", "\0").partition(",")
    return value.replace("\0", ","), rest.replace("\0", ",,")


def _check(key: str, value: str, kind: str) -> None:
    if kind == "bool":
        if value not in ("on", "off", "yes", "no", "y", "n", "true", "false"):
            raise InvalidParameterValue(key, "'on' or 'off'")
    elif kind == "number":
        if (found := number(value)) is None:
            raise InvalidParameterValue(key, "a number")
        if abs(found) >= 1 << 64:
            raise ValueTooLarge(value, key)
    elif kind == "size":
        read_size(key, value)


def read_size(key: str, value: str) -> int:
    """Return the bytes that an option says as text (parse_option_size).

    Raises:
        InvalidParameterValue: it is no size.
        ValueOutOfRange: it is 2^64 or more.

    """
    try:
        return parse_size(value)
    except TooLarge:
        raise ValueOutOfRange(value, key) from None
    except ValueError:
        raise InvalidParameterValue(key, SIZE_WANTED, hint=SIZE_HINT) from None


def is_on(value: str | None, *, default: bool = False) -> bool:
    """Read a checked bool."""
    return default if value is None else value in ("on", "yes", "y", "true")


def number(value: str) -> int | None:
    """Read a number in C's notation; None if it is none."""
    digits = value.strip().lower()
    try:
        if digits[:1] == "0" and digits[1:].isdigit():
            return int(digits, 8)
        return int(digits, 0)
    except ValueError:
        return None


def size(value: str) -> int | None:
    """Read a number of bytes, with an optional suffix and then fractions; None if it is none."""
    try:
        return parse_size(value)
    except ValueError:
        return None


def is_identifier(name: str) -> bool:
    """Tell whether a user may give this name (id_wellformed, util/id.c)."""
    return (
        name[:1].isascii()
        and name[:1].isalpha()
        and all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
    )
