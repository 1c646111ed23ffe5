"""What happens when tables turn out to be wrong: QEMU's words, its errors, its mark in the header."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from compat.qcow2_bytes import Bytes
from compat.qcow2_images import Op, carry_out, create, guest, qemu_io

COPIED = 1 << 63
MEGA = 1 << 20


def l2_entry(value: int) -> tuple[str, object]:
    return "", lambda i: i.poke(i.l2, value)


CASES = {
    "l2-table-unaligned": ("", lambda i: i.poke(i.l1, i.l2 | COPIED | 512)),
    "l2-table-beyond-the-end": ("", lambda i: i.poke(i.l1, COPIED | 1 << 40)),
    "cluster-unaligned": l2_entry(COPIED | 0x50200),
    "shared-cluster-unaligned": l2_entry(0x50200),
    "zero-cluster-unaligned": l2_entry(COPIED | 0x50201),
    "compressed-garbage": l2_entry(1 << 62 | 0x50000),
    "refcount-block-unaligned": ("", lambda i: i.poke(i.word(48), 0x20200)),
    "zero-in-version-2": ("compat=0.10", lambda i: i.poke(i.l2, 1)),
    "zero-with-cluster-in-version-2": ("compat=0.10", lambda i: i.poke(i.l2, COPIED | 0x50001)),
    "zero-and-allocated": (
        "extended_l2=on",
        lambda i: i.poke(i.l2, COPIED | 0x50000, 0x1_0000_0001),
    ),
    "allocated-nowhere": ("extended_l2=on", lambda i: i.poke(i.l2, 0, 1)),
    "allocated-nowhere-further-on": ("extended_l2=on", lambda i: i.poke(i.l2 + 16, 0, 1)),
    "elsewhere-in-data-file": ("DATA", lambda i: i.poke(i.l2, COPIED | 0x50000)),
    "compressed-in-data-file": ("DATA", lambda i: i.poke(i.l2, 1 << 62)),
    "header-counted-free": ("", lambda i: i.poke(0x20000, 0, code="H")),
    "l1-counted-free": ("", lambda i: i.poke(0x20006, 0, code="H")),
    "data-over-l1": l2_entry(COPIED | 0x30000),
    "data-over-refcount-block": l2_entry(COPIED | 0x20000),
    "data-over-refcount-table": l2_entry(COPIED | 0x10000),
}
OPS = [
    Op("read", 0, 512),
    Op("write", 0, 512, 9),
    Op("write", 65536 * 3, 65536, 9),
    Op("unmap", 0, 65536),
    Op("discard", 0, 65536),
]


def theirs(path: Path, op: Op, *, read_only: bool) -> list[str]:
    command = {
        "write": f"write -P {op.pattern} {op.offset} {op.length}",
        "unmap": f"write -z -u {op.offset} {op.length}",
    }.get(op.kind, f"{op.kind} {op.offset} {op.length}")
    args = ["qemu-io", *(["-r"] if read_only else []), "-d", "unmap", "-f", "qcow2"]
    out = subprocess.run([*args, "-c", command, path], capture_output=True, text=True)
    lines = (out.stderr + out.stdout).splitlines()
    return sorted(line for line in lines if "orrupt" in line or "ailed" in line)


async def ours(path: Path, op: Op, capfd: pytest.CaptureFixture[str], *, read_only: bool):
    said, capfd_lines = [], capfd.readouterr()
    assert capfd_lines is not None
    async with guest(path, **{"read-only": read_only}) as (backend, node):
        events: list[object] = []
        node.services.listeners.append(events.append)
        try:
            await carry_out(backend, op, plans=True)
        except OSError as e:
            kind = "write" if op.kind == "unmap" else op.kind
            said.append(f"{kind} failed: {os.strerror(e.errno or 0)}")
        if node.image.broken:
            with pytest.raises(OSError, match="No medium found"):
                await backend.pread(1 << 20, bytearray(512))
    told = [line for line in capfd.readouterr().err.splitlines() if line]
    corruptions = [line for line in told if "orrupt" in line]
    assert [e.msg for e in events] == [
        c.split(": ", 2)[2].split("; further")[0] for c in corruptions
    ]
    return sorted(told + said)


@pytest.mark.parametrize("case", CASES)
async def test_corruption_is_told_as_by_qemu(tmp_path, program, capfd, case):
    program("qemu-io")
    options, meddle = CASES[case]
    a, b = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for op in OPS:
        for read_only in (False, True) if op.kind == "read" else (False,):
            for path in a, b:
                create(path, options)
                qemu_io(path, [Op("write", 0, 128 << 10, 1)])
                meddle(Bytes(path))
            real = theirs(a, op, read_only=read_only)
            assert await ours(b, op, capfd, read_only=read_only) == real
            assert Bytes(b).word(72) == Bytes(a).word(72)


@pytest.mark.parametrize("mode", ["none", "cached"])
async def test_metadata_is_only_guarded_if_wanted(tmp_path, program, mode):
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path)
    qemu_io(path, [Op("write", 0, 128 << 10, 1)])
    image = Bytes(path)
    image.poke(image.l2, COPIED | 0x30000)
    l1 = image.data[0x30000:0x30200]
    async with guest(path, **{"overlap-check": mode}) as (backend, _):
        if mode == "none":
            await backend.pwrite(0, b"x" * 512)
        else:
            with pytest.raises(OSError, match="Input/output error"):
                await backend.pwrite(0, b"x" * 512)
    assert (path.read_bytes()[0x30000:0x30200] == l1) == (mode == "cached")
