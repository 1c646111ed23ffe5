"""The generic job: a coroutine with pause points, and what happens to it from birth to dismissal.

A kind of job subclasses ``Job`` (or ``BlockJob``) and gives ``run``; what it does at the end is in
``prepare``, ``commit`` or ``abort``, and ``clean``.  How the end goes: ``blockemu.jobs.group``.
After job.c.
"""

import asyncio
import errno
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from blockemu.clocks import Cancel
from blockemu.copying.progress import Progress
from blockemu.eager import Routine
from blockemu.errors import QmpError
from blockemu.jobs.group import Group
from blockemu.jobs.states import TRANSITIONS, VERBS
from blockemu.node import Node
from blockemu.schema.jobs import JobInfo, JobStatus, JobStatusChange, JobType, JobVerb

if TYPE_CHECKING:
    from blockemu.jobs.registry import Jobs

COMPLETED = frozenset(
    {
        JobStatus.WAITING,
        JobStatus.PENDING,
        JobStatus.ABORTING,
        JobStatus.CONCLUDED,
        JobStatus.NULL,
    }
)


class VerbRefused(QmpError):
    """The job is not in a state for this."""

    template = "Job '{}' in state '{}' cannot accept command verb '{}'"


class AlreadyPaused(QmpError):
    """The user has paused the job before."""

    template = "Job is already paused"


class NotPaused(QmpError):
    """The user has not paused the job."""

    template = "Can't resume a job that was not paused"


class CannotComplete(QmpError):
    """The kind of job has no manual completion, or is being cancelled."""

    template = "The active block job '{}' cannot be completed"


class JobFailed(Exception):
    """Raised by ``run`` to fail with a text of its own."""


class Job:
    """One job.

    ``busy`` says that its coroutine is at work or waits for something it began; when it is not, it
    waits in ``idle_wait`` for somebody to ``enter`` it, and goes on within that call.
    ``pause_count`` counts who wants it to stand still; ``paused`` says that it does.
    """

    type: ClassVar[JobType]
    completable: ClassVar[bool] = False

    def __init__(
        self,
        jobs: "Jobs",
        job_id: str,
        *,
        auto_finalize: bool = True,
        auto_dismiss: bool = True,
        group: Group | None = None,
    ) -> None:
        self.jobs = jobs
        self.clock = jobs.clock
        self.id = job_id
        self.auto_finalize = auto_finalize
        self.auto_dismiss = auto_dismiss
        self.status = JobStatus.UNDEFINED
        self.progress = Progress()
        self.pause_count = 1
        self.paused = True
        self.user_paused = False
        self.busy = False
        self.cancelled = False
        self.force_cancel = False
        self.started = False
        self.run_ended = False  # QEMU: deferred_to_main_loop
        self.error = 0  # errno, 0 if all went well
        self.error_text: str | None = None
        self.finished: asyncio.Future[None] | None = None  # for who waits for the end of ``run``
        self.concluded: asyncio.Future[None] | None = None  # for who waits for all of it
        self._routine: Routine | None = None
        self._timer: Cancel | None = None
        self._idle: list[asyncio.Future[None]] = []
        self.group = group or Group()
        self.group.jobs.insert(0, self)

    # What a kind of job gives

    async def run(self) -> None:
        """Do the work; OSError or JobFailed fail the job."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Do the last thing that may fail; OSError fails the whole group."""

    async def commit(self) -> None:
        """Make the result final."""

    async def abort(self) -> None:
        """Undo what must not stay after a failure."""

    async def clean(self) -> None:
        """Let go of everything, in either case."""

    async def on_pause(self) -> None:
        """Come to rest before the job counts as paused."""

    async def on_resume(self) -> None:
        """Hear that the pause is over."""

    def on_user_resume(self) -> None:
        """Hear that the user resumed the job."""

    def on_cancel(self, force: bool) -> bool:
        """Hear of a cancel; return whether it is a forced one."""
        return True

    def uses(self, node: Node[Any]) -> bool:
        """Tell whether the job lays claim to a node."""
        return False

    def on_complete(self) -> None:
        """Begin manual completion."""

    def told_completed(self) -> None:
        """Tell the user that the job ended by itself."""

    def told_cancelled(self) -> None:
        """Tell the user that the job was cancelled."""

    def told_pending(self) -> None:
        """Tell the user that the job waits to be finalized."""

    def told_ready(self) -> None:
        """Tell the user that the job can be completed."""

    # State

    def apply_verb(self, verb: JobVerb) -> None:
        """Raise VerbRefused if the state does not allow ``verb``."""
        if self.status not in VERBS[verb]:
            raise VerbRefused(self.id, self.status.value, verb.value)

    def to(self, status: JobStatus) -> None:
        """Go to another state and say so."""
        assert status in TRANSITIONS[self.status], (self.status, status)
        changed = status is not self.status
        self.status = status
        if changed:
            self.jobs.emit(JobStatusChange(id=self.id, status=status))

    @property
    def is_cancelled(self) -> bool:
        """Whether the job shall stop as soon as it can (not: complete without its last step)."""
        return self.force_cancel

    @property
    def is_completed(self) -> bool:
        """Whether the work is over, well or not."""
        return self.status in COMPLETED

    def info(self) -> JobInfo:
        """Describe the job."""
        return JobInfo(
            id=self.id,
            type=self.type,
            status=self.status,
            current_progress=self.progress.current,
            total_progress=self.progress.total,
            error=self.error_text,
        )

    # The coroutine's side

    async def pause_point(self) -> None:
        """Stand still here while somebody wants that."""
        if not self.pause_count or self.is_cancelled:
            return
        await self.on_pause()
        if self.pause_count and not self.is_cancelled:
            status = self.status
            self.to(JobStatus.STANDBY if status is JobStatus.READY else JobStatus.PAUSED)
            self.paused = True
            await self._idle_wait(None)
            self.paused = False
            self.to(status)
        await self.on_resume()

    async def idle_wait(self) -> None:
        """Wait until somebody enters the job; a pause point."""
        if self.is_cancelled:
            return
        if not self.pause_count:
            await self._idle_wait(None)
        await self.pause_point()

    async def sleep(self, nanoseconds: int) -> None:
        """Wait for a time, or until somebody enters the job; a pause point."""
        if self.is_cancelled:
            return
        if not self.pause_count:
            await self._idle_wait(nanoseconds)
        await self.pause_point()

    async def _idle_wait(self, nanoseconds: int | None) -> None:
        assert self._routine is not None
        if nanoseconds is not None:
            self._timer = self.clock.timer(nanoseconds, self._timer_rang)
        self.busy = False
        self.went_idle()
        await self._routine.park()

    def _timer_rang(self) -> None:
        self._timer = None
        self._enter()

    def went_idle(self) -> None:
        """Wake whoever waits for this job to come to rest."""
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    async def idle(self) -> None:
        """Wait until no code of the job runs, nor will before its next pause point."""
        while self.busy:
            self._idle.append(asyncio.get_running_loop().create_future())
            await self._idle[-1]

    # The outside

    def enter(self) -> None:
        """Let a job that waits go on."""
        self._enter()

    def _enter(self, *, if_timer: bool | None = None) -> None:
        """Let the job go on, if it does (or does not) wait for a time, where that is asked."""
        if self._routine is None or self.run_ended or self.busy:
            return
        if if_timer is not None and if_timer is not (self._timer is not None):
            return
        if self._timer is not None:
            self._timer()
            self._timer = None
        self.busy = True
        self._routine.enter()

    def kick(self) -> None:
        """Let a job go on that waits for a time to pass."""
        self._enter(if_timer=True)

    def start(self) -> None:
        """Begin; runs up to the first wait at once."""
        assert not self.started
        assert self.paused
        self.started = True
        self.pause_count -= 1
        self.busy = True
        self.paused = False
        self.to(JobStatus.RUNNING)
        self._routine = Routine(self._entry(), self._ended)
        self._routine.start()

    async def _entry(self) -> None:
        await self.pause_point()
        await self.run()

    def _ended(self, error: BaseException | None) -> None:
        """Hear that the work is over; the conclusion is for the next turn of the loop."""
        if isinstance(error, JobFailed):
            self.error, self.error_text = errno.EINVAL, str(error)
        elif isinstance(error, OSError):
            self.error = error.errno or errno.EIO
        elif error is not None:
            self.error = errno.EIO
            self.jobs.report(self, error)
        self.run_ended = True
        self.busy = True
        self.jobs.conclude(self._exit)

    def _exit(self) -> Coroutine[Any, Any, None]:
        self.busy = False
        self.went_idle()
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(None)
        return self.group.completed(self)

    def pause(self) -> None:
        """Ask the job to stand still, once more."""
        self.pause_count += 1
        if not self.paused:
            self._enter()

    def resume(self) -> None:
        """Take back one ``pause``."""
        assert self.pause_count > 0
        self.pause_count -= 1
        if not self.pause_count:
            self._enter(if_timer=False)

    def user_pause(self) -> None:
        """Pause on behalf of the user."""
        self.apply_verb(JobVerb.PAUSE)
        if self.user_paused:
            raise AlreadyPaused
        self.user_paused = True
        self.pause()

    def user_resume(self) -> None:
        """Resume on behalf of the user."""
        if not self.user_paused or self.pause_count <= 0:
            raise NotPaused
        self.apply_verb(JobVerb.RESUME)
        self.on_user_resume()
        self.user_paused = False
        self.resume()

    def ready(self) -> None:
        """Say that the job can be completed."""
        self.to(JobStatus.READY)
        self.told_ready()

    def complete(self) -> None:
        """Begin the manual completion (job_complete_locked)."""
        self.apply_verb(JobVerb.COMPLETE)
        if self.cancelled or not self.completable:
            raise CannotComplete(self.id)
        self.on_complete()

    async def user_cancel(self, force: bool) -> None:
        """Cancel on behalf of the user (job_user_cancel_locked)."""
        self.apply_verb(JobVerb.CANCEL)
        await self.cancel(force)

    async def cancel(self, force: bool) -> None:
        """Cancel in whatever state the job is."""
        if self.status is JobStatus.CONCLUDED:
            self._dismiss()
            return
        self.cancel_async(force)
        if not self.started:
            await self.jobs.concluding(self.group.completed(self))
        elif self.run_ended:
            # The coroutine is over; what is left of the job is its conclusion.
            if self.force_cancel:
                await self.jobs.concluding(self.group.abort(self))
        else:
            self._enter()

    async def cancel_sync(self) -> None:
        """Cancel by force and wait until the job is concluded, and gone from the list."""
        if self.status is not JobStatus.CONCLUDED:
            self.concluded = asyncio.get_running_loop().create_future()
            await self.cancel(force=True)
            if self.status not in (JobStatus.CONCLUDED, JobStatus.NULL):
                await self.concluded
        if self.status is JobStatus.CONCLUDED:
            self._dismiss()

    def cancel_async(self, force: bool) -> None:
        """Mark the job as cancelled; the caller lets it go on."""
        force = self.on_cancel(force)
        if self.user_paused:
            self.on_user_resume()
            self.user_paused = False
            self.pause_count -= 1
        if force or not self.run_ended:
            self.cancelled = True
            self.force_cancel |= force

    async def finalize(self) -> None:
        """Conclude a job that waits for the user's word."""
        self.apply_verb(JobVerb.FINALIZE)
        await self.jobs.concluding(self.group.finalize(self))

    def dismiss(self) -> None:
        """Forget a concluded job."""
        self.apply_verb(JobVerb.DISMISS)
        self._dismiss()

    def early_fail(self) -> None:
        """Give up a job that was created and never started."""
        assert self.status is JobStatus.CREATED
        self._dismiss()

    # The end, as ``Group`` has it

    def update_error(self) -> None:
        """Make a cancel an error, and go to ABORTING if there is one."""
        if not self.error and self.is_cancelled:
            self.error = errno.ECANCELED
        if self.error:
            if self.error_text is None:
                self.error_text = os.strerror(self.error)
            self.to(JobStatus.ABORTING)

    async def finish(self) -> None:
        """Wait for the end of the work of a job that is being cancelled along with its group."""
        if not self.started:
            self.update_error()
            return
        self.finished = asyncio.get_running_loop().create_future()
        self._enter()
        await self.finished
        self.update_error()

    async def end(self) -> None:
        """Make the result final or undo it, and clean up; nothing here can stop a conclusion."""
        for step in (self.abort if self.error else self.commit, self.clean):
            try:
                await step()
            except Exception as e:
                self.jobs.report(self, e)

    def conclude(self) -> None:
        """Be over, and go away unless the user wants to see to that."""
        self.to(JobStatus.CONCLUDED)
        if self.auto_dismiss or not self.started:
            self._dismiss()
        if self.concluded is not None and not self.concluded.done():
            self.concluded.set_result(None)

    def _dismiss(self) -> None:
        self.busy = self.paused = False
        self.run_ended = True
        self.group.leave(self)
        self.to(JobStatus.NULL)
        self.jobs.forget(self)
        self.release()

    def release(self) -> None:
        """Drop what a job holds even before it has started."""
