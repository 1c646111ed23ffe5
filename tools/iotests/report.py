"""Results kept, and the document made of them."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox import Result

ROOT = Path(__file__).resolve().parent.parent.parent
PASSING = ROOT / "tests" / "iotests" / "passing.txt"
DOCUMENT = ROOT / "docs" / "compatibility.md"
WHY = 110  # characters of a reason that are shown

HEAD = """\
# Compatibility: QEMU's own tests

Made by `make iotests` on {date}; do not edit.

QEMU {version}'s test suite, taken unmodified from Debian's source package, with our programs in
place of QEMU's: {ours}.  All other programs that a test runs are QEMU's own.  A test counts only if
it ran a program of ours.  "Real" is how the same test goes with none of ours: where that fails,
too, the machine or the age of the reference output is the cause, not we.

{summary}

| test | format | with ours | real | why not |
| --- | --- | --- | --- | --- |
"""
PASSING_HEAD = """\
# QEMU's tests that pass, and must go on doing so: which programs are ours, format, test.
# Checked by `python tools/iotests/run.py --check`; written by `--update`, which only adds.
"""


@dataclass(frozen=True, order=True)
class Case:
    """A test with what it is run on; ``ours`` are short names joined by ``+``, empty for none."""

    ours: str
    fmt: str
    test: str


def load(path: Path) -> dict[Case, Result]:
    """Return the results of earlier runs."""
    if not path.is_file():
        return {}
    return {Case(*row["case"]): Result(**row["result"]) for row in json.loads(path.read_text())}


def save(path: Path, results: Mapping[Case, Result]) -> None:
    """Keep results for later."""
    rows = [
        {"case": [case.ours, case.fmt, case.test], "result": asdict(result) | {"diff": []}}
        for case, result in sorted(results.items())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")


def passing() -> list[Case]:
    """Return the cases that must pass."""
    if not PASSING.is_file():
        return []
    lines = [line.split() for line in PASSING.read_text().splitlines()]
    return [Case(*words) for words in lines if words and not words[0].startswith("#")]


def passes(results: Mapping[Case, Result], case: Case) -> bool:
    """Tell whether a case passed when it was run last."""
    return case in results and results[case].status == "pass"


def add_passing(results: Mapping[Case, Result]) -> None:
    """Add what passes to the list."""
    new = {case for case, result in results.items() if result.status == "pass" and result.used}
    cases = sorted({*passing(), *new})
    PASSING.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{case.ours} {case.fmt} {case.test}\n" for case in cases)
    PASSING.write_text(PASSING_HEAD + "".join(lines))


def write_document(results: Mapping[Case, Result], ours: str, version: str) -> None:
    """Write docs/compatibility.md from what is known of ``ours`` and of the real programs."""
    rows = {
        case: result
        for case, result in sorted(results.items(), key=lambda item: (item[0].test, item[0].fmt))
        if case.ours == ours and result.used
    }
    lines = []
    for case, result in rows.items():
        real = results.get(Case("", case.fmt, case.test))
        why = "" if result.status == "pass" else shortened(result.why)
        known = real.status if real else "?"
        lines.append(f"| {case.test} | {case.fmt} | {result.status} | {known} | {why} |\n")
    head = HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        version=version,
        ours=", ".join(f"`{name}`" for name in ours.split("+")),
        summary=summary(rows, results),
    )
    DOCUMENT.write_text(head + "".join(lines))


def summary(rows: Mapping[Case, Result], results: Mapping[Case, Result]) -> str:
    """Count, by format."""
    lines = []
    for fmt in sorted({case.fmt for case in rows}):
        mine = {case.test: result.status for case, result in rows.items() if case.fmt == fmt}
        real = {
            case.test
            for case, result in results.items()
            if not case.ours and case.fmt == fmt and result.status == "pass"
        }
        good = sum(status == "pass" for status in mine.values())
        both = sum(mine[test] == "pass" for test in mine if test in real)
        of = sum(test in real for test in mine)
        lines.append(
            f"- {fmt}: {good} of {len(mine)} pass; of those that pass with the real programs,"
            f" {both} of {of}."
        )
    return "\n".join(lines)


def shortened(why: str) -> str:
    """Make a reason fit into a table."""
    line = why.split("\n", maxsplit=1)[0].replace("|", "\\|").replace("`", "'")
    text = line if len(line) <= WHY else f"{line[: WHY - 1]}…"
    return f"`{text}`" if text else ""
