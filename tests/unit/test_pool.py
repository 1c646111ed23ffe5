"""The threads that calls which block go to."""

import os
import threading
from collections.abc import Iterator

import pytest

from blockemu.pool import MODEST, Pool


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


async def test_background_threads_give_way_and_others_do_not(pool: Pool) -> None:
    mine = niceness()
    assert await pool.background.run(niceness) == min(mine + MODEST, 19)
    assert await pool.run(niceness) == mine
    assert niceness() == mine


async def test_background_threads_end_with_the_others() -> None:
    pool = Pool()
    thread = await pool.background.run(threading.current_thread)
    pool.close()
    assert not thread.is_alive()
