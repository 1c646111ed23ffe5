"""nbdcopy of a whole disk, from and to the NBD servers."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from programs import FOLDER, MIB, convert, cpu, need, timed
from qmp import Session
from report import OURS, REAL, Goal, Report, Sample

SIZE = 1024 * MIB


def copied(source: str, target: str, server: int) -> Sample:
    """Return MiB a second of nbdcopy."""
    before = cpu(server)
    spent = timed(need("nbdcopy"), source, target).value
    return Sample(SIZE / MIB / spent * 1e3, cpu(server) - before)


def run(report: Report) -> None:
    """Copy a raw and a qcow2 disk into nothing, and a file into both."""
    with (
        report.section("nbdcopy of 1 GiB; not pinned"),
        tempfile.TemporaryDirectory(dir=FOLDER) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        raw = folder / "raw"
        with raw.open("wb") as file:
            for _ in range(SIZE // MIB):
                file.write(os.urandom(MIB))
        convert(raw, "qcow2", folder / "qcow2")
        sessions, uris = {}, {}
        for program in (REAL, OURS):
            session = sessions[program] = stack.enter_context(Session(program))
            uris[program] = session.serve(folder / f"{program}.sock")
            for kind in ("raw", "qcow2"):  # only read, so both programs may have them
                session.open(kind, folder / kind, kind, read_only=True)
                session.export(kind)
            path = folder / f"{program}.target"
            path.touch()
            os.truncate(path, SIZE)
            session.open("target", path, "raw")
            session.export("target", writable=True)
        for title, source, target, goal in (
            ("a raw disk, to null:", "raw", None, Goal(ratio=2)),
            ("a qcow2 disk, to null:", "qcow2", None, None),
            ("a file, to a raw disk", None, "target", None),
        ):
            variants = {
                program: lambda uri=uris[program], pid=session.pid, source=source, target=target: (
                    copied(
                        uri(source) if source else str(raw), uri(target) if target else "null:", pid
                    )
                )
                for program, session in sessions.items()
            }
            report.compare(title, variants, "MiB/s", more_is_better=True, goal=goal)
