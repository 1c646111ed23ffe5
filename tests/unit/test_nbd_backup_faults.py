"""Backups to an NBD server that hangs up, at each message, by the emulator's clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes import CLUSTER, Machine
from nbd_cutter import SIZE, Server

HANDSHAKE = 4  # messages of the server: greeting, one refusal, what GO tells, its end
PIECES = range(0, SIZE, 2 * CLUSTER)  # each is a request of its own
SECOND = 1_000_000_000
TURNS = 200  # of the loop


class Backup:
    """A disk, every second cluster of which is to be copied, and the server it goes to."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder / "s.sock")
        self.machine = Machine()

    async def prepare(self, delay: int) -> None:
        await self.server.start()
        machine = self.machine
        self.source = machine.disk("s", os.urandom(SIZE))
        await machine("block-dirty-bitmap-add", node="s", name="b", granularity=CLUSTER)
        guest = machine.guest("s")
        for at in PIECES:
            await guest.pwrite(at, os.urandom(CLUSTER))
        await machine.emu.graph.remove(guest)
        address = {"type": "unix", "path": str(self.server.path)}
        options = {"driver": "nbd", "node-name": "t", "server": address, "reconnect-delay": delay}
        node = await machine.emu.opener.open(options)
        node.monitor_owned = True
        machine.news()

    async def run(self) -> str:
        """Back up what is dirty, time passing as soon as nothing else happens; return the end."""
        machine = self.machine
        members = {"job_id": "j", "device": "s", "target": "t", "bitmap": "b"}
        await machine("blockdev-backup", sync="incremental", **members)
        async with asyncio.timeout(20):
            while "j null" not in machine.said:
                await self._pass_time()
        return next(line for line in machine.news() if line.startswith("COMPLETED"))

    async def run_again(self) -> None:
        """Back up once more: that fails, but has a new connection made, and then it works."""
        before = self.server.connections
        if "Input/output error" not in await self.run():
            return
        async with asyncio.timeout(20):
            while self.server.connections == before or self.server.messages < HANDSHAKE:
                await self._pass_time()
        await self._pass_time()
        assert "Input/output error" not in await self.run()

    async def _pass_time(self) -> None:
        """Let all happen that needs no time, then go on to when something is due."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        clock = self.machine.clock
        if "j null" not in self.machine.said and clock.next_deadline is not None:
            clock.step(clock.next_deadline - clock.now())

    @property
    def dirty(self) -> int:
        """Bytes that the bitmap says are still to be copied."""
        assert self.source.bitmap_set is not None
        bitmap = self.source.bitmap_set.find("b")
        assert bitmap is not None
        return bitmap.bits.count * CLUSTER

    def copied(self) -> bool:
        disk, source = self.server.disk, self.source.data
        return all(disk[at : at + CLUSTER] == source[at : at + CLUSTER] for at in PIECES)


@asynccontextmanager
async def backup(folder: Path, delay: int) -> AsyncIterator[Backup]:
    it = Backup(folder)
    try:
        async with it.machine:
            await it.prepare(delay)
            yield it
    finally:
        await it.server.stop()


MESSAGES = range(HANDSHAKE, HANDSHAKE + len(PIECES))


@pytest.mark.parametrize("message", MESSAGES)
async def test_with_a_delay_a_backup_does_not_notice_that_the_server_hung_up(
    tmp_path: Path, message: int
) -> None:
    async with backup(tmp_path, 10) as it:
        it.server.cut = lambda connection, at: connection == 0 and at >= message
        whole = len(PIECES) * CLUSTER // 1024
        assert await it.run() == f"COMPLETED {whole}/{whole}K"
        assert it.server.connections == 2
        assert it.copied()
        assert not it.dirty


@pytest.mark.parametrize("message", MESSAGES)
async def test_without_one_a_backup_fails_and_its_bitmap_still_says_what_is_to_be_copied(
    tmp_path: Path, message: int
) -> None:
    async with backup(tmp_path, 0) as it:
        it.server.cut = lambda connection, at: connection == 0 and at >= message
        assert "Input/output error" in await it.run()
        assert it.dirty == len(PIECES) * CLUSTER
        await it.run_again()
        assert it.copied()
        assert not it.dirty


async def test_a_server_that_is_away_for_longer_than_the_delay_fails_the_backup(
    tmp_path: Path,
) -> None:
    async with backup(tmp_path, 10) as it:
        await it.server.stop()
        assert "Input/output error" in await it.run()
        assert 10 * SECOND <= it.machine.clock.now() < 20 * SECOND
        assert it.dirty == len(PIECES) * CLUSTER
        await it.server.start()
        await it.run_again()
        assert it.copied()
