"""query-jobs and what can be done to jobs: job-* and block-job-*."""

from typing import TypeVar

from blockemu.commands.context import Context
from blockemu.errors import DeviceNotActive, QmpError
from blockemu.jobs.block_job import BlockJob
from blockemu.jobs.job import Job
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import replace
from blockemu.rewording import reword
from blockemu.schema.jobs import BlockJobInfo, JobInfo

Info = TypeVar("Info", JobInfo, BlockJobInfo)


class CancelPaused(QmpError):
    """A job that the user paused is cancelled by force only."""

    template = "The block job for device '{}' is currently paused"


@command(since="3.0")
async def query_jobs(context: Context) -> list[JobInfo]:
    """Describe all jobs, the newest first."""
    await context.emu.jobs.settled()
    return [_reworded(context, job.info()) for job in context.emu.jobs]


@command(since="1.1")
async def query_block_jobs(context: Context) -> list[BlockJobInfo]:
    """Describe the block jobs, the newest first."""
    await context.emu.jobs.settled()
    block_jobs = (job for job in context.emu.jobs if isinstance(job, BlockJob))
    return [_reworded(context, job.block_info()) for job in block_jobs]


def _reworded(context: Context, info: Info) -> Info:
    """Put what went wrong into the words of the profile."""
    if info.error is None:
        return info
    return replace(info, error=reword(context.emu.profile, info.error))


async def _job(context: Context, job_id: str) -> Job:
    """Look a job up for job-* commands; one that concludes is waited for."""
    jobs = context.emu.jobs
    await jobs.settled()
    return jobs.find(job_id)


async def _block_job(context: Context, job_id: str) -> BlockJob:
    """Look a job up for block-job-* commands."""
    jobs = context.emu.jobs
    await jobs.settled()
    job = jobs.find_block_job(job_id)
    if not isinstance(job, BlockJob):
        raise DeviceNotActive(job_id)
    return job


@command(since="3.0")
async def job_pause(context: Context, *, id: str) -> None:
    """Let a job stand still."""
    (await _job(context, id)).user_pause()


@command(since="3.0")
async def job_resume(context: Context, *, id: str) -> None:
    """Let a job go on."""
    (await _job(context, id)).user_resume()


@command(since="3.0")
async def job_cancel(context: Context, *, id: str) -> None:
    """Cancel a job by force."""
    await (await _job(context, id)).user_cancel(force=True)


@command(since="3.0")
async def job_complete(context: Context, *, id: str) -> None:
    """Complete a job that is ready."""
    (await _job(context, id)).complete()


@command(since="3.0")
async def job_dismiss(context: Context, *, id: str) -> None:
    """Forget a concluded job."""
    (await _job(context, id)).dismiss()


@command(since="3.0")
async def job_finalize(context: Context, *, id: str) -> None:
    """Conclude a job that waits for it."""
    await (await _job(context, id)).finalize()


@command(since="1.3")
async def block_job_pause(context: Context, *, device: str) -> None:
    """Let a block job stand still."""
    (await _block_job(context, device)).user_pause()


@command(since="1.3")
async def block_job_resume(context: Context, *, device: str) -> None:
    """Let a block job go on."""
    (await _block_job(context, device)).user_resume()


@command(since="1.1")
async def block_job_cancel(context: Context, *, device: str, force: bool | None = None) -> None:
    """Cancel a block job; a ready one is completed without its last step, unless forced."""
    job = await _block_job(context, device)
    if job.user_paused and not force:
        raise CancelPaused(device)
    await job.user_cancel(bool(force))


@command(since="1.3")
async def block_job_complete(context: Context, *, device: str) -> None:
    """Complete a block job that is ready."""
    (await _block_job(context, device)).complete()


@command(since="2.12")
async def block_job_dismiss(context: Context, *, id: str) -> None:
    """Forget a concluded block job."""
    (await _block_job(context, id)).dismiss()


@command(since="2.12")
async def block_job_finalize(context: Context, *, id: str) -> None:
    """Conclude a block job that waits for it."""
    await (await _block_job(context, id)).finalize()


@command(since="1.1")
async def block_job_set_speed(context: Context, *, device: str, speed: int) -> None:
    """Limit a block job's bytes a second."""
    (await _block_job(context, device)).set_speed(speed)
