"""Limiting the rate of jobs: so much in each slice of time (include/qemu/ratelimit.h)."""

from blockemu.clocks import Clock

SLICE = 100_000_000  # nanoseconds


class RateLimit:
    """Counts what was done and says how long to wait before doing more."""

    __slots__ = ("_clock", "_dispatched", "_end", "_quota", "_start")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quota = 0.0
        self._start = self._end = 0
        self._dispatched = 0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._quota > 0

    def set_speed(self, per_second: int) -> None:
        """Set the limit in units a second; 0 for none."""
        self._quota = float(int(max(per_second * SLICE / 1e9, 1))) if per_second else 0.0

    def delay(self, amount: int) -> int:
        """Count ``amount`` in; return the nanoseconds to wait before the next, 0 for none."""
        if not self._quota:
            return 0
        now = self._clock.now()
        if self._end < now:
            self._start, self._end, self._dispatched = now, now + SLICE, 0
        self._dispatched += amount
        if self._dispatched < self._quota:
            return 0
        self._end = self._start + int(self._dispatched / self._quota * SLICE)
        return self._end - now
