"""What ``-drive`` says of statistics: stats-account-*, stats-intervals (blockdev_init)."""

import re
from typing import Final

from blockemu.clocks import Clocks
from blockemu.errors import QmpError
from blockemu.optlist import is_on
from blockemu.qmp_server.order import in_order
from blockemu.records import record
from blockemu.stats import Interval, Stats

_PREFIX: Final = "stats-intervals."
_LONGEST: Final = (1 << 32) - 1  # seconds


class BadInterval(QmpError):
    """Not a number of seconds."""

    template = "Invalid interval length: {}"


class IntervalNotListed(QmpError):
    """An element that is out of turn."""

    template = "Invalid option stats-intervals.{}"


@record(frozen=True)
class Accounting:
    """What was asked for; None: whatever is usual."""

    invalid: bool | None
    failed: bool | None
    intervals: list[str]

    def set_up(self, stats: Stats, clocks: Clocks) -> None:
        """Have statistics kept so.

        Raises:
            BadInterval: a length is no positive number of seconds.
        """
        stats.set_up(self.invalid, self.failed)
        for text in self.intervals:
            seconds = int(text) if re.fullmatch(r"[ \t-\r]*\+?[0-9]+", text) else 0
            if not 0 < seconds <= _LONGEST:
                raise BadInterval(text)
            stats.intervals.append(Interval(seconds, clocks.accounting))


def take_accounting(given: dict[str, str]) -> Accounting:
    """Take what is about statistics from a drive's options.

    Raises:
        IntervalNotListed: intervals are not numbered from 0 on.
    """
    switches = [given.pop(f"stats-account-{what}", None) for what in ("invalid", "failed")]
    listed = {
        key.removeprefix(_PREFIX): given.pop(key) for key in list(given) if key.startswith(_PREFIX)
    }
    intervals: list[str] = []
    while (length := listed.pop(str(len(intervals)), None)) is not None:
        intervals.append(length)
    if listed:
        raise IntervalNotListed(next(iter(in_order(listed))))
    invalid, failed = (None if text is None else is_on(text) for text in switches)
    return Accounting(invalid, failed, intervals)
