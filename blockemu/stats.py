"""What a backend's user has asked of it: counts, times, latencies (after block/accounting.c).

Devices and qemu-io's aio requests are accounted, each by whoever makes it; jobs and exports are
not.  All times are nanoseconds, by ``Clocks.accounting``.
"""

from bisect import bisect_right
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from blockemu.timed_average import TimedAverage

if TYPE_CHECKING:
    from blockemu.clocks import Clock, Clocks

_SECOND = 1_000_000_000


class Kind(Enum):
    """What a request is for."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    UNMAP = "unmap"


class Histogram:
    """How many requests took how long; bin i counts those below ``boundaries[i]``."""

    def __init__(self, boundaries: Sequence[int]) -> None:
        self.boundaries = list(boundaries)  # ascending, nanoseconds
        self.bins = [0] * (len(self.boundaries) + 1)

    def add(self, latency: int) -> None:
        """Count one request."""
        self.bins[bisect_right(self.boundaries, latency)] += 1


class Account:
    """Requests of one kind."""

    def __init__(self) -> None:
        self.operations = 0
        self.bytes = 0
        self.total_time_ns = 0
        self.failed = 0
        self.invalid = 0
        self.merged = 0
        self.histogram: Histogram | None = None


class Interval:
    """The latencies of about the last ``seconds``."""

    def __init__(self, seconds: int, clock: "Clock") -> None:
        self.seconds = seconds
        self.latency = {kind: TimedAverage(clock, seconds * _SECOND) for kind in Kind}


class Stats:
    """The accounts of a backend.

    ``account_invalid`` and ``account_failed`` say whether such requests count as accesses, and
    failed ones in times.
    """

    def __init__(self) -> None:
        self.accounts = {kind: Account() for kind in Kind}
        self.intervals: list[Interval] = []
        self.account_invalid = True
        self.account_failed = True
        self.last_access = 0  # 0: never

    def __getitem__(self, kind: Kind) -> Account:
        return self.accounts[kind]

    def set_up(self, invalid: bool | None, failed: bool | None) -> None:
        """Change what counts; None leaves it (block_acct_setup)."""
        if invalid is not None:
            self.account_invalid = invalid
        if failed is not None:
            self.account_failed = failed

    def begin(self, kind: Kind, length: int, clocks: "Clocks") -> "Measured":
        """Begin a request of ``length`` bytes; who does ends it."""
        return Measured(self, kind, length, clocks)

    def invalid(self, kind: Kind, clocks: "Clocks") -> None:
        """Count a request that could not even begin."""
        self.accounts[kind].invalid += 1
        if self.account_invalid:
            self.last_access = clocks.accounting.now()

    def set_histogram(self, kind: Kind, boundaries: Sequence[int]) -> None:
        """Count the latencies of one kind anew, between other boundaries.

        Raises:
            ValueError: they are not ascending, or the first is 0.
        """
        if any(a >= b for a, b in zip([0, *boundaries], boundaries, strict=False)):
            raise ValueError("boundaries must be positive and ascending")
        self.accounts[kind].histogram = Histogram(boundaries)

    def clear_histograms(self) -> None:
        """Count latencies no more."""
        for account in self.accounts.values():
            account.histogram = None

    def idle_time(self, clocks: "Clocks") -> int | None:
        """Return how long the last access was ago, None if there was none."""
        return clocks.accounting.now() - self.last_access if self.last_access > 0 else None


class Measured:
    """A request under way; ``done`` or ``failed`` ends it, once."""

    __slots__ = ("_begun", "_clocks", "_kind", "_length", "_stats")

    def __init__(self, stats: Stats, kind: Kind, length: int, clocks: "Clocks") -> None:
        self._stats = stats
        self._kind = kind
        self._length = length
        self._clocks = clocks
        self._begun = clocks.accounting.now()

    def done(self) -> None:
        """Account a success."""
        account = self._stats[self._kind]
        account.operations += 1
        account.bytes += self._length
        self._end(counts=True)

    def failed(self) -> None:
        """Account a failure."""
        self._stats[self._kind].failed += 1
        self._end(counts=self._stats.account_failed)

    def _end(self, *, counts: bool) -> None:
        stats, now = self._stats, self._clocks.accounting.now()
        account, made_up = stats[self._kind], self._clocks.made_up_latency
        latency = now - self._begun if made_up is None else made_up
        if account.histogram is not None:
            account.histogram.add(latency)
        if counts:
            account.total_time_ns += latency
            stats.last_access = now
            for interval in stats.intervals:
                interval.latency[self._kind].add(latency)
