"""Numbers as qemu-io reads and prints them; all sizes in bytes."""

import re
from collections.abc import Callable

from blockemu.qemu_io.refusals import BadPattern, NotANumber, NotASize, SizeTooLarge

_DECIMAL = re.compile(r"[ \t-\r]*([+-]?)([0-9]+)")
_HEX = re.compile(r"[ \t-\r]*\+?0[xX]([0-9a-fA-F]+)")
_FRACTION = re.compile(r"\.[0-9]+")
_EXPONENT = re.compile(r"[eE][+-]?[0-9]")
_INTEGER = re.compile(r"[ \t-\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_SHIFTS = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_UNITS = ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))
_UINT64, _INT64 = 1 << 64, 1 << 63


def parse_size(text: str, warn: Callable[[str], None]) -> int:
    """Read a size with an optional suffix (after qemu_strtosz, util/cutils.c).

    Raises:
        NotASize: it is not one.
        SizeTooLarge: it is 8 EiB or more.

    """
    match = _DECIMAL.match(text)
    if match is None or match[1] == "-":
        raise NotASize(text)
    value, end, is_hex = _decimal(match[2]), match.end(), False
    if value == 0 and text[end : end + 1] in ("x", "X"):
        match = _HEX.match(text)
        if match is None:
            raise NotASize(text)
        value, end, is_hex = int(match[1], 16), match.end(), True
    if value >= _UINT64:
        raise NotASize(text) if end < len(text) else SizeTooLarge(text)
    fraction = 0
    if text[end : end + 1] == ".":
        if is_hex:
            raise NotASize(text)
        fraction, end = _fraction(text, end)
    shift = _SHIFTS.get(text[end : end + 1].upper())
    if shift is not None:
        end += 1
        if is_hex:
            warn(f"Using a multiplier suffix on hex numbers is deprecated: {text}")
    if end < len(text) or (fraction and not shift):
        raise NotASize(text)
    value = (((value << 64) + fraction << (shift or 0)) + (1 << 63)) >> 64
    if value >= _INT64:
        raise SizeTooLarge(text)
    return value


def _decimal(digits: str) -> int:
    """Convert digits; from 25 on what counts is that there are so many."""
    return int(digits.lstrip("0")[:25] or "0")


def _fraction(text: str, point: int) -> tuple[int, int]:
    """Return what follows a decimal point in 2^-64ths, and where it ends."""
    match = _FRACTION.match(text, point)
    if match is None:
        return 0, point + 1
    if _EXPONENT.match(text, match.end()):
        raise NotASize(text)
    return min(int(float(match[0]) * _UINT64), _UINT64 - 1), match.end()


def parse_integer(text: str) -> int | None:
    """Read a C integer constant, as strtol with base 0 does; None if it is none."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[2]
    if digits[0] != "0":
        value = _decimal(digits)
    else:
        value = int(digits, 16 if digits[1:2] in ("x", "X") else 8)
    return -value if match[1] == "-" else value


def parse_pattern(text: str, _warn: Callable[[str], None]) -> int:
    """Read a byte.

    Raises:
        BadPattern: it does not fit in one.

    """
    value = parse_integer(text)
    if value is None or not 0 <= value <= 255:
        raise BadPattern(text)
    return value


def parse_milliseconds(text: str) -> int:
    """Read a time.

    Raises:
        NotANumber: it is not one, or negative.

    """
    value = parse_integer(text)
    if value is None or value < 0:
        raise NotANumber(text)
    return value


def size_text(value: float) -> str:
    """Format a size or a rate (after cvtstr, qemu-io-cmds.c)."""
    for shift, unit in _UNITS:
        if value >= 1 << shift:
            return _trimmed(f"{value / (1 << shift):.3f}", unit)
    return _trimmed(f"{value:f}", "bytes")


def _trimmed(number: str, unit: str) -> str:
    whole, point, _ = number.partition(".000")
    return f"{whole if point else number} {unit}"


def duration_text(nanoseconds: int, *, fixed: bool = False) -> str:
    """Format a time; ``fixed`` always with hours (after timestr, qemu-io-cmds.c)."""
    seconds, rest = divmod(nanoseconds, 10**9)
    if not fixed and not seconds:
        return f"{rest / 1e9:05.2f} sec"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds + rest / 1e9:05.2f}"
