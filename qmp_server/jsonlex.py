"""The lexer of QEMU's JSON dialect, byte by byte where need be (after qobject/json-lexer.c).

It takes what the fast path of ``jsonstream`` cannot judge, so it is imported at the first odd byte.
"""

import re
from typing import Any, Final

from blockemu.qmp_server import utf8
from blockemu.qmp_server.errors import ParseError
from blockemu.qmp_server.jsonparse import LCURLY, LSQUARE, RCURLY, RSQUARE, Token, parse

MOST_BYTES: Final = 64 << 20  # of one message's tokens
MOST_TOKENS: Final = 2 << 20
MOST_NESTING: Final = 1 << 10

Item = Any  # a JSON value, or a ParseError


class TooMuch(ParseError):
    """A message exceeds a limit."""


class StrayToken(ParseError):
    """A token that no message can have."""


# States, and for each a row of what follows each byte.

(_START, _RECOVERY, _DQ, _DQ_ESCAPE, _SQ, _SQ_ESCAPE, _ZERO, _DIGITS, _SIGN) = range(9)
(_MANTISSA, _MANTISSA_DIGITS, _EXP, _EXP_SIGN, _EXP_DIGITS, _WORD) = range(9, 15)
_ERROR: Final = 99
_AGAIN: Final = 128  # added: the byte belongs to what comes next
_DIGIT: Final = b"0123456789"
_LOWER: Final = bytes(range(0x61, 0x7B))
_IN_STRING: Final = bytes(range(0x20, 0xFE))
_RESYNC: Final = bytes({*range(0x20), 0xFE, 0xFF, *b"[]{}:,"} - {9})


def _row(otherwise: int, *ranges: tuple[bytes, int]) -> bytes:
    row = bytearray([otherwise]) * 256
    for chars, state in ranges:
        for char in chars:
            row[char] = state
    return bytes(row)


_ROWS: Final = {
    _START: _row(
        _ERROR,
        (_LOWER, _WORD),
        (_DIGIT, _DIGITS),
        (b"0", _ZERO),
        (b"-", _SIGN),
        (b" \t\r\n", _START),
        (b'"', _DQ),
        (b"'", _SQ),
        (b"{", LCURLY),
        (b"}", RCURLY),
        (b"[", LSQUARE),
        (b"]", RSQUARE),
        (b":", Token.COLON),
        (b",", Token.COMMA),
    ),
    _RECOVERY: _row(_RECOVERY, (_RESYNC, _START + _AGAIN)),
    _DQ: _row(_ERROR, (_IN_STRING, _DQ), (b"\\", _DQ_ESCAPE), (b'"', Token.STRING)),
    _DQ_ESCAPE: _row(_ERROR, (_IN_STRING, _DQ)),
    _SQ: _row(_ERROR, (_IN_STRING, _SQ), (b"\\", _SQ_ESCAPE), (b"'", Token.STRING)),
    _SQ_ESCAPE: _row(_ERROR, (_IN_STRING, _SQ)),
    _ZERO: _row(Token.INTEGER + _AGAIN, (_DIGIT, _ERROR), (b".", _MANTISSA)),
    _DIGITS: _row(Token.INTEGER + _AGAIN, (_DIGIT, _DIGITS), (b".", _MANTISSA), (b"eE", _EXP)),
    _SIGN: _row(_ERROR, (_DIGIT, _DIGITS), (b"0", _ZERO)),
    _MANTISSA: _row(_ERROR, (_DIGIT, _MANTISSA_DIGITS)),
    _MANTISSA_DIGITS: _row(Token.FLOAT + _AGAIN, (_DIGIT, _MANTISSA_DIGITS), (b"eE", _EXP)),
    _EXP: _row(_ERROR, (_DIGIT, _EXP_DIGITS), (b"+-", _EXP_SIGN)),
    _EXP_SIGN: _row(_ERROR, (_DIGIT, _EXP_DIGITS)),
    _EXP_DIGITS: _row(Token.FLOAT + _AGAIN, (_DIGIT, _EXP_DIGITS)),
    _WORD: _row(Token.KEYWORD + _AGAIN, (_LOWER, _WORD)),
}
_RUNS: Final = {  # bytes that leave a state as it is, skipped at once
    state: re.compile(b"[" + re.escape(same) + b"]+")
    for state, row in _ROWS.items()
    if (same := bytes(c for c in range(256) if row[c] == state))
}


class Lexer:
    """Splits bytes into tokens, and tokens into messages; keeps what is not over."""

    def __init__(self) -> None:
        self._state = _START
        self._token: list[bytes] = []  # pieces of a token that is not over
        self._token_size = 0
        self._tokens: list[tuple[int, bytes]] = []  # of a message that is not over
        self._size = 0
        self._braces = 0
        self._brackets = 0
        self._out: list[Item] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is half received."""
        return self._state == _START and not self._tokens

    def feed(self, data: bytes, pos: int, out: list[Item], *, until_idle: bool = False) -> int:
        """Take bytes from ``pos`` on; append what they complete to ``out``; return the new place.

        With ``until_idle`` stop where nothing is half received.
        """
        self._out = out
        return self._slow(data, pos, until_idle=until_idle)

    def flush(self, out: list[Item]) -> None:
        """End of input: append what the rest makes."""
        self._out = out
        step = _ROWS[self._state][0]
        if self._state not in (_START, _RECOVERY):
            self._receive(step - _AGAIN if step & _AGAIN else _ERROR, self._take(b""))
        if self._tokens:
            self._finish()

    def _slow(self, data: bytes, pos: int, *, until_idle: bool = False) -> int:
        """Run the lexer over the bytes; return where it stopped."""
        begin, size = pos, len(data)
        state = self._state
        while pos < size:
            run = _RUNS.get(state)
            if run is not None:
                limit = MOST_BYTES + 1 - self._token_size + begin
                match = run.match(data, pos, min(size, limit))
                if match is not None:
                    pos = match.end()
                    if state in (_START, _RECOVERY):
                        begin = pos
                    elif pos == limit:
                        begin, state = self._oversized(pos)
                    if pos == size:
                        break
            step = _ROWS[state][data[pos]]
            if step & _AGAIN:
                step -= _AGAIN
            else:
                pos += 1
            if step < _ERROR:
                state = step
                if state == _START:
                    begin = pos
                continue
            token = self._take(data[begin:pos])
            begin = pos
            state = _RECOVERY if step == _ERROR else _START
            self._receive(step, token)
            if until_idle and state == _START and not self._tokens:
                break
        self._state = state
        if begin < pos:
            self._token.append(data[begin:pos])
            self._token_size += pos - begin
        return pos

    def _take(self, last: bytes) -> bytes:
        if not self._token:
            return last
        token = b"".join([*self._token, last])
        self._token.clear()
        self._token_size = 0
        return token

    def _oversized(self, pos: int) -> tuple[int, int]:
        self._token.clear()
        self._token_size = 0
        self._emit(TooMuch("JSON token size limit exceeded"))
        return pos, _START

    def _receive(self, kind: int, text: bytes) -> None:
        """Take a token; a message is over when its brackets balance."""
        if kind == _ERROR:
            shown = utf8.decode_replacing(text.partition(b"\0")[0])
            self._emit(StrayToken(f"JSON parse error, stray '{shown}'"))
            return
        self._braces += (kind == LCURLY) - (kind == RCURLY)
        self._brackets += (kind == LSQUARE) - (kind == RSQUARE)
        if self._size + len(text) + 1 > MOST_BYTES:
            self._emit(TooMuch("JSON token size limit exceeded"))
        elif len(self._tokens) + 1 > MOST_TOKENS:
            self._emit(TooMuch("JSON token count limit exceeded"))
        elif self._braces + self._brackets > MOST_NESTING:
            self._emit(TooMuch("JSON nesting depth limit exceeded"))
        else:
            self._tokens.append((kind, text))
            self._size += len(text)
            if self._braces < 0 or self._brackets < 0 or not (self._braces or self._brackets):
                self._finish()

    def _finish(self) -> None:
        try:
            self._emit(parse(self._tokens))
        except ParseError as e:
            self._emit(e)

    def _emit(self, item: Item) -> None:
        """Emit a value or an error and forget the message."""
        self._braces = self._brackets = self._size = 0
        self._tokens.clear()
        self._out.append(item)
