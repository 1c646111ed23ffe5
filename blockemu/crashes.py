"""What a crash may leave of a disk: a disk that records what is done to it, and all that follows.

Between two flushes a disk may keep any of the writes that it was told of, in any order, and of each
any sectors; what came before a flush that ended is there.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from blockemu.blockdev_options import NodeOptions
from blockemu.graph import Graph
from blockemu.journal import Change, Flushed, Resized, Wrote, apply
from blockemu.node import Flags, Node
from blockemu.records import record
from blockemu.services import Services

SECTOR: Final = 512


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


@record(frozen=True)
class Crash:
    """What a crash left: ``at`` changes of the log had been asked for by then."""

    at: int
    content: bytearray


@record(frozen=True)
class Crashes:
    """The same of several disks, by name."""

    at: int
    contents: dict[str, bytearray]


def crashes(
    content: bytes, log: Sequence[Change], bound: int, rng: random.Random
) -> Iterator[Crash]:
    """Yield what a crash may leave of one disk; as ``crashes_of_all``."""
    for crash in crashes_of_all({"": content}, [("", change) for change in log], bound, rng):
        yield Crash(crash.at, crash.contents[""])


def crashes_of_all(
    contents: Mapping[str, bytes],
    log: Sequence[tuple[str, Change]],
    bound: int,
    rng: random.Random,
) -> Iterator[Crashes]:
    """Yield what a crash may leave, at each point of a log.

    Of the changes since a disk's last flush there are all, or all but one, or one alone, or any
    two, or any at all, or the last is torn; at most ``bound`` of these for each point, chosen by
    ``rng``.
    """
    durable = {name: bytearray(content) for name, content in contents.items()}
    pending: list[tuple[str, Change]] = []

    def state(at: int, kept: Iterable[tuple[str, Change]]) -> Crashes:
        left = {name: bytearray(content) for name, content in durable.items()}
        for name, change in kept:
            apply(left[name], change)
        return Crashes(at, left)

    yield state(0, ())
    for at, (name, change) in enumerate(log, 1):
        if isinstance(change, Flushed):
            for _, each in (mine for mine in pending if mine[0] == name):
                apply(durable[name], each)
            pending = [other for other in pending if other[0] != name]
            continue
        pending.append((name, change))
        for kept in _subsets(len(pending), bound, rng):
            yield state(at, (pending[i] for i in kept))
        if isinstance(change, Wrote) and len(change.data) > SECTOR:
            parts = ((name, part) for part in torn(change, rng))
            yield state(at, (*pending[:-1], *parts))


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


def torn(change: Wrote, rng: random.Random) -> Iterator[Wrote]:
    """Yield some sectors of a write."""
    for at in range(0, len(change.data), SECTOR):
        if rng.random() < 0.5:
            yield Wrote(change.offset + at, change.data[at : at + SECTOR])
