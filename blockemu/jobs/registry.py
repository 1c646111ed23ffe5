"""The jobs of one emulator, by id."""

from typing import TYPE_CHECKING, Protocol, TypeVar

from blockemu.clocks import Clock
from blockemu.errors import DeviceNotActive, QmpError
from blockemu.graph import id_wellformed
from blockemu.jobs.job import Job
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
        if not id_wellformed(job_id):
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

    async def cancel_all(self) -> None:
        """Cancel all jobs and wait for their ends (job_cancel_sync_all)."""
        while self._jobs:
            await next(iter(self)).cancel_sync()
