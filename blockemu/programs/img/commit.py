"""``commit``: merge an image into one below it, and empty it."""

import asyncio
import os
from contextlib import suppress
from typing import Any

from blockemu import filenames
from blockemu.backend import Backend, drained
from blockemu.cache_modes import CACHE_MODES
from blockemu.chain import cow_child, skip_filters
from blockemu.emptying import CannotEmpty, make_empty
from blockemu.jobs.job import Job
from blockemu.jobs.mirror import MirrorSettings
from blockemu.jobs.mirror_start import start_active_commit
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.refusals import BadCache, OneImageExpected, Refusal
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.jobs import JobStatus, JobStatusChange

SYNTAX = Syntax("f:ht:b:dpqr:", IMAGE)
JOB = "commit"
TICK = 0.1  # seconds between two looks at the progress


class NotInChain(Refusal):
    """(base, image)."""

    template = "Did not find '{}' in the backing chain of '{}'"


class NoBacking(Refusal):
    """There is nothing to commit to."""

    template = "Image does not have a backing file"


class CommitFailed(Refusal):
    """(why)."""

    template = "Block job failed: {}"


async def run(program: Program, argv: list[str]) -> int:
    """Commit to the backing file, or to another one below it, which leaves the image as it is."""
    given: dict[str, str] = {}
    names = []
    rate = 0
    for name, value in program.options(SYNTAX, argv):
        if name == "r":
            rate = number("rate limit", value, program.warn)
        elif name:
            given[name] = value
        else:
            names.append(value)
    if len(names) != 1:
        raise OneImageExpected
    program.quiet = "q" in given
    cache = given.get("t", "writeback")
    if cache not in CACHE_MODES:
        raise BadCache(cache)
    mode = Mode(write=True, unmap=True, cache=CACHE_MODES[cache])
    image = await program.open(names[0], given.get("f"), mode, image_opts="image-opts" in given)
    bar = program.bar(1.0, shown="p" in given)
    bar.add(0)
    try:
        base = _base(image, given.get("b"), names[0])
        keep = "d" not in given and "b" not in given
        await _commit(program, image, base, rate, bar, empty=keep)
    finally:
        bar.end()
    program.tell("Image committed.\n")
    return 0


def _base(image: Backend, name: str | None, filename: str) -> Node[Any]:
    if name is not None:
        found = filenames.find_backing_image(image.node, name)
        if found is None:
            raise NotInChain(name, filename)
        return found
    below = cow_child(image.node)
    if below is None:
        raise NoBacking
    return skip_filters(below)


async def _commit(
    program: Program, image: Backend, base: Node[Any], rate: int, bar: Bar, *, empty: bool
) -> None:
    """Run the job; then the image's backend is at the base, and the image can be emptied."""
    emu, top = program.emu, image.node
    watch = _Watch()
    emu.listeners.append(watch.hear)
    job = await start_active_commit(emu, top, base, MirrorSettings(job_id=JOB, speed=rate))
    top.holds += 1
    try:
        await watch.follow(job, bar)
        if job.error:
            raise CommitFailed(os.strerror(job.error))
        bar.set(100)
        if empty:
            await _empty(program, top)
    finally:
        emu.listeners.remove(watch.hear)
        top.holds -= 1
        await emu.graph.release(top)


async def _empty(program: Program, top: Node[Any]) -> None:
    overlay = Backend(perm=Perm.WRITE)
    program.emu.graph.insert(overlay, top)
    program.keep(overlay)
    with suppress(CannotEmpty):
        async with drained(top):
            await make_empty(overlay)
    await program.close(overlay)


class _Watch:
    """Follows the one job there is from its start to its end (run_block_job, qemu-img.c)."""

    def __init__(self) -> None:
        self.status = JobStatus.UNDEFINED
        self.news = asyncio.Event()

    def hear(self, event: Struct) -> None:
        """Take note of where the job is."""
        if isinstance(event, JobStatusChange):
            self.status = event.status
            self.news.set()

    async def follow(self, job: Job, bar: Bar) -> None:
        """Show progress, complete the job when it can be, and wait until it is gone."""
        asked = False
        while self.status is not JobStatus.NULL:
            if job.progress.total and not asked:
                bar.set(job.progress.current / job.progress.total * 100)
            if self.status is JobStatus.READY and not asked:
                asked = True
                job.complete()
            await self._wait()

    async def _wait(self) -> None:
        """Wait for a change, but not for long."""
        if self.status is not JobStatus.NULL:
            self.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), TICK)
