"""Where clusters that were let go of are used again, and what comes to the file before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from blockemu import snapshots
from blockemu.backend import Backend
from blockemu.crashes import RecordingDisk
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.journal import Flushed
from blockemu.perm import Perm

MIB = 1 << 20
CLUSTER = 1 << 16


@asynccontextmanager
async def opened(
    content: bytes,
) -> AsyncIterator[tuple[Backend, Any, RecordingDisk]]:
    """Open an image on a disk that records."""
    emulator = Emulator()
    disk = RecordingDisk.add(emulator.graph, "disk", content, emulator)
    node = await emulator.opener.open({"driver": "qcow2", "discard": "unmap", "file": "disk"})
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    yield backend, node, disk
    await emulator.graph.remove(backend)
    await emulator.close()


def flushes(disk: RecordingDisk) -> int:
    """Return how often the disk was flushed."""
    return sum(isinstance(change, Flushed) for change in disk.log)


async def filled(backend: Backend, offset: int, length: int) -> None:
    """Write some data a cluster at a time."""
    for at in range(offset, offset + length, CLUSTER):
        await backend.pwrite(at, b"\1" * CLUSTER)


async def test_much_that_was_discarded_is_used_again_without_a_flush() -> None:
    async with opened(new_image(64 * MIB)) as (backend, _, disk):
        await filled(backend, 0, 16 * MIB)
        await backend.flush()
        length = len(disk.content)
        await backend.discard(0, 16 * MIB)
        await filled(backend, 32 * MIB, 16 * MIB)
        assert len(disk.content) == length


async def test_little_that_was_discarded_waits_for_a_flush() -> None:
    async with opened(new_image(64 * MIB)) as (backend, _, disk):
        await filled(backend, 0, 16 * MIB)
        await backend.flush()
        length, barriers = len(disk.content), flushes(disk)
        await backend.discard(0, 15 * MIB)
        await filled(backend, 32 * MIB, MIB)
        assert (len(disk.content), flushes(disk)) == (length + MIB, barriers)
        await backend.flush()
        await filled(backend, 40 * MIB, 8 * MIB)
        assert len(disk.content) == length + MIB


async def test_what_a_snapshot_still_has_is_not_worth_a_flush() -> None:
    async with opened(new_image(64 * MIB)) as (backend, node, disk):
        await filled(backend, 0, 32 * MIB)
        await snapshots.create(node, Snapshot("", "s", 0, 0, 0, 0, 0, 0, 0, None))
        barriers = flushes(disk)
        await filled(backend, 0, 32 * MIB)
        assert flushes(disk) == barriers


async def test_a_write_that_outgrows_the_refcount_table_has_its_room() -> None:
    async with opened(new_image(MIB, cluster_bits=9, refcount_order=6)) as (backend, node, disk):
        refcounts = node.image.refcounts
        old = refcounts.table_offset
        end = len(refcounts.table) * refcounts.per
        await backend.pwrite(0, b"\1" * 512)
        while refcounts.cursor < end:
            if refcounts.take(end - refcounts.cursor) is None:
                await node.image.ready()
        await backend.pwrite(512, b"\2" * 512)
        assert refcounts.table_offset != old
        assert disk.content[old : old + 512] == b"\2" * 512


async def test_clusters_put_back_after_they_were_written_back_are_free_on_disk_too() -> None:
    async with opened(new_image(MIB)) as (_, node, disk):
        refcounts = node.image.refcounts
        while (taken := refcounts.take(3)) is None:
            await node.image.ready()
        first, count, _ = taken
        await node.writeback.flush()
        for cluster in range(first, first + count):
            refcounts.put_back(cluster)
        await node.writeback.flush()
        block = refcounts.host(0)
        assert disk.content[block + 2 * first : block + 2 * (first + count)] == bytes(2 * count)
