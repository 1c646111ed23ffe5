"""Clusters that were written whole, so that the file need not be asked to make room for them."""

from typing import Final

WORTH_NOTING: Final = 16  # clusters in a row: making room for fewer is no work
MOST: Final = 4096  # rows noted


class Filled:
    """Rows of new clusters, since room was last made.

    Making room for 1 GiB that has it takes 40 ms on tmpfs (``make bench``: jobs, mirror; convert).
    """

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}  # by the first cluster: the one after the last

    def add(self, first: int, count: int) -> None:
        """Note a row that was written whole."""
        if count >= WORTH_NOTING and len(self._rows) < MOST:
            self._rows[first] = first + count

    def take_gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the rest of a row of clusters, as (first, after the last), and forget all."""
        gaps: list[tuple[int, int]] = []
        for first, after in sorted(self._rows.items()):
            if start < first < end:
                gaps.append((start, first))
            start = max(start, after)
        self._rows.clear()
        return [*gaps, (start, end)] if start < end else gaps
