"""QEMU's JSON dialect as a stream.

No framing: objects may share a packet or span many.  A whole object of plain ASCII goes through
Python's own scanner; whatever that cannot judge as QEMU would goes through the lexer.
"""

from json import decoder, scanner
from typing import TYPE_CHECKING, Any, Final

from blockemu.qmp_server.errors import ParseError

if TYPE_CHECKING:
    from blockemu.qmp_server.jsonlex import Item, Lexer

__all__ = ["ParseError", "Parser", "parse_integer"]

_MOST_FAST: Final = 1 << 20  # bytes
_MOST_NESTING: Final = 1 << 10
_BLANK: Final = " \t\r\n"


def parse_integer(text: bytes | str) -> int | float:
    """Return an integer if 64 bits hold it, signed or not, else a float."""
    if len(text) > 20:
        return float(text)
    value = int(text)
    return value if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF else float(text)


class _Duplicate(ValueError):
    """The fast path met a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _Duplicate
    return out


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class _Scanning:
    """What Python's scanner is to do."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = float
    parse_int = staticmethod(parse_integer)
    parse_constant = staticmethod(_no_constant)
    parse_string = staticmethod(decoder.scanstring)  # type: ignore[attr-defined]
    memo: dict[str, str] = {}


_make: Final[Any] = scanner.c_make_scanner or scanner.py_make_scanner  # type: ignore[attr-defined]
_scan: Final = _make(_Scanning())


class Parser:
    """Turns bytes into values and errors, in order.  Feed it as they come."""

    def __init__(self) -> None:
        self._lexer: Lexer | None = None  # made when first needed
        self._idle = True

    def feed(self, data: bytes | bytearray | memoryview) -> "list[Item]":
        """Take bytes; return the values and ParseErrors that they complete."""
        data = bytes(data)
        out: list[Item] = []
        begin = 0
        if not self._idle:
            begin = self._slow(data, 0, out, until_idle=True)
        if begin < len(data):
            begin = _fast(data, begin, out)
        if begin < len(data):
            self._slow(data, begin, out)
        return out

    def flush(self) -> "list[Item]":
        """End of input: return what the rest makes, and start anew."""
        out: list[Item] = []
        if self._lexer is not None:
            self._lexer.flush(out)
        self._lexer, self._idle = None, True
        return out

    def _slow(self, data: bytes, pos: int, out: "list[Item]", *, until_idle: bool = False) -> int:
        if self._lexer is None:
            from blockemu.qmp_server.jsonlex import Lexer

            self._lexer = Lexer()
        pos = self._lexer.feed(data, pos, out, until_idle=until_idle)
        self._idle = self._lexer.idle
        return pos


def _fast(data: bytes, begin: int, out: "list[Item]") -> int:
    """Parse whole objects with Python's scanner; return how far that was certain."""
    if len(data) > _MOST_FAST or not data.isascii() or b"\\u" in data:
        return begin
    if len(data) > _MOST_NESTING and data.count(b"{") + data.count(b"[") > _MOST_NESTING:
        return begin
    text = data.decode("ascii")
    pos, size = begin, len(text)
    try:
        while True:
            while pos < size and text[pos] in _BLANK:
                pos += 1
            if pos == size or text[pos] != "{":
                return pos
            value, pos = _scan(text, pos)
            out.append(value)
    except (ValueError, StopIteration, RecursionError):
        return pos
