"""From exec to greeting, and where the time goes."""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from daemon import PROGRAMS, Daemon
from report import OURS, REAL, Report

SHOWN = 15


def to_greeting(program: str) -> float:
    """Return milliseconds from exec to the whole greeting."""
    began = perf_counter()
    with Daemon(program) as daemon:
        daemon.lines(1)
        return (perf_counter() - began) * 1e3


def bare_python() -> float:
    """Return milliseconds that an interpreter takes which does nothing: our floor."""
    began = perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return (perf_counter() - began) * 1e3


def imports() -> list[tuple[int, str]]:
    """Return (own microseconds, module) of all imported up to negotiation, the slowest first."""
    timed = [sys.executable, "-X", "importtime", *PROGRAMS[OURS]]
    with Daemon(OURS, wrap=timed, stderr=subprocess.PIPE) as daemon:
        daemon.ready()
        daemon.process.terminate()
        _, stderr = daemon.process.communicate()
    rows = [line.split("|") for line in stderr.decode().splitlines() if line.count("|") == 2]
    own = [(row[0].partition(":")[2].strip(), row[2].strip()) for row in rows]
    return sorted(((int(us), name) for us, name in own if us.isdigit()), reverse=True)


def run(report: Report) -> None:
    """Compare, then list the slowest imports."""
    report.section("Start-up: from exec to greeting")
    report.compare(
        "greeting",
        {
            REAL: lambda: to_greeting(REAL),
            OURS: lambda: to_greeting(OURS),
            f"{Path(sys.executable).name} -c ''": bare_python,
        },
        "ms",
    )
    slowest = imports()
    report.note(f"{len(slowest)} modules imported; own time of the {SHOWN} slowest, in us:")
    for own, name in slowest[:SHOWN]:
        report.note(f"  {own:8,} {name}")
