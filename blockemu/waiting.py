"""Waiting to be woken by somebody else's code, several at a time, and giving others a turn."""

import asyncio
from typing import Final

BREATH_BYTES: Final = 2 << 20  # copied between turns for others: 1 ms, 10 ms at worst
Waiters = list[asyncio.Future[None]]


async def asleep(waiters: Waiters) -> None:
    """Wait until ``wake`` is called with the same list."""
    waiters.append(asyncio.get_running_loop().create_future())
    await waiters[-1]


def wake(waiters: Waiters) -> None:
    """Let all go on who wait in a list, and empty it."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


async def breathe(done: int) -> None:
    """Give others a turn whenever a multiple of ``BREATH_BYTES`` is done (bytes)."""
    if done and not done % BREATH_BYTES:
        await asyncio.sleep(0)
