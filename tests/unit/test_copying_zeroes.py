"""How a copy treats what is empty on large disks, and how much of it is under way at a time."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import CLUSTER, KIB, MIB, Machine

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.copying import offload
from blockemu.copying.block_copy import AT_ONCE, BREATH_BYTES, COMPRESSING, STEP, BlockCopy
from blockemu.copying.copy_calls import Call
from blockemu.drivers.null import NullCo
from blockemu.drivers.qcow2 import Qcow2
from blockemu.drivers.qcow2.compressor import Compressor
from blockemu.edge import Edge
from blockemu.jobs.mirror_copy import MirrorCopy, Request
from blockemu.perm import Perm, Role
from blockemu.route import Segments
from blockemu.testing import running
from blockemu.transaction import Transaction

GIB = 1 << 30


def edge_to(machine: Machine, disk: Any) -> Edge:
    edge = Edge("test", None, Role.NONE, Perm.ALL)
    with Transaction() as transaction:
        machine.emu.graph.attach(edge, disk, transaction)
    return edge


class Sparse:
    """A raw disk with a little data, and a new qcow2 image for it."""

    def __init__(self, folder: Path, size: int, data: dict[int, int]) -> None:
        self.size, self.source, self.target = size, folder / "s", folder / "d"
        with self.source.open("wb") as file:
            file.truncate(size)
            for offset, length in data.items():
                file.seek(offset)
                file.write(os.urandom(length))
        create = ["qemu-img", "create", "-q", "-f", "qcow2", str(self.target), str(size)]
        subprocess.run(create, check=True)

    async def open(self, execute: Callable[..., Awaitable[Any]]) -> None:
        for name, kind, path in (("s", "raw", self.source), ("d", "qcow2", self.target)):
            file = {"driver": "file", "filename": str(path)}
            await execute("blockdev-add", driver=kind, node_name=name, file=file)

    def check(self) -> None:
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", self.target], check=True)
        names = ["-f", "raw", "-F", "qcow2", self.source, self.target]
        subprocess.run(["qemu-img", "compare", "-q", *names], check=True)


@pytest.fixture(autouse=True)
def _programs(program: Callable[[str], str]) -> None:
    program("qemu-img")


@pytest.fixture
def zeroed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offsets and lengths that qcow2 images were asked to zero."""
    asked: list[tuple[int, int]] = []
    real = Qcow2.write_zeroes

    async def spy(self: Qcow2, offset: int, length: int, flags: int) -> None:
        asked.append((offset, length))
        await real(self, offset, length, flags)

    monkeypatch.setattr(Qcow2, "write_zeroes", spy)
    return asked


async def test_steps_over_nothing_are_large(tmp_path: Path, zeroed: list[tuple[int, int]]) -> None:
    disk = Sparse(tmp_path, 20 * GIB, {5 * MIB: MIB, 7 * GIB + 3 * CLUSTER: 5})
    async with Machine() as machine:
        await disk.open(machine)
        await machine("blockdev-backup", job_id="j", device="s", target="d", sync="full")
        await machine.until("j null")
        size = disk.size // KIB
        assert f"COMPLETED {size}/{size}K" in machine.news()
    disk.check()
    assert len(zeroed) <= 2 * 20 + 2
    assert max(length for _, length in zeroed) == GIB
    assert sum(length for _, length in zeroed) == disk.size - MIB - CLUSTER


@pytest.mark.parametrize("seed", range(3))
async def test_a_mirror_takes_large_steps_over_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, steps = random.Random(seed), 0
    data = {rng.randrange(500 * KIB) * MIB + 512: rng.choice((5, MIB, 40 * MIB)) for _ in range(4)}
    disk = Sparse(tmp_path, 512 * GIB, data | {511 * GIB: 5 * CLUSTER})
    real = MirrorCopy.iterate

    async def spy(self: MirrorCopy, pause: Any) -> int:
        nonlocal steps
        steps += 1
        return await real(self, pause)

    monkeypatch.setattr(MirrorCopy, "iterate", spy)
    async with running() as emu:
        await disk.open(emu.execute)
        await emu.execute("blockdev-mirror", job_id="j", device="s", target="d", sync="full")
        await emu.event("BLOCK_JOB_READY")
        await emu.execute("block-job-cancel", device="j")
        await emu.job("j", "null")
    disk.check()
    assert steps < 600


@pytest.mark.parametrize("seed", range(4))
async def test_a_mirror_sees_what_guests_write_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, writes, size = random.Random(seed), 60, 96 * MIB
    disk = Sparse(tmp_path, size, {rng.randrange(96) * MIB: 70 * KIB for _ in range(3)})
    real = MirrorCopy._zero
    async with running() as emu:
        await disk.open(emu.execute)
        async with emu.guest("s", Perm.WRITE) as guest:

            async def spy(self: MirrorCopy, request: Request) -> None:
                nonlocal writes
                for when in ("before", "after"):
                    if writes:
                        writes -= 1
                        at = rng.randrange(request.start, min(request.end + 8 * MIB, size), 512)
                        await guest.pwrite(at, os.urandom(512))
                    if when == "before":
                        await real(self, request)

            monkeypatch.setattr(MirrorCopy, "_zero", spy)
            await emu.execute(
                "blockdev-mirror", job_id="j", device="s", target="d", sync="full", buf_size=MIB
            )
            await emu.event("BLOCK_JOB_READY")
            await emu.execute("block-job-cancel", device="j")
            await emu.job("j", "null")
    disk.check()
    assert writes < 60


@pytest.mark.parametrize("limit", [{"speed": 1 << 40}, {"x_perf": {"max-chunk": MIB}}])
async def test_steps_are_small_where_they_can_be_seen(
    tmp_path: Path, zeroed: list[tuple[int, int]], limit: dict[str, Any]
) -> None:
    disk = Sparse(tmp_path, 48 * MIB, {5 * MIB: MIB})
    async with Machine() as machine:
        await disk.open(machine)
        await machine("blockdev-backup", job_id="j", device="s", target="d", sync="full", **limit)
        await machine.until("j null")
    disk.check()
    assert max(length for _, length in zeroed) == MIB


@pytest.mark.parametrize(("seed", "islands"), [*((n, 5) for n in range(8)), (8, 300), (9, 2000)])
async def test_only_what_is_dirty_is_zeroed(tmp_path: Path, seed: int, islands: int) -> None:
    rng = random.Random(seed)
    size = 100 * MIB + 3 * 512
    offsets = (rng.randrange(0, 99 * MIB, 50 * KIB) + 512 for _ in range(islands))
    disk = Sparse(tmp_path, size, {at: rng.choice((5, 70 * KIB, 200 * KIB)) for at in offsets})
    async with Machine() as machine:
        await disk.open(machine)
        source, target = (edge_to(machine, machine.emu.graph.nodes[name]) for name in "sd")
        old = memoryview(b"\xff" * MIB)
        for offset in range(0, size, MIB):
            await target.pwrite(offset, old[: size - offset])
        bitmap = Bitmap(size, CLUSTER)
        for _ in range(6):
            first = rng.randrange(size // CLUSTER)
            length = min(rng.choice((CLUSTER, 20 * MIB, 60 * MIB)), size - first * CLUSTER)
            bitmap.mark(first * CLUSTER, length)
        dirty = bitmap.copy()
        copy = BlockCopy(source, target, bitmap, machine.emu.pool, machine.clock)
        length = -(-size // CLUSTER) * CLUSTER
        copy.start(0, length, call := Call())
        await call.wait()
        assert not call.error
        assert not bitmap.count
        expected = disk.source.read_bytes()
        found = bytearray(size)
        await target.pread(0, memoryview(found))
        for at in range(0, size, CLUSTER):
            end = min(at + CLUSTER, size)
            wanted = expected[at:end] if dirty.get(at) else bytes(old[: end - at])
            assert found[at:end] == wanted, at


async def test_islands_of_data_go_to_the_kernel_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes: list[int] = []
    real = offload._copy_in_turn

    def spy(segments: Segments, places: Segments) -> bool:
        goes.append(sum(length for _, _, length in segments))
        return real(segments, places)

    monkeypatch.setattr(offload, "_copy_in_turn", spy)
    disk = Sparse(tmp_path, 256 * MIB, dict.fromkeys(range(MIB, 256 * MIB, 4 * MIB), MIB))
    async with Machine() as machine:
        await disk.open(machine)
        await machine("blockdev-backup", job_id="j", device="s", target="d", sync="full")
        await machine.until("j null")
    disk.check()
    assert goes == [STEP] * 4


async def test_few_pieces_are_compressed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = most = 0
    real = Compressor.pwrite

    async def spy(self: Compressor, offset: int, buf: memoryview) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        await real(self, offset, buf)
        busy -= 1

    monkeypatch.setattr(Compressor, "pwrite", spy)
    disk = Sparse(tmp_path, 24 * MIB, {0: 24 * MIB})
    async with Machine() as machine:
        await disk.open(machine)
        options = {"job_id": "j", "device": "s", "target": "d", "sync": "full"}
        await machine("blockdev-backup", compress=True, **options)
        await machine.until("j null")
    disk.check()
    assert most == COMPRESSING


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what will hold the bytes that were read of null-co since somebody last had a look."""
    real, sizes = NullCo.pread, [0]

    async def spy(self: NullCo, offset: int, buf: memoryview) -> None:
        sizes[0] += len(buf)
        await real(self, offset, buf)

    monkeypatch.setattr(NullCo, "pread", spy)
    return sizes


async def test_others_get_a_turn_while_nothing_has_to_be_waited_for(read: list[int]) -> None:
    async with Machine() as machine:
        size = 200 * MIB
        for name in "sd":
            await machine("blockdev-add", driver="null-co", node_name=name, size=size)
        nodes = machine.emu.graph.nodes
        bitmap = Bitmap(size, CLUSTER)
        bitmap.mark(0, size)
        copy = BlockCopy(
            edge_to(machine, nodes["s"]), edge_to(machine, nodes["d"]), bitmap,
            machine.emu.pool, machine.clock,
        )  # fmt: skip
        copy.start(0, size, call := Call())
        steps = await steps_until(lambda: call.finished, read)
        assert sum(steps) == size
        assert max(steps) <= AT_ONCE * BREATH_BYTES


async def steps_until(over: Callable[[], bool], read: list[int]) -> list[int]:
    """Return what was read in each turn of the event loop until something is over."""
    steps = []
    while not over():
        steps.append(read[0])
        read[0] = 0
        await asyncio.sleep(0)
    return [*steps, read[0]]


async def test_the_kernel_copies_what_a_table_not_yet_read_points_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffered: list[tuple[int, int]] = []
    real = BlockCopy._through_buffers

    async def spy(self: BlockCopy, start: int, size: int) -> None:
        buffered.append((start, size))
        await real(self, start, size)

    monkeypatch.setattr(BlockCopy, "_through_buffers", spy)
    disk = Sparse(tmp_path, GIB, dict.fromkeys(range(0, GIB, 40 * MIB), CLUSTER))
    source = tmp_path / "s.qcow2"
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.source, source]
    subprocess.run(convert, check=True)
    async with Machine() as machine:
        for name, path in (("s", source), ("d", disk.target)):
            file = {"driver": "file", "filename": str(path)}
            await machine("blockdev-add", driver="qcow2", node_name=name, file=file)
        await machine("blockdev-backup", job_id="j", device="s", target="d", sync="full")
        await machine.until("j null")
    disk.check()
    assert not buffered  # though two tables tell where these clusters are
