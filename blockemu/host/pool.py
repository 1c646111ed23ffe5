"""The thread pool for calls that block.

Not the standard library's, whose way to a thread and back takes 55 us of processor time: this one's
takes 10 (``make bench``: NBD on a disk).  All but the calls themselves is done on the event loop's
thread, so nothing is locked.
"""

import os
import threading
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Final, ParamSpec, TypeVar
from weakref import finalize

from blockemu.host.loop import watch

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

MODEST: Final = 5  # how nice background threads are: where all want more, they get a quarter
MEEK: Final = 10  # and while others send requests: a tenth
Done = Callable[[Any, BaseException | None], None]  # with what a call returned, or raised
_Call = tuple[Callable[[], Any], Done] | None  # None: there are no more
_Ended = deque[tuple[Done, Any, BaseException | None]]


class _Calls:
    """What threads are to do, one after another.

    A system call that lets go of the interpreter's lock wakes them.  By a queue of the standard
    library a thread wakes too early, only to wait for that lock: a write of 4 KiB takes 54 us of
    processor time then and not 25 (``make bench``: NBD on a disk, depth 1).
    """

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque()
        self._count = -1  # an eventfd: how many there are

    def put(self, call: _Call) -> None:
        """Have a thread do something."""
        if self._count < 0:
            self._count = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self._calls.append(call)
        os.eventfd_write(self._count, 1)

    def get(self) -> _Call:
        """Wait for something to do."""
        os.read(self._count, 8)
        return self._calls.popleft()

    def close(self) -> None:
        """Let go of the descriptor; no thread is waiting."""
        if self._count >= 0:
            os.close(self._count)
            self._count = -1


class Pool:
    """A few threads; system calls and long C calls only, never Python loops.

    It belongs to one event loop at a time: that on which it is used.
    """

    def __init__(self, threads: int = 4, *, nice: int = 0) -> None:
        self._most = threads
        self._nice = nice
        self._clients = 0
        self._calls = _Calls()
        self._ended: _Ended = deque()
        self._under_way = 0
        self._threads: list[threading.Thread] = []
        self._bell = -1  # an eventfd that threads ring
        self._loop: AbstractEventLoop | None = None
        finalize(self, _end, self._calls, self._threads)

    @property
    def background(self) -> "Pool":
        """Threads for bulk work that nobody waits for, such as jobs': they give way to others.

        As many as there are processors, four at most: more would not be faster.  What they leave
        to the event loop and to clients is measured by the rows ``busy`` of ``make bench``.
        """
        return self._meek if self._clients else self._modest

    @cached_property
    def _modest(self) -> "Pool":
        return Pool(min(max(2, os.cpu_count() or 1), 4), nice=MODEST)

    @cached_property
    def _meek(self) -> "Pool":
        return Pool(self._modest._most, nice=MEEK)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Have background work give way more while a client is there whose requests it delays."""
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` on a thread."""
        assert not kwargs
        return await self._future(partial(function, *args) if args else function)

    async def map(
        self, function: Callable[[S], T], items: Sequence[S], *, share: int = 1
    ) -> list[T]:
        """Call ``function`` on each item, side by side; return the answers in order.

        A thread takes ``share`` items in one go.
        """
        shares = [items[at : at + share] for at in range(0, len(items), share)]
        answers = [self._future(partial(_each, function, some)) for some in shares]
        return [one for answer in answers for one in await answer]

    def submit(
        self, function: Callable[[], T], done: Callable[[BaseException | None], None]
    ) -> None:
        """Call ``function`` on a thread and then ``done`` with its error on the event loop."""
        self._put(function, lambda _, error: done(error))

    def _future(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = get_running_loop().create_future()

        def done(value: T, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self._put(lambda: None if future.cancelled() else function(), done)
        return future

    def _put(self, function: Callable[[], Any], done: Done) -> None:
        loop = get_running_loop()
        if loop is not self._loop:
            self._belong_to(loop)
        self._under_way += 1
        self._calls.put((function, done))
        if self._under_way > len(self._threads) < self._most:
            args = self._calls, self._ended, self._bell, self._nice
            thread = threading.Thread(target=_work, name="blocking", args=args, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _belong_to(self, loop: AbstractEventLoop) -> None:
        if self._bell < 0:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._forget_loop()
        watch(loop, self._bell, self._rung)
        self._loop = loop

    def _forget_loop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._bell)
        self._loop = None

    def _rung(self) -> None:
        os.eventfd_read(self._bell)
        self._answer()

    def _answer(self) -> None:
        """Tell of the calls that are over."""
        for _ in range(len(self._ended)):
            done, value, error = self._ended.popleft()
            self._under_way -= 1
            try:
                done(value, error)
            except Exception as e:
                context = {"message": "what waited for a thread failed", "exception": e}
                get_running_loop().call_exception_handler(context)

    def close(self) -> None:
        """Wait for all calls, and let the threads end."""
        _end(self._calls, self._threads)
        if self._ended and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._answer)
        if self._bell >= 0:
            self._forget_loop()
            os.close(self._bell)
            self._bell = -1
        for name in ("_modest", "_meek"):
            if name in self.__dict__:
                self.__dict__[name].close()


def _work(calls: _Calls, ended: _Ended, bell: int, nice: int) -> None:
    """Be a thread of a pool."""
    if nice:
        _be_nice(nice)
    while (call := calls.get()) is not None:
        function, done = call
        try:
            ended.append((done, function(), None))
        except BaseException as e:
            ended.append((done, None, e))
        del call, function, done  # buffers must not live until the next call
        os.eventfd_write(bell, 1)


def _end(calls: _Calls, threads: list[threading.Thread]) -> None:
    """Have threads end when what is to be done is done, also if nobody closed their pool."""
    for _ in threads:
        calls.put(None)
    for thread in threads:
        thread.join()
    threads.clear()
    calls.close()


def _each(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    return [function(item) for item in items]


def _be_nice(by: int) -> None:
    """Let other threads of this process go first: on Linux each has a priority of its own."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + by)
