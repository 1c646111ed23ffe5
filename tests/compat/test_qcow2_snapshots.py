"""Internal snapshots: what we take, apply and delete is to qemu-img what it was to us."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu, Daemon, StorageDaemon
from compat.qcow2_images import Op, carry_out, check, create, guest, qemu_io, run

from blockemu import snapshots
from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Node

SIZE = 1 << 20
IMAGES = [
    "",
    "cluster_size=512",
    "cluster_size=4k,refcount_bits=8",
    "compat=0.10,cluster_size=4k",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=4k,lazy_refcounts=on",
]


def wanted(name: str, **more: Any) -> Snapshot:
    values = {"date_sec": 1, "date_nsec": 2, "vm_clock_nsec": 3, "vm_state_size": 0, "icount": None}
    places = {"id": "", "l1_table_offset": 0, "l1_size": 0, "disk_size": 0}
    return Snapshot(name=name, **(places | values | more))


def contents(path: Path, snapshot: str = "") -> bytes:
    """Return what qemu-img reads of an image, or of one of its snapshots."""
    out = path.with_suffix(".raw")
    chosen = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", *chosen, path, out)
    return out.read_bytes()


class Model:
    """The disk and its snapshots as they should be."""

    def __init__(self, backend: Backend, node: Node[Any], seed: int) -> None:
        self.backend, self.node, self.rng = backend, node, random.Random(seed)
        self.disk = bytearray(SIZE)
        self.snapshots: dict[str, bytes] = {}
        self.taken = 0

    async def step(self) -> None:
        rng = self.rng
        match rng.choices(
            ["write", "zero", "create", "apply", "delete", "flush"], [8, 3, 2, 1, 1, 1]
        )[0]:
            case "create" if len(self.snapshots) < 6:
                self.taken += 1
                name = f"s{self.taken}"
                await snapshots.create(self.node, wanted(name))
                self.snapshots[name] = bytes(self.disk)
            case "apply" if self.snapshots:
                name = rng.choice(list(self.snapshots))
                await snapshots.goto(self.node, name)
                self.disk = bytearray(self.snapshots[name])
            case "delete" if self.snapshots:
                name = rng.choice(list(self.snapshots))
                await snapshots.delete(self.node, None, name)
                del self.snapshots[name]
            case "flush":
                await self.backend.flush()
            case kind:
                offset = rng.randrange(SIZE) // 512 * 512
                length = min(rng.choice([512, 4096, 30000 // 512 * 512, 200 << 10]), SIZE - offset)
                pattern = rng.randrange(1, 255) if kind != "zero" else 0
                op = "write" if kind != "zero" else rng.choice(["zero", "unmap"])
                await carry_out(
                    self.backend, Op(op, offset, length, pattern), plans=rng.random() < 0.5
                )
                self.disk[offset : offset + length] = bytes([pattern]) * length


@pytest.mark.parametrize("options", IMAGES)
@pytest.mark.parametrize("seed", [1, 2])
async def test_snapshots_keep_what_the_disk_held(tmp_path, program, options, seed):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, options, size=SIZE)
    async with guest(path) as (backend, node):
        model = Model(backend, node, seed)
        for _ in range(60):
            await model.step()
        seen = bytearray(SIZE)
        await backend.pread(0, seen)
        assert seen == model.disk
    check(path)
    assert contents(path) == model.disk
    for name, held in model.snapshots.items():
        assert contents(path, name) == held
    async with guest(path, **{"read-only": True}) as (backend, node):
        for name, held in model.snapshots.items():
            await snapshots.load_tmp(node, name)
            await backend.pread(0, seen)
            assert seen == held


async def test_a_list_of_ours_is_read_by_qemu(tmp_path, program):
    program("qemu-img")
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    for path in ours, theirs:
        create(path, size=SIZE)
    async with guest(ours) as (_, node):
        await snapshots.create(node, wanted("one", date_sec=1_000_000_000, icount=5))
        await snapshots.create(node, wanted("zwei", vm_clock_nsec=3_723_004_000_000))
        taken = await snapshots.create(node, wanted("drei"))
        assert taken.id == "3"
        await snapshots.delete(node, "2", None)
        assert (await snapshots.create(node, wanted("vier"))).id == "4"
    listed = run("qemu-img", "snapshot", "-l", "-U", ours)
    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [
        ["1", "one"], ["3", "drei"], ["4", "vier"],
    ]  # fmt: skip
    check(ours)


async def test_applying_brings_back_the_size(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, size=SIZE)
    async with guest(path) as (backend, node):
        await backend.pwrite(0, b"a" * 70000)
        await snapshots.create(node, wanted("small"))
        await backend.truncate(4 * SIZE)
        await backend.pwrite(3 * SIZE, b"b" * 70000)
        await snapshots.create(node, wanted("large"))
        await snapshots.goto(node, "small")
        assert backend.length == SIZE
        await snapshots.goto(node, "large")
        assert backend.length == 4 * SIZE
        seen = bytearray(70000)
        await backend.pread(3 * SIZE, seen)
        assert seen == b"b" * 70000
    check(path)


async def test_a_machines_state_goes_with_the_snapshot(tmp_path, program):
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path, size=SIZE)
    async with guest(path) as (_, node):
        await node.save_vmstate(0, memoryview(b"s" * 300_000))
        await node.save_vmstate(4 << 20, memoryview(b"t" * 512))
        await snapshots.create(node, wanted("machine", vm_state_size=(4 << 20) + 512))
        seen = memoryview(bytearray(512))
        await node.load_vmstate(0, seen)
        assert seen == bytes(512)
        await snapshots.goto(node, "machine")
        await node.load_vmstate(0, seen)
        assert seen == b"s" * 512
    check(path)
    out = run(
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "read -b -P 115 0 299520",
        "-c",
        "read -b -P 116 4M 512",
        path,
    )
    assert "failed" not in out


async def test_refcounts_that_cannot_grow_leave_all_as_it_was(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, "cluster_size=4k,refcount_bits=1", size=SIZE)
    async with guest(path) as (backend, node):
        await backend.pwrite(0, b"a" * 70000)
        with pytest.raises(OSError, match="Invalid argument"):
            await snapshots.create(node, wanted("one"))
        assert not snapshots.listed(node)
        await backend.pwrite(0, b"b" * 70000)
    check(path, leaks=True)  # the snapshot's table, as QEMU leaves it


async def test_what_is_not_there_is_refused_in_qemus_words(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, size=SIZE)
    qemu_io(path, [Op("write", 0, 512, 1)])
    async with guest(path) as (_, node):
        with pytest.raises(QmpError, match=r"^Failed to load snapshot: No such file or directory$"):
            await snapshots.goto(node, "absent")
        with pytest.raises(QmpError, match=r"^Can't find the snapshot$"):
            await snapshots.delete(node, None, "absent")
        with pytest.raises(QmpError, match=r"^Device is not readonly$"):
            await snapshots.load_tmp(node, "absent")


def dirty_flags(daemon: Daemon) -> list[bool]:
    """Return whether an image with lazy refcounts is dirty as snapshots come and go."""
    file = {"driver": "file", "filename": "lazy.qcow2"}
    create(daemon.folder / "lazy.qcow2", "lazy_refcounts=on")
    daemon("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": file})
    flags = []

    def look() -> None:
        (disk,) = (n for n in daemon("query-named-block-nodes") if n["node-name"] == "disk")
        flags.append(disk["image"]["dirty-flag"])

    for name in ("one", "two"):
        daemon("blockdev-snapshot-internal-sync", device="disk", name=name)
        look()
    daemon("blockdev-snapshot-delete-internal-sync", device="disk", name="one")
    look()
    return flags


def test_a_snapshot_leaves_no_refcounts_for_later(tmp_path, program):
    program("qemu-storage-daemon")
    told = []
    for kind in (StorageDaemon, Blockemu):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        with kind(folder) as daemon:
            told.append(dirty_flags(daemon))
    assert told[0] == told[1] == [False, False, False]
