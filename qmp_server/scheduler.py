"""Which request runs next: one at a time over all monitors, each monitor's in order.

After monitor_qmp_dispatcher_co, monitor/qmp.c.  Sans-IO: what is to be awaited goes to ``spawn``.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from blockemu.qmp_server.session import Pending, Session

QUEUE_LENGTH: Final = 8  # requests QEMU queues for a monitor with OOB; without, it queues one
Spawn = Callable[[Coroutine[Any, Any, None]], Any]
Hold = Callable[[], Coroutine[Any, Any, None] | None]


class Lane:
    """The requests of one monitor: those received, and those of them that are queued to run."""

    def __init__(self, session: Session, context: Any, send: Callable[[bytes], None]) -> None:
        self.session = session
        self.context = context
        self.send = send
        self.received: deque[Any] = deque()
        self.queued: deque[Any] = deque()
        self.running = False
        self.on_progress: Callable[[], None] = lambda: None  # all that was received is queued

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
    """Runs requests; share one between all monitors of a program.

    ``hold`` says what a request, and the reply to one that was awaited, must wait for; it returns
    None where that is nothing.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._lanes: deque[Lane] = deque()  # those with queued requests, next first
        self._busy = False
        self.stopped = False  # set to take no more requests, and to keep replies
        self.hold: Hold = lambda: None
        self._kept: list[tuple[Lane, bytes]] | None = []  # None: replies are not kept any more

    def submit(self, lane: Lane) -> None:
        """Run a lane's requests, or queue as many as there is room for."""
        received = lane.received
        while received and not (self._busy or self._lanes or self.stopped):  # nobody is before it
            request = received.popleft()
            if not self._aside(lane, request):
                self._busy = True
                if self._execute(lane, request):
                    self._busy = False
        if received:
            self._refill(lane)

    def _refill(self, lane: Lane) -> None:
        while lane.received and lane.has_room:
            request = lane.received.popleft()
            if not self._aside(lane, request):
                lane.queued.append(request)
        if lane.queued and lane not in self._lanes:
            self._lanes.append(lane)

    def _aside(self, lane: Lane, request: Any) -> bool:
        """Deal with what is not queued; tell whether it was that."""
        if callable(request):  # file descriptors that came with what follows
            request()
            return True
        if not lane.session.is_oob(request):
            return False
        reply = lane.session.execute(request, lane.context)
        assert isinstance(reply, bytes), "commands that run out of band do not wait"
        lane.send(reply)
        return True

    def _reply(self, lane: Lane, reply: bytes) -> None:
        """Send a reply; that to the command that ends the program comes last of all."""
        if self.stopped and self._kept is not None:
            self._kept.append((lane, reply))
        else:
            lane.send(reply)

    def say_last(self) -> None:
        """Send the replies that were kept: all that there was to end has ended."""
        kept, self._kept = self._kept or [], None
        for lane, reply in kept:
            lane.send(reply)

    def forget(self, lane: Lane) -> None:
        """Drop the requests of a lane that wait."""
        lane.received.clear()
        lane.queued.clear()

    def _run(self) -> None:
        """Run requests until one waits or none is left."""
        self._busy = True
        while self._lanes and not self.stopped:
            lane = self._lanes.popleft()
            if not lane.queued:
                continue
            request = lane.queued.popleft()
            over = self._execute(lane, request)
            self._progressed(lane)
            if not over:
                return
        self._busy = False

    def _progressed(self, lane: Lane) -> None:
        self._refill(lane)
        if not lane.received:
            lane.on_progress()

    def _execute(self, lane: Lane, request: Any) -> bool:
        """Run a request; tell whether it is over."""
        hold = self.hold()
        if hold is not None:
            lane.running = True
            self._spawn(self._hold(lane, request, hold))
            return False
        outcome = lane.session.execute(request, lane.context)
        if type(outcome) is bytes:
            self._reply(lane, outcome)
            return True
        assert isinstance(outcome, Pending)
        lane.running = True
        self._spawn(self._wait(lane, outcome))
        return False

    async def _hold(self, lane: Lane, request: Any, hold: Coroutine[Any, Any, None]) -> None:
        """Run a request later."""
        await hold
        outcome = lane.session.execute(request, lane.context)
        if isinstance(outcome, Pending):
            await self._wait(lane, outcome)
        else:
            self._done(lane, outcome)

    async def _wait(self, lane: Lane, pending: Pending) -> None:
        """Await a command, reply, and go on."""
        try:
            reply = lane.session.finish(pending, await pending.coroutine)
        except Exception as e:
            reply = lane.session.fail(pending, e)
        hold = self.hold()
        if hold is not None:
            await hold
        self._done(lane, reply)

    def _done(self, lane: Lane, reply: bytes) -> None:
        lane.running = False
        self._reply(lane, reply)
        self._progressed(lane)
        self._run()
