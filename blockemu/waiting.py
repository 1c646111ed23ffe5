"""Waiting to be woken by somebody else's code, several at a time."""

import asyncio

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
