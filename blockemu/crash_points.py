"""Power cuts at chosen moments: which one, what survives of what no flush has made durable.

The program's end is that of a killed one, but for its files: they are left as if the power had
gone, with all, none or some of the changes since the last flush.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import drained
from blockemu.crashes import torn
from blockemu.drivers.file import HostFile
from blockemu.errors import QmpError
from blockemu.journal import Change, Journal, JournalFile, Wrote
from blockemu.node import Node
from blockemu.records import record

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

STATUS: Final = 137  # exit status: what a shell says of a process that was killed


class NoFileBelow(QmpError):
    """The node keeps its data elsewhere."""

    template = "Node '{}' does not keep its data in a file"


class CannotCrash(QmpError):
    """The emulator is part of another program."""

    template = "This program cannot crash: the emulator is only a part of it"


@record(frozen=True)
class Point:
    """The ``count``-th time (from 1) that something happens.

    ``event``: "write" or "flush" of a file; "bitmap-write", a write while bitmaps are being stored;
    "prepare" or "commit", when an action of a transaction has just done that.  A write crashes when
    it has begun, so that it may survive; a flush before it takes effect.
    """

    event: str
    count: int
    file: JournalFile | None = None


class CrashPoints:
    """Where the program is to crash; made when the first is asked for."""

    def __init__(self, emulator: "Emulator", journal: Journal) -> None:
        self._emulator = emulator
        self.journal = journal
        self._armed: Point | None = None
        self._survivors = "all"
        self._rng = random.Random(0)
        self._seen = 0
        journal.watch = self._changed

    async def record(self) -> None:
        """Put all files under the journal, with what was written so far made durable."""
        async with drained(*self._emulator.graph):
            for node in list(self._emulator.graph):
                if isinstance(node, HostFile):
                    await node.flush()
                    self.take_in(node)
                    node.changed()

    def take_in(self, node: Node[Any]) -> None:
        """Put a node's file under the journal."""
        if isinstance(node, HostFile):
            with suppress(OSError):  # who may not write to it will not
                node.journal = self.journal.file(node.options.filename, node.fd)

    def file_of(self, node: Node[Any]) -> JournalFile:
        """Return the file that a node keeps its data in.

        Raises:
            NoFileBelow: it has none.
        """
        at = node
        while at.primary is not None:
            at = at.primary.node
        if not isinstance(at, HostFile) or not isinstance(at.journal, JournalFile):
            raise NoFileBelow(node.name)
        return at.journal

    def arm(self, point: Point | None, survivors: str, seed: int) -> None:
        """Crash at a point, at once if None."""
        self._survivors, self._rng, self._seen = survivors, random.Random(seed), 0
        self._armed = point
        if point is None:
            self.crash()

    def reached(self, event: str, file: JournalFile | None = None) -> None:
        """Count what happens, and crash if that was it."""
        point = self._armed
        if point is None or point.event != event or point.file not in (None, file):
            return
        self._seen += 1
        if self._seen == point.count:
            self.crash()

    def _changed(self, file: JournalFile, event: str) -> None:
        self.reached(event, file)
        if event == "write" and any(_stores_bitmaps(n) for n in self._nodes_of(file)):
            self.reached("bitmap-write", file)

    def _nodes_of(self, file: JournalFile) -> Iterator[Node[Any]]:
        every = iter(self._emulator.graph)
        return (node for node in every if isinstance(node, HostFile) and node.journal is file)

    def crash(self) -> None:
        """End the program as a power cut would; does not return."""
        self._emulator.pool.close()  # threads are not in the middle of anything
        self.journal.cut(self._choose())
        assert self._emulator.die is not None
        self._emulator.die(STATUS)

    def _choose(self) -> Iterator[tuple[JournalFile, Change]]:
        everything = self._survivors == "all"
        by_chance = self._survivors in ("some", "torn")
        for file, change in self.journal.changes():
            if everything or (by_chance and self._rng.random() < 0.5):
                yield file, change
            elif self._survivors == "torn" and isinstance(change, Wrote):
                for part in torn(change, self._rng):
                    yield file, part


def _stores_bitmaps(node: Node[Any]) -> bool:
    above = [edge.parent for edge in node.parents if edge.parent is not None]
    return any(parent.storing_bitmaps or _stores_bitmaps(parent) for parent in above)
