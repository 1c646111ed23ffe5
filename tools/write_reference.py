"""Write the reference documents from the declarations: ``write_reference.py FOLDER``.

One page each for commands, events and driver options.  Nothing is said that no declaration says:
a member without a text has a hole in its docstring.
"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blockemu.commands import load
from blockemu.drivers import load_drivers
from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.introspect import describe
from blockemu.qmp_server.qapi import ALL, Struct

Entry = tuple[str, str, str]  # name, what it is for, its members as describe() prints them


def first_paragraph(documented: Any) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def commands() -> Iterator[Entry]:
    """Yield all commands."""
    registry = load()
    for name in registry.names():
        command = registry.get(name, ALL)
        if command is not None:
            yield name, first_paragraph(command.function), describe(command)


def events() -> Iterator[Entry]:
    """Yield all events."""
    for event in subclasses(Event):
        yield event.event, first_paragraph(event), described(event)


def drivers(known: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the options of all drivers."""
    for tag, node in known.items():
        yield tag, first_paragraph(node), described(node.Options)


def described(hint: Any) -> str:
    """Return the members of a struct; nothing for arguments that are not one struct."""
    return describe(hint) if isinstance(hint, type) and issubclass(hint, Struct) else ""


def subclasses(base: type) -> Iterator[type[Any]]:
    """Yield all subclasses, at any depth."""
    for cls in base.__subclasses__():
        yield cls
        yield from subclasses(cls)


def page(title: str, entries: Iterable[Entry]) -> str:
    """Return a page in Markdown, sorted by name."""
    parts = [f"# {title}", "Made by `make docs`."]
    for name, text, listing in sorted(entries):
        parts += [f"## {name}", text]
        if listing.strip():
            parts.append(f"```\n{listing}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def main(folder: str) -> None:
    """Write the three pages."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    known = load_drivers()
    for name, text in {
        "commands": page("Commands", commands()),
        "events": page("Events", events()),
        "drivers": page("Driver options", drivers(known)),
    }.items():
        (target / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
