"""Request statistics, added up by the batch so that the hot path pays once for many."""

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """Requests of one kind: how many, how much, how long; latencies in nanoseconds."""

    operations: int = 0
    bytes: int = 0
    total_time_ns: int = 0
    failed: int = 0
    boundaries: list[int] = field(default_factory=list)  # of the latency histogram, if wanted
    bins: list[int] = field(default_factory=list)

    def add(self, operations: int, length: int, elapsed: int) -> None:
        """Add a batch of requests that took ``elapsed`` each, ``length`` bytes in all."""
        self.operations += operations
        self.bytes += length
        self.total_time_ns += elapsed * operations
        if self.boundaries:
            self.bins[bisect_right(self.boundaries, elapsed)] += operations

    def fail(self, elapsed: int) -> None:
        """Add one request that failed."""
        self.failed += 1
        self.total_time_ns += elapsed


@dataclass(slots=True)
class Stats:
    """The accounts of a backend."""

    read: Account = field(default_factory=Account)
    write: Account = field(default_factory=Account)
    flush: Account = field(default_factory=Account)
    unmap: Account = field(default_factory=Account)
