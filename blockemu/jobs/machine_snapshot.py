"""The jobs that take, apply and delete snapshots of the machine (migration/savevm.c)."""

from collections.abc import Awaitable, Callable

from blockemu.errors import QmpError
from blockemu.jobs.job import Job, JobFailed
from blockemu.jobs.registry import Jobs
from blockemu.schema.jobs import JobType


class SnapshotJob(Job):
    """Does its work in one go; stays until it is dismissed."""

    def __init__(
        self, jobs: Jobs, job_id: str, kind: JobType, work: Callable[[], Awaitable[None]]
    ) -> None:
        self.type = kind  # type: ignore[misc]  # of the job, not of its class
        super().__init__(jobs, job_id, auto_dismiss=False)
        self._work = work

    async def run(self) -> None:
        """Work; it is one step of progress."""
        self.progress.remaining = 1
        try:
            await self._work()
        except QmpError as e:
            raise JobFailed(str(e)) from e
        finally:
            self.progress.current, self.progress.remaining = 1, 0
