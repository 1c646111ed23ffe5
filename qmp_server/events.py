"""Events: timestamps, rate limits, and one text for all who listen (after monitor/monitor.c)."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from blockemu.qmp_server.declare import fields
from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.dump import check, dump
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.qdict import encode, prettify

SECOND: Final = 1_000_000_000  # ns
RATES: Final[dict[str, tuple[int, str | None]]] = {
    # event: the least ns between two, and the member that tells sources apart
    "RTC_CHANGE": (SECOND, None),
    "WATCHDOG": (SECOND, None),
    "BALLOON_CHANGE": (SECOND, None),
    "QUORUM_REPORT_BAD": (SECOND, "node-name"),
    "QUORUM_FAILURE": (SECOND, None),
    "VSERPORT_CHANGE": (SECOND, "id"),
    "MEMORY_DEVICE_SIZE_CHANGE": (SECOND, "qom-path"),
}


class Sink(Protocol):
    """Who wants events: a client past its negotiation."""

    pretty: bool

    def send_event(self, data: bytes) -> None:
        """Send a message, in order with all others."""


class EventHub:
    """Sends each event to all sinks: at once, or, where it has a rate, not too often.

    ``wall_clock`` gives microseconds since the epoch; ``call_later(delay in ns, function)`` runs a
    function later on the clock that rates follow.
    """

    def __init__(
        self,
        wall_clock: Callable[[], int],
        call_later: Callable[[int, Callable[[], None]], Any],
        profile: Profile = ALL,
        *,
        self_check: bool = False,
    ) -> None:
        self._wall_clock = wall_clock
        self._call_later = call_later
        self._profile = profile
        self._self_check = self_check
        self._held: dict[tuple[str, Any], dict[str, Any] | None] = {}
        self.sinks: list[Sink] = []

    def add(self, sink: Sink) -> None:
        """Send events to ``sink``, too."""
        if sink not in self.sinks:
            self.sinks.append(sink)

    def discard(self, sink: Sink) -> None:
        """Send no more events to ``sink``."""
        if sink in self.sinks:
            self.sinks.remove(sink)

    def emit(self, event: Event) -> None:
        """Send an event, unless the profile hides it."""
        kind = type(event)
        if self._profile.hides(kind.life):
            return
        if self._self_check:
            check(kind, dump(event, self._profile.lenient), self._profile.lenient)
        rate, key = RATES.get(kind.event, (kind.rate, kind.rate_key))
        if rate or self.sinks:
            self._queue(self._message(kind, dump(event, self._profile)), rate, key)

    def _message(self, kind: type[Event], data: dict[str, Any]) -> dict[str, Any]:
        seconds, microseconds = divmod(self._wall_clock(), 1_000_000)
        message: dict[str, Any] = {
            "timestamp": {"seconds": seconds, "microseconds": microseconds},
            "event": kind.event,
        }
        if fields(kind):
            message["data"] = data
        return message

    def _queue(self, message: dict[str, Any], rate: int, key: str | None) -> None:
        if not rate:
            self._send(message)
            return
        source = message["event"], message.get("data", {}).get(key) if key else None
        if source in self._held:
            self._held[source] = message  # the last one wins
            return
        self._send(message)
        self._hold(source, rate)

    def _hold(self, source: tuple[str, Any], rate: int) -> None:
        self._held[source] = None
        self._call_later(rate, lambda: self._release(source, rate))

    def _release(self, source: tuple[str, Any], rate: int) -> None:
        message = self._held.pop(source)
        if message is not None:
            self._send(message)
            self._hold(source, rate)

    def _send(self, message: dict[str, Any]) -> None:
        plain = pretty = None
        for sink in tuple(self.sinks):
            if sink.pretty:
                pretty = pretty or _line(prettify(encode(message)))
                sink.send_event(pretty)
            else:
                plain = plain or _line(encode(message))
                sink.send_event(plain)


def _line(text: str) -> bytes:
    return (text + "\r\n").encode("ascii")
