"""The end of jobs: those of one group conclude together, all well or all not.

A lone job is a group of one.  Each step below is QEMU's of the same order (job_completed_txn_abort,
job_completed_txn_success, job_do_finalize and job_finalize_single, job.c).
"""

import errno
from typing import TYPE_CHECKING

from blockemu.schema.jobs import JobStatus

if TYPE_CHECKING:
    from blockemu.jobs.job import Job


class Group:
    """Jobs that succeed or fail together (JobTxn)."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []  # the newest first
        self.aborting = False

    async def completed(self, job: "Job") -> None:
        """Go on after the work of ``job`` is over, or was never begun."""
        job.update_error()
        if job.error:
            await self.abort(job)
        else:
            await self._succeed(job)

    async def _succeed(self, job: "Job") -> None:
        """Let the group conclude if this was the last job at work."""
        job.to(JobStatus.WAITING)
        jobs = list(self.jobs)
        if not all(each.is_completed for each in jobs):
            return
        for each in jobs:
            each.to(JobStatus.PENDING)
            if not each.auto_finalize:
                each.told_pending()
        if all(each.auto_finalize for each in jobs):
            await self.finalize(job)

    async def finalize(self, job: "Job") -> None:
        """Prepare all, then conclude all; ``job`` is the one for which that was asked."""
        for each in list(self.jobs):
            if not each.error:
                try:
                    await each.prepare()
                except OSError as e:
                    each.error = e.errno or errno.EIO
                each.update_error()
            if each.error:
                await self.abort(job)
                return
        for each in list(self.jobs):
            await self._conclude(each)

    async def abort(self, job: "Job") -> None:
        """Cancel all but ``job``, wait for them, and conclude all as failed."""
        if self.aborting:
            return  # whoever began that sees to everything
        self.aborting = True
        for each in self.jobs:
            if each is not job:
                each.cancel_async(force=True)
        while self.jobs:
            each = self.jobs[0]
            if not each.is_completed:
                await each.finish()
            await self._conclude(each)

    async def _conclude(self, job: "Job") -> None:
        job.update_error()
        await job.end()
        if job.started:  # nobody was told of a job that never was
            if job.is_cancelled:
                job.told_cancelled()
            else:
                job.told_completed()
        self.leave(job)
        job.conclude()

    def leave(self, job: "Job") -> None:
        """Take a job out."""
        if job in self.jobs:
            self.jobs.remove(job)
