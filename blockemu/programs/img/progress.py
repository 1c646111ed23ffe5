"""The progress that ``-p`` shows (after util/qemu-progress.c)."""

from collections.abc import Callable

import numpy as np


class Bar:
    """Progress that nobody sees."""

    def add(self, percent: float) -> None:
        """Be further by so much."""

    def set(self, percent: float) -> None:
        """Be as far as that."""

    def end(self) -> None:
        """Show no more."""


class VisibleBar(Bar):
    """Percents on a line that is written over and over, once it is at least ``skip`` further."""

    def __init__(self, write: Callable[[str], None], skip: float) -> None:
        # What QEMU counts in, and its rounding shows.
        self._real = np.float32
        self._write = write
        self._skip = self._real(skip)
        self._current = self._shown = self._real(0)

    def add(self, percent: float) -> None:  # noqa: D102
        self.set(float(self._current + self._real(percent)))

    def set(self, percent: float) -> None:  # noqa: D102
        self._current = min(self._real(percent), self._real(100))
        gone = abs(self._current - self._shown)
        if gone > self._skip or self._current in (0, 100):
            self._shown = self._current
            self._write(f"    ({self._current:3.2f}/100%)\r")

    def end(self) -> None:  # noqa: D102
        self._write("\n")
