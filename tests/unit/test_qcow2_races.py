"""Requests that overlap in time, each held at the point where it hurts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.node import Node, Write
from blockemu.perm import Perm

CLUSTER = 65536
SIZE = 64 << 20


class Gate:
    """Holds a driver's requests that ``catches`` likes, until it is opened."""

    def __init__(self, node: Node[Any], name: str, catches: Callable[..., bool]) -> None:
        self.arrived = asyncio.Event()
        self._open = asyncio.Event()
        real = getattr(node, name)

        async def held(*args: Any) -> Any:
            if not self._open.is_set() and catches(*args):
                self.arrived.set()
                await self._open.wait()
            return await real(*args)

        setattr(node, name, held)

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def disk(
    path: Path, *, size: int = SIZE, options: dict[str, Any] | None = None, **header: Any
) -> AsyncIterator[tuple[Backend, Node[Any]]]:
    """An image of its own, reached by coroutines only."""
    if not path.exists():
        path.write_bytes(new_image(size, **header))
    emulator = Emulator()
    file = {"driver": "file", "filename": str(path), "discard": "unmap"}
    node = await emulator.opener.open(
        {"driver": "qcow2", "discard": "unmap", "read-only": False, "file": file} | (options or {})
    )
    backend = Backend("guest", Perm.ALL, Perm.ALL, plans=False)
    emulator.graph.insert(backend, node)
    try:
        yield backend, node
    finally:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # held for ever, where a test failed
        await emulator.graph.remove(backend)
        await emulator.close()


def filled(value: int) -> Callable[..., bool]:
    """Catch writes of data that begins or ends with a byte."""
    return lambda offset, buf, flags: value in (buf[0], buf[-1]) and offset >= 4 * CLUSTER


async def read(backend: Backend, offset: int, length: int) -> bytes:
    buf = bytearray(length)
    await backend.pread(offset, buf)
    return bytes(buf)


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("extended", [False, True])
async def test_two_writes_to_one_new_cluster_both_last(tmp_path: Path, extended: bool) -> None:
    async with disk(tmp_path / "image", extended_l2=extended) as (backend, node):
        gate = Gate(node.file.node, "pwrite", filled(1))
        first = asyncio.create_task(backend.pwrite(0, b"\1" * 1024))
        await gate.arrived.wait()
        second = asyncio.create_task(backend.pwrite(1024, b"\2" * 1024))
        await turns()
        assert not second.done()
        gate.open()
        await asyncio.gather(first, second)
        assert await read(backend, 0, 3072) == b"\1" * 1024 + b"\2" * 1024 + bytes(1024)


@pytest.mark.parametrize("kind", ["zero", "unmap", "discard"])
async def test_dropping_a_cluster_waits_for_who_allocates_it(tmp_path: Path, kind: str) -> None:
    async with disk(tmp_path / "image") as (backend, node):
        gate = Gate(node.file.node, "pwrite", filled(1))
        write = asyncio.create_task(backend.pwrite(0, b"\1" * 1024))
        await gate.arrived.wait()
        if kind == "discard":
            drop = asyncio.create_task(backend.discard(0, CLUSTER))
        else:
            flags = Write.MAY_UNMAP if kind == "unmap" else 0
            drop = asyncio.create_task(backend.write_zeroes(0, CLUSTER, flags))
        await turns()
        assert not drop.done()
        gate.open()
        await asyncio.gather(write, drop)
        assert await read(backend, 0, CLUSTER) == bytes(CLUSTER)


async def test_a_read_sees_old_data_while_new_clusters_are_filled(tmp_path: Path) -> None:
    async with disk(tmp_path / "image") as (backend, node):
        gate = Gate(node.file.node, "pwrite", filled(1))
        write = asyncio.create_task(backend.pwrite(0, b"\1" * CLUSTER))
        await gate.arrived.wait()
        assert await read(backend, 0, CLUSTER) == bytes(CLUSTER)
        gate.open()
        await write
        assert await read(backend, 0, CLUSTER) == b"\1" * CLUSTER


async def test_a_slow_read_does_not_see_what_others_put_into_its_old_cluster(
    tmp_path: Path,
) -> None:
    async with disk(tmp_path / "image") as (backend, node):
        await backend.pwrite(0, b"\1" * CLUSTER)
        await backend.flush()
        end = node.file.node.length
        gate = Gate(node.file.node, "pread", lambda offset, buf: len(buf) == CLUSTER)
        slow = asyncio.create_task(read(backend, 0, CLUSTER))
        await gate.arrived.wait()
        await backend.discard(0, CLUSTER)
        await backend.flush()
        await backend.pwrite(1 << 20, b"\2" * CLUSTER)
        gate.open()
        assert (await slow)[0] in (0, 1)
        assert node.file.node.length > end
        await backend.flush()
        await backend.flush()
        await backend.pwrite(2 << 20, b"\3" * CLUSTER)  # now it may be used again
        assert node.file.node.length == end + CLUSTER


async def test_a_slow_write_does_not_land_in_somebody_elses_cluster(tmp_path: Path) -> None:
    async with disk(tmp_path / "image") as (backend, node):
        await backend.pwrite(0, b"\1" * CLUSTER)
        gate = Gate(node.file.node, "pwrite", filled(9))
        slow = asyncio.create_task(backend.pwrite(0, b"\x09" * 512))
        await gate.arrived.wait()
        await backend.discard(0, CLUSTER)
        await backend.flush()
        await backend.pwrite(1 << 20, b"\2" * CLUSTER)
        gate.open()
        await slow
        assert await read(backend, 1 << 20, CLUSTER) == b"\2" * CLUSTER


async def test_a_table_stays_in_memory_while_clusters_of_it_are_filled(tmp_path: Path) -> None:
    path, span = tmp_path / "image", 64 * 512  # guest bytes of one table
    small = {"options": {"l2-cache-size": 1024}, "cluster_bits": 9, "size": 1 << 20}
    async with disk(path, **small) as (backend, node):
        for i in range(1, 20):
            await backend.pwrite(i * span, b"\5" * 512)
        await backend.flush()
        await backend.pwrite(8192, b"\5" * 512)
        await backend.flush()
        caught = lambda offset, buf, flags: buf[0] == 1  # noqa: E731
        gate = Gate(node.file.node, "pwrite", caught)
        write = asyncio.create_task(backend.pwrite(0, b"\1" * 512))
        await gate.arrived.wait()
        await backend.flush()
        for i in range(1, 20):
            assert await read(backend, i * span, 512) == b"\5" * 512
        assert len(node.image.mapping.tables) < 6
        gate.open()
        await write
        for i in range(1, 20):
            await read(backend, i * span, 512)
        assert await read(backend, 0, 512) == b"\1" * 512
    async with disk(path, **small) as (backend, _):
        assert await read(backend, 0, 512) == b"\1" * 512
        assert await read(backend, 8192, 512) == b"\5" * 512


async def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "image"
    async with disk(path) as (backend, node):
        await backend.pwrite(1 << 20, b"\2" * CLUSTER)
        real = node.file.node.pwrite

        async def fails(offset: int, buf: memoryview, flags: int) -> None:
            if buf[0] == 1:
                raise OSError(5, "Input/output error")
            await real(offset, buf, flags)

        node.file.node.pwrite = fails
        with pytest.raises(OSError, match="Input/output error"):
            await backend.pwrite(0, b"\1" * CLUSTER)
        assert await read(backend, 0, CLUSTER) == bytes(CLUSTER)
        assert not node.image.mapping.allocating
        await backend.flush()
        await backend.pwrite(0, b"\3" * CLUSTER)
        assert await read(backend, 0, CLUSTER) == b"\3" * CLUSTER


async def test_a_failed_flush_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "image"
    async with disk(path) as (backend, node):
        await backend.pwrite(0, b"\1" * CLUSTER)
        real, fail = node.file.node.flush, [True]

        async def flush() -> None:
            if fail.pop():
                raise OSError(28, "No space left on device")
            fail.append(False)
            await real()

        node.file.node.flush = flush
        with pytest.raises(OSError, match="No space left"):
            await backend.flush()
        fail.append(False)
        await backend.flush()
    async with disk(path) as (backend, _):
        assert await read(backend, 0, CLUSTER) == b"\1" * CLUSTER


@pytest.mark.parametrize("raising", [FileNotFoundError, OSError])
async def test_no_request_is_left_counted(tmp_path: Path, raising: type[OSError]) -> None:
    async with disk(tmp_path / "image") as (backend, node):
        await backend.pwrite(0, b"\1" * CLUSTER)

        async def fails(*args: Any) -> None:
            raise raising(5, "no")

        real, node.file.node.pread = node.file.node.pread, fails
        with pytest.raises(OSError, match="no"):
            await read(backend, 0, 512)
        node.file.node.pread = real
        assert not node.image.in_flight.any_since(1 << 60)
