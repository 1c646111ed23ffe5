"""Chains of backups of a disk that goes on changing: each equals the disk as it was when it began.

A history is random from its seed: guest writes come before, during and after the jobs, some are
under way while a backup is begun; jobs are slow, fail or are cancelled at any moment.  Two chains
with a bitmap of their own are made of one disk, each by any mode that keeps it whole.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import CLUSTER, Disk, Machine, turns
from guests import Guest, live

from blockemu.errors import QmpError

CLUSTERS = 6
SIZE = CLUSTERS * CLUSTER - 512 * 3
BACKUPS = 5
HISTORIES = 1000
AT_ONCE = 100


@dataclass
class Chain:
    """Backups by one bitmap, which tells where ``base`` is not like the disk."""

    bitmap: str
    base: bytes | None = None


class History(Guest):
    """One disk, its guest, and its chains."""

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__(machine, seed, SIZE)
        self.chains = [Chain("a"), Chain("b")]
        self.names = self._names()

    @staticmethod
    def _names() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"t{number}"

    def begin(self, chain: Chain) -> tuple[dict[str, Any], bytes]:
        """Choose what the next backup of a chain is like, and what its target holds before."""
        sync, mode = self.random.choice(
            [("incremental", None), ("incremental", "on-success")]
            + [("bitmap", mode) for mode in ("on-success", "always", "never")]
            + [("full", mode) for mode in ("on-success", "always")]
        )
        if chain.base is None:
            sync = "full"
            mode = self.random.choice(["on-success", "always"])
        all_of_it = chain.base is None or sync == "full"
        below = self.random.randbytes(SIZE) if all_of_it else chain.base
        options = {"sync": sync, "bitmap": chain.bitmap}
        return options | ({"bitmap_mode": mode} if mode else {}), below

    async def back_up(self, chain: Chain, *, disturbed: bool) -> None:
        """Make a backup; check what it holds, or note what is left of it."""
        options, below = self.begin(chain)
        name = next(self.names)
        target = self.machine.disk(name, below)
        if disturbed:
            self.disk.held |= set(self.random.choices(["read", "write", "zero"], k=2))
            target.held |= set(self.random.choices(["write", "zero"], k=1))
            for _ in range(self.random.randrange(3)):
                self.write()
        perf = {"max-workers": self.random.randint(1, 4)}
        arguments = {"job_id": name, "device": "s", "target": name, "x_perf": perf} | options
        command = asyncio.create_task(self.machine("blockdev-backup", **arguments))
        if disturbed:
            await self._disturb(name, target, command)
        self.disk.let()
        target.let()
        assert not isinstance(await command, QmpError)
        await self.machine.until(f"{name} null")
        await self.rest()
        good = any(re.fullmatch("COMPLETED .*K", line) for line in self.machine.news())
        self._conclude(chain, options, target, good=good)
        await self.machine("blockdev-del", node_name=name)

    async def _disturb(self, name: str, target: Disk, command: asyncio.Task[Any]) -> None:
        for _ in range(self.random.randrange(8)):
            await turns(self.random.randrange(6))
            match self.random.randrange(6):
                case 0 | 1:
                    self.write()
                case 2:
                    self.disk.let()
                case 3:
                    target.let()
                    target.held.add("write")
                case 4 if self.random.random() < 0.4:
                    target.errors["write"] = errno.EIO
                case 5 if self.random.random() < 0.4 and command.done():
                    cancel = {"device": name, "force": self.random.random() < 0.5}
                    words = self.machine("block-job-cancel", **cancel)
                    self.commands.append(asyncio.create_task(words))

    def _conclude(self, chain: Chain, options: dict[str, Any], target: Disk, *, good: bool) -> None:
        mode = options.get("bitmap_mode", "on-success")
        if good:
            assert target.data == self.moments[-1]
        if mode == "always" or (good and mode == "on-success"):
            chain.base = bytes(target.data)

    async def run(self) -> None:
        """Live it."""
        for chain in self.chains:
            await self.machine("block-dirty-bitmap-add", node="s", name=chain.bitmap)
        for _ in range(BACKUPS):
            for _ in range(self.random.randrange(4)):
                self.write()
            if self.random.random() < 0.5:
                await self.rest()  # else they are under way when the backup begins
            await self.back_up(self.random.choice(self.chains), disturbed=True)
        for chain in self.chains:
            await self.back_up(chain, disturbed=False)
            assert self.moments[-1] == self.disk.data
        await self.machine.emu.graph.remove(self.backend)


@pytest.mark.parametrize("first", range(0, HISTORIES, AT_ONCE))
async def test_each_backup_equals_the_disk_at_its_point_in_time(first: int) -> None:
    await live(History, range(first, first + AT_ONCE))
