"""Dirty bitmaps: merge, clear, checksum, export, store and load; what marking costs.

Both daemons load the same bitmaps from copies of one image, which our own driver made.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from programs import FOLDER, KIB, ONE_CPU, cpu, need, on, timed
from qmp import Session
from report import OURS, REAL, Goal, Measure, Report, Sample

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.dirty import bitmaps_of
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image

GRANULARITY = 64 * KIB
FEW = 1000  # bits, or holes
MARKS = 20_000  # few, so that other programs seldom come between
PATTERNS = {  # and the goal of a merge above 64 Mi bits
    "sparse": 8.0,
    "half": 3.0,
    "random": 3.0,
}
Positions = np.ndarray[Any, np.dtype[np.int64]]


def bits_of(pattern: str, count: int) -> bytes:
    """Return a packed bitmap: a thousand bits; a half but for a thousand; one in a hundred."""
    rng = np.random.default_rng(1)
    packed = np.zeros(count // 8, np.uint8)
    if pattern == "half":
        packed[: count // 16] = 255
        holes = rng.integers(0, count // 2, FEW)
        np.bitwise_and.at(packed, holes >> 3, (~(1 << (holes & 7))).astype(np.uint8))
        return packed.tobytes()
    dirty = rng.integers(0, count, FEW if pattern == "sparse" else count // 100)
    np.bitwise_or.at(packed, dirty >> 3, (1 << (dirty & 7)).astype(np.uint8))
    return packed.tobytes()


async def make(path: Path, bits: int, names: list[str]) -> None:
    """Make an image with a bitmap for each pattern, and an empty one."""
    path.write_bytes(new_image(bits * GRANULARITY))
    emulator = Emulator()
    file = {"driver": "file", "filename": str(path)}
    node = await emulator.opener.open({"driver": "qcow2", "node-name": "disk", "file": file})
    node.monitor_owned = True
    for name in names:
        bitmap = bitmaps_of(node).add(name, GRANULARITY, persistent=True)
        bitmap.bits.deserialise(0, bits * GRANULARITY, memoryview(bits_of(name, bits)))
    bitmaps_of(node).add("target", GRANULARITY, persistent=True)
    await emulator.close()


def merged(session: Session, source: str) -> Measure:
    """Return what takes one sample of a merge into an empty bitmap."""

    def sample() -> Sample:
        session("block-dirty-bitmap-clear", node="disk", name="target")
        return session.timed(
            "block-dirty-bitmap-merge", node="disk", target="target", bitmaps=[source]
        )

    return sample


def cleared(session: Session, source: str) -> Measure:
    """Return what takes one sample of clearing a bitmap."""

    def sample() -> Sample:
        session("block-dirty-bitmap-merge", node="disk", target="target", bitmaps=[source])
        return session.timed("block-dirty-bitmap-clear", node="disk", name="target")

    return sample


def checked(session: Session, source: str) -> Measure:
    """Return what takes one sample of a checksum."""
    return lambda: session.timed("x-debug-block-dirty-bitmap-sha256", node="disk", name=source)


def exported(session: Session, socket: Path, source: str) -> Measure:
    """Return what takes one sample of nbdinfo's reading it all as an export's meta context."""

    def sample() -> Sample:
        before = cpu(session.pid)
        uri = f"nbd+unix:///{source}?socket={socket}"
        spent = timed(need("nbdinfo"), f"--map=qemu:dirty-bitmap:{source}", uri).value
        return Sample(spent, cpu(session.pid) - before)

    return sample


def of_size(report: Report, title: str, bits: int, *, large: bool) -> None:
    """Measure bitmaps of one size."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name, ExitStack() as stack:
        stack.enter_context(on(ONE_CPU))
        folder = Path(name)
        image = folder / "made"
        asyncio.run(make(image, bits, list(PATTERNS)))
        sessions: dict[str, Session] = {}
        for program in (REAL, OURS):
            session = sessions[program] = stack.enter_context(Session(program))
            shutil.copyfile(image, folder / program)
            session.open("disk", folder / program)
            session("nbd-server-start", addr=address(folder / f"{program}.sock"))
            for pattern in PATTERNS:
                session("block-dirty-bitmap-disable", node="disk", name=pattern)
        for pattern, best in PATTERNS.items():
            makers: dict[str, tuple[Callable[[Session, str], Measure], float]] = {
                "merge": (merged, best if large else 3.0),
                "clear": (cleared, 3.0),
                "sha256": (checked, 0.9),
            }
            for what, (maker, goal) in makers.items():
                variants = {p: maker(session, pattern) for p, session in sessions.items()}
                report.compare(
                    f"{title}: {what}, {pattern}", variants, "ms",
                    rounds=5 if large else 15, goal=Goal(ratio=goal), warm=True,
                )  # fmt: skip
            variants = {
                program: exported(session, folder / f"{program}.sock", pattern)
                for program, session in sessions.items()
            }
            for session in sessions.values():
                session.export("disk", id=pattern, name=pattern, bitmaps=[pattern])
            slow = large and pattern == "random"  # millions of lines, which nbdinfo prints
            report.compare(
                f"{title}: export, {pattern}", variants, "ms", rounds=1 if slow else 5,
                goal=Goal(ratio=1.5),
            )  # fmt: skip
            for session in sessions.values():
                session("block-export-del", id=pattern, mode="hard")


def address(path: Path) -> dict[str, Any]:
    """Return the address of a Unix socket."""
    return {"type": "unix", "data": {"path": str(path)}}


def kept(report: Report, title: str, bits: int, pattern: str) -> None:
    """Measure opening an image with a bitmap, which loads it, and closing it, which stores it."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name, ExitStack() as stack:
        stack.enter_context(on(ONE_CPU))
        folder = Path(name)
        asyncio.run(make(folder / "made", bits, [pattern]))
        sessions = {program: stack.enter_context(Session(program)) for program in (REAL, OURS)}
        asyncio.run(make(folder / "other", 1 << 10, []))
        for program, session in sessions.items():
            shutil.copyfile(folder / "made", folder / program)
            session.open("other", folder / "other")  # what any image takes is not counted below
            session("blockdev-del", node_name="other")

        def load(program: str) -> Sample:
            session = sessions[program]
            file = {"driver": "file", "filename": str(folder / program)}
            spent = session.timed("blockdev-add", driver="qcow2", node_name="disk", file=file)
            session("blockdev-del", node_name="disk")
            return spent

        def store(program: str) -> Sample:
            sessions[program].open("disk", folder / program)
            return sessions[program].timed("blockdev-del", node_name="disk")

        def holding(program: str) -> float:
            """Return the MiB that an image and its bitmaps cost."""
            before = sessions[program].memory
            sessions[program].open("disk", folder / program)
            grown = sessions[program].memory - before
            sessions[program]("blockdev-del", node_name="disk")
            return max(grown, 0.01)

        variants: dict[str, Measure] = {p: lambda p=p: holding(p) for p in sessions}
        most = Goal(most=20) if pattern == "sparse" else None
        report.compare(f"{title}: memory, {pattern}", variants, "MiB", rounds=1, goal=most)
        for what, step in (("load", load), ("store", store)):
            variants = {p: lambda p=p, step=step: step(p) for p in sessions}
            goal = Goal(ratio=1.5)
            report.compare(f"{title}: {what}, {pattern}", variants, "ms", goal=goal, warm=True)


def marking(bitmap: Bitmap) -> float:
    """Mark 4 KiB in each cluster; return nanoseconds a write, without the loop itself."""
    offsets = range(0, MARKS * GRANULARITY, GRANULARITY)
    mark = bitmap.mark
    began = thread_time()
    for offset in offsets:
        mark(offset, 4096)
    middle = thread_time()
    for _ in offsets:
        pass
    return (middle - began - (thread_time() - middle)) / MARKS * 1e9


def fresh() -> float:
    """Take a sample on clean bits."""
    return marking(Bitmap(MARKS * GRANULARITY))


def again() -> float:
    """Take a sample on bits that are dirty."""
    bitmap = Bitmap(MARKS * GRANULARITY)
    bitmap.mark(0, MARKS * GRANULARITY)
    return marking(bitmap)


def run(report: Report) -> None:
    """Measure bitmaps of 16 Mi and 1 Gi bits, and marking."""
    for title, bits in (("16 Mi", 1 << 24), ("1 Gi", 1 << 30)):
        with report.section(f"Dirty bitmaps of {title} bits, client and daemon on one core"):
            of_size(report, title, bits, large=bits > 1 << 24)
    with report.section("Dirty bitmaps that images keep"):
        kept(report, "16 Mi", 1 << 24, "random")
        kept(report, "16 Mi", 1 << 24, "half")
        kept(report, "1 Gi", 1 << 30, "sparse")
    with report.section("What an enabled bitmap costs a write of 4 KiB, in process"):
        for title, sample in (("a clean bit", fresh), ("a dirty bit", again)):
            report.compare(title, {OURS: sample}, "ns", rounds=15, goal=Goal(most=150))
