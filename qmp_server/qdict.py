"""JSON as QEMU prints it: its key order, its escapes, its spacing (after qobject/json-writer.c)."""

import re
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from blockemu.qmp_server.order import Buckets, bucket, in_order
from blockemu.qmp_server.utf8 import NONCHARACTERS

__all__ = ["Buckets", "bucket", "encode", "encode_pretty", "in_order", "quote"]

_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-f]{4})|.)")
_PAIR: Final = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U0001fffe-\U0010ffff]")
_keys: dict[str, str] = {}
_MOST_KEYS: Final = 8192


def quote(text: str) -> str:
    """Return a string in quotes, in ASCII; what is not a Unicode character becomes U+FFFD."""
    if not text.isascii() and _PAIR.search(text):
        text = NONCHARACTERS.sub("\ufffd", text)
    quoted = encode_basestring_ascii(text)
    return _ESCAPE.sub(_upper, quoted) if "\\u" in quoted else quoted


def _upper(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else "\\u" + match[1].upper()


def _key(key: str) -> str:
    """Return a key as printed, colon included."""
    text = _keys.get(key)
    if text is None:
        if len(_keys) > _MOST_KEYS:
            _keys.clear()
        text = _keys[key] = quote(key) + ": "
    return text


def _double(value: float) -> str:
    return f"{value:.17g}"


def encode(value: Any) -> str:
    """Return a plain JSON value on one line.  Values are not checked: ``dump`` makes them."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is int:
        return repr(value)
    if kind is dict:
        if len(value) > 1:
            newest_first = [*value][::-1]  # sorting keeps that order within a bucket
            keys = sorted(newest_first, key=bucket)
            return "{" + ", ".join([_key(key) + encode(value[key]) for key in keys]) + "}"
        for key, item in value.items():
            return "{" + _key(key) + encode(item) + "}"
        return "{}"
    if kind is list:
        return "[" + ", ".join([encode(item) for item in value]) + "]"
    return _constant(value)


def _constant(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, str):
        return quote(str(value))
    raise TypeError(f"not a JSON value: {value!r}")


def encode_pretty(value: Any, indent: str = "") -> str:
    """Return a plain JSON value over lines; empty lists and objects take two, as in QEMU."""
    inner = indent + "    "
    if type(value) is dict:
        rows = [_key(key) + encode_pretty(value[key], inner) for key in in_order(value)]
        opening, closing = "{", "}"
    elif type(value) is list:
        rows = [encode_pretty(item, inner) for item in value]
        opening, closing = "[", "]"
    else:
        return encode(value)
    body = ",".join(f"\n{inner}{row}" for row in rows)
    return f"{opening}{body}\n{indent}{closing}"
