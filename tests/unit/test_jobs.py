"""The generic job, by jobs that do nothing but what a test says; real time is stepped."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fakes import Machine, turns

from blockemu.jobs.group import Group
from blockemu.jobs.job import (
    AlreadyPaused,
    CannotComplete,
    Job,
    JobFailed,
    NotPaused,
    VerbRefused,
)
from blockemu.jobs.registry import BadJobId, JobIdInUse, JobNotFound
from blockemu.schema.jobs import JobType

Work = Callable[["Toy"], Awaitable[None]]


class Toy(Job):
    """Does ``work``, and notes what becomes of it."""

    type = JobType.BACKUP
    completable = True

    def __init__(self, machine: Machine, name: str, work: Work, **options: Any) -> None:
        super().__init__(machine.emu.jobs, name, **options)
        self.machine = machine
        self.work = work
        self.broken: dict[str, Exception] = {}
        machine.emu.jobs.add(self)

    def note(self, what: str) -> None:
        self.machine.said.append(f"{self.id}: {what}")

    async def run(self) -> None:
        await self.work(self)

    async def _step(self, what: str) -> None:
        self.note(what)
        if what in self.broken:
            raise self.broken[what]

    async def prepare(self) -> None:
        await self._step("prepare")

    async def commit(self) -> None:
        await self._step("commit")

    async def abort(self) -> None:
        await self._step("abort")

    async def clean(self) -> None:
        await self._step("clean")

    async def on_pause(self) -> None:
        self.note("on_pause")

    async def on_resume(self) -> None:
        self.note("on_resume")

    def on_complete(self) -> None:
        self.completed = True
        self.enter()

    def told_completed(self) -> None:
        self.note("COMPLETED")

    def told_cancelled(self) -> None:
        self.note("CANCELLED")

    def told_pending(self) -> None:
        self.note("PENDING")

    def told_ready(self) -> None:
        self.note("READY")


async def at_once(job: Toy) -> None:
    job.note("at work")


async def by_the_second(job: Toy) -> None:
    while not job.is_cancelled:
        job.note("tick")
        await job.sleep(1_000_000_000)


async def for_ever(job: Toy) -> None:
    while not job.is_cancelled:
        await job.idle_wait()


ENDING = ["j waiting", "j pending", "j: prepare", "j: commit", "j: clean", "j: COMPLETED"]
GONE = ["j concluded", "j null"]


async def test_a_job_from_birth_to_dismissal() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once)
        assert machine.news() == ["j created"]
        job.start()
        assert machine.news() == ["j running", "j: at work"]
        await turns(1)
        assert machine.news() == [*ENDING, *GONE]
        assert not list(machine.emu.jobs)


async def test_it_concludes_when_told_if_that_was_wanted() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once, auto_finalize=False, auto_dismiss=False)
        job.start()
        await turns()
        assert machine.news()[-3:] == ["j waiting", "j pending", "j: PENDING"]
        with pytest.raises(VerbRefused):
            job.dismiss()
        await job.finalize()
        assert machine.news() == [*ENDING[2:], "j concluded"]
        with pytest.raises(VerbRefused):
            await job.finalize()
        job.dismiss()
        assert machine.news() == ["j null"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (JobFailed("words of its own"), "words of its own"),
    ],
)
async def test_a_failed_job_says_why(error: Exception, text: str) -> None:
    async def fail(job: Toy) -> None:
        raise error

    async with Machine() as machine:
        job = Toy(machine, "j", fail, auto_dismiss=False)
        job.start()
        await turns()
        assert machine.news()[-5:] == [
            "j aborting", "j: abort", "j: clean", "j: COMPLETED", "j concluded",
        ]  # fmt: skip
        assert job.info().error == text


async def test_a_bug_in_a_job_fails_it_and_nothing_else() -> None:
    async def bug(job: Toy) -> None:
        raise ZeroDivisionError

    async with Machine() as machine:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        job = Toy(machine, "j", bug, auto_dismiss=False)
        job.start()
        await turns()
        assert machine.news()[-1] == "j concluded"
        assert job.info().error == "Input/output error"
        assert isinstance(seen[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize("step", ["commit", "clean"])
async def test_a_bug_in_the_conclusion_does_not_keep_the_job(step: str) -> None:
    async with Machine() as machine:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        job = Toy(machine, "j", at_once)
        job.broken[step] = ZeroDivisionError()
        job.start()
        await turns()
        assert machine.news()[-2:] == GONE
        assert len(seen) == 1


async def test_a_failed_preparation_aborts() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once)
        job.broken["prepare"] = OSError(errno.EIO, "x")
        job.start()
        await turns()
        assert machine.news()[4:] == [
            "j pending", "j: prepare", "j aborting", "j: abort", "j: clean", "j: COMPLETED", *GONE,
        ]  # fmt: skip


# Pausing


async def test_a_pause_during_a_sleep_takes_effect_at_once() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", by_the_second)
        job.start()
        machine.news()
        job.user_pause()
        assert machine.news() == ["j: on_pause", "j paused"]
        machine.clock.step(5_000_000_000)
        assert machine.news() == []
        with pytest.raises(AlreadyPaused):
            job.user_pause()
        job.user_resume()
        assert machine.news() == ["j running", "j: on_resume", "j: tick"]
        with pytest.raises(NotPaused):
            job.user_resume()
        machine.clock.step(1_000_000_000)
        assert machine.news() == ["j: tick"]


async def test_who_pauses_it_as_well_keeps_it_paused() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", for_ever)
        job.start()
        job.user_pause()
        job.pause()
        machine.news()
        job.user_resume()
        assert machine.news() == []
        assert job.paused
        job.resume()
        assert machine.news() == ["j running", "j: on_resume"]


async def test_a_resume_does_not_cut_a_sleep_short() -> None:
    async def sleeps(job: Toy) -> None:
        await job.sleep(10)
        job.note("awake")
        await job.sleep(10)
        job.note("awake again")

    async with Machine() as machine:
        job = Toy(machine, "j", sleeps)
        job.start()
        job.pause_count += 1  # somebody who did not wake it
        job.resume()
        assert "j: awake" not in machine.news()
        job.kick()
        assert machine.news() == ["j: awake"]


async def test_a_job_paused_before_it_starts_stands_still_first() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once)
        job.pause()
        job.start()
        assert machine.news() == ["j created", "j running", "j: on_pause", "j paused"]
        job.resume()
        assert machine.news() == ["j running", "j: on_resume", "j: at work"]


async def test_a_ready_job_that_pauses_is_in_standby() -> None:
    async def ready(job: Toy) -> None:
        job.completed = False
        job.ready()
        while not job.completed:
            await job.idle_wait()

    async with Machine() as machine:
        job = Toy(machine, "j", ready)
        job.start()
        assert machine.news()[-2:] == ["j ready", "j: READY"]
        job.user_pause()
        job.user_resume()
        assert machine.news() == ["j: on_pause", "j standby", "j ready", "j: on_resume"]
        job.complete()
        await turns()
        assert machine.news()[-2:] == GONE


async def test_a_kind_of_job_without_completion_cannot_be_completed() -> None:
    class Never(Toy):
        completable = False

    async def ready(job: Toy) -> None:
        job.ready()
        await for_ever(job)

    async with Machine() as machine:
        job = Never(machine, "j", ready)
        job.start()
        with pytest.raises(CannotComplete, match="The active block job 'j' cannot be completed"):
            job.complete()


async def test_to_be_at_rest_is_to_wait_for_somebody_else() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def works(job: Toy) -> None:
        await gate
        await for_ever(job)

    async with Machine() as machine:
        job = Toy(machine, "j", works)
        job.start()
        assert job.busy
        resting = asyncio.ensure_future(job.idle())
        await turns()
        assert not resting.done()
        gate.set_result(None)
        await turns()
        assert resting.done()
        assert not job.busy


# Cancelling

CANCELLED = ["j aborting", "j: abort", "j: clean", "j: CANCELLED", *GONE]


@pytest.mark.parametrize("work", [for_ever, by_the_second])
async def test_cancel_ends_any_wait(work: Work) -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", work)
        job.start()
        machine.news()
        await job.user_cancel(force=True)
        await turns()
        assert machine.news() == CANCELLED


async def test_cancel_of_a_paused_job_lets_it_run_first() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", for_ever)
        job.start()
        job.user_pause()
        machine.news()
        await job.user_cancel(force=True)
        await turns()
        assert machine.news() == ["j running", "j: on_resume", *CANCELLED]


async def test_cancel_during_a_request_waits_for_it() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def works(job: Toy) -> None:
        await gate

    async with Machine() as machine:
        job = Toy(machine, "j", works)
        job.start()
        machine.news()
        await job.user_cancel(force=True)
        await turns()
        assert machine.news() == []
        gate.set_result(None)
        await turns()
        assert machine.news() == CANCELLED


async def test_cancel_of_a_job_that_waits_to_be_finalized() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once, auto_finalize=False)
        job.start()
        await turns()
        machine.news()
        await job.user_cancel(force=True)
        assert machine.news() == CANCELLED


async def test_cancel_between_the_end_of_the_work_and_its_conclusion() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once)
        job.start()
        machine.news()
        await job.user_cancel(force=True)
        await turns()
        assert machine.news() == CANCELLED


async def test_cancel_before_the_start_says_nothing_of_an_end() -> None:
    async with Machine() as machine:
        job = Toy(machine, "j", at_once)
        machine.news()
        await job.cancel(force=True)
        assert machine.news() == ["j aborting", "j: abort", "j: clean", *GONE]


async def test_a_job_that_fails_early_is_forgotten() -> None:
    async with Machine() as machine:
        Toy(machine, "j", at_once).early_fail()
        assert machine.news() == ["j created", "j null"]
        with pytest.raises(JobNotFound):
            machine.emu.jobs.find("j")


@pytest.mark.parametrize("state", ["new", "paused", "asleep", "pending", "concluded", "at work"])
async def test_shutdown_ends_a_job_in_any_state(state: str) -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def works(job: Toy) -> None:
        await gate

    work = {"asleep": by_the_second, "paused": for_ever, "at work": works}.get(state, at_once)
    async with Machine() as machine:
        job = Toy(
            machine, "j", work, auto_finalize=state != "pending", auto_dismiss=state != "concluded"
        )
        if state != "new":
            job.start()
        if state == "paused":
            job.user_pause()
        await turns()
        asyncio.get_running_loop().call_soon(gate.set_result, None)
        await machine.emu.jobs.cancel_all()
        assert machine.news()[-1] == "j null"
        assert not list(machine.emu.jobs)


# Groups


async def test_cancel_of_one_job_cancels_its_group() -> None:
    async with Machine() as machine:
        group = Group()
        first = Toy(machine, "a", at_once, group=group)
        second = Toy(machine, "b", by_the_second, group=group)
        first.start()
        second.start()
        await turns()
        assert machine.news()[-1] == "a waiting"
        await second.cancel(force=True)
        await turns()
        assert machine.news() == [
            "b aborting", "b: abort", "b: clean", "b: CANCELLED", "b concluded", "b null",
            "a aborting", "a: abort", "a: clean", "a: CANCELLED", "a concluded", "a null",
        ]  # fmt: skip


async def test_a_group_succeeds_together() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def works(job: Toy) -> None:
        await gate

    async with Machine() as machine:
        group = Group()
        for name, work in (("a", at_once), ("b", works)):
            Toy(machine, name, work, group=group).start()
        await turns()
        assert machine.news()[-1] == "a waiting"
        gate.set_result(None)
        await turns()
        assert machine.news() == [
            "b waiting", "b pending", "a pending", "b: prepare", "a: prepare",
            "b: commit", "b: clean", "b: COMPLETED", "b concluded", "b null",
            "a: commit", "a: clean", "a: COMPLETED", "a concluded", "a null",
        ]  # fmt: skip


async def test_one_that_needs_the_users_word_holds_up_the_group() -> None:
    async with Machine() as machine:
        group = Group()
        first = Toy(machine, "a", at_once, group=group, auto_finalize=False)
        second = Toy(machine, "b", at_once, group=group)
        first.start()
        second.start()
        await turns()
        assert machine.news()[-3:] == ["b pending", "a pending", "a: PENDING"]
        await second.finalize()  # any of them will do
        assert machine.news()[-1] == "a null"


async def test_a_failure_in_a_group_cancels_the_others_and_waits_for_them() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def works(job: Toy) -> None:
        await gate

    async def fail(job: Toy) -> None:
        raise OSError(errno.EIO, "x")

    async with Machine() as machine:
        group = Group()
        for name, work in (("a", works), ("b", for_ever), ("c", fail)):
            Toy(machine, name, work, group=group).start()
        await turns()
        machine.said.append("--")
        gate.set_result(None)
        await turns()
        news = machine.news()
        assert news[news.index("c aborting") :] == [
            "c aborting", "c: abort", "c: clean", "c: COMPLETED", "c concluded", "c null",
            "b aborting", "b: abort", "b: clean", "b: CANCELLED", "b concluded", "b null",
            "--",
            "a aborting", "a: abort", "a: clean", "a: CANCELLED", "a concluded", "a null",
        ]  # fmt: skip


# The registry


async def test_ids_are_checked() -> None:
    async with Machine() as machine:
        jobs = machine.emu.jobs
        Toy(machine, "j", at_once)
        with pytest.raises(JobIdInUse, match="Job ID 'j' already in use"):
            jobs.check_id("j")
        for bad in ("", "1x", "a b", "é"):
            with pytest.raises(BadJobId):
                jobs.check_id(bad)


async def test_a_command_waits_for_a_conclusion_in_progress() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Slow(Toy):
        async def clean(self) -> None:
            await gate

    async with Machine() as machine:
        job = Slow(machine, "j", at_once, auto_dismiss=False)
        job.start()
        await turns()
        query = asyncio.ensure_future(machine("query-jobs"))
        await turns()
        assert not query.done()
        gate.set_result(None)
        (info,) = await query
        assert info.status.value == "concluded"
