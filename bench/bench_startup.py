"""From exec to greeting, and where the time goes."""

import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter

from daemon import BIN, Daemon
from report import OURS, REAL, Report

SHOWN = 15


def to_greeting(program: str) -> float:
    """Return milliseconds from exec to the whole greeting."""
    began = perf_counter()
    with Daemon(program) as daemon:
        daemon.lines(1)
        return (perf_counter() - began) * 1e3


def to_end(*command: str) -> float:
    """Return milliseconds that a program takes which ends by itself."""
    began = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (perf_counter() - began) * 1e3


def bare_python() -> float:
    """Return milliseconds that an interpreter takes which does nothing: our floor."""
    return to_end(sys.executable, "-c", "")


def imports(program: str) -> list[tuple[int, str]]:
    """Return (own microseconds, module) of all imported up to negotiation, the slowest first."""
    timed = [sys.executable, "-X", "importtime"]
    with Daemon(program, wrap=timed, stderr=subprocess.PIPE) as daemon:
        daemon.ready()
        daemon.process.terminate()
        _, stderr = daemon.process.communicate()
    rows = [line.split("|") for line in stderr.decode().splitlines() if line.count("|") == 2]
    own = [(row[0].partition(":")[2].strip(), row[2].strip()) for row in rows]
    return sorted(((int(us), name) for us, name in own if us.isdigit()), reverse=True)


def run(report: Report) -> None:
    """Compare, then list the slowest imports."""
    floor = f"{Path(sys.executable).name} -c ''"
    report.section("Start-up: from exec to greeting")
    for pair in ((REAL, OURS), ("qemu-system-x86_64", "blockemu-qemu")):
        greetings = {name: lambda name=name: to_greeting(name) for name in pair}
        report.compare("greeting", greetings | {floor: bare_python}, "ms")
    tools = {"qemu-io": "qemu-io", "blockemu-io": str(BIN / "blockemu-io")}
    with NamedTemporaryFile() as image:
        image.truncate(1 << 20)
        for arguments in (["-c", "quit"], ["-f", "raw", "-c", "length", image.name]):
            programs = {
                name: lambda path=path, arguments=arguments: to_end(path, *arguments)
                for name, path in tools.items()
            }
            report.compare(" ".join(["qemu-io", *arguments[:4]]), programs, "ms")
    for program in (OURS, "blockemu-qemu"):
        slowest = imports(program)
        report.note(f"{program}: {len(slowest)} modules imported until negotiated; own time in us:")
        for own, name in slowest[:SHOWN]:
            report.note(f"  {own:8,} {name}")
