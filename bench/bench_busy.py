"""What others notice of a job: how long QMP takes to answer, and how much of its rate NBD keeps."""

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, sleep

from programs import FOLDER, LIMIT, MIB, convert, fio_command, qcow2, rate
from qmp import Session, ended
from report import OURS, REAL, Goal, Measure, Report

SIZE = 512 * MIB
SECONDS = 2.0
BREATH = 0.002  # seconds between two questions
JOBS = {
    "backup": ("blockdev-backup", {"sync": "full"}),
    "compressed backup": ("blockdev-backup", {"sync": "full", "compress": True}),
    "mirror": ("blockdev-mirror", {"sync": "full"}),
}


def job_arguments(extra: dict[str, object]) -> dict[str, object]:
    """Return a job's arguments."""
    return {"job-id": "j", "device": "disk", "target": "target"} | extra


def answering(session: Session, kind: str) -> float:
    """Return the longest time that QMP took to answer while jobs ran, in ms."""
    command, extra = JOBS[kind]
    session.send(command, job_arguments(extra), "job")
    longest, number, stop, running = 0.0, 0, perf_counter() + SECONDS, True
    while running:
        began = perf_counter()
        session.send("query-version", {}, number)
        while (told := session.receive()).get("id") != number:
            running = follow(session, told, kind, perf_counter() < stop) and running
        longest = max(longest, (perf_counter() - began) * 1e3)
        number += 1
        sleep(BREATH)
    return longest


def follow(session: Session, told: dict[str, object], kind: str, again: bool) -> bool:
    """Take a job's next step; return whether it, or another in its place, runs."""
    command, extra = JOBS[kind]
    if "error" in told:
        raise RuntimeError(f"{command}: {told}")
    if told.get("event") == "BLOCK_JOB_READY":
        session.send("job-complete", {"id": "j"}, "complete")
    if not ended(told):
        return True
    if again:
        session.send(command, job_arguments(extra), "job")
    return again


def loaded(session: Session, uri: str, kind: str | None) -> float:
    """Return the requests a second of 4 KiB reads at depth 16, while jobs run one by one."""
    load = fio_command(uri, "randread", "4k", 16, SIZE, SECONDS)
    with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as fio:
        try:
            if kind is not None:
                command, extra = JOBS[kind]
                session.send(command, job_arguments(extra), "job")
                while follow(session, session.receive(), kind, fio.poll() is None):
                    pass
            output, _ = fio.communicate(timeout=LIMIT)
        finally:
            fio.kill()
    return rate(output)


def share(session: Session, uri: str, kind: str) -> float:
    """Return how many per cent of an NBD load's rate are left while jobs run."""
    return loaded(session, uri, kind) / loaded(session, uri, None) * 100


def run(report: Report) -> None:
    """Measure each job on both daemons."""
    with (
        report.section("While jobs run: the longest QMP answer, the NBD rate kept; not pinned"),
        tempfile.TemporaryDirectory(dir=FOLDER) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        (folder / "raw").write_bytes(os.urandom(SIZE))
        sessions, uris = {}, {}
        for program in (REAL, OURS):
            session = sessions[program] = stack.enter_context(Session(program))
            disk = folder / f"{program}.disk"
            session.open("disk", convert(folder / "raw", "qcow2", disk))
            session.open("target", qcow2(folder / f"{program}.target", SIZE))
            session.open("other", folder / "raw", "raw", read_only=True)
            uris[program] = session.serve(folder / f"{program}.sock", "other")
        for kind in JOBS:
            variants: dict[str, Measure] = {
                program: lambda s=session, kind=kind: answering(s, kind)
                for program, session in sessions.items()
            }
            goal = Goal(most=20)
            report.compare(f"{kind}: longest answer", variants, "ms", rounds=3, goal=goal)
            variants = {
                program: lambda s=session, uri=uris[program], kind=kind: share(
                    s, uri("other"), kind
                )
                for program, session in sessions.items()
            }
            report.compare(
                f"{kind}: NBD rate kept", variants, "%",
                rounds=3, more_is_better=True, goal=Goal(least=50),
            )  # fmt: skip
