"""Routes: where a node's bytes lie, worked out once and good until something changes.

A node that can say at any moment, without waiting, where the bytes of a request lie has a route;
its parents build theirs on it.  A route is thrown away when the graph, a bitmap, a filter's state
or a drain changes (``Node.changed``), and built again for the next request.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from blockemu.records import record, replace


class Marks(Protocol):
    """What records writes: a dirty bitmap, as far as the data path knows it."""

    enabled: bool

    def mark(self, offset: int, length: int) -> None:
        """Note that a byte range was written."""


class Written(Protocol):
    """What notes how far it was ever written to: a node."""

    highest_written: int


class Leaf(ABC):
    """Bytes at the bottom of the graph, reached without waiting.

    ``window`` lends the very bytes, not a copy.  Who still has some when it goes back to the event
    loop says so with ``lend``; whatever changes the bytes calls ``recall`` first, and the holder
    then takes a copy.  So a slow client still gets what was there when its read was planned.
    """

    __slots__ = ("_loans", "writing")
    inline_writes: bool = True  # whether write_now is fit for the event loop's thread
    data_start: int = 0  # a range without holes, as far as is known
    data_end: int = 1 << 63
    late: bool = False  # whether many reads or writes are cheaper together: see ``read_late``

    def __init__(self) -> None:
        self._loans: dict[object, Callable[[], None]] = {}
        self.writing = 0  # writes under way on threads; none may be lent meanwhile

    @abstractmethod
    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Fill ``buf``; return False, with ``buf`` undefined, if that would mean waiting."""

    @abstractmethod
    def read(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``, waiting if need be; zeroes beyond the end."""

    @abstractmethod
    def write_now(self, offset: int, buf: memoryview) -> None:
        """Write all of ``buf``, on any thread; what is lent is recalled already."""

    def write_parts(self, offset: int, parts: list[memoryview]) -> None:
        """Do as ``write_now`` with what is in several places."""
        self.write_now(offset, memoryview(b"".join(parts)))

    def read_late(self, offset: int, buf: memoryview) -> bool:
        """Do as ``read_now``, but leave what can be done for many at once to ``finish``."""
        return self.read_now(offset, buf)

    def finish(self, pieces: list[tuple[int, memoryview]]) -> None:
        """Finish what ``read_late`` put into buffers, by their offsets."""
        raise NotImplementedError

    def prepare(self, pieces: list[tuple[int, memoryview]]) -> list[memoryview]:
        """Return what ``write_prepared`` is to be given for data to be written."""
        return [data for _, data in pieces]

    def write_prepared(self, offset: int, buf: memoryview) -> None:
        """Do as ``write_now``."""
        self.write_now(offset, buf)

    def has_data(self, offset: int, length: int) -> bool:
        """Tell whether a range surely has no holes; if need be, ask."""
        return True

    def data_now(self, offset: int, end: int) -> list[tuple[int, int]] | None:
        """Return (start, end) of what is not a hole in a range; None if asking would take long."""
        return [(offset, end)]

    def window(self, offset: int, length: int) -> memoryview | None:
        """Return the very bytes, if they are in memory and keep still; None if that is not sure."""
        return None

    def lend(self, holder: object, copy: Callable[[], None]) -> None:
        """Note that ``holder`` has windows; ``copy`` makes it do without them."""
        self._loans[holder] = copy

    def repaid(self, holder: object) -> None:
        """Note that ``holder`` has no windows any more."""
        self._loans.pop(holder, None)

    def recall(self) -> None:
        """Take back what is lent; to be called on the event loop's thread before any change."""
        while self._loans:
            self._loans.popitem()[1]()


class LeafAbove(Leaf):
    """A leaf that changes what goes to another, or comes from it; it lends nothing itself."""

    __slots__ = ("_below", "inline_writes")

    def __init__(self, below: Leaf) -> None:
        self._loans = {}
        self._below = below
        self.inline_writes = below.inline_writes

    @property
    def writing(self) -> int:
        """The leaf's below: it is its bytes that change."""
        return self._below.writing

    @writing.setter
    def writing(self, value: int) -> None:
        self._below.writing = value

    def recall(self) -> None:
        """Take back what the leaf below has lent."""
        self._below.recall()


Segment = tuple[Leaf | None, int, int]  # leaf (None: zeroes), offset in it, length
Segments = Sequence[Segment]
Plan = Callable[[int, int], Segments | None]  # (offset, length), within bounds, length > 0
Commit = Callable[[bool], None]  # whether the bytes were written
Placed = tuple[Segments, Commit | None]
WritePlan = Callable[[int, int], Placed | None]
Ranges = Sequence[tuple[int, int]]  # (offset, length), one after the other


@record(frozen=True)
class Route:
    """How requests reach the bytes, as things stand.

    ``read`` and ``write`` answer at once with segments in request order, or None for 'not now, ask
    the node'; neither raises.  ``write`` may also return a commit, and then the caller must carry
    the write out and call it.  ``marks`` are the bitmaps to set when a write is done, with what to
    add to its offset.  ``linear`` says that offset x of the node is x + delta of one leaf, for all
    x: parents then skip the call, for what is not None of the two.  ``bare``: the bytes in files
    are the very ones that readers see, so the kernel may copy between files.  ``heights`` are the
    nodes that a write passes, likewise with what to add.  ``solid``: leaves of whose segments it
    does not matter whether there are holes below, since a format says that there is data;
    ``unsure``: those of which the format does not know yet.
    """

    read: Plan | None = None
    write: WritePlan | None = None
    marks: tuple[tuple[Marks, int], ...] = ()
    linear: tuple[Leaf, int] | None = None
    bare: bool = True
    heights: tuple[tuple[Written, int], ...] = ()
    solid: frozenset[Leaf] = frozenset()
    unsure: frozenset[Leaf] = frozenset()

    def reached(self, end: int) -> None:
        """Note that a write ended at an offset."""
        for node, delta in self.heights:
            if end + delta > node.highest_written:
                node.highest_written = end + delta

    def reads_only(self) -> "Route":
        """Return the route of who must see writes."""
        return Route(self.read, bare=self.bare, solid=self.solid, unsure=self.unsure)

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Fill ``buf`` if all of it is in one leaf and in memory; else it is undefined.

        Saves many small reads the way through coroutines (``make bench``: images).
        """
        if self.read is None or self.linear is None:
            return False
        leaf, delta = self.linear
        return leaf.read_now(offset + delta, buf)

    @property
    def readable_in_files(self) -> bool:
        """Whether what is read may be found in files as it is."""
        return self.bare and self.read is not None

    @property
    def writable_in_files(self) -> bool:
        """Whether what is written may go to files as it is."""
        return self.bare and self.write is not None

    def shifted(self, by: int) -> "Route":
        """Return the route of a window that begins at ``by``."""
        if self.linear is not None:
            leaf, delta = self.linear
            moved = linear(leaf, delta + by)
            new_read, new_write = self.read and moved.read, self.write and moved.write
        else:
            read, write = self.read, self.write
            moved = self
            new_read = read and (lambda offset, length: read(offset + by, length))
            new_write = write and (lambda offset, length: write(offset + by, length))
        return replace(
            self,
            read=new_read,
            write=new_write,
            marks=tuple((bitmap, at + by) for bitmap, at in self.marks),
            linear=moved.linear,
            heights=tuple((node, at + by) for node, at in self.heights),
        )


NO_ROUTE = Route()


def linear(leaf: Leaf, delta: int = 0) -> Route:
    """Return the route to one leaf's bytes."""

    def read(offset: int, length: int) -> Segments:
        return ((leaf, offset + delta, length),)

    def write(offset: int, length: int) -> tuple[Segments, None]:
        return ((leaf, offset + delta, length),), None

    return Route(read, write, (), (leaf, delta))
