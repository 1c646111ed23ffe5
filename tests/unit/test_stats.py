"""Accounts of requests, by a clock that the test steps."""

import pytest

from blockemu.clocks import Clocks, SteppedClock
from blockemu.stats import Interval, Kind, Stats
from blockemu.timed_average import TimedAverage

SECOND = 1_000_000_000


@pytest.fixture
def clocks() -> Clocks:
    return Clocks(SteppedClock(SECOND), SteppedClock(7 * SECOND))


def request(stats: Stats, clocks: Clocks, kind: Kind, latency: int, *, fails: bool = False) -> None:
    measured = stats.begin(kind, 512, clocks)
    clocks.accounting.step(latency)
    (measured.failed if fails else measured.done)()


def test_requests_are_measured_by_the_real_clock(clocks):
    stats = Stats()
    request(stats, clocks, Kind.READ, 5)
    request(stats, clocks, Kind.READ, 7)
    account = stats[Kind.READ]
    assert (account.operations, account.bytes, account.total_time_ns) == (2, 1024, 12)
    clocks.realtime.step(30)
    assert stats.idle_time(clocks) == 30


def test_under_a_test_every_request_takes_a_millisecond_of_virtual_time():
    clocks = Clocks(SteppedClock(), SteppedClock(SECOND), tested=True)
    stats = Stats()
    request(stats, clocks, Kind.FLUSH, 5)
    assert stats[Kind.FLUSH].total_time_ns == 1_000_000
    assert stats.last_access == SECOND + 5


@pytest.mark.parametrize("counts", [True, False])
def test_failed_requests_count_as_accesses_if_wanted(clocks, counts):
    stats = Stats()
    stats.set_up(invalid=None, failed=counts)
    stats.intervals.append(Interval(1, clocks.accounting))
    request(stats, clocks, Kind.WRITE, 9, fails=True)
    account = stats[Kind.WRITE]
    assert (account.failed, account.operations, account.bytes) == (1, 0, 0)
    assert account.total_time_ns == (9 if counts else 0)
    assert stats.idle_time(clocks) == (0 if counts else None)
    assert stats.intervals[0].latency[Kind.WRITE].limits() == ((9, 9, 9) if counts else (0, 0, 0))


@pytest.mark.parametrize("counts", [True, False])
def test_invalid_requests_take_no_time(clocks, counts):
    stats = Stats()
    stats.set_up(invalid=counts, failed=None)
    stats.invalid(Kind.UNMAP, clocks)
    assert (stats[Kind.UNMAP].invalid, stats[Kind.UNMAP].total_time_ns) == (1, 0)
    assert stats.idle_time(clocks) == (0 if counts else None)


def test_a_latency_falls_in_the_bin_that_its_boundary_opens(clocks):
    stats = Stats()
    stats.set_histogram(Kind.READ, [10, 20, 30])
    for latency in (0, 9, 10, 19, 20, 30, 31, 1000):
        request(stats, clocks, Kind.READ, latency)
    request(stats, clocks, Kind.READ, 15, fails=True)  # counted all the same
    assert stats[Kind.READ].histogram.bins == [2, 3, 1, 3]
    stats.set_histogram(Kind.READ, [10])
    assert stats[Kind.READ].histogram.bins == [0, 0]
    stats.clear_histograms()
    assert stats[Kind.READ].histogram is None


@pytest.mark.parametrize("boundaries", [[0], [1, 1], [2, 1], [1, 3, 2]])
def test_boundaries_ascend(boundaries):
    stats = Stats()
    stats.set_histogram(Kind.READ, [5])
    with pytest.raises(ValueError, match="ascending"):
        stats.set_histogram(Kind.READ, boundaries)
    assert stats[Kind.READ].histogram.boundaries == [5]


def test_an_average_is_of_the_older_of_two_windows():
    clock = SteppedClock()
    average = TimedAverage(clock, 3 * SECOND)  # windows of four seconds, two apart
    average.add(10)
    assert average.limits() == (10, 10, 10)
    clock.step(SECOND)
    average.add(21)
    assert average.limits() == (10, 21, 15)
    assert average.depth() == pytest.approx(31 / (3 * SECOND))
    clock.step(SECOND)  # the first window is over; the other has seen all so far
    average.add(2)
    assert average.limits() == (2, 21, 11)
    clock.step(2 * SECOND)  # now the first, begun anew, is the older
    assert average.limits() == (2, 2, 2)
    clock.step(100 * SECOND)
    assert average.limits() == (0, 0, 0)
    assert average.depth() == 0
