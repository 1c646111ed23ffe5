"""Modified UTF-8 as QEMU has it (after util/unicode.c): NUL is C0 80, noncharacters are invalid."""

import re
from typing import Final

_ENCODED: Final = re.compile(
    rb"[\x00-\x7f]+|[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc-\xfd][\x80-\xbf]{0,5}|[\x80-\xbf\xfe\xff]"
)
NONCHARACTERS: Final = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def decode(data: bytes) -> str | None:
    """Return the text, None if a sequence in it is invalid."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if b"\xc0\x80" not in data:
            return None
        text = _decode_each(data)
        return None if "\ufffd" in text and b"\xef\xbf\xbd" not in data else _exact(data)
    return text if text.isascii() or not NONCHARACTERS.search(text) else None


def decode_replacing(data: bytes) -> str:
    """Return the text with U+FFFD for each sequence that is invalid."""
    text = decode(data) if data.isascii() else None
    return _decode_each(data) if text is None else text


def _exact(data: bytes) -> str | None:
    pieces = [_one(match[0]) for match in _ENCODED.finditer(data)]
    return None if None in pieces else "".join(piece for piece in pieces if piece is not None)


def _decode_each(data: bytes) -> str:
    pieces = (_one(match[0]) for match in _ENCODED.finditer(data))
    return "".join("\ufffd" if piece is None else piece for piece in pieces)


def _one(sequence: bytes) -> str | None:
    if sequence == b"\xc0\x80":
        return "\0"
    try:
        text = sequence.decode()
    except UnicodeDecodeError:
        return None
    return None if NONCHARACTERS.search(text) else text


def valid(code: int) -> bool:
    """Tell whether the code point may stand in a string."""
    return 0 <= code <= 0x10FFFF and not NONCHARACTERS.match(chr(code))
