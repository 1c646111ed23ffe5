"""From exec to greeting, and where the time goes."""

import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter

from daemon import BIN, Daemon
from programs import cpu, timed
from report import OURS, REAL, Goal, Report, Sample

SHOWN = 15


def to_greeting(program: str) -> Sample:
    """Return milliseconds from exec to the whole greeting."""
    began = perf_counter()
    with Daemon(program) as daemon:
        daemon.lines(1)
        return Sample((perf_counter() - began) * 1e3, cpu(daemon.process.pid))


def bare_python() -> Sample:
    """Return milliseconds that an interpreter takes which does nothing: our floor."""
    return timed(sys.executable, "-c", "")


def imports(program: str) -> list[tuple[int, str]]:
    """Return (own microseconds, module) of all imported up to negotiation, the slowest first."""
    with Daemon(
        program, wrap=[sys.executable, "-X", "importtime"], stderr=subprocess.PIPE
    ) as daemon:
        daemon.ready()
        daemon.process.terminate()
        _, stderr = daemon.process.communicate()
    rows = [line.split("|") for line in stderr.decode().splitlines() if line.count("|") == 2]
    own = [(row[0].partition(":")[2].strip(), row[2].strip()) for row in rows]
    return sorted(((int(us), name) for us, name in own if us.isdigit()), reverse=True)


def run(report: Report) -> None:
    """Compare, then list the slowest imports."""
    floor = {f"{Path(sys.executable).name} -c ''": bare_python}
    with report.section("Start-up: from exec to greeting, or to the end"):
        report.compare("an interpreter that does nothing", floor, "ms", rounds=9)
        machine = ("qemu-system-x86_64", "blockemu-qemu")
        for pair, most in (((REAL, OURS), 45), (machine, 100)):
            greetings = {name: lambda name=name: to_greeting(name) for name in pair}
            report.compare(pair[1], greetings, "ms", rounds=9, goal=Goal(most=most))
        tools = {"qemu-io": "qemu-io", "blockemu-io": str(BIN / "blockemu-io")}
        with NamedTemporaryFile() as image:
            image.truncate(1 << 20)
            reading = ["-f", "raw", "-c", "read 0 64k", image.name]
            for arguments, goal in ((["-c", "quit"], Goal(most=80)), (reading, None)):
                programs = {
                    name: lambda path=path, arguments=arguments: timed(path, *arguments)
                    for name, path in tools.items()
                }
                title = " ".join(["blockemu-io", *arguments[:4]])
                report.compare(title, programs, "ms", rounds=9, goal=goal)
        for program in (OURS, "blockemu-qemu"):
            slowest = imports(program)
            report.note(f"{program}: {len(slowest)} modules until negotiated; own time in us:")
            for own, name in slowest[:SHOWN]:
                report.note(f"  {own:8,} {name}")
