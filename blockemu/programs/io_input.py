"""Lines of standard input, awaited: requests go on while nobody types."""

import asyncio
import os
import sys
from collections.abc import Callable

MOST = 1023  # bytes of a line; what is longer counts as several


class Lines:
    """Lines as they come; ``prompt`` is called before each, and its answer shown."""

    def __init__(self, prompt: Callable[[], str]) -> None:
        self._fd = 0
        self._prompt = prompt
        self._ready = b""
        self._ended = False

    async def next(self) -> str | None:
        """Return the next line without its end, None if there are no more."""
        prompt = self._prompt()
        if os.isatty(self._fd):
            return _edited(prompt)
        os.write(1, prompt.encode())
        while not self._ended and b"\n" not in self._ready and len(self._ready) < MOST:
            await self._readable()
            more = os.read(self._fd, 4096)
            self._ended = not more
            self._ready += more
        if not self._ready:
            return None
        end = self._ready.find(b"\n", 0, MOST)
        length = end + 1 if end >= 0 else min(len(self._ready), MOST)
        line, self._ready = self._ready[:length], self._ready[length:]
        return line.removesuffix(b"\n").partition(b"\0")[0].decode(errors="surrogateescape")

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        try:
            loop.add_reader(self._fd, _resolve, readable)
        except PermissionError:
            return  # a plain file always is
        try:
            await readable
        finally:
            loop.remove_reader(self._fd)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _edited(prompt: str) -> str | None:
    """Let the user of a terminal edit a line."""
    import readline  # noqa: F401  # input() uses it

    try:
        return input(prompt)
    except EOFError:
        sys.stdout.write("\n")
        return None
