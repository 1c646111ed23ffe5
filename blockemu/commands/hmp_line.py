"""Lines of the human monitor: a command's name, then its arguments by declared types."""

from collections.abc import Awaitable, Callable, Sequence

from blockemu.commands.context import Context
from blockemu.commands.hmp_expression import BadExpression, evaluate
from blockemu.records import record

SPACE = " \t\n\v\f\r"
DIGITS = "0123456789"
SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}
LONGEST_STRING = 1023
LONGEST_NAME = 255
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
    """A word, maybe in double quotes; ``what`` it is called if it lacks and is not optional."""

    key: str
    what: str = "string"
    optional: bool = False


@record(frozen=True)
class Rest:
    """What is left of the line, if anything is."""

    key: str


@record(frozen=True)
class Number:
    """An integer expression.

    ``optional``: absent at the end of the line; ``dotted``: there only behind a dot; ``narrow``: of
    32 bits.
    """

    key: str
    optional: bool = False
    dotted: bool = False
    narrow: bool = False


class Format:
    """How many things of which size are shown, and how: ``count``, ``size``, ``format``.

    What is not said is as it was the last time.
    """


Argument = Flag | Option | Word | Rest | Number | Format
Look = tuple[str, int]  # how numbers are shown, and of how many bytes they are
Values = dict[str, str | bool | int]
Write = Callable[[str], None]


@record(frozen=True)
class HmpCommand:
    """A command: ``name`` and maybe another after a bar; ``run`` writes its answer."""

    name: str
    arguments: tuple[Argument, ...]
    usage: str
    help: str
    run: Callable[[Context, Write, Values], Awaitable[None]]


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

    def name(self) -> str:
        """Take the name of a command; empty if there is none."""
        self.skip_space()
        return self._until(SPACE + "/")[:LONGEST_NAME]

    def arguments(self, name: str, declared: Sequence[Argument]) -> Values:
        """Take the arguments of the command ``name``.

        Raises:
            BadLine: something is missing or too much.

        """
        values: Values = {}
        letters = {each.letter for each in declared if isinstance(each, Flag | Option)}
        for argument in declared:
            self.skip_space()
            if isinstance(argument, Flag):
                values[argument.key] = self._flag(name, argument, letters)
            elif isinstance(argument, Option):
                if self._flag(name, argument, letters):
                    self.skip_space()
                    values[argument.key] = self._word(
                        f"{name}: value expected for -{argument.letter}\n"
                    )
            elif isinstance(argument, Word) and argument.optional and not self._peek():
                values[argument.key] = ""
            elif isinstance(argument, Word):
                values[argument.key] = self._word(f"{name}: {argument.what} expected\n")
            elif isinstance(argument, Number):
                if self._has_number(argument):
                    values[argument.key] = self._number(name, argument)
            elif isinstance(argument, Format):
                values |= self._format()
            else:
                values[argument.key], self.at = self.text[self.at :], len(self.text)
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

    def _flag(self, name: str, flag: Flag | Option, letters: set[str]) -> bool:
        """Take a flag if it is there; another of the command's may be in its place."""
        if self._peek() != "-":
            return False
        start = self.at
        self.at += 1
        letter = self._next()
        if letter != flag.letter and letter in letters:
            self.at = start
            return False
        if letter != flag.letter:
            end = "\n" if letter else ""  # QEMU prints a NUL there, which ends the text
            raise BadLine(f"{name}: unsupported option -{letter}{end}")
        return True

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
        return value

    def _format(self) -> Values:
        """Take ``/4xb`` and the like, if it is there (monitor_parse_arguments)."""
        format_, size = self.look
        if self._peek() != "/":
            return {"count": 1, "format": format_, "size": size if format_ != "i" else -1}
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
        return {"count": int(digits or 1), "format": format_, "size": shown}

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
