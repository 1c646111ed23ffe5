"""Whether the machine runs.  A storage daemon has none, but clients that manage VMs ask."""

from collections.abc import Callable

from blockemu.clocks import Clock
from blockemu.errors import QmpError
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.run_state import (
    RebootAction,
    Resume,
    RunState,
    ShutdownAction,
    StatusInfo,
    Stop,
)

NO_UUID = "00000000-0000-0000-0000-000000000000"
_ENDED = (RunState.INTERNAL_ERROR, RunState.SHUTDOWN)


class NeedsReset(QmpError):
    """What has ended does not go on (runstate_needs_reset)."""

    template = "Resetting the Virtual Machine is required"


class NotFinalized(QmpError):
    """What is to be continued is on its way to another machine."""

    template = "Migration is not finalized yet"


class Machine:
    """The run state: running from the start; ``emit`` gets STOP and RESUME.

    ``autostart``: whether a machine that waits for another's state runs once it has that.
    """

    def __init__(self, emit: Callable[[Struct], None], clock: Clock) -> None:
        self._emit = emit
        self._clock = clock
        self._state = RunState.RUNNING
        self._ran, self._since = 0, clock.now()  # ns before the state's last change, and when
        self.resume_hooks: list[Callable[[], None]] = []
        self.autostart = True
        self.type = "none"  # what a migration's stream calls it
        self.title: str | None = None  # what its user calls it
        self.uuid = NO_UUID
        self.can_sleep = False  # and be woken up
        self.single_steps = False  # whether CPUs would take one step at a time
        self.profiled = False  # whether it is measured how long threads wait
        self.look = ("x", 4)  # how a human looks at numbers: as what, and of how many bytes
        self.measured: tuple[int, int, int] | None = None  # when, for how long (s), pages of a GiB
        self.dump_failed = False  # the last dump of its memory, if there was one
        self.on_reset = RebootAction.RESET
        self.on_end = ShutdownAction.POWEROFF

    @property
    def state(self) -> RunState:
        """What it does."""
        return self._state

    @state.setter
    def state(self, state: RunState) -> None:
        self.run_time = self.run_time
        self._state = state

    @property
    def run_time(self) -> int:
        """How long it has run, in nanoseconds: its own clock, which stops when it does."""
        return self._ran + (self._clock.now() - self._since if self.running else 0)

    @run_time.setter
    def run_time(self, nanoseconds: int) -> None:
        self._ran, self._since = nanoseconds, self._clock.now()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == RunState.RUNNING

    def hold_launch(self) -> None:
        """Wait for ``resume`` before the first start."""
        self.state = RunState.PRELAUNCH
        self.run_time = 0
        self.autostart = False

    def expect(self) -> None:
        """Wait for the state of another machine."""
        self.state = RunState.INMIGRATE

    @property
    def incoming(self) -> bool:
        """Whether it waits for the state of another machine."""
        return self.state is RunState.INMIGRATE

    def stop(self, state: RunState | None = None) -> None:
        """Stop, if it runs; it is paused then, if nothing else is said."""
        if self.running:
            self.state = state or RunState.PAUSED
            self._emit(Stop())

    def check_may_continue(self) -> None:
        """Raise NeedsReset if it has ended, NotFinalized if it is about to run elsewhere."""
        self.check_may_run()
        if self.state is RunState.FINISH_MIGRATE:
            raise NotFinalized

    def check_may_run(self) -> None:
        """Raise NeedsReset if it has ended."""
        if self.state in _ENDED:
            raise NeedsReset

    def resume(self) -> None:
        """Run, if it does not.

        Raises:
            NeedsReset: it has ended.

        """
        self.check_may_run()
        if not self.running:
            self._emit(Resume())
            self.state = RunState.RUNNING
        for hook in self.resume_hooks:
            hook()

    def reset(self) -> None:
        """Forget why it does not run."""
        if not self.running:
            self.state = RunState.PRELAUNCH

    def status(self) -> StatusInfo:
        """Return what ``query-status`` answers."""
        return StatusInfo(running=self.running, singlestep=self.single_steps, status=self.state)
