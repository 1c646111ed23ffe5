"""Writes into new clusters that bring along what the write leaves of the old ones."""

from blockemu.route import Leaf, LeafAbove


class Around(LeafAbove):
    """A leaf for one write: ``head`` goes before what is written, ``tail`` behind it.

    Saves the first write to a cluster of a backed image the way through coroutines (``make bench``:
    NBD, a qcow2 disk with a backing file, 4 KiB writes).
    """

    __slots__ = ("_head", "_tail")

    def __init__(self, below: Leaf, head: memoryview, tail: memoryview) -> None:
        super().__init__(below)
        self._head = head
        self._tail = tail

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Decline: this is for writing."""
        return False

    def read(self, offset: int, buf: memoryview) -> None:
        """Read what is there."""
        self._below.read(offset, buf)

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Write all three."""
        self._below.write_parts(offset - len(self._head), [self._head, buf, self._tail])
