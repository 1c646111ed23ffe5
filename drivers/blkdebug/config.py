"""Rules as text: configuration files, and options that came by a command line or a file name.

A file has sections of ``name = "value"`` lines under ``[inject-error]`` and ``[set-state]``; the
sections are read as QEMU's own configuration files are (util/qemu-config.c).
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from blockemu.drivers.blkdebug.options import BlkdebugEvent, BlkdebugIOType
from blockemu.drivers.blkdebug.rules import (
    ANYWHERE,
    DEFAULT_IOTYPES,
    SECTOR,
    InjectError,
    Rule,
    SetState,
)
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.optlist import IDENTIFIER_HINT, InvalidParameter, is_identifier
from blockemu.qmp_server.scalars import parse_bool, parse_unsigned

EVENTS: Final = frozenset(event.value for event in BlkdebugEvent)
IO_TYPES: Final = frozenset(kind.value for kind in BlkdebugIOType)
LONGEST_NAME: Final = 4095  # bytes of a file name
INJECT, SET = "inject-error", "set-state"
KINDS: Final[dict[str, dict[str, str]]] = {
    INJECT: {
        "event": "text",
        "state": "number",
        "iotype": "text",
        "errno": "number",
        "sector": "number",
        "once": "bool",
        "immediately": "bool",
    },
    SET: {"event": "text", "state": "number", "new_state": "number"},
}
_NAMED: Final = re.compile(r'\[\s*(\S{1,63}+)\s*"([^"]{1,63})')
_PLAIN: Final = re.compile(r"\[([^\]]{1,63})")
_VALUE: Final = re.compile(r'\s*(\S{1,63}+)\s*=\s*"([^"]{1,1023})"?')
_EMPTY: Final = re.compile(r"\s*(\S{1,63})")
Section = tuple[str, dict[str, str]]


class CannotOpenConfig(QmpError):
    """(why): the file is not there, or not to be read."""

    template = "Could not read blkdebug config file: {}"


class CannotReadConfig(QmpError):
    """(why): reading failed."""

    template = "Cannot read config file: {}"


class UnknownGroup(QmpError):
    """(name): no such section."""

    template = "There is no option group '{}'"


class NoGroup(QmpError):
    """A value stands before the first section."""

    template = "no group defined"


class BadLine(QmpError):
    """Neither a section nor a value."""

    template = "parse error"


class DuplicateId(QmpError):
    """(id, section): two sections are named alike."""

    template = "Duplicate ID '{}' for {}"


class TooLarge(QmpError):
    """(value, option)."""

    template = "Value '{}' is too large for parameter '{}'"


class MissingEvent(QmpError):
    """A rule for nothing."""

    template = "Missing event name for rule"


class UnknownValue(QmpError):
    """(value): no such event, or no such kind of request."""

    template = "invalid parameter value: {}"


class UnknownOption(QmpError):
    """(option, kind of rule)."""

    template = "Unknown option '{}' for [{}]"


class UnsupportedByRule(QmpError):
    """(kind of rule, option)."""

    template = "[{}] section doesn't support the option '{}'"


class NotKeys(QmpError):
    """(kind of rule, index): a rule is an object."""

    template = "[{}] section (index {}) does not consist of keys"


def read_rules(path: str) -> list[Rule]:
    """Return the rules in a file, errors before states, as they act in that order.

    Raises:
        QmpError: in QEMU's words.

    """
    from pathlib import Path  # start-up

    try:
        with Path(path).open("rb") as file:
            try:
                text = file.read().decode(errors="surrogateescape")
            except OSError as e:
                raise CannotReadConfig(os.strerror(e.errno or 0)) from e
    except IsADirectoryError as e:  # C opens it, and fails to read
        raise CannotReadConfig(os.strerror(e.errno or 0)) from e
    except OSError as e:
        raise CannotOpenConfig(os.strerror(e.errno or 0)) from e
    checked: list[tuple[str, dict[str, Any]]] = []
    names: set[tuple[str, str]] = set()
    for kind, values in _sections(text):
        name = values.pop("id", None)
        if name is not None:
            _check_id(kind, name, names)
        checked.append((kind, read_values(kind, values)))
    checked.sort(key=lambda section: section[0])  # inject-error comes first
    return [make_rule(kind, values) for kind, values in checked]


def _sections(text: str) -> Iterator[Section]:
    section: Section | None = None
    for line in text.splitlines(keepends=True):
        if line[0] in "\n#":
            continue
        begun = _begin(line)
        if begun is not None:
            if section is not None:
                yield _known(section)
            section = begun
            continue
        found = _VALUE.match(line) or _EMPTY.match(line)
        if found is None:
            raise BadLine
        if section is None:
            raise NoGroup
        section[1][found[1]] = found[2] if found.re is _VALUE else ""
    if section is not None:
        yield _known(section)


def _begin(line: str) -> Section | None:
    if line[0] != "[":
        return None
    if named := _NAMED.match(line):
        return named[1], {"id": named[2]}
    plain = _PLAIN.match(line)
    return (plain[1], {}) if plain else None


def _known(section: Section) -> Section:
    if section[0] not in KINDS:
        raise UnknownGroup(section[0])
    return section


def _check_id(kind: str, name: str, names: set[tuple[str, str]]) -> None:
    if not is_identifier(name):
        raise InvalidParameterValue("id", "an identifier", hint=IDENTIFIER_HINT)
    if (kind, name) in names:
        raise DuplicateId(name, kind)
    names.add((kind, name))


def read_values(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule's options, with what is text as what it means.

    Raises:
        QmpError: in QEMU's words.

    """
    kinds = KINDS[kind]
    for name in values:
        if name not in kinds:
            raise InvalidParameter(name)
    return {
        name: _value(name, value, kinds[name]) if isinstance(value, str) else value
        for name, value in values.items()
    }


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "bool":
        try:
            return parse_bool(text)
        except ValueError:
            raise InvalidParameterValue(name, "'on' or 'off'") from None
    if kind == "number":
        try:
            return parse_unsigned(text)
        except ValueError:
            if text.strip().lstrip("+-").isdigit():
                raise TooLarge(text, name) from None
            raise InvalidParameterValue(name, "a number") from None
    return text


def make_rule(kind: str, values: Mapping[str, Any]) -> Rule:
    """Return the rule that options describe (add_rule, block/blkdebug.c).

    Raises:
        QmpError: in QEMU's words.

    """
    event = values.get("event")
    if event is None:
        raise MissingEvent
    if event not in EVENTS:
        raise UnknownValue(event)
    state = _signed(values.get("state", 0), 32)
    if kind == SET:
        return SetState(event, state, _signed(values.get("new_state", 0), 32))
    iotype = values.get("iotype")
    if iotype is not None and iotype not in IO_TYPES:
        raise UnknownValue(iotype)
    return InjectError(
        event,
        state,
        DEFAULT_IOTYPES if iotype is None else frozenset({iotype}),
        _signed(values.get("errno", errno.EIO), 32),
        _sector(values.get("sector", ANYWHERE)),
        values.get("once", False),
        values.get("immediately", False),
    )


def _signed(value: int, bits: int) -> int:
    """Return a number as a C type with so many bits holds it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def _sector(value: int) -> int:
    """Return a sector whose offset in bytes is what C makes of it."""
    sector = _signed(value, 64)
    return sector if sector == ANYWHERE else _signed(sector * SECTOR, 64) // SECTOR


def read_texts(options: dict[str, Any]) -> None:
    """Turn rules among options that came as text into lists of typed ones, in place.

    One rule may stand there without a number (after config_parse_qdict_section).

    Raises:
        QmpError: in QEMU's words.

    """
    for kind, kinds in KINDS.items():
        given = options.get(kind)
        if isinstance(given, dict):
            if given.keys().isdisjoint(kinds):
                raise UnknownOption(next(iter(given)), kind)
            unknown = next((name for name in given if name not in kinds), None)
            if unknown is not None:
                raise UnknownOption(unknown, kind)
            given = [given]
        if not isinstance(given, list):
            continue
        typed = []
        for i, rule in enumerate(given):
            if not isinstance(rule, dict):
                raise NotKeys(kind, i)
            unknown = next((name for name in rule if name not in kinds), None)
            if unknown is not None:
                raise UnsupportedByRule(kind, unknown)
            typed.append(read_values(kind, rule))
        for rule in typed:
            make_rule(kind, rule)
        options[kind] = [_for_schema(kind, rule) for rule in typed]


def _for_schema(kind: str, rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule as QMP would have it."""
    signed = {name: _signed(rule[name], 64) for name in rule if KINDS[kind][name] == "number"}
    return ({"new_state": 0} if kind == SET else {}) | rule | signed
