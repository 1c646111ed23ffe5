"""Disks that come with a machine: blocks of a stream are written as they come.

After block_load, migration/block.c.
"""

import errno
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Final

import numpy as np

from blockemu.activation import activate
from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.migration import block_wire
from blockemu.migration.block_wire import BLOCK, SECTOR
from blockemu.migration.load import Reading, Work
from blockemu.migration.wire import Input
from blockemu.node import Write
from blockemu.perm import Perm

_INVALID: Final = -errno.EINVAL

Tell = Callable[[str], None]


class ComingBlocks:
    """The disks that come with one migration.

    ``report`` and ``warn`` tell what is wrong, with the program's name and without; ``show`` tells
    how much has come.
    """

    def __init__(self, graph: Graph, report: Tell, warn: Tell, show: Tell) -> None:
        self._graph = graph
        self._report = report
        self._warn = warn
        self._show = show
        self._shown = False
        self._own: dict[Backend, Backend] = {}  # for disks that no device writes to

    def load(self, source: Input, version: int) -> Reading:
        """Read one section."""
        name, disk = "", None
        while True:
            word = yield from source.u64()
            flags, offset = word & (SECTOR - 1), word & -SECTOR
            if flags & block_wire.DEVICE_BLOCK:
                size = yield from source.u8()
                raw = yield from source.exactly(size)
                told = raw.split(b"\0")[0].decode("utf-8", "surrogateescape")
                if disk is None or told != name:
                    name, disk = told, self._find(told)
                    opened = Work(self._opening(disk, name))
                    yield opened
                    if disk is None or opened.status:
                        return _INVALID
                data = None
                if not flags & block_wire.ZERO_BLOCK:
                    data = yield from source.exactly(BLOCK)
                written = Work(self._writing(disk, offset, data))
                yield written
                if written.status:
                    return written.status
            elif flags & block_wire.PROGRESS:
                self._progress(offset // SECTOR)
            elif not flags & block_wire.END:
                self._warn(f"Unknown block migration flags: 0x{flags:x}")
                return _INVALID
            if source.error:
                return -source.error
            if flags & block_wire.END:
                return 0

    def _progress(self, percent: int) -> None:
        if not self._shown:
            self._shown = True
            self._show("Receiving block device images\n")
        self._show(f"Completed {percent} %" + ("\n" if percent == 100 else "\r"))

    # Disks

    def _find(self, name: str) -> Backend | None:
        backend = self._graph.named(name)
        if backend is None:
            self._warn(f"Error unknown block device {name}")
        elif backend.inserted is None or not backend.node.length:
            self._report(f"Error getting length of block device {name}")
        else:
            return backend
        return None

    def _opening(self, disk: Backend | None, name: str) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            if disk is None:
                return _INVALID
            try:
                await activate(self._graph, disk.node)
                if Perm.WRITE not in disk.perm and disk not in self._own:
                    own = Backend(perm=Perm.WRITE, shared=Perm.ALL)
                    self._graph.insert(own, disk.node)
                    self._own[disk] = own
            except QmpError as e:
                self._report(str(e))
                return _INVALID
            return 0

        return run

    async def let_go(self) -> None:
        """Leave the disks to the machine."""
        own, self._own = self._own, {}
        for backend in own.values():
            await self._graph.remove(backend)

    # Blocks

    def _writing(
        self, disk: Backend, offset: int, data: bytes | None
    ) -> Callable[[], Awaitable[int]]:
        backend = self._own.get(disk, disk)

        async def run() -> int:
            try:
                if data is None:
                    length = min(BLOCK, backend.length - offset)
                    await backend.write_zeroes(offset, length, Write.MAY_UNMAP)
                else:
                    await _write(backend, offset, memoryview(data))
            except OSError as e:
                return -(e.errno or errno.EIO)
            return 0

        return run


async def _write(backend: Backend, offset: int, data: memoryview) -> None:
    """Write a block; clusters of it that are all zeroes become such."""
    cluster = backend.node.cluster_size or BLOCK
    if cluster > BLOCK or BLOCK % cluster:
        cluster = BLOCK
    rows = np.frombuffer(data, np.uint8).reshape(-1, cluster)
    used = np.asarray(rows.any(axis=1))
    turns = [0, *(np.flatnonzero(used[1:] != used[:-1]) + 1).tolist(), len(used)]
    for first, end in pairwise(turns):
        start, stop = first * cluster, end * cluster
        if used[first]:
            await backend.pwrite(offset + start, data[start:stop])
        else:
            await backend.write_zeroes(offset + start, stop - start, Write.MAY_UNMAP)
