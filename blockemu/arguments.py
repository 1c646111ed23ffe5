"""The command line as getopt_long reads it: in order, abbreviated, in the C library's words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

PROGRAM = "blockemu"


class UsageError(Exception):
    """The command line itself is wrong: why, and at which word.

    ``last``: the last word that getopt is done with, as it has sorted them; "" if there is none.
    """

    def __init__(self, why: str, word: str = "", last: str | None = None) -> None:
        super().__init__(why)
        self.word = word
        self.last = word if last is None else last


class MissingArgument(UsageError):
    """An option lacks what must follow it."""


class Option(NamedTuple):
    """An option: its full name, its argument, and where it stood, as error messages show it."""

    name: str
    value: str
    where: str


def scan(
    argv: Iterable[str], long: Mapping[str, bool], short: Mapping[str, str], whole: frozenset[str]
) -> Iterator[Option]:
    """Yield the options in ``argv``; what is none comes with an empty name.

    ``long`` tells of each name whether it takes an argument, ``short`` gives each letter's name.
    Names in ``whole`` cannot be abbreviated.  All after ``--`` is left alone: it is still to come
    if ``argv`` is an iterator.

    Raises:
        UsageError: at the option that is wrong.
    """
    rest = iter(argv)
    last = operand = ""
    for word in rest:
        if word == "--":
            return
        if word.startswith("--"):
            option = _long(word, rest, long, whole)
            yield option
            last = option.where.removeprefix(f"{word} ")
        elif word.startswith("-") and word != "-":
            for option in _short(word, rest, long, short, operand or last):
                yield option
                last = option.where.removeprefix(f"{word} ")
        else:
            operand = word
            yield Option("", word, word)


def _long(
    word: str, rest: Iterator[str], long: Mapping[str, bool], whole: frozenset[str]
) -> Option:
    given, equals, value = word[2:].partition("=")
    name = _complete(given, word, long, whole)
    if not long[name]:
        if equals:
            raise UsageError(f"option '--{name}' doesn't allow an argument", word)
        return Option(name, "", word)
    if equals:
        return Option(name, value, word)
    try:
        value = next(rest)
    except StopIteration:
        raise MissingArgument(f"option '--{name}' requires an argument", word) from None
    return Option(name, value, f"{word} {value}")


def _complete(given: str, word: str, long: Mapping[str, bool], whole: frozenset[str]) -> str:
    if given in long:
        return given
    fits = [name for name in long if name.startswith(given) and name not in whole]
    if len(fits) == 1:
        return fits[0]
    if fits:
        shown = "".join(f" '--{name}'" for name in fits)
        raise UsageError(f"option '--{given}' is ambiguous; possibilities:{shown}", word)
    raise UsageError(f"unrecognized option '--{given}'", word)


def _short(
    word: str, rest: Iterator[str], long: Mapping[str, bool], short: Mapping[str, str], last: str
) -> Iterator[Option]:
    """Yield a word's options; at a wrong one, unless it is the last, getopt is in the word yet."""
    for i, letter in enumerate(word[1:], 2):
        name = short.get(letter)
        if name is None:
            where = last if i < len(word) else word
            raise UsageError(f"invalid option -- '{letter}'", word, where)
        if not long[name]:
            yield Option(name, "", word)
            continue
        value = word[i:] or next(rest, None)
        if value is None:
            raise MissingArgument(f"option requires an argument -- '{letter}'", word)
        yield Option(name, value, word if word[i:] else f"{word} {value}")
        return
