"""What disks cost as they grow, from 256 MiB to 8 GiB and to 1 TiB, with the same data on them."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from programs import FOLDER, GIB, MIB, ONE_CPU, TIB, fio, on, qcow2
from qmp import Session
from report import OURS, REAL, Goal, Measure, Report, Sample

DATA = 64  # MiB, spread over the disk
SIZES = {"256 MiB": 256 * MIB, "1 GiB": GIB, "8 GiB": 8 * GIB}


def spread(path: Path, size: int) -> Path:
    """Make a raw disk with the same data in as many places, further apart the larger it is."""
    path.unlink(missing_ok=True)
    chunk = os.urandom(MIB)
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(DATA):
            file.seek(size // DATA * number)
            file.write(chunk)
    return path


def backed_up(folder: Path, program: str, size: int) -> Sample:
    """Back a sparse disk up."""
    with Session(program) as session:
        session.open("disk", folder / "disk", "raw")
        session.open("target", qcow2(folder / "target", size))
        return session.job("blockdev-backup", device="disk", target="target", sync="full")


def run(report: Report) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        with report.section("Growth: qcow2 with all clusters allocated, 4 KiB reads at depth 16"):
            for title, size in SIZES.items():
                _reading(report, folder, title, size)
        with report.section(f"Growth: full backup of a sparse raw disk with {DATA} MiB of data"):
            for title, size in (SIZES | {"1 TiB": TIB}).items():
                spread(folder / "disk", size)
                variants: dict[str, Measure] = {
                    p: lambda p=p, size=size: backed_up(folder, p, size) for p in (REAL, OURS)
                }
                report.compare(title, variants, "ms", rounds=3, goal=Goal(ratio=1))


def _reading(report: Report, folder: Path, title: str, size: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(on(ONE_CPU))
        disk = qcow2(folder / "disk.qcow2", size, "-o", "preallocation=metadata")
        sessions, uris, before = {}, {}, {}
        for program in (REAL, OURS):
            session = sessions[program] = stack.enter_context(Session(program))
            session.open("d", disk, read_only=True)
            uris[program] = session.serve(folder / f"{program}.sock", "d")
            before[program] = session.memory
        variants: dict[str, Measure] = {
            p: lambda u=uris[p], pid=s.pid: fio(u("d"), ("randread", "4k", 16), size, pid)
            for p, s in sessions.items()
        }
        goal = Goal(ratio=1.5)
        report.compare(title, variants, "op/s", more_is_better=True, goal=goal, warm=True)
        grown: dict[str, Measure] = {
            p: lambda s=s, was=before[p]: max(s.memory - was, 0.01) for p, s in sessions.items()
        }
        report.compare(f"{title}: memory that the reads left", grown, "MiB", rounds=1)
        for program in sessions:
            (folder / f"{program}.sock").unlink(missing_ok=True)
