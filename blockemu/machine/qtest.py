"""The protocol by which a test drives the machine: of its commands, those about time.

What is said is logged, on standard error if nobody wants it elsewhere (softmmu/qtest.c).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TextIO

from blockemu.chardevs import Chardev
from blockemu.clocks import SteppedClock

SETTLING_TURNS: Final = 16  # of the event loop: more than any chain of wakings in a request


class Qtest:
    """Answers lines, while it is open; sans-IO but for the log."""

    def __init__(self, clock: SteppedClock, log: TextIO | None = None) -> None:
        self._clock = clock
        self._log = log
        self._rest = b""
        self._began = time.monotonic()
        self._open = True
        self._note(f"[I {0:.6f}] OPENED")

    def receive(self, data: bytes) -> bytes:
        """Take what came; return what to send."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self._heard(line.decode("latin-1").split()) for line in lines)

    def closed(self) -> None:
        """Hear that the test, or the machine, is gone."""
        if self._open:
            self._open = False
            self._note(f"[I +{self._elapsed}] CLOSED")

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.6f}"

    def _note(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"{text}\n")
            self._log.flush()

    def _heard(self, words: list[str]) -> bytes:
        if not words:
            return b""
        self._note(f"[R +{self._elapsed}] {' '.join(words)}")
        answer = self._answer(words)
        self._note(f"[S +{self._elapsed}] {answer.rstrip()}")
        return answer.encode()

    def _answer(self, words: list[str]) -> str:
        name, *given = words
        try:
            if name == "clock_step":
                ahead = (self._clock.next_deadline or self._clock.now()) - self._clock.now()
                self._clock.step(int(given[0], 0) if given else ahead)
            elif name == "clock_set":
                self._clock.step(max(0, int(given[0], 0) - self._clock.now()))
            elif name == "endianness":
                return "OK little\n"
            else:
                return f"FAIL Unknown command '{name}'\n"
        except (IndexError, ValueError):
            return "FAIL\n"
        return f"OK {self._clock.now()}\n"


def attend(
    chardev: Chardev,
    clock: SteppedClock,
    keep: Callable[[Coroutine[Any, Any, None]], None],
    log: TextIO | None,
) -> Qtest | None:
    """Answer a test; wait for it to connect, if it is to.  ``keep`` runs what is to be awaited."""
    plug = chardev.plug()
    peer = plug.connection
    if peer is None and plug.listener is not None:
        peer, _ = plug.listener.accept()
    if peer is None:
        return None
    test, loop, sock = Qtest(clock, log), asyncio.get_running_loop(), peer

    def readable() -> None:
        try:
            data = sock.recv(4096)
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(sock)
            test.closed()
            return
        keep(send_settled(test.receive(data)))

    async def send_settled(answer: bytes) -> None:
        """Let what a step of the clock set off get done first, as QEMU's coroutines would."""
        for _ in range(SETTLING_TURNS):
            await asyncio.sleep(0)
        with suppress(OSError):
            sock.sendall(answer)

    loop.add_reader(sock, readable)
    return test
