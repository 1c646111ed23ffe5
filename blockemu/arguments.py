"""The command line as getopt_long reads it: in order, abbreviated, in the C library's words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

PROGRAM = "blockemu"


class UsageError(Exception):
    """The command line itself is wrong."""


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
    for word in rest:
        if word == "--":
            return
        if word.startswith("--"):
            yield _long(word, rest, long, whole)
        elif word.startswith("-") and word != "-":
            yield from _short(word, rest, long, short)
        else:
            yield Option("", word, word)


def _long(
    word: str, rest: Iterator[str], long: Mapping[str, bool], whole: frozenset[str]
) -> Option:
    given, equals, value = word[2:].partition("=")
    name = _complete(given, long, whole)
    if not long[name]:
        if equals:
            raise UsageError(f"option '--{name}' doesn't allow an argument")
        return Option(name, "", word)
    if equals:
        return Option(name, value, word)
    try:
        value = next(rest)
    except StopIteration:
        raise UsageError(f"option '--{name}' requires an argument") from None
    return Option(name, value, f"{word} {value}")


def _complete(given: str, long: Mapping[str, bool], whole: frozenset[str]) -> str:
    if given in long:
        return given
    fits = [name for name in long if name.startswith(given) and name not in whole]
    if len(fits) == 1:
        return fits[0]
    if fits:
        shown = "".join(f" '--{name}'" for name in fits)
        raise UsageError(f"option '--{given}' is ambiguous; possibilities:{shown}")
    raise UsageError(f"unrecognized option '--{given}'")


def _short(
    word: str, rest: Iterator[str], long: Mapping[str, bool], short: Mapping[str, str]
) -> Iterator[Option]:
    for i, letter in enumerate(word[1:], 2):
        name = short.get(letter)
        if name is None:
            raise UsageError(f"invalid option -- '{letter}'")
        if not long[name]:
            yield Option(name, "", word)
            continue
        value = word[i:] or next(rest, None)
        if value is None:
            raise UsageError(f"option requires an argument -- '{letter}'")
        yield Option(name, value, word if word[i:] else f"{word} {value}")
        return
