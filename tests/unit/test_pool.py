"""The threads that calls which block go to."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from blockemu.host.loop import Loop
from blockemu.host.pool import MEEK, MODEST, Pool

T = TypeVar("T")


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


async def test_they_give_way_more_while_clients_are_there(pool: Pool) -> None:
    mine = niceness()
    with pool.shared():
        with pool.shared():
            pass
        assert await pool.background.run(niceness) == min(mine + MEEK, 19)
    assert await pool.background.run(niceness) == min(mine + MODEST, 19)


async def test_background_threads_end_with_the_others() -> None:
    pool = Pool()
    threads = [await pool.background.run(threading.current_thread)]
    with pool.shared():
        threads.append(await pool.background.run(threading.current_thread))
    pool.close()
    assert not any(thread.is_alive() for thread in threads)


def in_new_loop(main: Coroutine[Any, Any, T], make: Callable[[], asyncio.AbstractEventLoop]) -> T:
    loop = make()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.mark.parametrize("make", [Loop, asyncio.SelectorEventLoop])
def test_a_pool_may_be_used_on_one_loop_after_another(
    pool: Pool, make: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    for _ in range(2):
        assert in_new_loop(pool.run(max, 1, 2), make) == 2
        assert in_new_loop(pool.map(abs, [-1, 2, -3], share=2), make) == [1, 2, 3]


async def test_what_a_call_raises_is_raised(pool: Pool) -> None:
    with pytest.raises(FileNotFoundError):
        await pool.run(os.stat, "/nowhere/at/all")
    errors: list[BaseException | None] = []
    both = asyncio.Event()

    def done(error: BaseException | None) -> None:
        errors.append(error)
        if len(errors) == 2:
            both.set()

    pool.submit(lambda: 1 // 0, done)
    pool.submit(lambda: None, done)
    await both.wait()
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "ZeroDivisionError"]


async def test_an_error_in_what_waited_keeps_nobody_else_waiting(pool: Pool) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def fail(_: BaseException | None) -> None:
        raise ValueError("wrong")

    pool.submit(lambda: None, fail)
    assert await pool.run(int, "7") == 7
    while not told:
        await asyncio.sleep(0)
    assert [str(context["exception"]) for context in told] == ["wrong"]


async def test_there_are_no_more_threads_than_wanted_and_they_work_side_by_side() -> None:
    pool = Pool(3)
    meeting = threading.Barrier(3)
    threads = await pool.map(lambda _: (meeting.wait(20), threading.current_thread())[1], range(3))
    assert len(set(threads)) == 3
    assert set(await pool.map(lambda _: threading.current_thread(), range(20))) <= set(threads)
    pool.close()
    assert not any(thread.is_alive() for thread in threads)


async def test_a_call_that_is_cancelled_in_time_is_not_made() -> None:
    pool = Pool(1)
    gate = threading.Event()
    made: list[int] = []
    first = asyncio.ensure_future(pool.run(gate.wait, 20))
    second = asyncio.ensure_future(pool.run(made.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await first
    await pool.run(made.append, 3)
    assert made == [3]
    pool.close()


async def test_buffers_of_calls_that_are_over_do_not_live_on(pool: Pool) -> None:
    class Buffer(bytearray):
        pass

    buffer = Buffer(8)
    gone = threading.Event()
    weakref.finalize(buffer, gone.set)
    assert await pool.run(len, buffer) == 8
    del buffer
    await asyncio.sleep(0)
    assert await asyncio.get_running_loop().run_in_executor(None, gone.wait, 20)


def test_threads_of_a_pool_that_nobody_closed_end() -> None:
    pool = Pool()
    thread = in_new_loop(pool.run(threading.current_thread), Loop)
    del pool
    gc.collect()
    assert not thread.is_alive()


async def test_a_closed_pool_holds_no_descriptor_and_can_be_used_again(pool: Pool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert await pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
        assert len(os.listdir("/proc/self/fd")) > before
        pool.close()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_calls_begin_in_order_and_each_wakes_one_thread(pool: Pool) -> None:
    begun: list[int] = []
    gate = threading.Barrier(4)

    def call(number: int) -> str:
        begun.append(number)
        if number < 4:
            gate.wait(20)  # all four threads are needed for one to go on
        return threading.current_thread().name

    await pool.map(call, range(40))
    assert sorted(begun[:4]) == [0, 1, 2, 3]
    assert sorted(begun) == list(range(40))
