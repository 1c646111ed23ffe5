"""The progress that ``-p`` shows (after util/qemu-progress.c)."""

from collections.abc import Callable

import numpy as np

Real = np.float32  # what QEMU counts in, and its rounding shows


class Bar:
    """Percents on a line that is written over and over, once it is at least ``skip`` further."""

    def __init__(self, write: Callable[[str], None] | None, skip: float) -> None:
        self._write = write
        self._skip = Real(skip)
        self._current = self._shown = Real(0)

    def add(self, percent: float) -> None:
        """Be further by so much."""
        self.set(float(self._current + Real(percent)))

    def set(self, percent: float) -> None:
        """Be as far as that."""
        self._current = min(Real(percent), Real(100))
        gone = abs(self._current - self._shown)
        if gone > self._skip or self._current in (0, 100):
            self._shown = self._current
            if self._write is not None:
                self._write(f"    ({self._current:3.2f}/100%)\r")

    def end(self) -> None:
        """Show no more."""
        if self._write is not None:
            self._write("\n")
