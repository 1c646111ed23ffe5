"""Writes into new clusters that bring along what the write leaves of the old ones."""

from blockemu.route import Leaf


class Around(Leaf):
    """A leaf for one write: ``head`` goes before what is written, ``tail`` behind it.

    Saves the first write to a cluster of a backed image the way through coroutines (``make bench``:
    NBD, a qcow2 disk with a backing file, 4 KiB writes).
    """

    __slots__ = ("_below", "_head", "_tail", "inline_writes")

    def __init__(self, below: Leaf, head: memoryview, tail: memoryview) -> None:
        self._below = below
        self._head = head
        self._tail = tail
        self.inline_writes = below.inline_writes

    @property
    def writing(self) -> int:
        """The leaf's own: it is its bytes that change."""
        return self._below.writing

    @writing.setter
    def writing(self, value: int) -> None:
        self._below.writing = value

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Decline: this is for writing."""
        return False

    def read(self, offset: int, buf: memoryview) -> None:
        """Read what is there."""
        self._below.read(offset, buf)

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Write all three."""
        self._below.write_parts(offset - len(self._head), [self._head, buf, self._tail])

    def recall(self) -> None:
        """Take back what the leaf below has lent."""
        self._below.recall()
