"""Measure blockemu against the real programs: ``bench/run.py [SECTION...]``.

A section is a module ``bench/bench_NAME.py`` with ``run(report)``.  Variants alternate within every
round, so that what else the machine does hits all alike.  A row is the medians, the median of the
rounds' ratios to the real program (above one: ours is better), the lowest and the highest of them,
the ratio of the processor time both took where that can be told, and the goal.  All of it goes to
``bench/results.md`` if all sections ran.  Nothing here is a test: no number makes it fail, and a
row that fails does not end the run.
"""

import argparse
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from report import Report, Section

HERE = Path(__file__).parent
ORDER = ["startup", "qmp", "nbd", "copying", "bitmaps", "images", "luks", "jobs", "busy", "growth"]
PROGRAMS = [
    "qemu-storage-daemon --version",
    "qemu-img --version",
    "fio --version",
    "nbdcopy --version",
    "nbdinfo --version",
]


def sections() -> list[str]:
    """Return the names of all sections, in the order they run."""
    found = {path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def first_line(command: str) -> str:
    """Return the first line that a program says, or that it is missing."""
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return f"{command.split()[0]}: not installed"
    return (done.stdout.splitlines() or [""])[0]


def processor() -> str:
    """Return what the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def about() -> list[str]:
    """Return lines that tell of the machine and the versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "cryptography"))
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"{processor()}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}, {packages}",
        *map(first_line, PROGRAMS),
    ]


def write(path: Path, head: list[str], tail: list[str], found: list[Section]) -> None:
    """Write what there is so far."""
    goals = [row for section in found for row in section.rows if row.goal]
    met = sum(row.cells()[-1] == "yes" for row in goals)
    how = (HERE / "README.md").read_text().partition("\n## How to read the table\n")[2]
    text = ["# blockemu beside QEMU, measured", "", *(f"- {line}" for line in head + tail)]
    text += ["", f"{met} of {len(goals)} rows that have a goal reach it.", how.rstrip(), ""]
    path.write_text("\n".join(text) + "\n" + "\n".join(section.markdown() for section in found))


def main() -> None:
    """Run the sections named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("section", nargs="*", help=f"any of: {', '.join(sections())}")
    parser.add_argument("--rounds", type=int, help="rounds of every comparison, at most")
    parser.add_argument("--output", type=Path, help="where the tables go (all: bench/results.md)")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile all anew
    unknown = set(arguments.section) - set(sections())
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(sections())}")
    output = arguments.output or (None if arguments.section else HERE / "results.md")
    head = about()
    print("\n".join(head))
    report, began, load = Report(arguments.rounds), time.monotonic(), os.getloadavg()[0]
    sys.path.insert(0, str(HERE))
    for name in arguments.section or sections():
        started = time.monotonic()
        with report.guarded(name):
            importlib.import_module(f"bench_{name}").run(report)
        print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)
        tail = [
            f"load average {load:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end",
            f"{time.monotonic() - began:.0f} s",
        ]
        if output:
            write(output, head, tail, report.sections)


if __name__ == "__main__":
    main()
