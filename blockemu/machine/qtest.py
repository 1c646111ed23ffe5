"""The protocol by which a test drives the machine: of its commands, those about time."""

from blockemu.clocks import SteppedClock


class Qtest:
    """Answers lines; sans-IO."""

    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self._rest = b""

    def receive(self, data: bytes) -> bytes:
        """Take what came; return what to send."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self._answer(line.decode("latin-1").split()) for line in lines)

    def _answer(self, words: list[str]) -> bytes:
        if not words:
            return b""
        name, *given = words
        try:
            if name == "clock_step":
                ahead = (self._clock.next_deadline or self._clock.now()) - self._clock.now()
                self._clock.step(int(given[0], 0) if given else ahead)
            elif name == "clock_set":
                self._clock.step(max(0, int(given[0], 0) - self._clock.now()))
            elif name == "endianness":
                return b"OK little\n"
            else:
                return f"FAIL Unknown command '{name}'\n".encode()
        except (IndexError, ValueError):
            return b"FAIL\n"
        return f"OK {self._clock.now()}\n".encode()
