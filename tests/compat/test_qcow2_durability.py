"""What is on disk when the power fails: leaks at worst, and all that was flushed."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compat.qcow2_images import SIZE, carry_out, check, create, guest, random_ops, run

IMAGES = ["", "cluster_size=512,refcount_bits=64", "extended_l2=on", "compat=0.10"]


@pytest.mark.parametrize("options", IMAGES)
async def test_the_image_is_sound_at_each_barrier(tmp_path, program, options, monkeypatch):
    """Only what was written before a barrier is sure to be there; here all of it is."""
    program("qemu-img")
    path, copy = tmp_path / "ours.qcow2", tmp_path / "copy.qcow2"
    create(path, options)
    async with guest(path) as (backend, node):
        flush = node.file.node.flush
        barriers = 0

        async def barrier() -> None:
            nonlocal barriers
            await flush()
            barriers += 1
            shutil.copyfile(path, copy)
            check(copy, leaks=True)

        monkeypatch.setattr(node.file.node, "flush", barrier)
        for op in random_ops(7, 60, whole=True):
            if op.kind == "read":
                await backend.flush()
            await carry_out(backend, op, plans=True)
        await backend.flush()
        assert barriers > 10
    check(path)


@pytest.mark.parametrize("options", IMAGES)
async def test_between_the_stages_of_a_flush_only_leaks_are_possible(
    tmp_path, program, options, monkeypatch
):
    """The disk may do what lies between two barriers in any order; each alone must do no harm."""
    program("qemu-img")
    path, copy = tmp_path / "ours.qcow2", tmp_path / "copy.qcow2"
    create(path, options)
    async with guest(path) as (backend, node):
        file = node.file.node
        flush, pwrite = file.flush, file.pwrite
        sure = path.read_bytes()  # as of the last barrier
        since: list[tuple[int, bytes]] = []
        rng = random.Random(1)

        async def barrier() -> None:
            nonlocal sure
            await flush()
            sure = path.read_bytes()
            since.clear()

        async def write(offset: int, buf: memoryview, flags: int) -> None:
            await pwrite(offset, buf, flags)
            since.append((offset, bytes(buf)))
            if rng.random() < 0.2:  # the power fails: some of the writes made it, others did not
                disk = bytearray(sure)
                for at, data in rng.sample(since, rng.randrange(len(since) + 1)):
                    disk[len(disk) :] = bytes(max(0, at + len(data) - len(disk)))
                    disk[at : at + len(data)] = data
                copy.write_bytes(disk)
                check(copy, leaks=True)

        monkeypatch.setattr(file, "flush", barrier)
        monkeypatch.setattr(file, "pwrite", write)
        for op in random_ops(11, 50, whole=True):
            await carry_out(backend, op, plans=False)
    check(path)


class Block:
    """A guest that writes whole blocks and knows what may be read."""

    SIZE = 4096

    def __init__(self, backend: Any, model: bytearray) -> None:
        self.backend = backend
        self.model = model
        self.racing: dict[int, set[int]] = {}  # block: bytes that it may be filled with

    async def write(self, first: int, count: int, value: int, how: str) -> None:
        offset, length = first * self.SIZE, count * self.SIZE
        if how == "write":
            await self.backend.pwrite(offset, bytes([value]) * length)
        elif how == "zero":
            await self.backend.write_zeroes(offset, length, 0)
        elif how == "unmap":
            await self.backend.write_zeroes(offset, length, 2)
        else:
            await self.backend.flush()

    async def read(self, first: int, count: int, may: list[set[int]]) -> None:
        buf = bytearray(count * self.SIZE)
        await self.backend.pread(first * self.SIZE, buf)
        for i in range(count):
            block = buf[i * self.SIZE : (i + 1) * self.SIZE]
            assert block.count(block[0]) == self.SIZE, "torn"
            assert block[0] in may[i]


@pytest.mark.parametrize("plans", [True, False])
@pytest.mark.parametrize(
    "options",  # with no unit smaller than a block
    ["", "compat=0.10", "cluster_size=4k", "extended_l2=on,cluster_size=128k", "DATA"],
)
async def test_racing_requests_leave_one_of_their_writes(tmp_path, program, options, plans):
    """Each block ends as one of the writes that raced for it, and reads see nothing else."""
    program("qemu-img")
    path, rng = tmp_path / "ours.qcow2", random.Random(2)
    create(path, options)
    blocks = SIZE // Block.SIZE
    model = [0] * blocks
    async with guest(path, plans=plans) as (backend, node):
        disk = Block(backend, bytearray())
        for turn in range(30):
            may = [{value} for value in model]
            jobs = []
            for n in range(24):
                first = rng.randrange(blocks // (1 if turn % 2 else 16))
                count = min(rng.choice([1, 1, 2, 5, 40]), blocks - first)
                how = rng.choice(["write", "write", "zero", "unmap", "flush", "read"])
                value = turn * 8 + n & 255 or 1 if how == "write" else 0
                if how == "read":
                    jobs.append(disk.read(first, count, may[first : first + count]))
                    continue
                if how != "flush":
                    for i in range(first, first + count):
                        may[i].add(value)
                jobs.append(disk.write(first, count, value, how))
            await asyncio.gather(*jobs)
            whole = bytearray(SIZE)
            await backend.pread(0, whole)
            model = [whole[i * Block.SIZE] for i in range(blocks)]
            assert all(value in may[i] for i, value in enumerate(model))
            assert not node.image.mapping.allocating
    check(path)
    raw = Path(tmp_path / "out.raw")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    assert raw.read_bytes() == whole


@pytest.mark.parametrize("cluster", [512, 4096, 65536])
async def test_lazy_refcounts_are_left_for_a_repair(tmp_path, program, cluster):
    """As a crash would leave it: the data is there, what counts it is not yet."""
    program("qemu-img")
    path, crashed = tmp_path / "image.qcow2", tmp_path / "crashed.qcow2"
    create(path, f"lazy_refcounts=on,cluster_size={cluster}", size=1 << 20)
    async with guest(path) as (backend, _):
        await backend.pwrite(100_000, b"\1" * 300_000)
        await backend.flush()
        await backend.pwrite(500_000, b"\2" * 70_000)
        await backend.flush()
        shutil.copyfile(path, crashed)
    check(path)
    check_only = ["qemu-img", "check", "-f", "qcow2", crashed]
    assert subprocess.run(check_only, capture_output=True).returncode == 2
    async with guest(crashed) as (backend, _):
        seen = bytearray(1 << 20)
        await backend.pread(0, seen)
        assert seen[100_000:400_000] == b"\1" * 300_000
        assert seen[500_000:570_000] == b"\2" * 70_000
    check(crashed)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, crashed)
