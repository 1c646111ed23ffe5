"""What QEMU's own program tells of its types, its devices among them (written by tools).

Read when somebody first asks, and of the properties only those that were asked for.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from blockemu.qmp_server.qapi import ABSENT

_DATA: Final = f"{os.path.dirname(__file__)}/data"  # noqa: PTH120 - start-up: no pathlib
_NOT_TAKEN: Final = frozenset({"type", "parent_bus", "realized", "hotplugged", "hotpluggable"})


class KnownType(NamedTuple):
    """A type: its name, its parent's, whether it has no instances, what it implements itself."""

    name: str
    parent: str
    abstract: bool
    interfaces: tuple[str, ...]


class Row(NamedTuple):
    """A property of a type; ``rank`` is its place in ``info qtree``, -1 if it has none."""

    name: str
    type: str
    default: Any
    description: str | None
    rank: int


def _read(name: str) -> str:
    with open(f"{_DATA}/{name}.txt", encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


@cache
def known_types() -> Mapping[str, KnownType]:
    """Return all types, in the order in which QEMU lists them."""
    rows = (line.split() for line in _read("types").splitlines())
    return {
        name: KnownType(name, "" if parent == "-" else parent, kind == "abstract", tuple(more))
        for name, parent, kind, *more in rows
    }


def line_of(name: str) -> Iterator[KnownType]:
    """Yield a type and those that it derives from."""
    known = known_types()
    while name:
        yield known[name]
        name = known[name].parent


def is_a(name: str, wanted: str) -> bool:
    """Tell whether a type is, derives from or implements another.

    What implements several interfaces is none in particular (object_class_dynamic_cast).
    """
    line = list(line_of(name))
    if wanted == "interface" and line[-1].name != wanted:
        return sum(len(each.interfaces) for each in line) == 1
    return any(each.name == wanted or wanted in each.interfaces for each in line)


@cache
def _properties() -> str:
    return "\n" + _read("properties")


def _section(name: str) -> tuple[str, list[str]]:
    """Return the type whose properties come before a type's own, and the lines of these."""
    text = _properties()
    start = text.index(f"\n@{name} ") + len(name) + 3
    head, *lines = text[start : text.find("\n@", start)].split("\n")
    if lines and lines[0].startswith("="):
        lines = _section(lines[0][1:])[1]
    return head, [line for line in lines if line]


@cache
def own_rows(name: str) -> tuple[Row, ...]:
    """Return the properties that a type adds to those of its parent, as they are listed."""
    return tuple(_row(line) for line in _section(name)[1])


def _row(line: str) -> Row:
    rank, name, type_, default, description = (*line.split("\t"), "", "")[:5]
    return Row(
        name,
        type_,
        json.loads(default) if default else ABSENT,
        description or None,
        int(rank) if rank else -1,
    )


def rows_of(name: str) -> list[Row]:
    """Return all properties of a type, as ``qom-list-properties`` has them."""
    base = _section(name)[0]
    return [*(rows_of(base) if base != "-" else ()), *own_rows(name)]


def taken_by(name: str) -> list[Row]:
    """Return the properties that devices of a type take."""
    rows = (row for row in rows_of(name) if row.name not in _NOT_TAKEN)
    return [row for row in rows if not row.name.startswith("legacy-")]


@cache
def device_facts() -> Mapping[str, Mapping[str, Any]]:
    """Return what is known of the devices that may be plugged in, by type."""
    rows = (line.partition(" ") for line in _read("devices").splitlines())
    return {name: json.loads(facts) for name, _, facts in rows}
