"""Measure blockemu against the real programs: ``bench/run.py [SECTION...]``.

A section is a module ``bench/bench_NAME.py`` with ``run(report)``.  Variants alternate within every
round, so that what else the machine does hits all alike; medians are printed, and the ratio to the
first variant, the real program.  Nothing here is a test: no number makes it fail.
"""

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from report import Report

HERE = Path(__file__).parent


def sections() -> list[str]:
    """Return the names of all sections."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> None:
    """Run the sections named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("section", nargs="*", help=f"any of: {', '.join(sections())}")
    parser.add_argument("--rounds", type=int, help="rounds of every comparison (default: its own)")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile all anew
    unknown = set(arguments.section) - set(sections())
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(sections())}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.release()}")
    report = Report(arguments.rounds)
    sys.path.insert(0, str(HERE))
    for name in arguments.section or sections():
        importlib.import_module(f"bench_{name}").run(report)


if __name__ == "__main__":
    main()
