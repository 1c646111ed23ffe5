"""Getting a connection: in the background, again and again if need be, while requests may give up.

After nbd/client-connection.c: at most one attempt is under way; who waits for it can be sent away
while it goes on, and a later caller finds what became of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from blockemu.clocks import Clock
from blockemu.drivers.nbd.channel import Channel
from blockemu.errors import QmpError

SECOND: Final = 1_000_000_000
FIRST_PAUSE: Final = 1 * SECOND  # between two attempts; doubled each time
LONGEST_PAUSE: Final = 16 * SECOND


class NoConnection(QmpError):
    """An attempt is under way, and nothing is known yet."""

    template = "No connection at the moment"


class TimedOut(QmpError):
    """Who waited was sent away before the first attempt ended."""

    template = "Connection attempt cancelled by timeout"


class Connector:
    """Attempts to connect to one server; ``retry`` makes it go on after a failure."""

    def __init__(self, attempt: Callable[[], Awaitable[Channel]], clock: Clock) -> None:
        self._attempt = attempt
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._channel: Channel | None = None  # nobody has taken it yet
        self._error: QmpError | None = None  # of the last attempt
        self._waiter: asyncio.Future[None] | None = None
        self.retry = False

    async def establish(self, *, blocking: bool) -> Channel:
        """Return a connection; not ``blocking``: only if there is one already.

        Raises:
            QmpError: there is none; the attempt may still be under way.

        """
        if self._task is None:
            if self._channel is not None:
                return self._taken()
            self._task = asyncio.get_running_loop().create_task(self._run())
        if not blocking:
            raise self._error or NoConnection()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._task is not None:
            raise self._error or TimedOut()
        if self._channel is None:
            assert self._error is not None
            raise self._error
        return self._taken()

    def cancel(self) -> None:
        """Send away who waits; the attempt goes on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def close(self) -> None:
        """Give up."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._channel is not None:
            self._taken().close(politely=False)

    def _taken(self) -> Channel:
        channel = self._channel
        assert channel is not None
        self._channel = None
        return channel

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                self._error = None
                try:
                    self._channel = await self._attempt()
                except QmpError as e:
                    self._error = e
                if self._channel is not None or not self.retry:
                    return
                await self._clock.sleep(pause)
                if pause < LONGEST_PAUSE:
                    pause *= 2
        finally:
            self._task = None
            self.cancel()
