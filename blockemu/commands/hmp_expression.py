"""Integer expressions in lines of the human monitor (after get_expr, monitor/hmp.c).

Values are signed and of 64 bits.  Of operators that bind alike, the left one goes first; ``&``,
``|`` and ``^`` bind tighter than ``+`` and ``-``, looser than ``*``, ``/`` and ``%``.  There are no
registers, as there is no CPU.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

_SPACE: Final = " \t\n\v\f\r"
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_BITS: Final = 64


class BadExpression(Exception):
    """What is wrong, as a line for the monitor."""


def _signed(value: int) -> int:
    half = 1 << _BITS - 1
    return (value + half) % (1 << _BITS) - half


def _divide(a: int, b: int) -> int:
    if not b:
        raise BadExpression("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_LEVELS: Final[tuple[Mapping[str, Callable[[int, int], int]], ...]] = (
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"&": lambda a, b: a & b, "|": lambda a, b: a | b, "^": lambda a, b: a ^ b},
    {"*": lambda a, b: a * b, "/": _divide, "%": lambda a, b: a - b * _divide(a, b)},
)
_SIGNS: Final[Mapping[str, Callable[[int], int]]] = {
    "+": lambda a: a,
    "-": lambda a: -a,
    "~": lambda a: ~a,
}


def evaluate(text: str, at: int) -> tuple[int, int]:
    """Return the value of the expression that begins at ``at``, and where it ends.

    Raises:
        BadExpression: there is none.
    """
    expression = _Expression(text, at)
    expression.skip()
    return expression.binary(0), expression.at


class _Expression:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def skip(self, past: int = 0) -> None:
        """Go on by some characters and the space after them."""
        self.at += past
        while self.peek() and self.peek() in _SPACE:
            self.at += 1

    def binary(self, level: int) -> int:
        if level == len(_LEVELS):
            return self.unary()
        value = self.binary(level + 1)
        while operator := _LEVELS[level].get(self.peek()):
            self.skip(1)
            value = _signed(operator(value, self.binary(level + 1)))
        return value

    def unary(self) -> int:
        first = self.peek()
        if not first:
            raise BadExpression("unexpected end of expression")
        if sign := _SIGNS.get(first):
            self.skip(1)
            return _signed(sign(self.unary()))
        if first == "(":
            self.skip(1)
            value = self.binary(0)
            if self.peek() != ")":
                raise BadExpression("')' expected")
            self.skip(1)
            return value
        if first == "'":
            return self.character()
        if first == "$":
            raise BadExpression("unknown register")
        return self.number()

    def character(self) -> int:
        value = self.text[self.at + 1 : self.at + 2]
        if not value:
            raise BadExpression("character constant expected")
        if self.text[self.at + 2 : self.at + 3] != "'":
            raise BadExpression("missing terminating ' character")
        self.skip(3)
        return int.from_bytes(value.encode()[:1], signed=True)

    def number(self) -> int:
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise BadExpression(f"invalid char '{self.peek()}' in expression")
        digits = found.group()
        octal = digits[0] == "0" and digits[1:].isdigit()
        value = int(digits, 8 if octal else 0)
        if value >> _BITS:
            raise BadExpression("number too large")
        self.skip(len(digits))
        return _signed(value)
