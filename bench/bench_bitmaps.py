"""Dirty bitmaps over QMP: merge, clear and checksum; what a large one costs; what a write pays.

Both daemons load the same bitmaps from copies of one image, which our own driver made.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from daemon import Daemon
from report import OURS, REAL, Report

from blockemu.bitmap import Bitmap
from blockemu.dirty import bitmaps_of
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image

GRANULARITY = 65536
SPARSE = 1000  # bits
MARKS = 20_000  # few, so that other programs seldom come between
Execute = Callable[..., float]


def patterns(bits: int, *, dense: bool) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return positions of bits to be set, by a name."""
    rng = np.random.default_rng(1)
    found = {"sparse": np.sort(rng.integers(0, bits, SPARSE))}
    if dense:
        found["one in 100"] = np.flatnonzero(rng.random(bits) < 0.01)
        found["half"] = np.flatnonzero(rng.random(bits) < 0.5)
    return found


async def make(path: Path, bits: int, *, dense: bool) -> list[str]:
    """Make an image with a bitmap for each pattern and an empty one; return their names."""
    path.write_bytes(new_image(bits * GRANULARITY))
    emulator = Emulator()
    file = {"driver": "file", "filename": str(path)}
    node = await emulator.opener.open({"driver": "qcow2", "node-name": "disk", "file": file})
    node.monitor_owned = True
    found = patterns(bits, dense=dense)
    for name, positions in found.items():
        bitmap = bitmaps_of(node).add(name, GRANULARITY, persistent=True)
        packed = np.zeros(bits // 8, np.uint8)
        np.bitwise_or.at(packed, positions >> 3, (1 << (positions & 7)).astype(np.uint8))
        bitmap.bits.deserialise(0, bits * GRANULARITY, packed.data)
    bitmaps_of(node).add("target", GRANULARITY, persistent=True)
    await emulator.close()
    return list(found)


def resident(daemon: Daemon) -> float:
    """Return how much memory a daemon has, in MiB."""
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


@contextmanager
def loaded(program: str, image: Path) -> Iterator[Execute]:
    """Run a daemon on a copy of the image; give a call that executes and returns milliseconds."""
    copy = image.with_suffix(f".{program}")
    shutil.copyfile(image, copy)
    with Daemon(program) as daemon:
        daemon.ready()

        def execute(command: str, /, **arguments: Any) -> float:
            request = json.dumps({"execute": command, "arguments": arguments}).encode()
            began = perf_counter()
            daemon.socket.sendall(request)
            reply = daemon.socket.recv(1 << 20)
            spent = (perf_counter() - began) * 1000
            if b'"return"' not in reply:
                raise RuntimeError(reply)
            return spent

        execute("block-dirty-bitmap-add", **_with_null(execute))  # what is imported late is, now
        before = resident(daemon)
        file = {"driver": "file", "filename": str(copy)}
        execute("blockdev-add", **{"driver": "qcow2", "node-name": "disk", "file": file})
        execute.memory = resident(daemon) - before  # type: ignore[attr-defined]
        yield execute


def _with_null(execute: Execute) -> dict[str, Any]:
    execute("blockdev-add", **{"driver": "null-co", "node-name": "null"})
    return {"node": "null", "name": "b"}


def merged(execute: Execute, source: str) -> Callable[[], float]:
    """Return what takes one sample of a merge into an empty bitmap."""

    def sample() -> float:
        execute("block-dirty-bitmap-clear", node="disk", name="target")
        return execute("block-dirty-bitmap-merge", node="disk", target="target", bitmaps=[source])

    return sample


def cleared(execute: Execute, source: str) -> Callable[[], float]:
    """Return what takes one sample of clearing a bitmap."""

    def sample() -> float:
        execute("block-dirty-bitmap-merge", node="disk", target="target", bitmaps=[source])
        return execute("block-dirty-bitmap-clear", node="disk", name="target")

    return sample


def checked(execute: Execute, source: str) -> Callable[[], float]:
    """Return what takes one sample of a checksum."""
    return lambda: execute("x-debug-block-dirty-bitmap-sha256", node="disk", name=source)


def run(report: Report) -> None:
    """Measure bitmaps of 16 Mi and 1 Gi bits, and marking."""
    with tempfile.TemporaryDirectory() as folder:
        for title, bits, dense in (("16 Mi", 1 << 24, True), ("1 Gi", 1 << 30, False)):
            image = Path(folder, f"{bits}.qcow2")
            names = asyncio.run(make(image, bits, dense=dense))
            with loaded(REAL, image) as real, loaded(OURS, image) as ours:
                report.section(f"Dirty bitmaps of {title} bits")
                for name in names:
                    for what, of in (("merge", merged), ("clear", cleared), ("sha256", checked)):
                        variants = {REAL: of(real, name), OURS: of(ours, name)}
                        report.compare(f"{what}, {name}", variants, "ms")
                report.note("memory for all of them, MiB:")
                for program, execute in ((REAL, real), (OURS, ours)):
                    report.note(f"  {program:24}{execute.memory:12,.1f}")  # type: ignore[attr-defined]
    report.section("What an enabled bitmap costs a write of 4 KiB, in process")
    report.compare("bits that are clean, then dirty", {"clean": fresh, "dirty": again}, "ns")


def marking(bitmap: Bitmap) -> float:
    """Mark 4 KiB in each cluster; return nanoseconds a write, without the loop itself."""
    offsets = range(0, MARKS * GRANULARITY, GRANULARITY)
    began = perf_counter()
    for offset in offsets:
        bitmap.mark(offset, 4096)
    middle = perf_counter()
    for _ in offsets:
        pass
    return (middle - began - (perf_counter() - middle)) / MARKS * 1e9


def fresh() -> float:
    """Take a sample on clean bits."""
    return marking(Bitmap(MARKS * GRANULARITY))


def again() -> float:
    """Take a sample on bits that are dirty."""
    bitmap = Bitmap(MARKS * GRANULARITY)
    bitmap.mark(0, MARKS * GRANULARITY)
    return marking(bitmap)
