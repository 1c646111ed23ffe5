"""What a command of qemu-io is; ``commands`` has them all."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from blockemu.perm import Perm
from blockemu.qemu_io.options import Convert, Options, Warn, parse
from blockemu.qemu_io.refusals import (
    ArgumentCountOutOfRange,
    TooFewArguments,
    Usage,
    WrongArgumentCount,
)
from blockemu.records import field, record

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter

Function = Callable[["Interpreter", Options], Awaitable[int]]
ANY = -1  # arguments without a bound
UNCHECKED = range(1 << 31)
VECTORED = range(2, 1 << 31)  # an offset and at least one length


@record(frozen=True, kw_only=True)
class IoCommand:
    """A command: how it is called, how many arguments it takes, and what runs it.

    ``run`` returns 0 or a negative errno, or raises Refusal or OSError.  ``perm`` is asked of the
    backend before; ``operands`` is how many arguments that are not options there must be, else
    usage is shown.
    """

    name: str
    oneline: str
    run: Function
    alias: str = ""
    least: int = 0
    most: int = 0
    arguments: str | None = None
    letters: str = ""
    converters: Mapping[str, Convert] = field(default_factory=dict)
    operands: range = UNCHECKED
    perm: Perm = Perm.NONE
    needs_image: bool = True

    def usage(self) -> Usage:
        """Return the line that says how to call it."""
        return Usage(self.name, self.arguments, self.oneline)

    def help(self, name: str) -> str:
        """Return the line in the list of commands."""
        arguments = "" if self.arguments is None else f"{self.arguments} "
        return f"{name} {arguments}-- {self.oneline}\n"

    def check_count(self, name: str, count: int) -> None:
        """Raise Refusal unless it takes ``count`` arguments, options included."""
        if count >= self.least and self.most in (ANY, max(count, self.most)):
            return
        if self.most == ANY:
            raise TooFewArguments(count, name, self.least)
        if self.least == self.most:
            raise WrongArgumentCount(count, name, self.least)
        raise ArgumentCountOutOfRange(count, name, self.least, self.most)

    def options(self, name: str, arguments: Sequence[str], warn: Warn) -> Options:
        """Sort out the arguments.

        Raises:
            BadOption: usage should follow.
            Refusal: an option's value is bad, or the number of operands.

        """
        if self.letters:
            options = parse(name, self.letters, self.converters, arguments, warn)
        else:
            options = Options(operands=list(arguments), first=next(iter(arguments), ""))
        if len(options.operands) not in self.operands:
            raise self.usage()
        return options


def find(name: str, commands: Mapping[str, IoCommand]) -> IoCommand | None:
    """Look a command up by name or alias."""
    if name in commands:
        return commands[name]
    return next((c for c in commands.values() if c.alias and c.alias == name), None)
