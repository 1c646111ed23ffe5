"""From JSON tokens to a value, or QEMU's words for why not (after qobject/json-parser.c)."""

import re
from collections.abc import Sequence
from typing import Any, Final

from blockemu.qmp_server import utf8
from blockemu.qmp_server.errors import ParseError
from blockemu.qmp_server.jsonstream import parse_integer

_MOST_TEXT: Final = 1023  # bytes of a message


class Token:
    """Kinds of token, with the values that the lexer's tables hold."""

    LCURLY: Final = 100
    RCURLY: Final = 101
    LSQUARE: Final = 102
    RSQUARE: Final = 103
    COLON: Final = 104
    COMMA: Final = 105
    INTEGER: Final = 106
    FLOAT: Final = 107
    KEYWORD: Final = 108
    STRING: Final = 109


LCURLY, RCURLY, LSQUARE, RSQUARE = Token.LCURLY, Token.RCURLY, Token.LSQUARE, Token.RSQUARE
_COLON, _COMMA, _KEYWORD, _STRING = Token.COLON, Token.COMMA, Token.KEYWORD, Token.STRING
_KEYWORDS: Final = {b"true": True, b"false": False, b"null": None}
_ESCAPES: Final = {
    b'"': '"',
    b"'": "'",
    b"\\": "\\",
    b"/": "/",
    b"b": "\b",
    b"f": "\f",
    b"n": "\n",
    b"r": "\r",
    b"t": "\t",
}
_PIECE: Final = re.compile(rb"([^\\]+)|\\([^u])|(\\u)")
_HEX: Final = re.compile(rb"[0-9a-fA-F]{4}")

Tokens = Sequence[tuple[int, bytes]]


def fail(text: str) -> ParseError:
    """Return the error of a message that cannot be parsed."""
    cut = text.encode("utf-8", "surrogateescape")[:_MOST_TEXT]
    return ParseError("JSON parse error, " + utf8.decode_replacing(cut))


def parse(tokens: Tokens) -> Any:
    """Return the value that the tokens of one message make; raise ParseError."""
    return _Parser(tokens).run()


class _Parser:
    """Keeps its own stack: QEMU allows 1024 levels, and Python fewer."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = iter(tokens)
        self.stack: list[tuple[Any, Any]] = []  # containers, each with the key its next value gets

    def run(self) -> Any:
        kind, text = self._next()
        while True:
            if kind in (LCURLY, LSQUARE):
                opened: Any = {} if kind == LCURLY else []
                kind, text = self._next()
                if kind != (RCURLY if type(opened) is dict else RSQUARE):
                    self.stack.append((opened, _NO_KEY))
                    continue
                value = opened
            else:
                value = _scalar(kind, text)
            while self.stack:
                ended, value, kind, text = self._place(value)
                if not ended:
                    break
            else:
                return value

    def _place(self, value: Any) -> tuple[bool, Any, int, bytes]:
        """Put a value where it belongs; say whether that ended its container, and go on."""
        container, key = self.stack[-1]
        if type(container) is list:
            container.append(value)
            kind, _ = self._next()
            return self._separated(kind, RSQUARE, "expected separator in list")
        if key is _NO_KEY:
            if type(value) is not str:
                raise fail("key is not a string in object")
            kind, _ = self._next()
            if kind != _COLON:
                raise fail("missing : in object pair")
            self.stack[-1] = container, value
            return False, None, *self._next()
        if key in container:
            raise fail("duplicate key")
        container[key] = value
        self.stack[-1] = container, _NO_KEY
        kind, _ = self._next()
        return self._separated(kind, RCURLY, "expected separator in dict")

    def _separated(self, kind: int, closing: int, otherwise: str) -> tuple[bool, Any, int, bytes]:
        if kind == closing:
            return True, self.stack.pop()[0], kind, b""
        if kind != _COMMA:
            raise fail(otherwise)
        return False, None, *self._next()

    def _next(self) -> tuple[int, bytes]:
        for token in self.tokens:
            return token
        raise fail("premature EOI")


_NO_KEY: Final = object()


def _scalar(kind: int, text: bytes) -> Any:
    if kind == _STRING:
        return parse_string(text)
    if kind == Token.INTEGER:
        return parse_integer(text)
    if kind == Token.FLOAT:
        return float(text)
    if kind == _KEYWORD:
        if text not in _KEYWORDS:
            raise fail(f"invalid keyword '{text.decode()}'")
        return _KEYWORDS[text]
    raise fail("expecting value")


def parse_string(token: bytes) -> str:
    """Return the text of a string token, quotes included in ``token``."""
    body = token[1:-1]
    if b"\\" in body:
        return _unescape(token, body)
    text = utf8.decode(body)
    if text is None:
        raise fail("invalid UTF-8 sequence in string")
    return text


def _unescape(token: bytes, body: bytes) -> str:
    out: list[str] = []
    pos = 0
    while match := _PIECE.match(body, pos):
        pos = match.end()
        plain, escaped, _ = match.groups()
        if plain is not None:
            text = utf8.decode(plain)
            if text is None:
                raise fail("invalid UTF-8 sequence in string")
            out.append(text)
        elif escaped is not None:
            if escaped not in _ESCAPES:
                raise fail("invalid escape sequence in string")
            out.append(_ESCAPES[escaped])
        else:
            code, pos = _code_point(token, pos + 1)
            pos -= 1  # positions in the body are one less than in the token
            out.append(chr(code))
    return "".join(out)


def _code_point(token: bytes, pos: int) -> tuple[int, int]:
    r"""Return the code point after a \u that ends at ``pos``, and where what follows begins."""
    begin = pos - 2
    first = _hex4(token, pos)
    code, end = first, pos + 4
    if 0xD800 <= first <= 0xDBFF and token[end : end + 2] == b"\\u":
        second = _hex4(token, end + 2)
        if 0xDC00 <= second <= 0xDFFF:
            code = 0x10000 + ((first & 0x3FF) << 10 | second & 0x3FF)
            end += 6
        else:
            code = -1
    if not utf8.valid(code):
        raw = token[begin:end].decode("utf-8", "surrogateescape")
        raise fail(f"{raw} is not a valid Unicode character")
    return code, end


def _hex4(token: bytes, pos: int) -> int:
    match = _HEX.match(token, pos)
    return int(match[0], 16) if match else -1
