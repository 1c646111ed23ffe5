"""Jobs that copy a disk, by QMP, from the command to the event that it is done."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from qmp import Session
from report import OURS, REAL, Report

MIB = 1 << 20
SIZE = 512 * MIB
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
Sample = Callable[[Path, str], float]


def image(*arguments: object) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def fresh(folder: Path, name: str, *more: object) -> Path:
    """Make an empty image, in place of the last one."""
    path = folder / name
    path.unlink(missing_ok=True)
    image("create", "-q", "-f", "qcow2", *more, path, *([] if "-b" in more else [SIZE]))
    return path


def copying(command: str, kind: str, **members: object) -> Sample:
    """Return what takes one sample of a job that copies a whole disk."""

    def sample(folder: Path, program: str) -> float:
        with Session(program) as session:
            session.open("disk", folder / f"disk.{kind}", kind)
            session.open("target", fresh(folder, "target.qcow2"), discard="unmap")
            mirror = command == "blockdev-mirror"
            return session.job(
                command, complete=mirror, device="disk", target="target", sync="full", **members
            )

    return sample


def incremental(folder: Path, program: str) -> float:
    """Copy one cluster in a hundred."""
    with Session(program) as session:
        session.open("disk", folder / "marked.qcow2")
        session.open("target", fresh(folder, "target.qcow2"))
        session("block-dirty-bitmap-add", node="disk", name="b")
        session("block-dirty-bitmap-merge", node="disk", target="b", bitmaps=["marks"])
        return session.job(
            "blockdev-backup", device="disk", target="target", sync="incremental", bitmap="b"
        )


def chained(command: str) -> Sample:
    """Return what takes one sample of a commit or a stream of half the disk."""

    def sample(folder: Path, program: str) -> float:
        base, top = folder / "base.qcow2", folder / "top.qcow2"
        subprocess.run(["cp", "--sparse=always", folder / "disk.qcow2", base], check=True)
        fresh(folder, "top.qcow2", "-b", base, "-F", "qcow2")
        writes = ("-c", f"write -q -P 9 0 {SIZE // 2}")
        subprocess.run(["qemu-io", "-f", "qcow2", *writes, top], check=True)
        with Session(program) as session:
            session.open("disk", top)
            return session.job(command, complete=command == "block-commit", device="disk")

    return sample


def prepare(folder: Path) -> None:
    """Make the disks: random data, raw and qcow2; and one with marks."""
    raw = folder / "disk.raw"
    raw.write_bytes(os.urandom(SIZE))
    image("convert", "-O", "qcow2", raw, folder / "disk.qcow2")
    marked = folder / "marked.qcow2"
    image("convert", "-O", "qcow2", raw, marked)
    image("bitmap", "--add", marked, "marks")
    writes = [
        w for at in range(0, SIZE // 65536, 100) for w in ("-c", f"write -q {at * 65536} 512")
    ]
    subprocess.run(["qemu-io", "-f", "qcow2", *writes, marked], check=True)


def run(report: Report) -> None:
    """Measure each job on both daemons."""
    rows: dict[str, Sample] = {
        "backup, raw to qcow2": copying("blockdev-backup", "raw"),
        "backup, qcow2 to qcow2": copying("blockdev-backup", "qcow2"),
        "backup, 1 cluster in 100": incremental,
        "backup, compressed": copying("blockdev-backup", "qcow2", compress=True),
        "mirror, raw to qcow2": copying("blockdev-mirror", "raw"),
        "mirror, qcow2 to qcow2": copying("blockdev-mirror", "qcow2"),
        "commit of half a disk": chained("block-commit"),
        "stream of half a disk": chained("block-stream"),
    }
    report.section(f"Jobs over {SIZE // MIB} MiB of random data")
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        prepare(folder)
        for title, sample in rows.items():
            variants = {
                program: lambda program=program, sample=sample: sample(folder, program) * 1e3
                for program in (REAL, OURS)
            }
            report.compare(title, variants, "ms", rounds=3)
