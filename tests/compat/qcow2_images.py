"""What the tests of qcow2 share: real images, the same operations by QEMU and by us, both compared."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from planned import planned_write

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.node import Node, Write
from blockemu.perm import Perm

Options = dict[str, Any]
SIZE = 8 << 20


class Op(NamedTuple):
    """One request; ``pattern`` is the byte that is written."""

    kind: str
    offset: int = 0
    length: int = 0
    pattern: int = 0


_QEMU_IO = {
    "write": "write -q -P {3} {1} {2}",
    "zero": "write -q -z {1} {2}",
    "unmap": "write -q -z -u {1} {2}",
    "discard": "discard -q {1} {2}",
    "read": "read -q {1} {2}",
    "flush": "flush",
}


def random_ops(seed: int, count: int, size: int = SIZE, *, whole: bool = False) -> list[Op]:
    """Return requests of all kinds, aligned to this and that; ``whole``: zeroes to 64 KiB."""
    rng, ops = random.Random(seed), []
    for _ in range(count):
        align = rng.choice([1, 512, 4096, 65536])
        offset = rng.randrange(size) // align * align
        length = min(rng.choice([1, 512, 4096, 65536, 70000, 200000, 1 << 20]), size - offset)
        kinds = ("write", "zero", "unmap", "discard", "flush", "read")
        kind = rng.choices(kinds, [5, 2, 2, 2, 1, 1])[0]
        if whole and kind in ("zero", "unmap"):
            offset, length = offset & -65536, -(-length // 65536) * 65536
            length = min(length, size - offset)
        ops.append(Op(kind, offset, length, rng.randrange(1, 255)))
    return ops


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program that must not fail; return what it prints."""
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


def create(path: Path, options: str = "", *, backing: Path | None = None, size: int = SIZE) -> None:
    """Make an image; ``DATA`` among the options stands for a data file beside it."""
    path.unlink(missing_ok=True)
    data = path.with_suffix(".data")
    data.unlink(missing_ok=True)
    options = options.replace("DATA", f"data_file={data}")
    command: list[object] = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if options:
        command += ["-o", options]
    if backing is not None:
        command += ["-b", backing, "-F", backing.suffix.removeprefix(".")]
    run(*command, path, size)


def qemu_io(path: Path, ops: list[Op], *, discard: str = "unmap", cwd: Path | None = None) -> None:
    """Carry out requests by the real thing."""
    commands = [part for op in ops for part in ("-c", _QEMU_IO[op.kind].format(*op))]
    run("qemu-io", "-d", discard, "-f", "qcow2", *commands, path, cwd=cwd)


def check(path: Path, *, shared: bool = False, leaks: bool = False) -> None:
    """Let qemu-img check an image."""
    command = ["qemu-img", "check", *(["-U"] if shared else []), "-f", "qcow2", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode in ((0, 3) if leaks else (0,)), result.stdout + result.stderr


def mapped(path: Path) -> list[tuple[Any, ...]]:
    """Return what qemu-img map tells, but where the bytes lie; neighbours alike are one."""
    out: list[tuple[Any, ...]] = []
    for e in json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", path)):
        kind = (e["depth"], e["zero"], e["data"], e["present"])
        if out and out[-1][2:] == kind:
            out[-1] = (out[-1][0], out[-1][1] + e["length"], *kind)
        else:
            out.append((e["start"], e["length"], *kind))
    return out


def same(theirs: Path, ours: Path) -> None:
    """Assert that our image is sound, and like theirs to a guest and to qemu-img map."""
    check(ours)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", theirs, ours)
    assert mapped(ours) == mapped(theirs)


@asynccontextmanager
async def guest(
    path: Path, *, discard: str = "unmap", plans: bool = True, **more: Any
) -> AsyncIterator[tuple[Backend, Node[Any]]]:
    """Open an image by our driver."""
    emulator = Emulator()
    emulator.warnings = lambda text: None
    read_only = more.get("read-only", False)
    perm = Perm.CONSISTENT_READ if read_only else Perm.ALL
    file = {"driver": "file", "filename": str(path), "discard": discard}
    node = await emulator.opener.open(
        {"driver": "qcow2", "discard": discard, "read-only": False, "file": file} | more
    )
    backend = Backend("guest", perm, Perm.ALL, plans=plans)
    emulator.graph.insert(backend, node)
    try:
        yield backend, node
    finally:
        await emulator.graph.remove(backend)
        await emulator.close()


async def carry_out(backend: Backend, op: Op, *, plans: bool) -> None:
    """Do one request, planned if that is wanted and possible."""
    match op.kind:
        case "write":
            data = memoryview(bytes([op.pattern]) * op.length)
            if not (plans and planned_write(backend, op.offset, data)):
                await backend.pwrite(op.offset, data)
        case "zero" | "unmap":
            flags = Write.MAY_UNMAP if op.kind == "unmap" else 0
            await backend.write_zeroes(op.offset, op.length, flags)
        case "discard":
            await backend.discard(op.offset, op.length)
        case "read":
            await backend.pread(op.offset, bytearray(op.length))
        case "flush":
            await backend.flush()


async def ours(path: Path, ops: list[Op], *, discard: str = "unmap", plans: bool = True) -> None:
    """Carry out requests by our driver; each flush must leave a sound image, unless it is lazy."""
    async with guest(path, discard=discard, plans=plans) as (backend, node):
        lazy = node.specific_info().data.lazy_refcounts
        for op in ops:
            await carry_out(backend, op, plans=plans)
            if op.kind == "flush" and not lazy:
                check(path, shared=True)
