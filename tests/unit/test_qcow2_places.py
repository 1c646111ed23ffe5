"""Where bulk copies go in a qcow2 image: many ranges at once, in one row of clusters or one by one."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.perm import Perm
from blockemu.route import Ranges, Segments

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _programs(program: Callable[[str], str]) -> None:
    program("qemu-img")


@asynccontextmanager
async def opened(path: Path, size: int, bits: int, **more: Any) -> AsyncIterator[Backend]:
    """Open a new image and check it in the end."""
    path.write_bytes(new_image(size, cluster_bits=bits, **more))
    emulator = Emulator()
    file = {"driver": "file", "filename": str(path)}
    node = await emulator.opener.open({"driver": "qcow2", "discard": "unmap", "file": file})
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    yield backend
    await emulator.graph.remove(backend)
    await emulator.close()
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)


def put(segments: Segments, data: bytes) -> None:
    """Write data to where it was told to go."""
    view = memoryview(data)
    for leaf, offset, length in segments:
        assert leaf is not None
        leaf.write_now(offset, view[:length])
        view = view[length:]
    assert not len(view)


async def copy(disk: Backend, ranges: Ranges, model: bytearray, *, good: bool = True) -> int:
    """Copy random data to some ranges, or fail to; return how many places they had."""
    data = os.urandom(sum(length for _, length in ranges))
    segments, commit = await disk.place(ranges)
    if good:
        put(segments, data)
    if commit is not None:
        commit(good)
    for offset, length in ranges if good else ():
        model[offset : offset + length], data = data[:length], data[length:]
    return len(segments)


async def content(disk: Backend) -> bytes:
    """Return all of a disk."""
    buf = bytearray(disk.length)
    await disk.pread(0, memoryview(buf))
    return bytes(buf)


async def test_scattered_clusters_lie_in_a_row(tmp_path: Path) -> None:
    size = 64 * MIB
    model = bytearray(size)
    async with opened(tmp_path / "image", size, 16) as disk:
        ranges = [(at, 1 << 16) for at in range(0, size, 3 << 16)]
        assert await copy(disk, ranges, model) == 1
        assert await content(disk) == model


async def test_what_is_there_already_is_written_in_place(tmp_path: Path) -> None:
    size = 8 * MIB
    model = bytearray(size)
    async with opened(tmp_path / "image", size, 16) as disk:
        ranges = [(at, 1 << 16) for at in range(0, size, 3 << 16)]
        await copy(disk, ranges, model)
        length = (tmp_path / "image").stat().st_size
        await copy(disk, ranges, model)
        assert (tmp_path / "image").stat().st_size == length
        assert await content(disk) == model


def some_ranges(rng: random.Random, count: int, align: int, cluster: int) -> list[tuple[int, int]]:
    """Return ranges in order, no two in one cluster."""
    cuts = sorted(rng.sample(range(count), min(2 * rng.randrange(1, 20), count & ~1)))
    ranges: list[tuple[int, int]] = []
    after = 0
    for first, last in zip(cuts[::2], cuts[1::2], strict=True):
        if first * align >= after:
            ranges.append((first * align, (last - first) * align))
            after = -(-last * align // cluster) * cluster
    return ranges


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("seed", range(4))
async def test_any_ranges_get_what_is_written(tmp_path: Path, seed: int, bits: int) -> None:
    """Several tables, clusters there and not there, ranges of whole clusters and others."""
    rng = random.Random(seed)
    size = (MIB << (bits - 9 if bits < 12 else 2)) + 512
    model = bytearray(size)
    async with opened(tmp_path / "image", size, bits, extended_l2=seed == 3 and bits > 13) as disk:
        for number in range(25):
            align = 1 << bits if number % 3 else 512
            ranges = some_ranges(rng, size // align, align, 1 << bits)
            await copy(disk, ranges, model, good=bool(rng.randrange(4)))
            if rng.randrange(4) == 0:
                at = rng.randrange(size // align) * align
                length = min(rng.randrange(1, 20) * align, size - at)
                await disk.write_zeroes(at, length, 2)
                model[at : at + length] = bytes(length)
            if rng.randrange(5) == 0:
                await disk.flush()
            assert await content(disk) == model


async def test_others_wait_for_what_is_not_mapped_yet(tmp_path: Path) -> None:
    model = bytearray(8 * MIB)
    async with opened(tmp_path / "image", 8 * MIB, 16) as disk:
        ranges = [(MIB, 1 << 16), (3 * MIB, 1 << 16)]
        data = os.urandom(2 << 16)
        segments, commit = await disk.place(ranges)
        assert disk.route.write is not None
        assert disk.route.write(MIB, 512) is None  # a plan would not wait
        assert await content(disk) == model
        put(segments, data)
        assert commit is not None
        commit(True)
        assert (await content(disk))[3 * MIB :][: 1 << 16] == data[1 << 16 :]
