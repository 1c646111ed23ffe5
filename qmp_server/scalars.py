"""Numbers and booleans as command lines spell them (after util/cutils.c and qapi/qapi-util.c).

All raise ValueError for text that QEMU refuses.
"""

import re
from typing import Final

# Compiled when the first text comes: that takes longer than most runs of a tool parse (start-up).
_INTEGER: Final = r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)"
_NUMBER: Final = (
    r"[ \t\n\v\f\r]*[+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
)
_SIZE: Final = (
    r"[ \t\n\v\f\r]*\+?(?:(?P<hex>0+[xX][0-9a-fA-F]+)|(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]*))?)"
    r"(?P<suffix>[bBkKmMgGtTpPeE]?)"
)
_BOOLEANS: Final = {
    "on": True,
    "yes": True,
    "true": True,
    "y": True,
    "off": False,
    "no": False,
    "false": False,
    "n": False,
}


def c_int(value: int, bits: int = 32) -> int:
    """Return what is left of a number in an integer of C: its low bits, signed."""
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def _parse(text: str) -> int:
    match = re.fullmatch(_INTEGER, text)
    if match is None:
        raise ValueError(text)
    sign, digits = match.groups()
    if digits[:2] in ("0x", "0X"):
        value = int(digits, 16)
    else:
        value = int(digits, 8 if digits[0] == "0" else 10)
    return -value if sign == "-" else value


def parse_signed(text: str) -> int:
    """Return a 64-bit integer: decimal, octal or hexadecimal."""
    value = _parse(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(text)
    return value


def parse_unsigned(text: str) -> int:
    """Return an unsigned 64-bit integer; a negative one wraps, as strtoull has it."""
    value = _parse(text)
    if abs(value) >= 1 << 64:
        raise ValueError(text)
    return value % (1 << 64)


def parse_number(text: str) -> float:
    """Return a finite floating-point number."""
    if re.fullmatch(_NUMBER, text) is None:
        raise ValueError(text)
    value = float.fromhex(text) if "x" in text.lower() else float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def parse_bool(text: str) -> bool:
    """Return on, yes, true, y or off, no, false, n as bool."""
    if text not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text]


class TooLarge(ValueError):
    """A number that 64 bits do not hold."""


def parse_size(text: str) -> int:
    """Return a size in bytes: suffixes B K M G T P E (powers of 1024), fractions with a suffix.

    Raises:
        TooLarge: it is 2^64 or more.
        ValueError: it is no size.

    """
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise ValueError(text)
    scale = 10 * max("BKMGTPE".find(match["suffix"].upper()), 0) if match["suffix"] else 0
    if match["hex"]:
        value = int(match["hex"], 16)
        if value >= 1 << 64:
            raise TooLarge(text)
        value <<= scale
    else:
        value = int(match["whole"])
        if value >= 1 << 64:
            raise TooLarge(text)
        value = _with_fraction(value, match["part"] or "", scale, text)
    if value >= 1 << 64:
        raise TooLarge(text)
    return value


def _with_fraction(whole: int, part: str, scale: int, text: str) -> int:
    fraction = int(float(f"0.{part or '0'}") * 2.0**64)  # fixed point, as QEMU has it
    if fraction and not scale:
        raise ValueError(text)
    whole_bytes, half = divmod(((whole << 64) + fraction) << scale, 1 << 64)
    return whole_bytes + (half >> 63 if scale else 0)
