"""query-jobs and what can be done to jobs: job-* and block-job-*."""

import asyncio

from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.jobs.block_job import BlockJob
from blockemu.jobs.job import Job
from blockemu.qmp_server.dispatch import command
from blockemu.schema.jobs import BlockJobInfo, JobInfo


class CancelPaused(QmpError):
    """A job that the user paused is cancelled by force only."""

    template = "The block job for device '{}' is currently paused"


@command(since="3.0")
def query_jobs(context: Context) -> list[JobInfo]:
    """Describe all jobs, the newest first."""
    return [job.info() for job in context.emu.jobs]


@command(since="1.1")
def query_block_jobs(context: Context) -> list[BlockJobInfo]:
    """Describe the block jobs, the newest first."""
    return [job.block_info() for job in context.emu.jobs if isinstance(job, BlockJob)]


async def _take_effect() -> None:
    """Let a job that was entered run to its next wait, as it would in QEMU before the reply."""
    await asyncio.sleep(0)


async def _pause(job: Job) -> None:
    job.user_pause()
    await _take_effect()


async def _resume(job: Job) -> None:
    job.user_resume()
    await _take_effect()


async def _complete(job: Job) -> None:
    job.complete()
    await _take_effect()


@command(since="3.0")
async def job_pause(context: Context, *, id: str) -> None:  # noqa: A002: the member's name
    """Let a job stand still."""
    await _pause(context.emu.jobs.find(id))


@command(since="3.0")
async def job_resume(context: Context, *, id: str) -> None:  # noqa: A002
    """Let a job go on."""
    await _resume(context.emu.jobs.find(id))


@command(since="3.0")
async def job_cancel(context: Context, *, id: str) -> None:  # noqa: A002
    """Cancel a job by force."""
    await context.emu.jobs.find(id).user_cancel(force=True)
    await _take_effect()


@command(since="3.0")
async def job_complete(context: Context, *, id: str) -> None:  # noqa: A002
    """Complete a job that is ready."""
    await _complete(context.emu.jobs.find(id))


@command(since="3.0")
def job_dismiss(context: Context, *, id: str) -> None:  # noqa: A002
    """Forget a concluded job."""
    context.emu.jobs.find(id).dismiss()


@command(since="3.0")
async def job_finalize(context: Context, *, id: str) -> None:  # noqa: A002
    """Conclude a job that waits for it."""
    await context.emu.jobs.find(id).finalize()


@command(since="1.3")
async def block_job_pause(context: Context, *, device: str) -> None:
    """Let a block job stand still."""
    await _pause(context.emu.jobs.find_block_job(device))


@command(since="1.3")
async def block_job_resume(context: Context, *, device: str) -> None:
    """Let a block job go on."""
    await _resume(context.emu.jobs.find_block_job(device))


@command(since="1.1")
async def block_job_cancel(context: Context, *, device: str, force: bool | None = None) -> None:
    """Cancel a block job; a ready one is completed without its last step, unless forced."""
    job = context.emu.jobs.find_block_job(device)
    if job.user_paused and not force:
        raise CancelPaused(device)
    await job.user_cancel(bool(force))
    await _take_effect()


@command(since="1.3")
async def block_job_complete(context: Context, *, device: str) -> None:
    """Complete a block job that is ready."""
    await _complete(context.emu.jobs.find_block_job(device))


@command(since="2.12")
def block_job_dismiss(context: Context, *, id: str) -> None:  # noqa: A002
    """Forget a concluded block job."""
    context.emu.jobs.find_block_job(id).dismiss()


@command(since="2.12")
async def block_job_finalize(context: Context, *, id: str) -> None:  # noqa: A002
    """Conclude a block job that waits for it."""
    await context.emu.jobs.find_block_job(id).finalize()


@command(since="1.1")
async def block_job_set_speed(context: Context, *, device: str, speed: int) -> None:
    """Limit a block job's bytes a second."""
    job = context.emu.jobs.find_block_job(device)
    assert isinstance(job, BlockJob)
    job.set_speed(speed)
    await _take_effect()
