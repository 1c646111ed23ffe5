"""Whether the machine runs.  A storage daemon has none, but clients that manage VMs ask."""

from collections.abc import Callable

from blockemu.errors import QmpError
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.run_state import Resume, RunState, StatusInfo, Stop


class NotFinalized(QmpError):
    """What is to be continued is on its way to another machine."""

    template = "Migration is not finalized yet"


class Machine:
    """The run state: running from the start; ``emit`` gets STOP and RESUME.

    ``autostart``: whether a machine that waits for another's state runs once it has that.
    """

    def __init__(self, emit: Callable[[Struct], None]) -> None:
        self._emit = emit
        self.state = RunState.RUNNING
        self.resume_hooks: list[Callable[[], None]] = []
        self.autostart = True
        self.type = "none"  # what a migration's stream calls it

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == RunState.RUNNING

    def hold_launch(self) -> None:
        """Wait for ``resume`` before the first start."""
        self.state = RunState.PRELAUNCH
        self.autostart = False

    def expect(self) -> None:
        """Wait for the state of another machine."""
        self.state = RunState.INMIGRATE

    @property
    def incoming(self) -> bool:
        """Whether it waits for the state of another machine."""
        return self.state is RunState.INMIGRATE

    def stop(self, state: RunState = RunState.PAUSED) -> None:
        """Stop, if it runs."""
        if self.running:
            self.state = state
            self._emit(Stop())

    def resume(self) -> None:
        """Run, if it does not."""
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
        return StatusInfo(running=self.running, singlestep=False, status=self.state)
