"""Options of a command: single letters, anywhere among its arguments, as GNU getopt takes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blockemu.qemu_io.refusals import BadOption, OptionWithoutValue
from blockemu.records import field, record

Warn = Callable[[str], None]
Convert = Callable[[str, Warn], Any]


@record
class Options:
    """What was given: option letters with their values (True for one without), and the rest."""

    values: dict[str, Any] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)
    first: str = ""  # the first argument, once options are sorted before operands

    def __contains__(self, letter: str) -> bool:
        return letter in self.values

    def get(self, letter: str, default: Any = None) -> Any:
        """Return the value of an option."""
        return self.values.get(letter, default)


def parse(
    command: str,
    letters: str,
    converters: Mapping[str, Convert],
    arguments: Sequence[str],
    warn: Warn,
) -> Options:
    """Sort ``arguments`` into options and operands, converting in order of appearance.

    ``letters`` is getopt's: those followed by a colon take a value.  A letter without a value may
    have a converter too, which is called with an empty string.

    Raises:
        BadOption: an unknown letter, or a value that is missing.
        Refusal: what a converter raises.

    """
    options, taken, rest = Options(), [], list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            taken.append(word)
            options.operands += rest
            break
        if len(word) < 2 or word[0] != "-":
            options.operands.append(word)
            continue
        taken.append(word)
        cluster = word[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            at = letters.find(letter)
            if at < 0 or letter == ":":
                raise BadOption(command, letter)
            value = ""
            if letters[at + 1 : at + 2] == ":":
                if not cluster and not rest:
                    raise OptionWithoutValue(command, letter)
                value, cluster = cluster or rest.pop(0), ""
            convert = converters.get(letter)
            options.values[letter] = convert(value, warn) if convert else value or True
    options.first = next(iter(taken + options.operands), "")
    return options
