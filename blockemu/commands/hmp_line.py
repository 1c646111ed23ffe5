"""Lines of the human monitor: a command's name, then its arguments by declared types."""

from collections.abc import Awaitable, Callable, Sequence

from blockemu.commands.context import Context
from blockemu.commands.hmp_expression import BadExpression, evaluate
from blockemu.records import record

SPACE = " \t\n\v\f\r"
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
    """An integer expression."""

    key: str


Argument = Flag | Word | Rest | Number
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

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

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
        letters = {argument.letter for argument in declared if isinstance(argument, Flag)}
        for argument in declared:
            self.skip_space()
            if isinstance(argument, Flag):
                values[argument.key] = self._flag(name, argument, letters)
            elif isinstance(argument, Word) and argument.optional and not self._peek():
                values[argument.key] = ""
            elif isinstance(argument, Word):
                values[argument.key] = self._word(f"{name}: {argument.what} expected\n")
            elif isinstance(argument, Number):
                values[argument.key] = self._number()
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

    def _flag(self, name: str, flag: Flag, letters: set[str]) -> bool:
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

    def _number(self) -> int:
        try:
            value, self.at = evaluate(self.text, self.at)
        except BadExpression as e:
            raise BadLine(f"{e}\n") from e
        return value

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
