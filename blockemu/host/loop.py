"""The programs' event loop: asyncio's own, with a shorter way for connections that answer at once.

asyncio's turn, from a descriptor that is ready to its callback and back, takes 3 to 4 us: a sixth
of what a client with one request at a time waits for its answer (``make bench``: NBD, depth 1).
What is watched by ``watch`` is called from within the selector, which then looks again, and gives
the loop its turn as soon as there is anything else for it.  On any other loop it is an ordinary
reader.
"""

import asyncio
import os
import select
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from contextvars import Context
from selectors import EVENT_READ, EVENT_WRITE, EpollSelector, SelectorKey
from time import monotonic
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Callback = Callable[[], None]

_AT_ONCE: Final = 64  # descriptors that one look tells of
_ROUNDS: Final = 64  # before the loop has its turn in any case


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's coroutine, as ``asyncio.run``."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def watch(loop: AbstractEventLoop, fd: int, callback: Callback) -> None:
    """Call back whenever a descriptor can be read from, until ``loop.remove_reader``."""
    loop.add_reader(fd, callback)
    if isinstance(loop, Loop):
        loop.direct[fd] = callback


class Loop(asyncio.SelectorEventLoop):
    """An event loop with direct readers."""

    def __init__(self) -> None:
        self._eyes = _Selector()
        self.direct = self._eyes.direct
        super().__init__(self._eyes)
        self._eyes.tell = self.call_exception_handler

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Do as any loop."""
        self.direct.pop(fd, None)
        super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        """Do as any loop."""
        self.direct.pop(fd, None)
        return super().remove_reader(fd)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Do as any loop."""
        self._eyes.awaited = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Do as any loop."""
        self._eyes.awaited = True
        return super().call_at(when, callback, *args, context=context)


class _Selector(EpollSelector):
    """``direct``: what to call by descriptor; ``awaited``: the loop has something to do by now."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: dict[int, Callback] = {}
        self.awaited = False
        self.tell: Callable[[dict[str, Any]], None]
        self._epoll = select.epoll.fromfd(os.dup(self.fileno()))

    def close(self) -> None:
        self._epoll.close()
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Return what is ready, but for what has a callback, which is called."""
        direct = self.direct
        if not direct:
            return super().select(timeout)
        self.awaited = False
        end = None if timeout is None else monotonic() + timeout
        ready: list[tuple[SelectorKey, int]] = []
        for _ in range(_ROUNDS):
            try:
                found = self._epoll.poll(timeout, _AT_ONCE)
            except InterruptedError:
                break
            for fd, events in found:
                callback = direct.get(fd)
                if callback is None or events != select.EPOLLIN:
                    ready += self._told(fd, events)
                    continue
                try:
                    callback()
                except Exception as e:
                    self.awaited = True  # whoever hears of it may want the loop to do something
                    self.tell({"message": "what was to be read was not", "exception": e})
            if ready or self.awaited or not found:
                break
            if end is not None and (timeout := end - monotonic()) <= 0:
                break
        return ready

    def _told(self, fd: int, events: int) -> list[tuple[SelectorKey, int]]:
        key, mask = self.get_map().get(fd), 0
        if key is None:
            return []  # another's callback has had it forgotten since
        if events & ~select.EPOLLOUT:
            mask |= EVENT_READ
        if events & ~select.EPOLLIN:
            mask |= EVENT_WRITE
        return [(key, mask & key.events)]
