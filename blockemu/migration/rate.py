"""How much a migration may send: so many bytes in each tenth of a second.

After qemu_file_rate_limit, migration/qemu-file.c, and migration_update_counters,
migration/migration.c.
"""

from typing import Final

from blockemu.clocks import Clock
from blockemu.migration.channel import Way

WINDOW: Final = 100_000_000  # nanoseconds
_PARTS: Final = 10  # windows in a second
_SECOND: Final = 1_000_000_000


class Rate:
    """Counts what goes through a channel; ``limit`` is in bytes a window, 0 for none.

    ``measured`` is the speed of the last whole window, in bytes a second.
    """

    def __init__(self, clock: Clock, channel: Way) -> None:
        self._clock = clock
        self._channel = channel
        self.limit = 0
        self.measured = 0
        self.windows = 0  # that are over
        self._began = clock.now()
        self._sent = channel.sent

    def allow(self, bandwidth: int) -> None:
        """Allow so many bytes a second, 0 for any."""
        self.limit = bandwidth // _PARTS

    @property
    def exceeded(self) -> bool:
        """Whether no more may be sent in this window."""
        return 0 < self.limit < self._channel.sent - self._sent

    @property
    def left(self) -> int:
        """Nanoseconds of this window that are left."""
        return max(self._began + WINDOW - self._clock.now(), 0)

    def turn(self) -> None:
        """Begin another window if this one is over."""
        now = self._clock.now()
        if now < self._began + WINDOW:
            return
        self.measured = (self._channel.sent - self._sent) * _SECOND // (now - self._began)
        self.windows += 1
        self._began, self._sent = now, self._channel.sent
