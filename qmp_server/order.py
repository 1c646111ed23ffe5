"""The order in which QEMU walks the keys of an object: by hash bucket.

Two keys in one bucket come in reverse order of insertion (after qobject/qdict.c).
"""

from collections.abc import Iterable
from typing import Final

_BUCKETS: Final = 512
_MOST: Final = 8192  # keys remembered: clients choose keys, too


class Buckets(dict[str, int]):
    """The bucket of each key, computed once."""

    def __missing__(self, key: str) -> int:
        data = key.encode("utf-8", "surrogateescape" if key.isprintable() else "surrogatepass")
        value = 0x238F13AF * len(data)
        for i, byte in enumerate(data):
            value += byte << (i * 5 % 24)
        if len(self) > _MOST:
            self.clear()
        bucket = self[key] = ((1103515243 * value + 12345) & 0xFFFFFFFF) % _BUCKETS
        return bucket


bucket = Buckets().__getitem__


def in_order(keys: Iterable[str]) -> list[str]:
    """Return keys, given in order of insertion, in QEMU's order."""
    newest_first = list(keys)[::-1]
    return sorted(newest_first, key=bucket)
