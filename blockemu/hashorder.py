"""The order in which GLib's hash table yields its keys.

QOM lists properties and children in that order, so a client sees it.  After ghash.c of GLib 2.74:
open addressing with triangular probing, a prime modulus below the power of two that is the size.
"""

from collections.abc import Iterator

_MIN_SHIFT = 3
_PRIMES = (1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521)
_GONE = ""  # a slot whose key was removed; probing goes on behind it


def string_hash(key: str) -> int:
    """Return g_str_hash's 32-bit value."""
    value = 5381
    for byte in key.encode():
        value = (value * 33 + (byte if byte < 128 else byte - 256)) & 0xFFFFFFFF
    return max(value, 2)  # 0 and 1 mark slots


class HashOrder:
    """Keys (not empty), iterated as GLib would."""

    def __init__(self, *keys: str) -> None:
        self._slots: list[str | None] = [None] * (1 << _MIN_SHIFT)
        self._count = 0
        self._occupied = 0  # keys and removed keys
        for key in keys:
            self.add(key)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in slot order."""
        return (key for key in self._slots if key)

    def add(self, key: str) -> None:
        """Add a key that is not there."""
        free = None
        for at in self._probe(key):
            if self._slots[at] is None:
                break
            if self._slots[at] == _GONE and free is None:
                free = at
        self._count += 1
        if free is not None:
            self._slots[free] = key
            return
        self._slots[at] = key
        self._occupied += 1
        self._resize_if_due()

    def remove(self, key: str, *, shrink: bool = False) -> None:
        """Remove a key that is there, by its name (which may ``shrink``) or by an iterator."""
        self._slots[self._slots.index(key)] = _GONE
        self._count -= 1
        if shrink:
            self._resize_if_due()

    def _probe(self, key: str) -> Iterator[int]:
        size = len(self._slots)
        at = (string_hash(key) * 11 & 0xFFFFFFFF) % _PRIMES[size.bit_length() - 1]
        step = 0
        while True:
            yield at
            step += 1
            at = (at + step) % size

    def _resize_if_due(self) -> None:
        size = len(self._slots)
        too_big = size > self._count * 4 and size > 1 << _MIN_SHIFT
        if not too_big and size > self._occupied + self._occupied // 16:
            return
        old = self._slots
        shift = max(int(self._count * 1.333).bit_length(), _MIN_SHIFT)
        self._slots = [None] * (1 << shift)
        waiting = dict(enumerate(old))
        placed: set[int] = set()
        for start in range(len(old)):
            key = waiting.pop(start, None)
            while key:  # a key goes to its place and drives out what still waits there
                at = next(at for at in self._probe(key) if at not in placed)
                placed.add(at)
                self._slots[at] = key
                key = waiting.pop(at, None)
        self._occupied = self._count
