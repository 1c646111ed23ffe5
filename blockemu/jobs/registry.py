"""The jobs of one emulator, by id, and when they may conclude.

QEMU replies to a command one turn of its main loop after it was carried out, and nothing comes
between the steps of a conclusion.  So whoever serves commands waits for ``hold`` before one, and
again before the reply: a job that ended within the command concludes first.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from blockemu.clocks import Clock
from blockemu.eager import Routine
from blockemu.errors import DeviceNotActive, QmpError
from blockemu.jobs.job import Job
from blockemu.node import Node
from blockemu.optlist import is_identifier
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.jobs import JobStatus

if TYPE_CHECKING:
    from blockemu.clocks import Clocks

J = TypeVar("J", bound=Job)


class JobNotFound(QmpError):
    """There is no job of this name (job-* commands)."""

    template = "Job not found"


class BadJobId(QmpError):
    """A job id that is not a valid identifier."""

    template = "Invalid job ID '{}'"


class JobIdInUse(QmpError):
    """The job id is taken."""

    template = "Job ID '{}' already in use"


class Owner(Protocol):
    """What the jobs need of their emulator."""

    clocks: "Clocks"

    def emit(self, event: Struct) -> None:
        """Send an event."""


class Jobs:
    """All jobs; iteration is newest first, as queries list them."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._jobs: dict[str, Job] = {}
        self._concluding = 0
        self._settled: list[asyncio.Future[None]] = []

    @property
    def clock(self) -> Clock:
        """Jobs go by real time."""
        return self._owner.clocks.realtime

    def emit(self, event: Struct) -> None:
        """Send an event."""
        self._owner.emit(event)

    def __iter__(self) -> "reversed[Job]":
        return reversed(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def check_id(self, job_id: str) -> None:
        """Raise QmpError for an id that cannot be given to a new job."""
        if not is_identifier(job_id):
            raise BadJobId(job_id)
        if job_id in self._jobs:
            raise JobIdInUse(job_id)

    def add(self, job: J) -> J:
        """Enter a new job."""
        self._jobs[job.id] = job
        job.to(JobStatus.CREATED)
        return job

    def forget(self, job: Job) -> None:
        """Drop a job that is over."""
        self._jobs.pop(job.id, None)

    def find(self, job_id: str) -> Job:
        """Look a job up for job-* commands."""
        if job_id not in self._jobs:
            raise JobNotFound
        return self._jobs[job_id]

    def find_block_job(self, job_id: str) -> Job:
        """Look a job up for block-job-* commands."""
        if job_id not in self._jobs:
            raise DeviceNotActive(job_id)
        return self._jobs[job_id]

    # Conclusions

    def conclude(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a conclusion in the next turn of the loop."""
        self._concluding += 1
        asyncio.get_running_loop().call_soon(self._begin, begin)

    def _begin(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        Routine(begin(), self._concluded).start()

    def _concluded(self, error: BaseException | None = None) -> None:
        self._concluding -= 1
        if not self._concluding:
            for waiter in self._settled:
                if not waiter.done():
                    waiter.set_result(None)
            self._settled.clear()
        if error is not None:
            self.report(None, error)

    async def concluding(self, work: Coroutine[Any, Any, None]) -> None:
        """Await a command that may conclude a job, and let ``settled`` know."""
        self._concluding += 1
        try:
            await work
        finally:
            self._concluded()

    async def settled(self) -> None:
        """Wait until no job is in the middle of its conclusion."""
        while self._concluding:
            self._settled.append(asyncio.get_running_loop().create_future())
            await self._settled[-1]

    def hold(self) -> Coroutine[Any, Any, None] | None:
        """Return what a command, and the reply to one, must wait for; None if that is nothing."""
        return self.settled() if self._concluding else None

    def report(self, job: Job | None, error: BaseException) -> None:
        """Tell of an error that is nobody's but ours; the job fails, the others go on."""
        name = f"job '{job.id}'" if job is not None else "a job's conclusion"
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"{name} failed unexpectedly", "exception": error}
        )

    async def cancel_using(self, node: Node[Any]) -> None:
        """Cancel the jobs that use a node whose device goes away (blockdev_mark_auto_del)."""
        while True:
            found = (job for job in self if not (job.cancelled or job.run_ended) and job.uses(node))
            job = next(found, None)
            if job is None:
                return
            await job.cancel(force=False)

    async def cancel_all(self) -> None:
        """Cancel all jobs and wait for their ends (job_cancel_sync_all)."""
        while True:
            await self.settled()
            if not self._jobs:
                return
            await next(iter(self)).cancel_sync()
