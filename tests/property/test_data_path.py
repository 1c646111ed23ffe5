"""The ways a request may take give the same bytes, and a backup is of one moment.

A request is planned and done at once, or goes through coroutines, or through blocks larger than it
is.  Requests that race for the same bytes may come in any order, but each is seen whole.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import planned
import pytest
from fakes import Machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from luks_volumes import luks_volume

from blockemu.backend import Backend
from blockemu.bitmaps.bitmap import Bitmap
from blockemu.images.qcow2.new import new_image
from blockemu.node import Limits
from blockemu.perm import Perm
from blockemu.schema.objects import SecretProperties

BLOCK = 4096
CLUSTER = 65536
SIZE = 32 * CLUSTER
T = TypeVar("T")


def image(folder: Path, kind: str) -> tuple[dict[str, Any], bytearray]:
    """Make an image; return how to open it and what is in it."""
    content = bytearray(random.Random(1).randbytes(SIZE))
    base, path = folder / "base", folder / "img"
    file = {"driver": "file", "filename": str(path)}
    if kind == "raw":
        path.write_bytes(content)
        return {"driver": "raw", "file": file}, content
    if kind == "window":
        path.write_bytes(bytes(512) + content)
        return {"driver": "raw", "file": file, "offset": 512, "size": SIZE}, content
    if kind == "luks":
        path.write_bytes(luks_volume(content))
        return {"driver": "luks", "key-secret": "s", "file": file}, content
    if kind == "empty":
        path.write_bytes(new_image(SIZE))
        return {"driver": "qcow2", "file": file}, bytearray(SIZE)
    short = SIZE // 2 + 3 * BLOCK
    base.write_bytes(content[:short])
    path.write_bytes(new_image(SIZE, backing_file=str(base), backing_format="raw"))
    return {"driver": "qcow2", "file": file}, content[:short] + bytes(SIZE - short)


KINDS = ["raw", "window", "empty", "backed", "luks"]
WAYS = ["plan", "coroutine", "unaligned"]


class Guest:
    """A guest on an image, whose requests take one way."""

    def __init__(self, machine: Machine, way: str) -> None:
        self.machine = machine
        self.way = way
        self.backend = Backend("", Perm.ALL, Perm.ALL, plans=way == "plan")

    async def open(self, options: dict[str, Any]) -> Guest:
        if options["driver"] == "luks":
            self.machine.emu.objects.add(SecretProperties(id="s", data="pass"))
        node = await self.machine.emu.opener.open(options)
        self.machine.emu.graph.insert(self.backend, node)
        if self.way == "unaligned":
            node.limits = Limits(request_alignment=4 * BLOCK)
            node.changed()
        return self

    async def read(self, offset: int, length: int) -> bytes:
        buf = bytearray(b"\xa5" * length)
        await self.backend.pread(offset, buf)
        return bytes(buf)

    async def write(self, offset: int, data: bytes) -> None:
        """Write as a guest, by a plan if there is one."""
        await planned.write(self.backend, offset, data)


def made_of(seen: bytes, contents: list[bytes]) -> bool:
    """Tell whether each byte is one of those that were there: no kernel promises whole blocks."""
    return seen in contents or all(
        byte in there for byte, there in zip(seen, zip(*contents, strict=True), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_racing_requests_end_whole(tmp_path: Path, kind: str, way: str) -> None:
    """Each block ends as one of the writes that raced for it; reads see no byte of anything else."""
    options, content = image(tmp_path, kind)
    rng = random.Random(2)
    async with Machine() as machine:
        guest = await Guest(machine, way).open(options)
        bitmap = Bitmap(SIZE)
        guest.backend.node.add_bitmap(bitmap)
        dirty: set[int] = set()
        for number in range(20):
            writers: dict[int, list[bytes]] = defaultdict(list)
            reads, requests = [], []
            for n in range(24):
                first = rng.randrange(SIZE // BLOCK // (1 if number % 2 else 16))
                count = min(rng.choice([1, 1, 2, 5, 40]), SIZE // BLOCK - first)
                if rng.random() < 0.6:
                    data = bytes([number * 8 + n & 255 or 1]) * (count * BLOCK)
                    requests.append(guest.write(first * BLOCK, data))
                    for block in range(first, first + count):
                        writers[block].append(data[:BLOCK])
                        dirty.add(block * BLOCK // CLUSTER)
                else:
                    reads.append((len(requests), first))
                    requests.append(guest.read(first * BLOCK, count * BLOCK))
            results = await asyncio.gather(*requests)
            for index, first in reads:
                for i, block in enumerate(range(first, first + len(results[index]) // BLOCK)):
                    seen = results[index][i * BLOCK : (i + 1) * BLOCK]
                    old = bytes(content[block * BLOCK : (block + 1) * BLOCK])
                    assert made_of(seen, [old, *writers.get(block, ())])
            if number % 7 == 6:
                await guest.backend.flush()
            for block, tried in writers.items():
                seen = await guest.read(block * BLOCK, BLOCK)
                assert seen in tried
                content[block * BLOCK : (block + 1) * BLOCK] = seen
        assert await guest.read(0, SIZE) == content
        starts, ends = bitmap.extents()
        marked = {
            c for a, b in zip(starts, ends, strict=True) for c in range(a // CLUSTER, b // CLUSTER)
        }
        assert marked == dirty
        assert not guest.backend.in_flight
        assert not guest.backend.node.tracker.requests
        await machine.emu.graph.remove(guest.backend)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_at_a_time_all_ways_give_the_same(tmp_path: Path, kind: str) -> None:
    async def play(way: str, folder: Path) -> list[Any]:
        folder.mkdir()
        options, _ = image(folder, kind)
        rng, seen = random.Random(3), []
        async with Machine() as machine:
            guest = await Guest(machine, way).open(options)
            for n in range(120):
                offset = rng.randrange(SIZE - 1)
                length = min(rng.choice([1, 512, 5000, 70000, 300000]), SIZE - offset)
                match rng.randrange(4):
                    case 0 | 1:
                        await guest.write(offset, bytes([n % 255 + 1]) * length)
                    case 2:
                        await guest.backend.write_zeroes(offset, length)
                    case _:
                        seen.append(await guest.read(offset, length))
            seen.append(await guest.read(0, SIZE))
            await machine.emu.graph.remove(guest.backend)
        return seen

    first, *others = [await play(way, tmp_path / way) for way in WAYS]
    for other in others:
        assert other == first


async def test_the_first_write_to_a_cluster_is_planned_with_what_lies_around(
    tmp_path: Path,
) -> None:
    """Over a backing file; others that overlap find no plan until it is done."""
    options, content = image(tmp_path, "backed")
    (tmp_path / "img").write_bytes(
        new_image(SIZE + BLOCK, backing_file=str(tmp_path / "base"), backing_format="raw")
    )
    content += bytes(BLOCK)
    places = [(100, 5), (3 * CLUSTER - 7, 9), (SIZE // 2 + 2 * BLOCK, CLUSTER), (SIZE - 1, 1)]
    async with Machine() as machine:
        guest = await Guest(machine, "plan").open(options)
        await guest.backend.pwrite(20 * CLUSTER, content[20 * CLUSTER :][:CLUSTER])  # loads tables
        for offset, length in places:
            write = guest.backend.route.write
            assert write is not None
            planned = write(offset, length)
            assert planned is not None
            [(leaf, host, _)], commit = planned
            assert leaf is not None
            assert commit is not None
            assert write(offset, 1) is None
            leaf.recall()
            leaf.write_now(host, memoryview(b"\x33" * length))
            assert await guest.read(0, len(content)) == content
            commit(True)
            content[offset : offset + length] = b"\x33" * length
            assert await guest.read(0, len(content)) == content
        write = guest.backend.route.write
        assert write is not None
        assert write(SIZE, 1) is None  # the last cluster reaches beyond the disk
        await machine.emu.graph.remove(guest.backend)


# Backups

blocks = st.integers(0, SIZE // BLOCK - 1)
lengths = st.sampled_from([1, 100, BLOCK, 3 * BLOCK, CLUSTER, 5 * CLUSTER])


class Backups(RuleBasedStateMachine):
    """A guest writes what it likes while incremental backups run, are cancelled, and fail.

    The chain of good backups is at any time the disk as it was when the last of them began.
    """

    format = "raw"

    @initialize(seed=st.integers(0, 255))
    def start(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.loop = asyncio.new_event_loop()
        self.disk = bytearray(random.Random(seed).randbytes(SIZE))
        self.chain = bytearray(self.disk)  # what the good backups add up to
        self.moment: bytes | None = None  # the disk when the running backup began
        self.count = 0
        self.last: str | None = None
        self.do(self.open)

    async def open(self) -> None:
        self.machine = Machine()
        path = self.path / "disk"
        path.write_bytes(self.disk if self.format == "raw" else new_image(SIZE))
        file = {"driver": "file", "filename": str(path)}
        await self.command("blockdev-add", driver=self.format, node_name="disk", file=file)
        await self.command("block-dirty-bitmap-add", node="disk", name="b")
        self.guest = self.machine.guest("disk")
        if self.format != "raw":
            await self.guest.pwrite(0, self.disk)
        await self.begin("full")
        await self.command("block-job-set-speed", device="j", speed=0)
        await self.finish()

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(30):
                return await work()

        return self.loop.run_until_complete(limited())

    async def command(self, name: str, /, **members: Any) -> None:
        result = await self.machine(name, **members)
        assert not isinstance(result, Exception), result

    async def begin(self, sync: str, **options: Any) -> None:
        self.count += 1
        name = f"t{self.count}"
        path = self.path / name
        below = {}
        if self.last is not None:
            below = {"backing_file": str(self.path / self.last), "backing_format": "qcow2"}
        path.write_bytes(new_image(SIZE, **below))
        file = {"driver": "file", "filename": str(path)}
        await self.command("blockdev-add", driver="qcow2", node_name="target", file=file)
        self.moment = bytes(self.disk)
        self.good = True
        options |= {"bitmap": "b", "bitmap_mode": "on-success"}
        await self.command(
            "blockdev-backup", job_id="j", device="disk", target="target", sync=sync, speed=1,
            auto_dismiss=False, **options,
        )  # fmt: skip

    async def finish(self) -> None:
        await self.machine.until("j concluded")
        job = self.machine.job()
        error = job.info().error
        await self.command("job-dismiss", id="j")
        await self.command("blockdev-del", node_name="target")
        self.machine.news()
        if error is None:
            assert self.moment is not None
            self.chain[:] = self.moment
            self.last = f"t{self.count}"
        self.moment = None

    @precondition(lambda self: self.moment is None)
    @rule(workers=st.sampled_from([1, 64]), chunk=st.sampled_from([0, CLUSTER]))
    def back_up(self, workers: int, chunk: int) -> None:
        perf = {"max-workers": workers, "max-chunk": chunk}
        self.do(lambda: self.begin("bitmap", x_perf=perf))

    @rule(block=blocks, length=lengths, odd=st.integers(0, 3), value=st.integers(0, 255))
    def write(self, block: int, length: int, odd: int, value: int) -> None:
        offset = block * BLOCK + odd
        length = min(length, SIZE - offset)
        self.do(lambda: self.guest.pwrite(offset, bytes([value]) * length))
        self.disk[offset : offset + length] = bytes([value]) * length

    @rule(block=blocks, length=lengths)
    def write_zeroes(self, block: int, length: int) -> None:
        offset = block * BLOCK
        length = min(length, SIZE - offset)
        self.do(lambda: self.guest.write_zeroes(offset, length))
        self.disk[offset : offset + length] = bytes(length)

    @precondition(lambda self: self.moment is not None)
    @rule(first=blocks, speed=st.sampled_from([0, CLUSTER, 1 << 30]))
    def write_while_it_copies(self, first: int, speed: int) -> None:
        """Let the job go, and race with it."""
        data = bytes([first & 255]) * (SIZE - first * BLOCK)

        async def race() -> None:
            writing = asyncio.ensure_future(self.guest.pwrite(first * BLOCK, data))
            await self.machine("block-job-set-speed", device="j", speed=speed)
            await writing

        self.do(race)
        self.disk[first * BLOCK :] = data

    @precondition(lambda self: self.moment is not None)
    @rule(nanoseconds=st.integers(0, 10**10))
    def let_time_pass(self, nanoseconds: int) -> None:
        async def step() -> None:
            self.machine.clock.step(nanoseconds)

        self.do(step)

    @precondition(lambda self: self.moment is not None)
    @rule()
    def pause_and_resume(self) -> None:
        async def both() -> None:
            await self.machine("job-pause", id="j")
            await self.machine("job-resume", id="j")

        self.do(both)

    @precondition(lambda self: self.moment is not None)
    @rule()
    def cancel(self) -> None:
        async def cancel() -> None:
            await self.machine("job-cancel", id="j")
            await self.finish()

        self.do(cancel)

    @precondition(lambda self: self.moment is not None)
    @rule()
    def complete(self) -> None:
        async def complete() -> None:
            await self.machine("block-job-set-speed", device="j", speed=0)
            await self.finish()

        self.do(complete)

    @precondition(lambda self: getattr(self, "moment", b"") is None)
    @invariant()
    def the_chain_is_the_disk_of_that_moment(self) -> None:
        async def read() -> bytes:
            file = {"driver": "file", "filename": str(self.path / str(self.last))}
            options = {"driver": "qcow2", "read-only": True, "file": file}
            node = await self.machine.emu.opener.open(options)
            backend = Backend("", Perm.CONSISTENT_READ, Perm.ALL)
            self.machine.emu.graph.insert(backend, node)
            await backend.pread(0, buf := bytearray(SIZE))
            await self.machine.emu.graph.remove(backend)
            return bytes(buf)

        if self.last is not None:
            assert self.do(read) == self.chain

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def close() -> None:
            await self.machine.emu.graph.remove(self.guest)
            await self.machine.emu.close()

        try:
            self.do(close)
        finally:
            self.loop.close()
            self.folder.cleanup()


class BackupsOfQcow2(Backups):
    format = "qcow2"


few = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestBackups = Backups.TestCase
TestBackups.settings = few
TestBackupsOfQcow2 = BackupsOfQcow2.TestCase
TestBackupsOfQcow2.settings = few
