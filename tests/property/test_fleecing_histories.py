"""Image fleecing while a guest writes: the snapshot is the disk as it was, or it says that it is not.

A history is random from its seed: the guest's writes, the reads of the snapshot and its discards
overlap in any way, are held up at either disk and let go later, and saving may fail.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest
from fakes import CLUSTER, Disk, Machine, turns

CLUSTERS = 8
SIZE = CLUSTERS * CLUSTER - 512 * 3
HISTORIES = 200
AT_ONCE = 50


async def error_of(request: Awaitable[None]) -> int:
    """Await a request; return its errno."""
    try:
        await request
    except OSError as e:
        return e.errno or errno.EIO
    return 0


class History:
    """A disk ``s`` below a filter, which saves to ``t``; who reads the snapshot, who writes."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.disk: Disk = machine.disk("s", self.random.randbytes(SIZE))
        self.saved: Disk = machine.disk("t", self.random.randbytes(SIZE))
        self.breaks_snapshot = self.random.random() < 0.3
        self.fails = self.random.random() < 0.3
        self.gone: set[int] = set()  # clusters that are not part of the snapshot any more, or never
        self.tasks: list[asyncio.Task[None]] = []
        self.read = self.refused = self.written = 0

    async def begin(self) -> None:
        options: dict[str, object] = {"file": "s", "target": "t"}
        if self.random.random() < 0.5:
            await self.machine("block-dirty-bitmap-add", node="s", name="b", granularity=CLUSTER)
            guest = self.machine.guest("s")
            some = set(self.random.sample(range(CLUSTERS), 4))
            for cluster in some:
                await guest.pwrite(cluster * CLUSTER, self.random.randbytes(512))
            await self.machine.emu.graph.remove(guest)
            self.gone = set(range(CLUSTERS)) - some
            options["bitmap"] = {"node": "s", "name": "b"}
        if self.breaks_snapshot:
            options["on_cbw_error"] = "break-snapshot"
        await self.machine("blockdev-add", driver="copy-before-write", node_name="f", **options)
        await self.machine(
            "blockdev-add", driver="snapshot-access", node_name="v", file="f", discard="unmap"
        )
        assert self.machine.news()[-2:] == ["reply", "reply"]
        self.filter = self.machine.emu.graph.find("f")
        self.moment = bytes(self.disk.data)
        self.model = bytearray(self.disk.data)
        self.guest = self.machine.guest("f", plans=self.random.random() < 0.5)
        self.reader = self.machine.guest("v")

    @property
    def broken(self) -> bool:
        return bool(self.filter.snapshot_error)

    def range(self) -> tuple[int, int]:
        offset = self.random.randrange(SIZE)
        most = self.random.choice([1, 512, 4096, CLUSTER, 3 * CLUSTER])
        return offset, min(self.random.randint(1, most), SIZE - offset)

    async def write(self, offset: int, data: bytes) -> None:
        code = await error_of(self.guest.pwrite(offset, data))
        assert code == 0 or (code == errno.EIO and self.fails and not self.breaks_snapshot)
        self.written += not code

    async def look(self, offset: int, length: int) -> None:
        clusters = set(range(offset // CLUSTER, (offset + length - 1) // CLUSTER + 1))
        had = not clusters & self.gone
        buf = bytearray(length)
        code = await error_of(self.reader.pread(offset, buf))
        if code:
            assert code == errno.EACCES
            assert clusters & self.gone or self.broken
            self.refused += 1
            return
        assert had
        if not clusters & self.gone:  # else a part of it went while we read, and may hold anything
            assert buf == self.moment[offset : offset + length]
            self.read += 1

    async def discard(self, offset: int, length: int) -> None:
        end = SIZE + CLUSTER if offset + length == SIZE else offset + length
        whole = range(-(-offset // CLUSTER), min(end // CLUSTER, CLUSTERS))
        self.gone |= set(whole)
        await self.reader.discard(offset, length)

    def step(self) -> None:
        kind = self.random.random()
        offset, length = self.range()
        if kind < 0.4:
            self.spawn(self.write(offset, self.random.randbytes(length)))
        elif kind < 0.8:
            self.spawn(self.look(offset, length))
        elif kind < 0.83:
            self.spawn(self.discard(offset, length))
        elif kind < 0.9:
            disk = self.random.choice([self.disk, self.saved])
            disk.held.add(self.random.choice(["read", "write"]))
        else:
            self.disk.let()
            self.saved.let()
        if self.fails and self.random.random() < 0.1:
            self.saved.errors = {} if self.saved.errors else {"write": errno.EIO}

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def play(self) -> None:
        await self.begin()
        for _ in range(60):
            self.step()
            await turns(self.random.randrange(6))
        self.disk.let()
        self.saved.let()
        await asyncio.gather(*self.tasks)
        for cluster in range(CLUSTERS):
            await self.look(cluster * CLUSTER, min(CLUSTER, SIZE - cluster * CLUSTER))
        await self.machine.emu.graph.remove(self.guest)
        await self.machine.emu.graph.remove(self.reader)


async def _play(seed: int) -> History:
    async with Machine() as machine:
        history = History(machine, seed)
        await history.play()
        return history


@pytest.mark.parametrize("first", range(0, HISTORIES, AT_ONCE))
async def test_the_snapshot_is_the_disk_as_it_was(first: int) -> None:
    played = [await _play(seed) for seed in range(first, first + AT_ONCE)]
    assert sum(each.read for each in played) > 10 * AT_ONCE
    assert sum(each.written for each in played) > 10 * AT_ONCE
    assert sum(each.refused for each in played) > AT_ONCE
    assert any(each.broken for each in played)


async def test_a_write_waits_for_who_reads_what_it_changes() -> None:
    async with Machine() as machine:
        disk, saved = machine.disk("s", bytes([1]) * SIZE), machine.disk("t", SIZE)
        await machine(
            "blockdev-add", driver="copy-before-write", node_name="f", file="s", target="t"
        )
        await machine("blockdev-add", driver="snapshot-access", node_name="v", file="f")
        guest, reader = machine.guest("f"), machine.guest("v")
        buf = bytearray(512)
        disk.held = {"read"}
        look = asyncio.create_task(reader.pread(4096, buf))
        await turns()
        disk.held = set()
        write = asyncio.create_task(guest.pwrite(0, bytes(65536)))
        await turns()
        assert saved.data[:65536] == bytes([1]) * 65536  # it has been saved, and yet
        assert not write.done()
        assert disk.data[4096] == 1
        disk.let()
        await look
        await write
        assert buf == bytes([1]) * 512
        for backend in (guest, reader):
            await machine.emu.graph.remove(backend)


@pytest.mark.parametrize("policy", ["break-guest-write", "break-snapshot"])
async def test_saving_that_takes_too_long_counts_as_failed(policy: str) -> None:
    async with Machine() as machine:
        disk, saved = machine.disk("s", bytes([1]) * SIZE), machine.disk("t", SIZE)
        await machine(
            "blockdev-add",
            driver="copy-before-write",
            node_name="f",
            file="s",
            target="t",
            on_cbw_error=policy,
            cbw_timeout=7,
        )
        await machine("blockdev-add", driver="snapshot-access", node_name="v", file="f")
        guest, reader = machine.guest("f"), machine.guest("v")
        saved.held = {"write"}
        write = asyncio.create_task(guest.pwrite(0, bytes(512)))
        await turns()
        machine.clock.step(6_999_999_999)
        await turns()
        assert not write.done()
        machine.clock.step(1)
        await turns()
        assert write.done()
        buf = bytearray(512)
        if policy == "break-snapshot":
            await write
            with pytest.raises(PermissionError):
                await reader.pread(0, buf)
        else:
            with pytest.raises(TimeoutError):
                await write
            await reader.pread(0, buf)
            assert buf == bytes([1]) * 512
        saved.let()
        for backend in (guest, reader):
            await machine.emu.graph.remove(backend)
        await machine("blockdev-del", node_name="v")
        await machine("blockdev-del", node_name="f")
        assert disk.parents == saved.parents == []
