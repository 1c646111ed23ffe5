"""The options of a command, as getopt_long takes them."""

from collections.abc import Iterable, Iterator, Mapping

from blockemu.arguments import MissingArgument, UsageError, scan
from blockemu.programs.img.refusals import MissingValue, UnknownOption

COMMON = {"help": "h", "object": ":"}
IMAGE = COMMON | {"image-opts": ""}


class Syntax:
    """What options a command has.

    ``letters`` are those of getopt: a colon after one that takes an argument.  ``long`` gives for
    each long name its letter, or else ``:`` or nothing.
    """

    def __init__(self, letters: str, long: Mapping[str, str]) -> None:
        takes = {c: letters[i + 1 : i + 2] == ":" for i, c in enumerate(letters) if c != ":"}
        self._letters = {letter: f"-{letter}" for letter in takes}
        self._long = {f"-{letter}": takes[letter] for letter in takes}
        self._whole = frozenset(self._long)
        for name, meaning in long.items():
            self._long[name] = takes.get(meaning, meaning == ":")
        self._aliases = {name: letter for name, letter in long.items() if letter in takes}

    def read(self, command: str, argv: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield (letter or long name, argument) of each option; operands have an empty name.

        Raises:
            Misused: the command line is wrong there.

        """
        words = iter(argv)
        try:
            for option in scan(words, self._long, self._letters, self._whole):
                name = self._aliases.get(option.name, option.name)
                yield name.removeprefix("-"), option.value
        except MissingArgument as e:
            raise MissingValue(e.word) from e
        except UsageError as e:
            raise UnknownOption(e.last or command) from e
        for word in words:
            yield "", word
