"""Jobs that copy a disk, by QMP, from the command to the event that it is done."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from programs import FOLDER, GIB, KIB, MIB, convert, qcow2, quietly
from qmp import Session
from report import OURS, REAL, Goal, Report, Sample

SIZE = 2 * GIB
COMPRESSIBLE = 128 * MIB
CLUSTER = 64 * KIB
Job = Callable[[Path, str], Sample]


def started(program: str) -> Session:
    """Start a daemon and have it do a first, small job: what is imported late is, then."""
    session = Session(program)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for name in ("one", "other"):
            image = qcow2(Path(folder, name), MIB)
            quietly("qemu-io", "-f", "qcow2", "-c", f"write -q 0 {MIB // 2}", image)
            session.open(name, image)
        session.job("blockdev-backup", device="one", target="other", sync="full")
        for name in ("one", "other"):
            session("blockdev-del", node_name=name)
    return session


def copying(command: str, kind: str, folder: Path, program: str) -> Sample:
    """Copy a whole disk."""
    with started(program) as session:
        session.open("disk", folder / f"disk.{kind}", kind)
        session.open("target", qcow2(folder / "target", SIZE), discard="unmap")
        mirror = command == "blockdev-mirror"
        return session.job(command, complete=mirror, device="disk", target="target", sync="full")


def compressed(folder: Path, program: str) -> Sample:
    """Copy a disk of which half can be compressed."""
    with started(program) as session:
        session.open("disk", folder / "compressible", "raw")
        session.open("target", qcow2(folder / "target", COMPRESSIBLE))
        return session.job(
            "blockdev-backup", device="disk", target="target", sync="full", compress=True
        )


def incremental(folder: Path, program: str) -> Sample:
    """Copy one cluster in a hundred."""
    with started(program) as session:
        session.open("disk", folder / "marked", read_only=True)
        session.open("target", qcow2(folder / "target", SIZE))
        session("block-dirty-bitmap-add", node="disk", name="b")
        session("block-dirty-bitmap-merge", node="disk", target="b", bitmaps=["marks"])
        return session.job(
            "blockdev-backup", device="disk", target="target", sync="incremental", bitmap="b"
        )


def chained(command: str, folder: Path, program: str) -> Sample:
    """Commit or stream half the disk."""
    base, top = folder / "base", folder / "top"
    shutil.copyfile(folder / "disk.qcow2", base)
    qcow2(top, SIZE, "-b", base, "-F", "qcow2")
    quietly("qemu-io", "-f", "qcow2", "-c", f"write -q -P 9 0 {SIZE // 2}", top)
    with started(program) as session:
        session.open("disk", top)
        return session.job(command, complete=command == "block-commit", device="disk")


def prepare(folder: Path) -> None:
    """Make the disks: random data, raw and qcow2; one with marks; one that can be compressed."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    convert(raw, "qcow2", folder / "disk.qcow2")
    marked = folder / "marked"
    convert(raw, "qcow2", marked)
    quietly("qemu-img", "bitmap", "--add", marked, "marks")
    writes = [w for at in range(0, SIZE, 100 * CLUSTER) for w in ("-c", f"write -q {at} 512")]
    quietly("qemu-io", "-f", "qcow2", *writes, marked)
    with (folder / "compressible").open("wb") as file:
        for _ in range(COMPRESSIBLE // CLUSTER):
            file.write(os.urandom(CLUSTER // 2) + b"a few words " * (CLUSTER // 24 + 1))
            file.seek(-(file.tell() % CLUSTER), os.SEEK_CUR)
        file.truncate(COMPRESSIBLE)


ROWS: dict[str, tuple[Job, float]] = {  # and the goal
    "backup, raw to qcow2": (partial(copying, "blockdev-backup", "raw"), 1.5),
    "backup, qcow2 to qcow2": (partial(copying, "blockdev-backup", "qcow2"), 1.5),
    "backup, incremental, 1 cluster in 100": (incremental, 1.2),
    "backup, compressed, 128 MiB": (compressed, 1.5),
    "mirror, raw to qcow2": (partial(copying, "blockdev-mirror", "raw"), 1.5),
    "mirror, qcow2 to qcow2": (partial(copying, "blockdev-mirror", "qcow2"), 1.5),
    "commit of half a disk": (partial(chained, "block-commit"), 1.0),
    "stream of half a disk": (partial(chained, "block-stream"), 1.0),
}


def run(report: Report) -> None:
    """Measure each job on both daemons."""
    with (
        report.section(f"Jobs over {SIZE // GIB} GiB of random data; not pinned"),
        tempfile.TemporaryDirectory(dir=FOLDER) as name,
    ):
        folder = Path(name)
        prepare(folder)
        for title, (job, goal) in ROWS.items():
            variants = {p: lambda p=p, job=job: job(folder, p) for p in (REAL, OURS)}
            report.compare(title, variants, "ms", rounds=3, goal=Goal(ratio=goal))
