"""JSON as QEMU prints it: its key order, its escapes, its spacing (after qobject/json-writer.c)."""

from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final

from blockemu.qmp_server.order import Buckets, bucket, in_order

if TYPE_CHECKING:
    import re

__all__ = ["Buckets", "bucket", "encode", "in_order", "prettify", "quote"]

_MOST: Final = 8192  # kept of what clients may invent
_keys: dict[str, str] = {}
_shapes: dict[tuple[str, ...], list[tuple[str, str]]] = {}


def quote(text: str) -> str:
    """Return a string in quotes, in ASCII; what is not a Unicode character becomes U+FFFD."""
    quoted = encode_basestring_ascii(text)
    return _careful(text) if "\\u" in quoted else quoted


def _careful(text: str) -> str:
    import re

    from blockemu.qmp_server.utf8 import NONCHARACTERS

    quoted = encode_basestring_ascii(NONCHARACTERS.sub("\ufffd", text))
    return re.sub(r"\\(?:u([0-9a-f]{4})|.)", _upper, quoted)


def _upper(match: "re.Match[str]") -> str:
    return match[0] if match[1] is None else "\\u" + match[1].upper()


def _key(key: str) -> str:
    """Return a key as printed, colon included."""
    text = _keys.get(key)
    if text is None:
        if len(_keys) > _MOST:
            _keys.clear()
        text = _keys[key] = quote(key) + ": "
    return text


def _shape(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return keys, given in order of insertion, in QEMU's order and as printed."""
    if len(_shapes) > _MOST:
        _shapes.clear()
    shape = [(key, _key(key)) for key in in_order(keys)]
    if len(keys) < 64:
        _shapes[keys] = shape
    return shape


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
        keys = tuple(value)
        shape = _shapes.get(keys) or _shape(keys)
        return "{" + ", ".join([name + encode(value[key]) for key, name in shape]) + "}"
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


def prettify(text: str) -> str:
    """Return JSON that ``encode`` made over lines, as a monitor sends it: CR LF, four spaces.

    Empty lists and objects take two lines, as in QEMU.
    """
    import re

    out: list[str] = []
    line = "\r\n"  # as the next line begins
    empty = False  # whether a container was just opened
    for piece in re.findall(r'"(?:[^"\\]|\\.)*"|[][{}]|, |[^][{}", ]+|.', text):
        if piece in ("]", "}"):
            line = line[:-4]
            out.append(line + piece)
            empty = False
            continue
        if empty:
            out.append(line)
        empty = piece in ("[", "{")
        if empty:
            line += "    "
        out.append(f",{line}" if piece == ", " else piece)
    return "".join(out)
