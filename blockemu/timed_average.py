"""Least, greatest and average value over about a time (after util/timed-average.c).

Two windows of 4/3 of that time run half a window apart; answers come from the older one, which has
seen between 2/3 and 4/3 of the time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockemu.clocks import Clock


class _Window:
    def __init__(self, end: int) -> None:
        self.end = end
        self.reset()

    def reset(self) -> None:
        self.values = self.sum = self.most = 0
        self.least: int | None = None


class TimedAverage:
    """Values by the time they came; ``period`` in nanoseconds, positive."""

    def __init__(self, clock: "Clock", period: int) -> None:
        self._clock = clock
        self._period = period * 4 // 3
        now = clock.now()
        self._windows = (_Window(now + self._period // 2), _Window(now + self._period))

    def add(self, value: int) -> None:
        """Take a value in."""
        self._current()
        for window in self._windows:
            window.values += 1
            window.sum += value
            window.most = max(window.most, value)
            window.least = value if window.least is None else min(window.least, value)

    def limits(self) -> tuple[int, int, int]:
        """Return the least, greatest and average value, zeroes if there is none."""
        window = self._current()
        if window.least is None:
            return 0, 0, 0
        return window.least, window.most, window.sum // window.values

    def depth(self) -> float:
        """Return how much of the time the values, taken as times, fill."""
        window = self._current()
        return window.sum / (self._period - (window.end - self._clock.now()))

    def _current(self) -> _Window:
        """Empty the windows that are over; return the older one."""
        now = self._clock.now()
        for window in self._windows:
            if window.end <= now:
                window.reset()
                window.end = now + self._period - (now - window.end) % self._period
        return min(self._windows, key=lambda window: window.end)
