"""A guest writes at random while random jobs start, pause, end and change the graph below it.

The disk reads like the model at every moment, good backups hold the moment they began, and when
all jobs are over nothing is left of them: no node, no task, no file.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp.qmp_client import ExecuteError

from blockemu.backend import Backend
from blockemu.consistency import faults
from blockemu.images.qcow2 import new_image
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.testing import Running, running

SIZE = 1 << 20
SLOT = 1 << 17  # writes under way at once are to slots of their own
ROUNDS = 500
MOST_ROUNDS = 4 * ROUNDS  # if something did not happen until then
USEFUL = ("blockdev-mirror", "block-commit", "block-stream", "job-complete", "good backup")
REST = 50  # rounds between two looks at what is left
MOST_JOBS, LONGEST_CHAIN = 3, 6


def first_difference(seen: bytes, wanted: bytes) -> int | None:
    """Return the first byte that differs."""
    if seen == wanted:
        return None
    return next(at for at, (a, b) in enumerate(zip(seen, wanted, strict=True)) if a != b)


@dataclass
class Copy:
    """A backup under way, and what it has to hold."""

    target: str
    moment: bytes


class Stress:
    """One disk, its guest, its jobs, and the model of what is on it."""

    def __init__(self, subject: Running, guest: Backend, folder: Path, seed: int) -> None:
        self.subject, self.guest, self.folder = subject, guest, folder
        self.random = random.Random(seed)
        self.model = bytearray(SIZE)
        self.writes: list[asyncio.Task[None]] = []
        self.slots: set[int] = set()
        self.copies: dict[str, Copy] = {}
        self.number = 0
        self.log: list[str] = []
        self.done: dict[str, int] = {}  # commands that succeeded
        self.doomed: dict[str, bool] = {}  # jobs that are to be ended, and whether by a cancel

    # Commands

    async def ask(self, command: str, **members: Any) -> bool:
        """Try a command; being refused is an answer, an internal error is not."""
        try:
            await self.subject.execute(command, **members)
        except ExecuteError as e:
            if "Internal error" in str(e):
                raise
            self.log.append(f"{command} {members}: {e}")
            return False
        self.log.append(f"{command} {members}")
        self.done[command] = self.done.get(command, 0) + 1
        return True

    def name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}{self.number}"

    async def image(self) -> str:
        """Make and open an empty image; return its node's name."""
        name = self.name("n")
        (self.folder / name).write_bytes(new_image(SIZE, cluster_bits=self.random.choice([12, 16])))
        file = {"driver": "file", "filename": str(self.folder / name)}
        options = {"driver": "qcow2", "node-name": name, "file": file, "discard": "unmap"}
        await self.subject.execute("blockdev-add", options)
        return name

    @property
    def top(self) -> str:
        """The node that the guest is on, be it a job's filter."""
        return self.guest.node.name

    def chain(self) -> list[str]:
        """The images from the top down, without filters."""
        found, node = [], self.guest.node
        while node is not None:
            edge = node.filtered
            if edge is None:
                found.append(node.name)
                edge = node.children.get("backing")
            node = edge.node if edge is not None else None
        return found

    # What can happen

    async def write(self) -> None:
        slot = self.random.randrange(SIZE // SLOT)
        if slot in self.slots:
            return
        self.slots.add(slot)
        offset = self.random.randrange(SLOT)
        length = min(SLOT - offset, self.random.choice([1, 512, 4096, 65536, SLOT]))
        data = b"" if self.random.random() < 0.25 else self.random.randbytes(length)
        at = slot * SLOT + offset
        self.model[at : at + length] = data or bytes(length)
        self.writes.append(asyncio.create_task(self._write(at, length, data)))

    async def _write(self, offset: int, length: int, data: bytes) -> None:
        if data:
            await self.guest.pwrite(offset, data)
        else:
            await self.guest.write_zeroes(offset, length)

    async def written(self) -> None:
        """Wait for the guest's writes."""
        await asyncio.gather(*self.writes)
        self.writes.clear()
        self.slots.clear()

    async def read(self) -> None:
        await self.written()
        start, end = sorted(self.random.sample(range(SIZE + 1), 2))
        buffer = bytearray(end - start)
        await self.guest.pread(start, buffer)
        assert first_difference(bytes(buffer), bytes(self.model[start:end])) is None

    def options(self, job: str, *, holds: bool = False) -> dict[str, Any]:
        """Choose what is common to all jobs.

        ``holds``: guests wait until the job is finalized, as in QEMU; so this is not by hand.
        """
        chosen: dict[str, Any] = {
            "job_id": job,
            "speed": self.random.choice([0, 0, 1 << 16, 1 << 19]),
        }
        if self.random.random() < 0.3 and not holds:
            chosen["auto_finalize"] = False
        if self.random.random() < 0.3:
            chosen["auto_dismiss"] = False
        if self.random.random() < 0.5:
            chosen["filter_node_name"] = self.name("f")
        return chosen

    async def back_up(self) -> None:
        await self.written()  # else nobody knows which of them the backup is to have
        job, target, moment = self.name("backup"), await self.image(), bytes(self.model)
        more = {"device": self.top, "target": target, "sync": "full"}
        if await self.ask("blockdev-backup", **self.options(job), **more):
            self.copies[job] = Copy(target, moment)

    async def mirror(self) -> None:
        target = await self.image()
        more = {"copy_mode": self.random.choice(["background", "write-blocking"])}
        more |= {"device": self.top, "target": target, "sync": "full"}
        await self.ask("blockdev-mirror", **self.options(self.name("mirror"), holds=True), **more)

    async def commit(self) -> None:
        images = self.chain()
        if len(images) < 2:
            return
        upper, lower = sorted(self.random.sample(range(len(images)), 2))
        more = {"device": self.top, "base_node": images[lower]}
        if upper or self.random.random() < 0.5:
            more["top_node"] = images[upper]
        await self.ask("block-commit", **self.options(self.name("commit"), holds=True), **more)

    async def stream(self) -> None:
        images = self.chain()
        more = {"device": self.random.choice([self.top, *images])}
        below = self.random.choice(images)
        match self.random.randrange(3):
            case 0:
                more["base_node"] = below
            case 1:
                more["bottom"] = below
        await self.ask("block-stream", **self.options(self.name("stream")), **more)

    async def snapshot(self) -> None:
        if len(self.chain()) < LONGEST_CHAIN:
            await self.ask("blockdev-snapshot", node=self.top, overlay=await self.image())

    async def steer(self) -> None:
        """Do something to a job."""
        jobs = [job.id for job in self.subject.emulator.jobs]
        if not jobs:
            return
        job, verb = self.random.choice(jobs), self.random.choice(VERBS)
        key = "device" if verb.startswith("block-job-") else "id"
        more = {"speed": self.random.choice([0, 1 << 18])} if "speed" in verb else {}
        if verb == "block-job-cancel" and self.random.random() < 0.5:
            more["force"] = True
        await self.ask(verb, **{key: job}, **more)

    async def pass_time(self) -> None:
        self.subject.step(self.random.choice([10**6, 10**8, 10**9]))
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)

    # The rounds

    async def round(self) -> None:
        """Let something happen, and look whether all is well."""
        happens: list[Callable[[], Awaitable[None]]] = [self.write] * 6 + [self.steer] * 5
        happens += [self.pass_time] * 4 + [self.read] * 2
        if len(self.subject.emulator.jobs) < MOST_JOBS:
            happens += [self.back_up, self.mirror, self.commit, self.stream, self.snapshot] * 2
        async with asyncio.timeout(20):  # what takes longer hangs
            await self.random.choice(happens)()
            await self.sound()

    async def sound(self) -> None:
        """Nothing is inconsistent."""
        emulator = self.subject.emulator
        await emulator.jobs.settled()
        assert not faults(emulator.graph, emulator.jobs)
        assert not self.subject.daemon.faults

    async def rest(self) -> None:
        """End all jobs and forget what the disk does not need."""
        await self.written()
        async with asyncio.timeout(30):
            while await self.subject.execute("query-jobs"):
                for job in await self.subject.execute("query-jobs"):
                    await self._end(job["id"], job["status"])
                self.subject.step(10**9)
                await asyncio.sleep(0)
        await self.check_copies()
        whole = bytearray(SIZE)
        await self.guest.pread(0, whole)
        assert first_difference(bytes(whole), bytes(self.model)) is None
        chain = self.chain()
        nodes = self.subject.emulator.graph.nodes
        while unused := [n for n in nodes.values() if n.monitor_owned and not n.parents]:
            await self.subject.execute("blockdev-del", node_name=unused[0].name)
        self.alone(chain)

    async def _end(self, job: str, status: str) -> None:
        """Bring a job closer to its end: cancelled, completed, or in peace."""
        if status == "concluded":
            await self.ask("job-dismiss", id=job)
        elif status == "pending":
            await self.ask("job-finalize", id=job)
        elif status in ("paused", "standby"):
            await self.ask("job-resume", id=job)
        elif status == "ready" and self.random.random() < 0.5:
            await self.ask("job-complete", id=job)
        elif self.dooms(job):
            await self.ask("job-cancel", id=job)
        else:
            await self.ask("block-job-set-speed", device=job, speed=0)

    def dooms(self, job: str) -> bool:
        """Decide once whether a job is to be cancelled: else slow ones would hardly ever end."""
        if job not in self.doomed:
            self.doomed[job] = self.random.random() < 0.3
        return self.doomed[job]

    async def check_copies(self) -> None:
        """Backups that went well hold what the disk held when they began."""
        self.subject._collect()
        for event in self.subject.events:
            data = event.get("data", {})
            copy = self.copies.pop(data.get("device"), None)
            if copy and event["event"] == "BLOCK_JOB_COMPLETED" and "error" not in data:
                seen = await self.subject.read(copy.target, 0, SIZE)
                assert first_difference(seen, copy.moment) is None, data["device"]
                self.done["good backup"] = self.done.get("good backup", 0) + 1
        self.subject.events.clear()
        self.copies.clear()

    def alone(self, chain: list[str]) -> None:
        """What is left is the disk: its images and their files."""
        nodes: dict[str, Node[Any]] = self.subject.emulator.graph.nodes
        assert len(nodes) == 2 * len(chain), (sorted(nodes), chain)
        opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        ours = {path for path in opened if path.startswith(str(self.folder))}
        assert ours == {str(self.folder / name) for name in chain}
        assert not self.subject.emulator.tasks
        for path in self.folder.iterdir():
            if path.name not in chain:
                path.unlink()


VERBS = [
    "job-pause",
    "job-pause",
    "job-resume",
    "job-resume",
    "job-cancel",
    "job-complete",
    "job-complete",
    "job-finalize",
    "job-finalize",
    "job-dismiss",
    "job-dismiss",
    "block-job-cancel",
    "block-job-pause",
    "block-job-resume",
    "block-job-complete",
    "block-job-set-speed",
]


@pytest.mark.parametrize("seed", range(3))
async def test_the_disk_is_the_models_whatever_jobs_do(tmp_path: Path, seed: int) -> None:
    async with running(stepped=True) as subject:
        tasks = len(asyncio.all_tasks())
        first = tmp_path / "n0"
        first.write_bytes(new_image(SIZE))
        file = {"driver": "file", "filename": str(first)}
        await subject.execute("blockdev-add", {"driver": "qcow2", "node-name": "n0", "file": file})
        async with subject.guest("n0", Perm.CONSISTENT_READ | Perm.WRITE) as guest:
            stress = Stress(subject, guest, tmp_path, seed)
            try:
                for number in range(1, MOST_ROUNDS + 1):
                    await stress.round()
                    if number % REST == 0:
                        await stress.rest()
                        assert len(asyncio.all_tasks()) <= tasks
                        if number >= ROUNDS and all(map(stress.done.get, USEFUL)):
                            break
            except BaseException as e:
                e.add_note("\n".join(stress.log[-40:]))
                raise
        for what in USEFUL:
            assert stress.done.get(what), "the run was of little use"
