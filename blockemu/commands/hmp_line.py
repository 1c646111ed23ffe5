"""Lines of the human monitor: a command's name, then its arguments by declared types.

After monitor_parse_arguments, monitor/hmp.c.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

from blockemu.commands.context import Context
from blockemu.commands.hmp_expression import BadExpression, evaluate
from blockemu.qmp_server.scalars import parse_size
from blockemu.records import record

SPACE = " \t\n\v\f\r"
DIGITS = "0123456789"
SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}
LONGEST_STRING = 1023
LONGEST_NAME = 255
LARGEST_SIZE = (1 << 63) - 1
SIZE = re.compile(
    r"\+?(?P<number>0x[0-9a-f]+(?![0-9a-f.])|(?!0x[0-9a-f])[0-9]+(?:\.(?:[0-9]+(?!e[-+]?[0-9]))?)?)(?P<suffix>[bkmgtpe]?)",
    re.IGNORECASE,
)
ESCAPES = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}


class BadLine(Exception):
    """A line that does not parse: the text is for the monitor, ``printed`` for standard output."""

    def __init__(self, text: str, printed: str = "") -> None:
        super().__init__(text)
        self.printed = printed


@record(frozen=True)
class Flag:
    """An option of one letter: True if it is there."""

    key: str
    letter: str


@record(frozen=True)
class Option:
    """An option of one letter with a word behind it."""

    key: str
    letter: str


@record(frozen=True)
class Word:
    """A word, maybe in double quotes; ``what`` it is called where it lacks.

    Of one that is called nothing it is not said that it lacks.
    """

    key: str
    what: str = "string"
    optional: bool = False


@record(frozen=True)
class Rest:
    """What is left of the line, if anything is."""

    key: str
    optional: bool = True


@record(frozen=True)
class Number:
    """An integer expression.

    ``optional``: absent at the end of the line; ``dotted``: there only behind a dot; ``narrow``: of
    32 bits; ``mega``: not negative, it counts MiB.
    """

    key: str
    optional: bool = False
    dotted: bool = False
    narrow: bool = False
    mega: bool = False


@record(frozen=True)
class Size:
    """A number of bytes; of MiB if it has no suffix."""

    key: str
    optional: bool = False


@record(frozen=True)
class Switch:
    """``on`` or ``off``."""

    key: str


class Format:
    """How many things of which size are shown, and how: ``count``, ``size``, ``format``.

    What is not said is as it was the last time.
    """

    key = ""


Argument = Flag | Option | Word | Rest | Number | Size | Switch | Format
Look = tuple[str, int]  # how numbers are shown, and of how many bytes they are
Write = Callable[[str], None]


class Values(dict[str, str | bool | int]):
    """The arguments of a line by their keys; words that are not there read as empty."""

    def __missing__(self, key: str) -> str:
        return ""

    def text(self, key: str) -> str | None:
        """Return a word, None if it is not there."""
        return str(self[key]) if key in self else None


@record(frozen=True)
class HmpCommand:
    """A command: ``name`` and maybe another after a bar; ``run`` writes its answer.

    One of ``parts`` runs instead if something follows.
    """

    name: str
    arguments: tuple[Argument, ...]
    usage: str
    help: str
    run: Callable[[Context, Write, Values], Awaitable[None]]
    parts: "tuple[HmpCommand, ...]" = ()

    def called(self, name: str) -> bool:
        """Tell whether this is one of its names."""
        return name in self.name.split("|")


class Line:
    """A line being read from left to right."""

    def __init__(self, text: str, look: Look = ("x", 4)) -> None:
        self.text = text
        self.at = 0
        self.look = look

    def skip_space(self) -> None:
        """Go on to the next word, or to the end."""
        while self._peek() and self._peek() in SPACE:
            self.at += 1

    @property
    def ended(self) -> bool:
        """Whether nothing is left but space."""
        return not self.text[self.at :].strip(SPACE)

    def name(self) -> str:
        """Take the name of a command; empty if there is none."""
        self.skip_space()
        return self._until(SPACE + "/")[:LONGEST_NAME]

    def arguments(self, name: str, declared: Sequence[Argument]) -> Values:
        """Take the arguments of the command ``name``.

        Raises:
            BadLine: something is missing or too much.

        """
        values = Values()
        for i, argument in enumerate(declared):
            self.skip_space()
            key = argument.key
            match argument:
                case Flag():
                    values[key] = self._flag(name, argument, declared[i + 1 :])
                case Option():
                    if self._flag(name, argument, declared[i + 1 :]):
                        self.skip_space()
                        values[key] = self._word(f"{name}: value expected for -{argument.letter}\n")
                case Number():
                    if self._has_number(argument):
                        values[key] = self._number(name, argument)
                case Format():
                    values |= self._format()
                case Switch():
                    values[key] = self._switch()
                case _ if argument.optional and not self._peek():
                    pass
                case Word():
                    what = f"{name}: {argument.what} expected\n" if argument.what else ""
                    values[key] = self._word(what)
                case Size():
                    values[key] = self._size()
                case Rest():
                    values[key] = self._rest(name)
        self.skip_space()
        if self._peek():
            raise BadLine(f"{name}: extraneous characters at the end of line\n")
        return values

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        self.at += 1
        return self.text[self.at - 1 : self.at]

    def _until(self, stops: str) -> str:
        start = self.at
        while self._peek() and self._peek() not in stops:
            self.at += 1
        return self.text[start : self.at]

    def _flag(self, name: str, flag: Flag | Option, after: Sequence[Argument]) -> bool:
        """Take a flag if it is there; one that comes ``after`` it may be in its place."""
        if self._peek() != "-":
            return False
        letter = self.text[self.at + 1 : self.at + 2]
        if letter == flag.letter:
            self.at += 2
            return True
        if letter in {each.letter for each in after if isinstance(each, Flag | Option)}:
            return False
        end = "\n" if letter else ""  # QEMU prints a NUL there, which ends the text
        raise BadLine(f"{name}: unsupported option -{letter}{end}")

    def _has_number(self, number: Number) -> bool:
        if number.dotted:
            dot = self._peek() == "."
            if dot:
                self.at += 1
                self.skip_space()
            return dot
        return not number.optional or bool(self._peek())

    def _number(self, name: str, number: Number) -> int:
        try:
            value, self.at = evaluate(self.text, self.at)
        except BadExpression as e:
            raise BadLine(f"{e}\n") from e
        if number.narrow and (value >> 32) & 0xFFFFFFFF:
            raise BadLine(f"'{name}' has failed: integer is for 32-bit values\n")
        if number.mega and value < 0:
            raise BadLine("enter a positive value\n")
        return value << 20 if number.mega else value

    def _size(self) -> int:
        """Take a size (do_strtosz, util/cutils.c)."""
        found = SIZE.match(self.text, self.at)
        try:
            size = parse_size(found["number"] + (found["suffix"] or "M")) if found else -1
        except ValueError:
            size = -1
        if found is None or not 0 <= size <= LARGEST_SIZE:
            raise BadLine("invalid size\n")
        self.at = found.end()
        return size

    def _switch(self) -> bool:
        word = self._until(SPACE)
        if word not in ("on", "off"):
            raise BadLine("Expected 'on' or 'off'\n")
        return word == "on"

    def _rest(self, name: str) -> str:
        if not self._peek():
            raise BadLine(f"{name}: string expected\n")
        rest, self.at = self.text[self.at :], len(self.text)
        return rest

    def _format(self) -> Values:
        """Take ``/4xb`` and the like, if it is there (monitor_parse_arguments)."""
        format_, size = self.look
        if self._peek() != "/":
            return Values(count=1, format=format_, size=size if format_ != "i" else -1)
        self.at += 1
        digits = self._while(DIGITS)
        letters = self._while("oduxicbhwgL")
        if self._peek() and self._peek() not in SPACE:
            raise BadLine(f"invalid char in format: '{self._peek()}'\n")
        sizes = [SIZES[letter] for letter in letters if letter in SIZES]
        format_ = next((each for each in reversed(letters) if each not in SIZES), format_)
        if format_ != "i":
            size = (sizes or [size])[-1]
        self.look = format_, size
        shown = size if format_ != "i" else (sizes or [-1])[-1]
        return Values(count=int(digits or 1), format=format_, size=shown)

    def _while(self, taken: str) -> str:
        start = self.at
        while self._peek() and self._peek() in taken:
            self.at += 1
        return self.text[start : self.at]

    def _word(self, expected: str) -> str:
        """Take a word (after get_str, monitor/hmp.c)."""
        if not self._peek():
            raise BadLine(expected)
        if self._peek() != '"':
            return self._until(SPACE)[:LONGEST_STRING]
        self.at += 1
        taken = []
        while (c := self._next()) != '"':
            if not c:
                raise BadLine(expected, "unterminated string\n")
            if c == "\\":
                escape = self._next() or "\0"
                if escape not in ESCAPES:
                    raise BadLine(expected, f"unsupported escape code: '\\{escape}'\n")
                c = ESCAPES[escape]
            taken.append(c)
        return "".join(taken)[:LONGEST_STRING]
