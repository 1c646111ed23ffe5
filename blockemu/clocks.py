"""Clocks: what waits and what is rated goes by one of these, so that a test can step time."""

import asyncio
import heapq
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

Cancel = Callable[[], None]


class Clock(ABC):
    """Time in nanoseconds, and waiting for it to pass."""

    @abstractmethod
    def now(self) -> int:
        """Return the time in nanoseconds since some fixed point."""

    @abstractmethod
    def timer(self, nanoseconds: int, ring: Callable[[], None]) -> Cancel:
        """Call ``ring`` once after a time; return what calls it off."""

    async def sleep(self, nanoseconds: int) -> None:
        """Wait; not at all if the time is not positive."""
        if nanoseconds <= 0:
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ring() -> None:
            if not wake.done():
                wake.set_result(None)

        cancel = self.timer(nanoseconds, ring)
        try:
            await wake
        finally:
            cancel()


class RealClock(Clock):
    """The host's monotonic clock."""

    def now(self) -> int:
        """Return the host's monotonic time."""
        return time.monotonic_ns()

    def timer(self, nanoseconds: int, ring: Callable[[], None]) -> Cancel:
        """Let the event loop call."""
        return asyncio.get_running_loop().call_later(nanoseconds / 1e9, ring).cancel


class SteppedClock(Clock):
    """A clock that moves only when told to."""

    def __init__(self, start: int = 0) -> None:
        self._now = start
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._live: set[int] = set()  # timers neither rung nor called off
        self._order = itertools.count()

    def now(self) -> int:
        """Return the time it was last set to."""
        return self._now

    def timer(self, nanoseconds: int, ring: Callable[[], None]) -> Cancel:
        """Call ``ring`` when somebody has stepped the clock far enough."""
        number = next(self._order)
        heapq.heappush(self._timers, (self._now + nanoseconds, number, ring))
        self._live.add(number)
        return lambda: self._live.discard(number)

    @property
    def next_deadline(self) -> int | None:
        """When the next timer rings, in nanoseconds of this clock; None if there is none."""
        while self._timers and self._timers[0][1] not in self._live:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def step(self, nanoseconds: int) -> None:
        """Let time pass; timers ring in order, each at its own time."""
        goal = self._now + nanoseconds
        while (deadline := self.next_deadline) is not None and deadline <= goal:
            self._now = deadline
            _, number, ring = heapq.heappop(self._timers)
            self._live.discard(number)
            ring()
        self._now = goal


class Clocks:
    """An emulator's clocks: real time for jobs and time-outs, virtual time for emulated devices.

    Requests are accounted by ``accounting``.  Where a test steps the virtual clock, QEMU's way to
    say so is ``tested``: that is the clock then, and every request takes ``made_up_latency``.
    """

    def __init__(
        self,
        realtime: Clock | None = None,
        virtual: Clock | None = None,
        *,
        tested: bool = False,
    ) -> None:
        self.realtime = realtime or RealClock()
        self.virtual = virtual or self.realtime
        self.accounting = self.virtual if tested else self.realtime
        self.made_up_latency = 1_000_000 if tested else None  # nanoseconds
