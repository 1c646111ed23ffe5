"""Drained sections: who is held up, who is waited for, and that it all adds up again."""

from __future__ import annotations

import asyncio

import pytest
from fakes import KIB, Disk, Machine, turns

from blockemu.backend import drain, drained
from blockemu.drivers.raw import Raw
from blockemu.jobs.block_job import BlockJob
from blockemu.node import Flags
from blockemu.perm import Perm, Role
from blockemu.schema.jobs import JobType
from blockemu.transaction import Transaction

SIZE = 64 * KIB


def stack(machine: Machine, disk: Disk, name: str = "top") -> Raw:
    """Put a raw node on a disk."""
    raw = Raw(name, "raw", Raw.Options(file=disk.name), Flags(), machine.emu)
    raw.monitor_owned = True
    raw.offset, raw.size = 0, None
    machine.emu.graph.add(raw)
    with Transaction() as transaction:
        role = Role.FILTERED | Role.PRIMARY
        machine.emu.graph.add_child(raw, "file", role, disk, transaction)
    return raw


async def test_a_drained_section_waits_for_requests_and_holds_up_new_ones() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        stack(machine, disk)
        guest = machine.guest("top")
        disk.held.add("write")
        write = asyncio.ensure_future(guest.pwrite(0, b"x"))
        await turns()
        inside = asyncio.Event()
        leave = asyncio.Event()

        async def section() -> None:
            async with drained(disk):
                inside.set()
                await leave.wait()

        draining = asyncio.ensure_future(section())
        await turns()
        assert not inside.is_set()
        later = asyncio.ensure_future(guest.pwrite(1, b"y"))
        disk.let()
        await turns()
        assert write.done()
        assert inside.is_set()
        assert not later.done()
        leave.set()
        await asyncio.gather(draining, later)
        assert disk.data[:2] == b"xy"


async def test_nested_sections_end_with_the_last() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        top = stack(machine, disk)
        guest = machine.guest("top")
        hooks: list[bool] = []
        guest.drain_hooks.append(hooks.append)
        async with drained(top), drained(disk), drained(disk, top):
            assert guest.route.read is None
            later = asyncio.ensure_future(guest.pwrite(0, b"x"))
            await turns()
            assert not later.done()
        await later
        assert hooks == [True, False]
        assert disk.quiesce_counter == top.quiesce_counter == 0


async def test_a_section_that_is_given_up_leaves_nothing_behind() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        guest = machine.guest("d")
        disk.held.add("write")
        write = asyncio.ensure_future(guest.pwrite(0, b"x"))
        await turns()

        async def section() -> None:
            async with drained(disk):
                pytest.fail("the write is not over")

        task = asyncio.ensure_future(section())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert disk.quiesce_counter == 0
        disk.let()
        await write
        await guest.pwrite(0, b"y")


async def test_whoever_comes_to_a_drained_node_is_drained_as_well() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        async with drained(disk):
            top = stack(machine, disk)
            guest = machine.guest("top")
            late = asyncio.ensure_future(guest.pwrite(0, b"x"))
            await turns()
            assert not late.done()
            assert top.quiesce_counter == 1
        await late
        assert top.quiesce_counter == 0


async def test_whoever_leaves_a_drained_node_is_free() -> None:
    async with Machine() as machine:
        disk, other = machine.disk("d", SIZE), machine.disk("o", SIZE)
        top = stack(machine, disk)
        guest = machine.guest("top")
        async with drained(disk):
            with Transaction() as transaction:
                machine.emu.graph.redirect(top.file, other, transaction)
            await guest.pwrite(0, b"x")
        assert other.data[0] == ord("x")
        assert top.quiesce_counter == 0


async def test_what_is_held_is_settled_first() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        guest = machine.guest("d")
        holder, hurried = object(), []
        guest.hold(holder, lambda: hurried.append(1))
        draining = asyncio.ensure_future(drain([disk]))
        await turns()
        assert hurried == [1]
        assert not draining.done()
        guest.release(holder)
        await draining


class Resting(BlockJob):
    type = JobType.COMMIT

    async def run(self) -> None:
        while not self.is_cancelled:
            await self.idle_wait()


async def test_a_job_stands_still_while_its_node_is_drained() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        job = Resting(machine.emu.jobs, machine.emu.graph, "j")
        machine.emu.jobs.add(job)
        job.add_node("main node", disk, Perm.NONE, Perm.ALL)
        job.start()
        machine.news()
        async with drained(disk):
            assert machine.news() == ["j paused"]
            async with drained(disk):
                assert job.pause_count == 2
            assert machine.news() == []
        assert machine.news() == ["j running"]
        await drain(machine.emu.graph.nodes.values())
        assert machine.news() == ["j paused", "j running"]
        job.user_pause()
        machine.news()
        async with drained(disk):
            pass
        assert machine.news() == []
        job.user_resume()


async def test_a_root_that_goes_away_makes_jobs_pause_twice() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        job = Resting(machine.emu.jobs, machine.emu.graph, "j")
        machine.emu.jobs.add(job)
        job.add_node("main node", disk, Perm.NONE, Perm.ALL)
        job.start()
        machine.news()
        await machine.emu.graph.remove(machine.guest("d"))
        assert machine.news() == ["j paused", "j running"] * 2


async def test_a_jobs_own_backend_does_not_queue() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        guest = machine.guest("d")
        guest.queues = False
        async with drained(disk):
            await guest.pwrite(0, b"x")
