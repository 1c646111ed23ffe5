"""Images made to do harm: refused as QEMU refuses them, with little time and memory.

``CVES`` has the holes in qcow2 that were made public, each with an image that would have used it;
``STRUCTURES`` each structure of the format, cut off, misplaced and too large.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.qcow2_bytes import Bytes
from compat.qcow2_images import Op, create, guest, qemu_io, run

from blockemu import snapshots
from blockemu.errors import QmpError
from blockemu.images.errors import FormatError

SIZE = 4 << 20
COPIED = 1 << 63
MOST_MEMORY = 128 << 20  # bytes, for any image; QEMU's own limits allow tables of 64 MiB
Meddle = Callable[[Bytes], object]


def both(*steps: Meddle) -> Meddle:
    return lambda b: [step(b) for step in steps]


def data_file(name: str) -> Meddle:
    """Put a name of a data file into the image, and the bit that says that there is one."""

    def meddle(b: Bytes) -> None:
        b.poke(72, b.word(72) | 4)
        text = name.encode()
        extension = struct.pack(">II", 0x44415441, len(text)) + text + bytes(-len(text) % 8)
        end = b.data.index(struct.pack(">I", 0x6803F857), 104)
        b.data[end : end + len(extension) + 8] = extension + bytes(8)
        b.path.write_bytes(b.data)

    return meddle


CVES: dict[str, tuple[str, Meddle]] = {
    "2014-0143 snapshot L1 table too large to be counted": (
        "snapshot", lambda b: b.poke(b.snapshots + 8, 0x10000000, code="I")),
    "2014-0143 L1 table too large to be counted": ("open", lambda b: b.poke(36, 0x20000000, code="I")),
    "2014-0143 disk too large for its L1 table": ("open", lambda b: b.poke(24, 1 << 62)),
    "2014-0144 header longer than a cluster": ("open", lambda b: b.poke(100, 0xFFFFFFFF, code="I")),
    "2014-0144 huge unknown header extension": (
        "open", both(lambda b: b.poke(104, 0x12345678, code="I"), lambda b: b.poke(108, 0x7FFFFFFF, code="I"))),
    "2014-0144 refcount table too large": ("open", lambda b: b.poke(56, 0xFFFFFFFF, code="I")),
    "2014-0144 refcount table too large to be counted": (
        "open", lambda b: b.poke(56, 0x20000001, code="I")),
    "2014-0144 refcount table at no cluster": ("open", lambda b: b.poke(48, 0x1001)),
    "2014-0144 refcount table beyond all": ("open", lambda b: b.poke(48, 0xFFFFFFFFFFFF0000)),
    "2014-0144 too many snapshots": ("open", lambda b: b.poke(60, 0xFFFFFFFF, code="I")),
    "2014-0144 snapshot table at no cluster": ("open", lambda b: b.poke(64, 0x7FFFFFFFFFFFFFF1)),
    "2014-0144 backing file name beyond the cluster": (
        "open", both(lambda b: b.poke(8, 0xFFFFFFFF), lambda b: b.poke(16, 10, code="I"))),
    "2014-0145 snapshot L1 table larger than allowed": (
        "snapshot", lambda b: b.poke(b.snapshots + 8, 0x400001, code="I")),
    "2014-0145 snapshot L1 table at no cluster": (
        "snapshot", lambda b: b.poke(b.snapshots, 0x1001)),
    "2014-0146 no L1 table, and a snapshot table that cannot be read": (
        "open", both(lambda b: b.poke(36, 0, code="I"), lambda b: b.poke(64, 1 << 62))),
    "2014-0146 backing file name too long": (
        "open", both(lambda b: b.poke(8, 0x200), lambda b: b.poke(16, 0x7FFFFFFF, code="I"))),
    "2014-0147 refcount block where clusters cannot be counted": (
        "write", lambda b: b.poke(b.reftable, 0x8000000000000000)),
    "2014-0147 L2 table beyond all": ("write", lambda b: b.poke(b.l1, 0xFFFFFFFFFFFE00)),
    "2014-0222 clusters too large": ("open", lambda b: b.poke(20, 32, code="I")),
    "2014-0222 clusters too small": ("open", lambda b: b.poke(20, 1, code="I")),
    "2014-0222 clusters far too large": ("open", lambda b: b.poke(20, 0xFFFFFFFF, code="I")),
    "2014-0223 disk's size wraps around": ("open", lambda b: b.poke(24, (1 << 64) - 512)),
    "2014-0223 L1 table too small": ("open", both(lambda b: b.poke(24, 1 << 40))),
    "2024-4467 data file that is options": (
        "info", data_file('json:{"driver": "null-co", "size": 1048576}')),
    "2024-4467 data file by a protocol": ("info", data_file("nbd:localhost:1")),
}  # fmt: skip

STRUCTURES: dict[str, tuple[str, Meddle]] = {
    "header truncated": ("open", lambda b: b.cut(100)),
    "header alone": ("open", lambda b: b.cut(112)),
    "header of nothing": ("open", lambda b: b.cut(0)),
    "L1 table truncated": ("read", lambda b: b.cut(b.l1 + 4)),
    "L1 table out of file": ("read", lambda b: b.poke(40, 1 << 50)),
    "L1 table misaligned": ("open", lambda b: b.poke(40, b.l1 + 8)),
    "L1 table is the header": ("write", lambda b: b.poke(40, 0)),
    "L2 table truncated": ("read", lambda b: b.cut(b.l2 + 4)),
    "L2 table out of file": ("write", lambda b: b.poke(b.l1, COPIED | 1 << 50)),
    "L2 table misaligned": ("write", lambda b: b.poke(b.l1, COPIED | b.l2 + 512)),
    "L2 table is its own data": ("write", lambda b: b.poke(b.l2, COPIED | b.l2)),
    "L2 table is the L1 table": ("write", lambda b: b.poke(b.l1, COPIED | b.l1)),
    "L2 table is the refcount table": ("write", lambda b: b.poke(b.l1, COPIED | b.reftable)),
    "data out of file": ("write", lambda b: b.poke(b.l2, COPIED | 1 << 50)),
    "data misaligned": ("write", lambda b: b.poke(b.l2, b.word(b.l2) + 512)),
    "data is the header": ("write", lambda b: b.poke(b.l2 + 8, COPIED | 1 << 62)),
    "compressed data out of file": ("read", lambda b: b.poke(b.l2, 1 << 62 | 1 << 50)),
    "compressed data over everything": ("read", lambda b: b.poke(b.l2, (1 << 63) - 1)),
    "refcount table truncated": ("open", lambda b: b.cut(b.reftable + 4)),
    "refcount table out of file": ("open", lambda b: b.poke(48, 1 << 50)),
    "refcount table of no clusters": ("open", lambda b: b.poke(56, 0, code="I")),
    "refcount block misaligned": ("write", lambda b: b.poke(b.reftable, 0x20200)),
    "refcount block out of file": ("write", lambda b: b.poke(b.reftable + 8, 1 << 50)),
    "snapshot table truncated": ("open", lambda b: b.cut(b.snapshots + 20)),
    "snapshot table out of file": ("read", lambda b: b.poke(64, 1 << 50)),
    "snapshot with endless names": ("open", lambda b: b.poke(b.snapshots + 12, 0xFFFFFFFF, code="I")),
    "snapshot with endless extra data": (
        "open", lambda b: b.poke(b.snapshots + 36, 0xFFFFFFFF, code="I")),
    "snapshot L1 table out of file": ("snapshot", lambda b: b.poke(b.snapshots, 1 << 50)),
    "snapshot L1 table negative": ("snapshot", lambda b: b.poke(b.snapshots, 0xFFFFFFFFFFFF0000)),
    "snapshot L1 table is the active one": (
        "snapshot", lambda b: b.poke(b.snapshots, b.l1)),
    "refcounts too wide": ("open", lambda b: b.poke(96, 7, code="I")),
    "unknown version": ("open", lambda b: b.poke(4, 4, code="I")),
    "unknown encryption": ("open", lambda b: b.poke(32, 9, code="I")),
    "unknown compression": ("open", lambda b: b.poke(104, 7, code="B")),
}  # fmt: skip
TABLE = CVES | STRUCTURES


def make(path: Path) -> None:
    create(path, size=SIZE)
    qemu_io(path, [Op("write", 0, 300 << 10, 1)])
    run("qemu-img", "snapshot", "-c", "s", path)
    qemu_io(path, [Op("write", 0, 64 << 10, 2)])


def theirs(path: Path, what: str) -> str:
    """Return what QEMU says when it is asked to do something with an image."""
    command = {
        "open": ["qemu-io", "-c", "read -q 0 512"],
        "read": ["qemu-io", "-r", "-c", "read -q 0 4M"],
        "write": ["qemu-io", "-c", "write -q -P 9 0 1M", "-c", "flush"],
        "info": ["qemu-io", "-r", "-c", "read -q 0 512"],
        "snapshot": ["qemu-img", "snapshot", "-a", "s"],
    }[what]
    if command[0] == "qemu-io":
        command += ["-f", "qcow2"]
    done = subprocess.run([*command, path], capture_output=True, text=True, timeout=60)
    told = (done.stderr + done.stdout).splitlines()
    openings = (f"can't open device {path}: ", "Could not apply snapshot 's': ")
    for line in told:
        for opening in openings:
            if opening in line:
                return line.split(opening, 1)[1]
    return next((line for line in told if line.startswith(("read failed", "write failed"))), "")


async def ours(path: Path, what: str) -> str:
    read_only = {"read-only": what in ("read", "info")}
    try:
        async with guest(path, **read_only) as (backend, node):
            try:
                match what:
                    case "open" | "info":
                        await backend.pread(0, bytearray(512))
                    case "read":
                        await backend.pread(0, bytearray(SIZE))
                    case "write":
                        await backend.pwrite(0, bytes([9]) * (1 << 20))
                        await backend.flush()
                    case "snapshot":
                        await snapshots.goto(node, "s")
            except OSError as e:
                word = "read" if what != "write" else what
                return (
                    str(e)
                    if isinstance(e, QmpError)
                    else (f"{word} failed: {os.strerror(e.errno or 0)}")
                )
    except (QmpError, FormatError) as e:
        return str(e)
    return ""


@pytest.mark.parametrize("case", TABLE)
async def test_an_image_made_to_do_harm_is_refused_as_by_qemu(tmp_path, program, capfd, case):
    program("qemu-img")
    program("qemu-io")
    what, meddle = TABLE[case]
    a, b = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in a, b:
        make(path)
        meddle(Bytes(path))
    wanted = theirs(a, what)
    tracemalloc.start()
    try:
        got = await ours(b, what)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == wanted
    assert peak < MOST_MEMORY


def words(case: str) -> Any:
    return case.split()[0]


def test_the_table_has_all_that_were_made_public():
    assert {words(case) for case in CVES} == {
        "2014-0143", "2014-0144", "2014-0145", "2014-0146", "2014-0147", "2014-0222", "2014-0223",
        "2024-4467",
    }  # fmt: skip
