"""What a check works on: the bytes of an image, and somebody to tell of them.

The check itself does no I/O: it runs on an open node (``NodeStorage`` in
``drivers.qcow2.checking``) as well as on bytes in memory (``MemoryStorage``), where it never waits.
"""

import errno
from collections.abc import Coroutine, Iterator
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

from blockemu.images.qcow2.extensions import BitmapsExtension
from blockemu.images.qcow2.geometry import Geometry
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.images.qcow2.tables import I64, Table
from blockemu.os_errors import os_error
from blockemu.records import field, record

T = TypeVar("T")


class Storage(Protocol):
    """The file with the metadata; offsets and lengths in bytes.

    Errors are OSError.  What lies beyond the end reads as zeroes.
    """

    @property
    def length(self) -> int:
        """The file's size."""

    @property
    def broken(self) -> bool:
        """Whether single counts are not to be repaired any more, since corruption was met."""

    async def read(self, offset: int, length: int) -> memoryview:
        """Return some bytes, which the caller may change."""

    async def fill(self, offset: int, data: memoryview) -> None:
        """Read some bytes into memory at hand."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write some bytes."""

    async def discard(self, offset: int, length: int) -> None:
        """Let the file do without a range; errors do not matter."""

    async def grow(self, length: int) -> None:
        """Make the file longer."""

    async def guard(self, offset: int, length: int, ignore: frozenset[str]) -> None:
        """Raise EIO if a write would hit metadata, save that of the kinds to ``ignore``."""

    def moved(self, table: Table, offset: int) -> None:
        """Take note that there is another refcount table from now on."""

    async def corrupt(self, message: str) -> None:
        """Tell that the image is corrupt beyond use."""

    def say(self, text: str) -> None:
        """Tell the user: a line on standard error."""

    def report(self, text: str) -> None:
        """Tell the user of an error: a line with the program's name."""


@record
class Structure:
    """What the header says, and the tables that are always in memory.

    ``length`` is the disk's size in bytes.  A check changes what it repairs.
    """

    geometry: Geometry
    length: int
    l1: Table
    l1_offset: int
    reftable: Table
    reftable_offset: int
    crypto: tuple[int, int] | None = None
    bitmaps: BitmapsExtension | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    snapshots_offset: int = 0
    snapshots_size: int = 0


class MemoryStorage:
    """An image in memory, whose lines are collected."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.lines: list[str] = []

    @property
    def length(self) -> int:
        """The image's size in bytes."""
        return len(self.data)

    async def read(self, offset: int, length: int) -> memoryview:
        """Return some bytes; beyond the end are zeroes."""
        return memoryview(bytearray(self.data[offset : offset + length].ljust(length, b"\0")))

    async def fill(self, offset: int, data: memoryview) -> None:
        """Read some bytes into ``data``."""
        data[:] = await self.read(offset, len(data))

    async def write(self, offset: int, data: bytes) -> None:
        """Write some bytes, growing the image if need be."""
        if offset > len(self.data):
            await self.grow(offset)
        self.data[offset : offset + len(data)] = data

    async def discard(self, offset: int, length: int) -> None:
        """Zero a range."""
        length = max(0, min(length, len(self.data) - offset))
        self.data[offset : offset + length] = bytes(length)

    async def grow(self, length: int) -> None:
        """Append zeroes, up to a size that memory is likely to have."""
        if length > 1 << 30:
            raise os_error(errno.EFBIG)
        self.data.extend(bytes(length - len(self.data)))

    @property
    def broken(self) -> bool:
        """Tell that all can be written."""
        return False

    async def guard(self, offset: int, length: int, ignore: frozenset[str]) -> None:
        """Let all writes pass: the check alone writes."""

    def moved(self, table: Table, offset: int) -> None:
        """Do nothing: nobody guards tables here."""

    async def corrupt(self, message: str) -> None:
        """Collect a message."""
        self.lines.append(f"corrupt: {message}")

    def say(self, text: str) -> None:
        """Collect a line."""
        self.lines.append(text)

    def report(self, text: str) -> None:
        """Collect a line."""
        self.lines.append(f"error: {text}")


def rows(hosts: I64, size: int) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the indexes of clusters of ``size`` bytes that lie in a row."""
    breaks = np.flatnonzero(hosts[1:] - hosts[:-1] != size) + 1
    return pairwise([0, *breaks.tolist(), len(hosts)])


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, as a check in memory, and return its value."""
    try:
        work.send(None)
    except StopIteration as e:
        result: T = e.value
        return result
    work.close()
    raise AssertionError("it waited")
