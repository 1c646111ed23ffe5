"""Which request runs next: one at a time over all monitors, each monitor's in order.

After monitor_qmp_dispatcher_co, monitor/qmp.c.  Sans-IO: what is to be awaited goes to ``spawn``.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from blockemu.qmp_server.session import Pending, Session

QUEUE_LENGTH: Final = 8  # requests QEMU queues for a monitor with OOB; without, it queues one
Spawn = Callable[[Coroutine[Any, Any, None]], Any]


class Lane:
    """The requests of one monitor: those received, and those of them that are queued to run."""

    def __init__(self, session: Session, context: Any, send: Callable[[bytes], None]) -> None:
        self.session = session
        self.context = context
        self.send = send
        self.received: deque[Any] = deque()
        self.queued: deque[Any] = deque()
        self.running = False
        self.on_idle: Callable[[], None] = lambda: None

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to do."""
        return not (self.running or self.queued or self.received)

    @property
    def has_room(self) -> bool:
        """Whether QEMU would read another request now."""
        if self.session.oob_enabled:
            return len(self.queued) < QUEUE_LENGTH
        return not (self.queued or self.running)


class Dispatcher:
    """Runs requests; share one between all monitors of a program."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._lanes: deque[Lane] = deque()  # those with queued requests, next first
        self._busy = False
        self.stopped = False  # set to take no more requests

    def submit(self, lane: Lane) -> None:
        """Queue as many of a lane's requests as there is room for; run what can be run."""
        received, session = lane.received, lane.session
        while received and lane.has_room:
            request = received.popleft()
            if callable(request):  # file descriptors that came with what follows
                request()
            elif session.is_oob(request):
                self._out_of_band(lane, request)
            else:
                lane.queued.append(request)
                if lane not in self._lanes:
                    self._lanes.append(lane)
                if not self._busy:
                    self._run()

    def forget(self, lane: Lane) -> None:
        """Drop the requests of a lane that wait."""
        lane.received.clear()
        lane.queued.clear()

    def _out_of_band(self, lane: Lane, request: Any) -> None:
        reply = lane.session.execute(request, lane.context)
        assert isinstance(reply, bytes), "commands that run out of band do not wait"
        lane.send(reply)

    def _run(self) -> None:
        """Run requests until one waits or none is left."""
        self._busy = True
        while self._lanes and not self.stopped:
            lane = self._lanes.popleft()
            if not lane.queued:
                continue
            request = lane.queued.popleft()
            if lane.queued:
                self._lanes.append(lane)
            lane.running = True
            outcome = lane.session.execute(request, lane.context)
            if isinstance(outcome, Pending):
                self._spawn(self._wait(lane, outcome))
                return
            lane.running = False
            lane.send(outcome)
        self._busy = False

    async def _wait(self, lane: Lane, pending: Pending) -> None:
        """Await a command, reply, and go on."""
        try:
            reply = lane.session.finish(pending, await pending.coroutine)
        except Exception as e:
            reply = lane.session.fail(pending, e)
        lane.running = False
        lane.send(reply)
        self._run()
        self.submit(lane)
        if lane.idle:
            lane.on_idle()
