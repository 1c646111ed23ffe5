"""Write docs/versions.md from the ages of commands, events and types; ``--check``: is it so?"""

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from blockemu.commands import load
from blockemu.qmp_server.introspect import schema
from blockemu.qmp_server.outline import Outline, outline
from blockemu.qmp_server.profile import POLICIES, VERSIONS, Profile
from blockemu.rewording import TABLE

PAGE = Path(__file__).parent.parent / "docs" / "versions.md"
REFERENCES = {"blockdev-add": "<BlockdevOptions>"}
INTRODUCTION = """# Versions

Written by `tools/write_versions.py` from what is declared.

`--compat VERSION` shows clients the interface of that version of QEMU: what it lacks is refused as
unknown when it comes in, left out when it goes out, and absent from introspection; the greeting
and `query-version` tell the version. `all`, the default, hides nothing and greets as the newest.

Paths below a command or event: `ARG` is what goes in, `RET` what comes back; `?` may be absent,
`{case}` is a case of a union, `|kind` an alternative, `[]` an element, `= value` a value,
`@feature:` a feature. Of a member that comes or goes, what is below it is not listed.

What the block layer does is the newest version's under all profiles, but for the words of errors
(below) and writable NBD exports, which say since 7.1 that a client may have several connections.
Conflicts of permissions are told in other words since 6.1. Of the faults of single releases one is
imitated: in 7.1 and 7.2 `cbw-timeout` has room for 4.29 seconds, and longer ones are cut to that.
"""


def outlines() -> dict[str, Outline]:
    """Return the outline of each version."""
    registry = load()
    return {name: outline(schema(registry, Profile.parse(name)), REFERENCES) for name in VERSIONS}


def tops(lines: frozenset[str], others: frozenset[str]) -> Iterator[str]:
    """Yield the lines that ``others`` lack, without what lies below one of them."""
    found = lines - others
    for line in sorted(found):
        ends = (match.start() for match in re.finditer(r"[.:@|{\[=]|\?", line))
        if not any({line[:end], f"{line[:end]}?"} & (found - {line}) for end in ends):
            yield line.replace("=^", " = ").strip()


def changes(old: Outline, new: Outline) -> Iterator[str]:
    """Yield the lines of the section between two versions."""
    for title, names in (("New", new.keys() - old.keys()), ("Gone", old.keys() - new.keys())):
        if names:
            yield f"{title}: " + ", ".join(f"`{name}`" for name in sorted(names)) + "."
            yield ""
    yield "| | new | gone |"
    yield "| --- | --- | --- |"
    for name in sorted(old.keys() & new.keys()):
        come = "<br>".join(f"`{line}`" for line in tops(new[name], old[name]))
        gone = "<br>".join(f"`{line}`" for line in tops(old[name], new[name]))
        if come or gone:
            yield f"| {name} | {come} | {gone} |".replace("|object", "\\|object").replace(
                "|string", "\\|string"
            )


def page() -> str:
    """Return the page."""
    known = outlines()
    lines = [INTRODUCTION]
    for old, new in pairwise(known):
        lines += [f"## From {old} to {new}", "", *changes(known[old], known[new]), ""]
    lines += ["## What errors say", ""]
    lines += ["Older versions have other words for some errors:", ""]
    lines += ["| before | was | is | of |", "| --- | --- | --- | --- |"]
    for row in TABLE:
        of = ", ".join(sorted(row.commands)) or "all"
        lines.append(f"| {row.until} | `{row.then}` | `{row.now}` | {of} |")
    lines += ["", "## Policies", ""]
    lines += ["As QEMU's `-compat`, behind the version or alone, joined by commas:", ""]
    lines += [f"- `{name}={'|'.join(values)}`" for name, values in POLICIES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit(f"{PAGE.name} is not current: run {Path(__file__).name}")
