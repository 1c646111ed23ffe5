"""Check what no linter knows of: sizes, paths of some machine, special cases, pins.

Looks at what git tracks or would track; prints each finding as ``file:line: what`` and exits with
1 if there is any.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST = 500  # lines of a module, tests aside
PRODUCT = ("blockemu/", "drivers/", "images/", "qmp_server/")
PIN = re.compile(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+-]+")


@dataclass(frozen=True)
class Ban:
    """A pattern that may not occur, in the files whose name begins with one of ``where``."""

    pattern: re.Pattern[str]
    where: tuple[str, ...]
    why: str


BANS = (
    Ban(
        re.compile(r"(?<![\w.$}~-])/(?:root|work|home/[a-z]\w*)/"),
        ("",),
        "a path of some machine",
    ),
    Ban(
        re.compile(r"\b(?:iotests?|test)[-_ /]?(?:0\d\d|[1-3]\d\d)\b", re.IGNORECASE),
        PRODUCT,
        "the number of a QEMU test: product code has no special cases",
    ),
    Ban(
        re.compile(r"\b(?:time|asyncio)\.sleep\((?!0\))"),
        ("tests/",),
        "a sleep in a test: force the order by clocks or events",
    ),
    Ban(
        re.compile(r"^\s*(?:from|import) numpy\b"),
        ("qmp_server/",),
        "qmp_server is on the way to the greeting and may not import numpy",
    ),
)


def tracked(root: Path) -> list[str]:
    """Return the names of the project's files, links left out."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
    paths = sorted(set(names.split("\0")) - {""})
    return [name for name in paths if (root / name).is_file() and not (root / name).is_symlink()]


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file; none if it is not text."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def findings(root: Path, names: list[str]) -> Iterator[str]:
    """Yield what is wrong with the files called ``names`` below ``root``."""
    for name in names:
        lines = lines_of(root / name)
        if name.endswith(".py") and not name.startswith("tests/") and len(lines) > LONGEST:
            yield f"{name}:1: {len(lines)} lines, more than {LONGEST}: is there a seam?"
        bans = [ban for ban in BANS if name.startswith(ban.where)]
        for number, line in enumerate(lines, 1):
            for ban in bans:
                if ban.pattern.search(line):
                    yield f"{name}:{number}: {ban.why}"
    yield from bad_pins(root)


def bad_pins(root: Path) -> Iterator[str]:
    """Yield the lines of constraints.txt that are not ``name==version``."""
    for number, line in enumerate(lines_of(root / "constraints.txt"), 1):
        if not PIN.fullmatch(line):
            yield f"constraints.txt:{number}: not name==version: {line!r}"


def main() -> int:
    """Check the tree this file lies in."""
    root = Path(__file__).resolve().parent.parent
    found = list(findings(root, tracked(root)))
    print("\n".join(found) or "tree: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
