"""What qcow2 keeps in memory, and for how long."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blockemu.backend import Backend
from blockemu.clocks import Clocks, SteppedClock
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.perm import Perm

SIZE = 4 << 20
CLUSTER = 4096  # a table maps 2 MiB
SECOND = 1_000_000_000


@asynccontextmanager
async def opened(path: Path, clock: SteppedClock, **more: Any) -> AsyncIterator[Backend]:
    emulator = Emulator(clocks=Clocks(SteppedClock(), clock))
    file = {"driver": "file", "filename": str(path)}
    node = await emulator.opener.open({"driver": "qcow2", "file": file} | more)
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    yield backend
    await emulator.graph.remove(backend)
    await emulator.close()


def at_hand(backend: Backend) -> tuple[int, int]:
    """Return how many L2 tables and refcount blocks are in memory."""
    image: Any = backend.node.image
    return len(image.mapping.tables), len(image.refcounts.blocks)


async def test_metadata_goes_after_the_interval_unless_it_is_changed(tmp_path):
    path, clock = tmp_path / "image", SteppedClock()
    path.write_bytes(new_image(SIZE, cluster_bits=12))
    async with opened(path, clock, **{"cache-clean-interval": 7}) as backend:
        await backend.pwrite(0, b"\1" * CLUSTER)
        await backend.pread(2 << 20, bytearray(512))
        assert at_hand(backend) == (2, 1)
        clock.step(6 * SECOND)
        assert at_hand(backend) == (2, 1)
        clock.step(SECOND)
        assert at_hand(backend) == (1, 1)
        await backend.flush()
        clock.step(7 * SECOND)
        assert at_hand(backend)[0] == 0
        seen = bytearray(2 * CLUSTER)
        await backend.pread(0, seen)
        assert seen == b"\1" * CLUSTER + bytes(CLUSTER)
    clock.step(100 * SECOND)
    assert clock.next_deadline is None


async def test_an_interval_of_zero_keeps_all(tmp_path):
    path, clock = tmp_path / "image", SteppedClock()
    path.write_bytes(new_image(SIZE, cluster_bits=12))
    async with opened(path, clock, **{"cache-clean-interval": 0}) as backend:
        await backend.pread(0, bytearray(512))
        assert clock.next_deadline is None
        assert at_hand(backend)[0] == 1


async def test_the_cache_keeps_to_its_size(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(new_image(64 << 20, cluster_bits=12))
    sizes = {"l2-cache-size": 4 * CLUSTER, "refcount-cache-size": 4 * CLUSTER}
    rng = random.Random(0)
    model = bytearray(64 << 20)
    async with opened(path, SteppedClock(), **sizes) as backend:
        for turn in range(100):
            at = rng.randrange(64 << 8) * CLUSTER
            if turn % 2:
                model[at : at + CLUSTER] = data = rng.randbytes(CLUSTER)
                await backend.pwrite(at, data)
            seen = bytearray(CLUSTER)
            await backend.pread(at, seen)
            assert seen == model[at : at + CLUSTER]
            tables, blocks = at_hand(backend)
            assert tables <= 8
            assert blocks <= 8


async def test_scattered_writes_are_not_flushed_while_all_tables_fit(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(new_image(SIZE, cluster_bits=9))
    async with opened(path, SteppedClock()) as backend:
        for at in range(0, SIZE, 32 << 10):  # a table each
            await backend.pwrite(at, b"\1")
        image: Any = backend.node.image
        assert len(image.mapping.dirty) == SIZE >> 15


async def test_a_larger_disk_gets_a_larger_cache(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(new_image(SIZE, cluster_bits=12))
    async with opened(path, SteppedClock()) as backend:
        image: Any = backend.node.image
        assert image.mapping.most_tables == 2
        await backend.truncate(16 * SIZE)
        assert image.mapping.most_tables == 32
