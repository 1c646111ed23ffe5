"""How long a request must wait, by the limits of a group: leaky buckets.

A bucket takes in what requests weigh and leaks at the rate allowed; while it is over full, requests
wait.  After util/throttle.c; levels are floats there, too.
"""

from blockemu.records import record
from blockemu.throttling.limits import ThrottleConfig

SECOND = 1_000_000_000  # nanoseconds
_UNNAMED_BURST = 10  # without a burst rate, a tenth of a second's worth may pass at once
_WAYS = ("read", "write")


@record
class Bucket:
    """One limit: ``rate`` and ``burst`` a second, ``length`` of a burst in seconds; 0 is none."""

    rate: int
    burst: int
    length: int
    level: float = 0.0
    burst_level: float = 0.0

    def leak(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.level = max(self.level - self.rate * nanoseconds / SECOND, 0.0)
        if self.length > 1:
            self.burst_level = max(self.burst_level - self.burst * nanoseconds / SECOND, 0.0)

    def take(self, units: float) -> None:
        """Take a request in."""
        self.level += units
        if self.length > 1:
            self.burst_level += units

    def wait(self) -> int:
        """Return for how many nanoseconds nobody may pass (throttle_compute_wait)."""
        if not self.rate:
            return 0
        if not self.burst:
            return _wait(self.level - self.rate / _UNNAMED_BURST, self.rate)
        if wait := _wait(self.level - self.burst * self.length, self.rate):
            return wait
        if self.length > 1:
            return _wait(self.burst_level - self.burst / _UNNAMED_BURST, self.burst)
        return 0


def _wait(extra: float, rate: int) -> int:
    return int(extra * SECOND / rate) if extra > 0 else 0


class Buckets:
    """The six buckets of a group, as they were at the time of the last look."""

    def __init__(self, config: ThrottleConfig, now: int) -> None:
        limits = config.values
        self._size = limits["iops-size"]  # bytes that count as one request, 0: any number does
        self._last = now
        self._all = {
            (unit, way): Bucket(
                limits[f"{unit}-{way}"],
                limits[f"{unit}-{way}-max"],
                limits[f"{unit}-{way}-max-length"],
            )
            for unit in ("bps", "iops")
            for way in ("total", *_WAYS)
        }
        self.limited = any(bucket.rate for bucket in self._all.values())

    def wait(self, is_write: bool, now: int) -> int:
        """Return for how many nanoseconds a read or write must wait; ``now`` in nanoseconds."""
        passed, self._last = now - self._last, now
        if passed > 0:
            for bucket in self._all.values():
                bucket.leak(passed)
        return max(
            self._all[unit, way].wait() for unit in ("bps", "iops") for way in self._ways(is_write)
        )

    def take(self, is_write: bool, length: int) -> None:
        """Count a request of ``length`` bytes (throttle_account)."""
        requests = length / self._size if self._size and length > self._size else 1.0
        for way in self._ways(is_write):
            self._all["bps", way].take(length)
            self._all["iops", way].take(requests)

    @staticmethod
    def _ways(is_write: bool) -> tuple[str, str]:
        return "total", _WAYS[is_write]
