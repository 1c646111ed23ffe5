"""Results kept, and the document made of them."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox import PROGRAMS, Result

ROOT = Path(__file__).resolve().parent.parent.parent
PASSING = ROOT / "tests" / "iotests" / "passing.txt"
DOCUMENT = ROOT / "docs" / "compatibility.md"
WHY = 110  # characters of a reason that are shown

HEAD = """\
# Compatibility: QEMU's own tests

Written by `tools/iotests`, from the results kept of one run or several, on {date}; do not edit.

QEMU {version}'s test suite, taken unmodified from Debian's source package, with our programs in
place of QEMU's: "ours" says which.  All other programs that a test runs are QEMU's own.  A test
counts only if it ran a program of ours.  "Real" is how the same test goes with none of ours: where
that fails, too, the machine or the age of the reference output is the cause, not we.  (Debian's
QEMU lacks the accelerator for tests; it gets tcg in its place.)

| ours | format | tests | pass | pass with the real programs | of those, pass |
| --- | --- | --- | --- | --- | --- |
{summary}

| test | format | ours | result | real | why not |
| --- | --- | --- | --- | --- | --- |
"""
PASSING_HEAD = """\
# QEMU's tests that pass, and must go on doing so: which programs are ours, format, test.
# Checked by `python tools/iotests/run.py --check`; written by `--update`, which only adds.
"""


@dataclass(frozen=True, order=True)
class Case:
    """A test with what it is run on.

    ``ours`` are short names joined by ``+``, empty for none; ``fmt`` is an image format, or
    ``format@protocol`` if the images do not lie in plain files.
    """

    ours: str
    fmt: str
    test: str

    def by_test(self) -> tuple[str, str, str]:
        """Return the key of an order in which all of a test stands together."""
        return self.test, self.fmt, self.ours


def load(*paths: Path) -> dict[Case, Result]:
    """Return the results of earlier runs."""
    rows = [row for path in paths if path.is_file() for row in json.loads(path.read_text())]
    return {Case(*row["case"]): Result(**row["result"]) for row in rows}


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


def possible(results: Mapping[Case, Result], case: Case) -> bool:
    """Tell whether a case may pass and is not one already, by how it goes with QEMU's programs.

    A test that uses only one of several programs of ours is the same as with that one alone; and
    what needs QEMU itself fails with Debian's, whatever ours do.
    """
    real = results.get(Case("", case.fmt, case.test))
    if real is None:
        return True
    ours = case.ours.split("+")
    used = [short for short in ours if PROGRAMS[short][1] in real.used]
    may = real.status == "pass" or ("qemu-system-x86_64" in real.used and "qemu" in ours)
    return may and real.status != "notrun" and bool(used) and len(used) >= min(2, len(ours))


def add_passing(results: Mapping[Case, Result]) -> None:
    """Add what passes to the list."""
    new = {case for case in results if case.ours and results[case].used and passes(results, case)}
    cases = sorted({*passing(), *new})
    PASSING.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{case.ours} {case.fmt} {case.test}\n" for case in cases)
    PASSING.write_text(PASSING_HEAD + "".join(lines))


def write_document(results: Mapping[Case, Result], version: str) -> None:
    """Write docs/compatibility.md from what is known of our programs and of the real ones."""
    rows = {
        case: result
        for case, result in sorted(results.items(), key=lambda item: item[0].by_test())
        if case.ours and result.used
    }
    lines = []
    for case, result in rows.items():
        real = results.get(Case("", case.fmt, case.test))
        why = "" if result.status == "pass" else shortened(result.why)
        cells = (case.test, case.fmt, case.ours, result.status, real.status if real else "?", why)
        lines.append(f"| {' | '.join(cells)} |\n")
    head = HEAD.format(
        date=time.strftime("%Y-%m-%d"), version=version, summary=summary(rows, results)
    )
    DOCUMENT.write_text(head + "".join(lines))


def summary(rows: Mapping[Case, Result], results: Mapping[Case, Result]) -> str:
    """Count, by programs and format."""
    lines = []
    for ours, fmt in sorted({(case.ours, case.fmt) for case in rows}):
        mine = [case for case in rows if (case.ours, case.fmt) == (ours, fmt)]
        real = [case for case in mine if passes(results, Case("", fmt, case.test))]
        good, both = (sum(passes(rows, case) for case in cases) for cases in (mine, real))
        lines.append(f"| {ours} | {fmt} | {len(mine)} | {good} | {len(real)} | {both} |")
    return "\n".join(lines)


def shortened(why: str) -> str:
    """Make a reason fit into a table."""
    line = why.split("\n", maxsplit=1)[0].replace("|", "\\|").replace("`", "'")
    text = line if len(line) <= WHY else f"{line[: WHY - 1]}…"
    return f"`{text}`" if text else ""
