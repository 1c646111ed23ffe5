"""A disk in memory with a guest that writes to it at any time, for histories of backups."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Iterable
from typing import Any

from fakes import CLUSTER, Disk, Machine

from blockemu.backend import Backend
from blockemu.node import Node

HANGS = 60  # seconds after which a history is taken to hang


class Guest:
    """One disk ``s`` and its guest, both random from a seed.

    ``moments`` are the bytes of the disk whenever a filter went above it.
    """

    def __init__(self, machine: Machine, seed: int, size: int) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.size = size
        self.disk: Disk = machine.disk("s", self.random.randbytes(size))
        self.backend: Backend = machine.guest("s", plans=self.random.random() < 0.5)
        self.writes: list[asyncio.Task[None]] = []
        self.commands: list[asyncio.Task[Any]] = []  # they may wait for a drained section
        self.moments: list[bytes] = []
        self._watch()

    def _watch(self) -> None:
        graph = self.machine.emu.graph
        insert = graph.insert_above

        async def watched(top: Node[Any], node: Node[Any]) -> None:
            self.moments.append(bytes(self.disk.data))
            await insert(top, node)
            assert self.disk.data == self.moments[-1]  # the filter is there; nothing slipped in

        graph.insert_above = watched  # type: ignore[method-assign]

    async def run(self) -> None:
        """Live the whole history."""
        raise NotImplementedError

    def write(self) -> None:
        """Begin a request."""
        self.writes.append(asyncio.create_task(self._write()))

    async def _write(self) -> None:
        offset = self.random.randrange(self.size)
        most = self.random.choice([1, 512, 4096, CLUSTER, 2 * CLUSTER])
        length = min(self.random.randint(1, most), self.size - offset)
        try:
            if self.random.random() < 0.2:
                await self.backend.write_zeroes(offset, length)
            else:
                await self.backend.pwrite(offset, self.random.randbytes(length))
        except OSError as e:
            if e.errno != errno.EIO:  # the old data could not be saved
                raise

    async def rest(self) -> None:
        """Wait for all requests."""
        self.disk.let()
        await asyncio.gather(*self.writes, *self.commands)
        self.writes.clear()
        self.commands.clear()


async def live(kind: Callable[[Machine, int], Guest], seeds: Iterable[int]) -> None:
    """Live a history of a kind from each seed; what goes wrong tells its seed."""
    for seed in seeds:
        async with Machine() as machine:
            history = kind(machine, seed)
            try:
                async with asyncio.timeout(HANGS):
                    await history.run()
            except BaseException as e:
                e.add_note(f"history {seed}")
                raise
