"""A block layer without files: disks in memory that can be made slow or broken, and stepped time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from blockemu.backend import Backend
from blockemu.blockdev_options import NodeOptions
from blockemu.clocks import Clocks, SteppedClock
from blockemu.commands import load
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.node import Flags, Limits, Node
from blockemu.perm import Perm
from blockemu.schema.jobs import JobStatusChange

KIB, MIB = 1 << 10, 1 << 20
CLUSTER = 64 * KIB


class Disk(Node[NodeOptions]):
    """Bytes in memory; its requests can be held up, and can fail.

    ``held``: kinds of requests ("read", "write", "zero", "flush") that wait for ``let``.
    ``errors``: errno by kind.  ``log``: (kind, offset, length) in order of arrival.
    """

    Options = NodeOptions
    is_protocol = True

    def __init__(self, emu: Emulator, name: str, data: bytes, **flags: Any) -> None:
        super().__init__(name, "memory", NodeOptions(), Flags(**flags), emu)
        self.data = bytearray(data)
        self.held: set[str] = set()
        self.errors: dict[str, int] = {}
        self.log: list[tuple[str, int, int]] = []
        self.extents: Extents | None = None
        self.full_filename = self.exact_filename = name
        self._gates: list[asyncio.Future[None]] = []

    @property
    def length(self) -> int:
        return len(self.data)

    @property
    def cluster_size(self) -> int:
        return CLUSTER

    def let(self) -> None:
        """Let all held requests go on, and hold none any more."""
        self.held.clear()
        gates, self._gates = self._gates, []
        for gate in gates:
            if not gate.done():
                gate.set_result(None)

    async def _pass(self, kind: str, offset: int, length: int) -> None:
        self.log.append((kind, offset, length))
        if kind in self.held:
            self._gates.append(asyncio.get_running_loop().create_future())
            await self._gates[-1]
        if kind in self.errors:
            code = self.errors[kind]
            raise OSError(code, os.strerror(code))

    async def pread(self, offset: int, buf: memoryview) -> None:
        await self._pass("read", offset, len(buf))
        part = self.data[offset : offset + len(buf)]
        buf[: len(part)] = part
        buf[len(part) :] = bytes(len(buf) - len(part))

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        await self._pass("write", offset, len(buf))
        self.data[offset : offset + len(buf)] = buf

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self._pass("zero", offset, length)
        self.data[offset : offset + length] = bytes(length)

    async def flush(self) -> None:
        await self._pass("flush", 0, 0)

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        await self._pass("truncate", 0, length)
        self.data = self.data[:length] + bytes(max(0, length - len(self.data)))

    async def block_status(self, offset: int, length: int) -> Extents:
        if self.extents is not None:
            return self.extents.clip(offset, min(offset + length, self.extents.end))
        return Extents.one(offset, length, DATA | ALLOCATED, offset)


class Machine:
    """An emulator whose time is stepped, and all it says, in order, in ``said``.

    A job's new state is "ID STATE", another event is its name and what matters of it, the reply to
    a command is "reply", an error its text.
    """

    registry = load()

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.emu = Emulator(clocks=Clocks(self.clock))
        self.said: list[str] = []
        self.warnings: list[str] = []
        self.emu.listeners.append(self._hear)
        self.emu.warnings = self.warnings.append

    async def __aenter__(self) -> Machine:
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with asyncio.timeout(20):
            await self.emu.close()

    def _hear(self, event: Any) -> None:
        if isinstance(event, JobStatusChange):
            self.said.append(f"{event.id} {event.status.value}")
            return
        shown = [type(event).event.removeprefix("BLOCK_JOB_")]
        if hasattr(event, "offset"):
            shown.append(f"{event.offset // KIB}/{event.len // KIB}K")
        shown += [getattr(event, m).value for m in ("operation", "action") if hasattr(event, m)]
        if getattr(event, "error", None):
            shown.append(event.error)
        self.said.append(" ".join(shown))

    def news(self) -> list[str]:
        """Return what was said since the last time."""
        said, self.said[:] = list(self.said), []
        return said

    async def __call__(self, name: str, /, **members: Any) -> Any:
        """Execute a command as a monitor does; the reply goes into ``said``, too."""
        command = self.registry.get(name)
        assert command is not None, name
        hold = self.emu.jobs.hold()
        if hold is not None:
            await hold
        try:
            arguments = {key.replace("_", "-"): value for key, value in members.items()}
            result = command.run(self, arguments)
            if command.is_async:
                result = await result
        except QmpError as e:
            self.said.append(str(e))
            result = e
        else:
            self.said.append("reply")
        hold = self.emu.jobs.hold()
        if hold is not None:  # the reply comes after what happens in the same turn
            reply = self.said.pop()
            await hold
            self.said.append(reply)
        return result

    def disk(self, name: str, data: bytes | int = 4 * MIB, **flags: Any) -> Disk:
        """Make a disk that the monitor owns."""
        disk = Disk(self.emu, name, bytes(data) if isinstance(data, int) else data, **flags)
        disk.monitor_owned = True
        self.emu.graph.add(disk)
        return disk

    def align(self, disk: Disk, **limits: int) -> None:
        """Give a disk other limits."""
        disk.limits = Limits(**limits)
        disk.changed()

    def guest(self, node: str, *, plans: bool = True) -> Backend:
        """Put a guest on a node."""
        backend = Backend("", Perm.CONSISTENT_READ | Perm.WRITE, Perm.ALL, plans=plans)
        self.emu.graph.insert(backend, self.emu.graph.find(node))
        return backend

    async def until(self, word: str) -> None:
        """Let things happen until something was said that begins so."""
        async with asyncio.timeout(20):
            while not any(line.startswith(word) for line in self.said):
                await asyncio.sleep(0)

    def job(self, name: str = "j") -> Any:
        return self.emu.jobs.find(name)


async def turns(count: int = 30) -> None:
    """Let the loop turn; enough for anything that does not wait for something outside."""
    for _ in range(count):
        await asyncio.sleep(0)
