"""What queries tell of a migration: how long it takes, and how much was sent when."""

from typing import Final

from blockemu.clocks import Clock
from blockemu.migration import wire
from blockemu.schema.migration import MigrationStats

_MSEC: Final = 1_000_000


class Tally:
    """Notes when each part of a migration began, in nanoseconds, and the bytes sent by then."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.passes = 0  # looks at what the guest has written
        self._began = self._set_up = self._stopped = self._ended = 0
        self._downtime: int | None = None
        self._before_stop = self._before_postcopy = 0

    def begin(self) -> None:
        """Note that it begins."""
        self._began = self._clock.now()

    def set_up(self) -> None:
        """Note that what is to be sent is known."""
        self._set_up = self._clock.now() - self._began

    def stop(self, sent: int) -> None:
        """Note that the machine is about to stand still."""
        self._stopped = self._clock.now()
        self._before_stop = sent

    def go_on_there(self, sent: int) -> None:
        """Note that the machine runs on the other side, though not all is there."""
        self._downtime = (self._clock.now() - self._stopped) // _MSEC
        self._before_postcopy = sent

    def end(self) -> None:
        """Note that all is there."""
        self._ended = self._clock.now()
        if self._downtime is None:
            self._downtime = (self._ended - self._stopped) // _MSEC

    @property
    def setup_time(self) -> int:
        """Milliseconds that the preparation took."""
        return self._set_up // _MSEC

    @property
    def total_time(self) -> int:
        """Milliseconds since the begin, or from there to the end."""
        return ((self._ended or self._clock.now()) - self._began) // _MSEC

    @property
    def downtime(self) -> int:
        """Milliseconds that the machine stood still."""
        return self._downtime or 0

    def stats(self, sent: int) -> MigrationStats:
        """Count the bytes sent, as if they had been memory."""
        before = self._before_stop or sent
        stopped = self._before_postcopy or sent
        seconds = max(self.total_time, 1) / 1000
        return MigrationStats(
            transferred=sent,
            remaining=0,
            total=0,
            duplicate=0,
            skipped=0,
            normal=0,
            normal_bytes=0,
            dirty_pages_rate=0,
            mbps=sent * 8 / seconds / 1e6,
            dirty_sync_count=self.passes,
            postcopy_requests=0,
            page_size=wire.PAGE,
            multifd_bytes=0,
            pages_per_second=0,
            precopy_bytes=before,
            downtime_bytes=stopped - before,
            postcopy_bytes=sent - stopped,
            dirty_sync_missed_zero_copy=0,
        )
