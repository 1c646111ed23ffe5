"""Large images and the memory they take; images copied by qemu-img and blockemu-img."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from programs import FOLDER, GIB, IMG, MIB, ONE_CPU, TIB, convert, on, qcow2, timed
from qmp import Session
from report import OURS, REAL, Goal, Measure, Report, Sample

SIZE = 2 * GIB


def tools(*arguments: object) -> dict[str, Measure]:
    """Return what takes a sample of each tool with the same arguments."""
    return {name: lambda path=path: timed(path, *arguments) for name, path in IMG.items()}


def looking(report: Report, large: Path) -> None:
    """Measure the tools on a large image."""
    for arguments, goal in (
        (("map", "--output=json"), Goal(ratio=10)),
        (("check",), Goal(ratio=5)),
        (("info",), None),
    ):
        title = f"blockemu-img {arguments[0]}"
        report.compare(title, tools(*arguments, large), "ms", rounds=3, goal=goal)


def opening(report: Report, large: Path) -> None:
    """Measure the daemons' opening a large image, and what it costs them."""

    def opened(session: Session) -> Sample:
        file = {"driver": "file", "filename": str(large)}
        spent = session.timed(
            "blockdev-add", driver="qcow2", node_name="disk", read_only=True, file=file
        )
        session("blockdev-del", node_name="disk")
        return spent

    with ExitStack() as stack:
        stack.enter_context(on(ONE_CPU))
        sessions = {name: stack.enter_context(Session(name)) for name in (REAL, OURS)}
        variants = {name: lambda s=session: opened(s) for name, session in sessions.items()}
        report.compare("blockdev-add", variants, "ms", goal=Goal(most=20), warm=True)


def holding(program: str, steps: Iterable[tuple[str, dict[str, object]]]) -> float:
    """Return the MiB that a daemon has more after some commands."""
    with Session(program) as session:
        session("blockdev-add", driver="null-co", node_name="null")
        session("block-dirty-bitmap-add", node="null", name="b")  # what is imported late is, now
        session("query-named-block-nodes")
        before = session.memory
        for command, members in steps:
            session(command, members)
        return max(session.memory - before, 0.01)


def at_rest(program: str) -> float:
    """Return the MiB of a daemon that has done nothing yet."""
    with Session(program) as session:
        session("query-block-jobs")
        return session.memory


def memory(report: Report, large: Path) -> None:
    """Measure the daemons' memory."""
    variants = {name: lambda name=name: at_rest(name) for name in (REAL, OURS)}
    report.compare("a daemon at rest", variants, "MiB", rounds=2)
    file = {"driver": "file", "filename": str(large)}
    image = {"driver": "qcow2", "node-name": "d", "read-only": True, "file": file}
    null = {"driver": "null-co", "node-name": "d", "size": 64 * TIB}
    bitmap = {"node": "d", "name": "b", "granularity": 64 << 10}
    marked = [("blockdev-add", null), ("block-dirty-bitmap-add", bitmap)]
    for title, steps, most in (
        ("an open qcow2 image of 1 TiB", [("blockdev-add", image)], 64),
        ("an empty bitmap of 1 Gi bits", marked, 20),
    ):
        variants = {n: lambda n=n, steps=steps: holding(n, steps) for n in (REAL, OURS)}
        report.compare(title, variants, "MiB", rounds=2, goal=Goal(most=most))


def converting(report: Report, folder: Path) -> None:
    """Measure convert from and to raw and qcow2."""
    raw, image = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    convert(raw, "qcow2", image)
    target = folder / "target"

    def converted(path: str, source: Path, kind: str) -> Sample:
        target.unlink(missing_ok=True)
        return timed(path, "convert", "-O", kind, source, target)

    for source, kind in ((raw, "qcow2"), (image, "raw"), (image, "qcow2"), (raw, "raw")):
        variants: dict[str, Measure] = {
            name: lambda path=path, source=source, kind=kind: converted(path, source, kind)
            for name, path in IMG.items()
        }
        title = f"{source.suffix[1:]} to {kind}"
        report.compare(title, variants, "ms", rounds=3, goal=Goal(ratio=0.9))


def run(report: Report) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        large = Path(name, "large.qcow2")
        with report.section("A qcow2 image of 1 TiB, preallocation=metadata"):
            qcow2(large, TIB, "-o", "preallocation=metadata")
            looking(report, large)
            opening(report, large)
        with report.section("Memory"):
            memory(report, large)
        large.unlink(missing_ok=True)
        with report.section(f"convert of {SIZE // GIB} GiB of random data; not pinned"):
            converting(report, Path(name))
