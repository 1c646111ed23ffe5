"""The programs' event loop: what is watched is called at once, and nobody else is forgotten."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blockemu.host.loop import Loop, watch

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def echoing(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, then: Callable[[int], Any]
) -> None:
    """Send back what comes; ``then`` hears the how manieth time it was."""
    count = 0

    def readable() -> None:
        nonlocal count
        count += 1
        sock.send(sock.recv(100))
        then(count)

    watch(loop, sock.fileno(), readable)


@pytest.mark.parametrize("make", [Loop, asyncio.SelectorEventLoop])
def test_what_comes_is_answered_on_any_loop(
    make: Callable[[], asyncio.AbstractEventLoop], pair: Pair
) -> None:
    loop = make()
    try:
        ours, theirs = pair
        theirs.send(b"hello")
        echoing(loop, ours, lambda _: loop.call_soon(loop.stop))
        loop.run_forever()
        assert theirs.recv(100) == b"hello"
        loop.remove_reader(ours.fileno())
    finally:
        loop.close()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop: loop.call_soon(loop.stop),
        lambda loop: loop.call_later(0, loop.stop),
        lambda loop: loop.create_future().set_result(None) or loop.create_task(_stop(loop)),
    ],
    ids=["soon", "later", "task"],
)
def test_what_a_callback_leaves_for_the_loop_is_done_though_nothing_else_comes(
    loop: Loop, pair: Pair, schedule: Callable[[Loop], object]
) -> None:
    ours, theirs = pair
    theirs.send(b"1")
    echoing(loop, ours, lambda _: schedule(loop))
    loop.run_forever()  # for ever, if that was forgotten
    loop.remove_reader(ours.fileno())


async def _stop(loop: Loop) -> None:
    loop.stop()


def test_a_client_that_never_pauses_does_not_keep_others_out(loop: Loop, pair: Pair) -> None:
    """Neither timers, nor other descriptors, nor threads."""
    ours, theirs = pair
    other, far = socket.socketpair()
    heard = []

    def seen(what: str) -> None:
        heard.append(what)
        if len(heard) == 3:
            loop.stop()

    def readable() -> None:
        loop.remove_reader(other.fileno())
        seen("other")

    def again(count: int) -> None:
        theirs.send(theirs.recv(100))
        if count == 1:
            threading.Thread(target=loop.call_soon_threadsafe, args=(seen, "thread")).start()
            far.send(b"x")

    with other, far:
        loop.call_later(0.001, seen, "timer")
        loop.add_reader(other.fileno(), readable)
        theirs.send(b"1")
        echoing(loop, ours, again)
        loop.run_forever()
        assert sorted(heard) == ["other", "thread", "timer"]
        loop.remove_reader(ours.fileno())


def test_an_error_is_the_exception_handlers(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"1")
    told: list[dict[str, Any]] = []

    def fail() -> None:
        if told:
            raise AssertionError
        raise ValueError("wrong")

    def handler(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(context)
        loop.remove_reader(ours.fileno())
        loop.stop()

    loop.set_exception_handler(handler)
    watch(loop, ours.fileno(), fail)
    loop.run_forever()
    assert [str(context["exception"]) for context in told] == ["wrong"]


def test_who_is_not_watched_any_more_is_not_called(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    calls = []
    watch(loop, ours.fileno(), lambda: calls.append("direct"))
    assert loop.remove_reader(ours.fileno())
    assert not loop.remove_reader(ours.fileno())
    theirs.send(b"1")
    loop.add_reader(ours.fileno(), lambda: (calls.append("ordinary"), loop.stop()))
    loop.run_forever()
    loop.remove_reader(ours.fileno())
    assert calls == ["ordinary"]


def test_of_two_that_are_ready_one_may_have_the_other_forgotten(loop: Loop, pair: Pair) -> None:
    ours, theirs = pair
    other, far = socket.socketpair()
    with other, far:
        called: list[int] = []

        def first_come(mine: socket.socket, others: socket.socket) -> None:
            mine.recv(100)
            called.append(mine.fileno())
            loop.remove_reader(others.fileno())
            loop.call_soon(loop.stop)

        watch(loop, ours.fileno(), lambda: first_come(ours, other))
        watch(loop, other.fileno(), lambda: first_come(other, ours))
        theirs.send(b"1")
        far.send(b"1")
        loop.run_forever()
        assert len(called) == 1
        loop.remove_reader(called[0])


def test_a_descriptor_that_can_be_written_to_as_well_takes_the_ordinary_way(
    loop: Loop, pair: Pair
) -> None:
    ours, theirs = pair
    calls: list[str] = []
    watch(loop, ours.fileno(), lambda: (calls.append("read"), ours.recv(100)))  # type: ignore[arg-type, return-value]
    loop.add_writer(ours.fileno(), lambda: (calls.append("write"), loop.stop()))
    theirs.send(b"1")
    loop.run_forever()
    loop.remove_writer(ours.fileno())
    loop.remove_reader(ours.fileno())
    assert sorted(calls) == ["read", "write"]
