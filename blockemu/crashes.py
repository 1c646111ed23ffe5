"""What a crash may leave of a disk: a disk that records what is done to it, and all that follows.

Between two flushes a disk may keep any of the writes that it was told of, in any order, and of each
any sectors; what came before a flush that ended is there.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from blockemu.blockdev_options import NodeOptions
from blockemu.graph import Graph
from blockemu.node import Flags, Node
from blockemu.services import Services

SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes were written; ``data`` is what lies at ``offset`` from then on."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """The disk has another length, in bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """All that was done before is durable."""


Change = Wrote | Resized | Flushed


class RecordingDisk(Node[NodeOptions]):
    """A disk in memory; ``log`` has what was done to it since it was made."""

    Options = NodeOptions
    is_protocol = True

    def __init__(self, name: str, content: bytes, services: Services) -> None:
        options = NodeOptions()
        super().__init__(name, "recording", options, Flags(unmap=True), services)
        self.content = bytearray(content)
        self.log: list[Change] = []

    @classmethod
    def add(cls, graph: Graph, name: str, content: bytes, services: Services) -> "RecordingDisk":
        """Make a disk and add it to a graph, where it stays until ``Graph.delete``."""
        disk = cls(name, content, services)
        graph.add(disk)
        disk.monitor_owned = True
        return disk

    @property
    def length(self) -> int:
        """The disk's size."""
        return len(self.content)

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read what is there; beyond the end are zeroes."""
        buf[:] = bytes(self.content[offset : offset + len(buf)]).ljust(len(buf), b"\0")

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write, and record it."""
        self._write(Wrote(offset, bytes(buf)))

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Write zeroes, and record it."""
        self._write(Wrote(offset, bytes(length)))

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range: zeroes, within what there is."""
        length = min(length, len(self.content) - offset)
        if length > 0:
            self._write(Wrote(offset, bytes(length)))

    async def flush(self) -> None:
        """Record it."""
        if self.log and not isinstance(self.log[-1], Flushed):
            self.log.append(Flushed())

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Change the size, and record it."""
        change = Resized(length)
        apply(self.content, change)
        self.log.append(change)

    def _write(self, change: Wrote) -> None:
        apply(self.content, change)
        self.log.append(change)
        self.changed()  # the length may be another


def apply(content: bytearray, change: Change) -> None:
    """Do to some bytes what was done to a disk."""
    match change:
        case Wrote(offset, data):
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case Resized(length):
            del content[length:]
            content.extend(bytes(length - len(content)))


@dataclass(frozen=True, slots=True)
class Crash:
    """What a crash left: ``at`` changes of the log had been asked for by then."""

    at: int
    content: bytearray


def crashes(
    content: bytes, log: Sequence[Change], bound: int, rng: random.Random
) -> Iterator[Crash]:
    """Yield what a crash may leave, at each point of a log.

    Of the changes since the last flush there are all, or all but one, or one alone, or any two, or
    any at all, or the last is torn; at most ``bound`` of these for each point, chosen by ``rng``.
    """
    durable, start = bytearray(content), 0
    yield Crash(0, bytearray(durable))
    for at, change in enumerate(log, 1):
        if isinstance(change, Flushed):
            for each in log[start:at]:
                apply(durable, each)
            start = at
            continue
        pending = log[start:at]
        for kept in _subsets(len(pending), bound, rng):
            state = bytearray(durable)
            for i in kept:
                apply(state, pending[i])
            yield Crash(at, state)
        if isinstance(change, Wrote) and len(change.data) > SECTOR:
            state = bytearray(durable)
            for each in pending[:-1]:
                apply(state, each)
            for part in _torn(change, rng):
                apply(state, part)
            yield Crash(at, state)


def _subsets(count: int, bound: int, rng: random.Random) -> Iterator[Sequence[int]]:
    """Yield sets of changes of which the last of ``count`` is the newest, in some order."""
    everything = list(range(count))
    yield everything
    if count < 2:
        return
    last = count - 1
    found: list[tuple[int, ...]] = [(last,)]
    found += [tuple(everything[:i] + everything[i + 1 :]) for i in range(last)]
    found += [pair for pair in combinations(everything, 2) if pair[1] == last]
    found += [tuple(i for i in everything if rng.random() < 0.5) for _ in range(4)]
    yield from rng.sample(found, min(bound - 1, len(found)))


def _torn(change: Wrote, rng: random.Random) -> Iterator[Wrote]:
    """Yield some sectors of a write."""
    for at in range(0, len(change.data), SECTOR):
        if rng.random() < 0.5:
            yield Wrote(change.offset + at, change.data[at : at + SECTOR])
