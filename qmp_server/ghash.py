"""Which of several unexpected members QEMU names: the first in a GLib hash table of what is left.

The table is open-addressed, keyed by the djb2 hash, and is resized as members are taken out, so the
answer follows from the names, the order they came in, and the order they were looked at.
"""

from collections.abc import Sequence
from typing import Final

from blockemu.qmp_server.order import in_order

_PRIMES: Final = (1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749)
_MIN_SHIFT: Final = 3
_BIG: Final = 1 << 12  # more members than this: name any
_Slot = tuple[int, str] | None  # None: never used; ("", 1): taken out


class _Table:
    """As much of GHashTable as its order needs."""

    def __init__(self) -> None:
        self.shift = _MIN_SHIFT
        self.slots: list[_Slot] = [None] * 8
        self.used = self.nodes = 0

    def _home(self, hashed: int) -> int:
        return (hashed * 11 & 0xFFFFFFFF) % _PRIMES[self.shift]

    def _find(self, hashed: int, name: str) -> int:
        mask = len(self.slots) - 1
        index, step, tombstone = self._home(hashed), 0, -1
        while (slot := self.slots[index]) is not None:
            if slot == (hashed, name):
                return index
            if slot[0] == 1 and tombstone < 0:
                tombstone = index
            step += 1
            index = (index + step) & mask
        return tombstone if tombstone >= 0 else index

    def insert(self, name: str) -> None:
        hashed = _djb2(name)
        index = self._find(hashed, name)
        fresh = self.slots[index] is None
        self.slots[index] = (hashed, name)
        self.nodes += 1
        if fresh:
            self.used += 1
            self._maybe_resize()

    def remove(self, name: str) -> None:
        self.slots[self._find(_djb2(name), name)] = (1, "")
        self.nodes -= 1
        self._maybe_resize()

    def _maybe_resize(self) -> None:
        size = len(self.slots)
        if (
            size > self.nodes * 4 and size > 1 << _MIN_SHIFT
        ) or size <= self.used + self.used // 16:
            self.shift = max(int(self.nodes * 1.333).bit_length(), _MIN_SHIFT)
            self._rehash()
            self.used = self.nodes

    def _rehash(self) -> None:
        """Move all to their new places in the same array, whoever is in the way first."""
        new = 1 << self.shift
        slots = self.slots
        slots.extend([None] * (new - len(slots)))
        settled: set[int] = set()
        for i in range(len(slots)):
            moving = slots[i]
            if i in settled or moving is None:
                continue
            slots[i] = None
            while moving is not None and moving[0] > 1:
                index, step = self._home(moving[0]), 0
                while index in settled:
                    step += 1
                    index = (index + step) & (new - 1)
                settled.add(index)
                slots[index], moving = moving, slots[index]
        del slots[new:]


def _djb2(name: str) -> int:
    value = 5381
    for byte in name.encode("utf-8", "surrogateescape"):
        value = (value * 33 + (byte - 256 if byte > 127 else byte)) & 0xFFFFFFFF
    return max(value, 2)


def first_left(names: Sequence[str], visited: Sequence[str]) -> str:
    """Return the member that is named when all of ``names`` but ``visited`` are unexpected."""
    if len(names) > _BIG:
        return next(name for name in names if name not in set(visited))
    table = _Table()
    for name in in_order(names):
        table.insert(name)
    for name in visited:
        table.remove(name)
    return next(slot[1] for slot in table.slots if slot is not None and slot[0] > 1)
