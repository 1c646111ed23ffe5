"""Copying by a bitmap: pieces, calls side by side, speed, failures."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import CLUSTER, KIB, MIB, Disk, Machine, turns

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.copying import block_copy, offload
from blockemu.copying.block_copy import BlockCopy
from blockemu.copying.copy_calls import Call
from blockemu.copying.progress import Progress
from blockemu.edge import Edge
from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO, Extents
from blockemu.node import Write
from blockemu.perm import Perm, Role
from blockemu.transaction import Transaction

SECOND = 1_000_000_000


def edge_to(machine: Machine, disk: Any) -> Edge:
    edge = Edge("test", None, Role.NONE, Perm.ALL)
    with Transaction() as transaction:
        machine.emu.graph.attach(edge, disk, transaction)
    return edge


class Bench:
    """A copy between two disks in memory."""

    def __init__(self, machine: Machine, size: int = 4 * MIB) -> None:
        data = os.urandom(size)
        self.source, self.target = machine.disk("s", data), machine.disk("t", size)
        self.bitmap = Bitmap(-(-size // 512) * 512, CLUSTER)
        self.bitmap.mark(0, self.bitmap.length)
        self.copy = BlockCopy(
            edge_to(machine, self.source), edge_to(machine, self.target), self.bitmap,
            machine.emu.pool, machine.clock,
        )  # fmt: skip
        self.copy.progress = Progress()
        self.copy.tell()
        self.length = -(-size // CLUSTER) * CLUSTER

    @property
    def at(self) -> tuple[int, int]:
        progress = self.copy.progress
        assert progress is not None
        return progress.current, progress.total

    def start(self, **options: Any) -> Call:
        call = Call(**options)
        self.copy.start(0, self.length, call)
        return call


def runs(*parts: tuple[int, int, int], end: int) -> Extents:
    start, status, host = (np.array(column) for column in zip(*parts, strict=True))
    return Extents(start.astype(np.int64), status.astype(np.uint8), host.astype(np.int64), end)


@pytest.mark.parametrize("size", [4 * MIB, 3 * MIB + 5 * KIB, 512, CLUSTER])
async def test_everything_is_copied_in_pieces_of_a_mib(size: int) -> None:
    async with Machine() as machine:
        bench = Bench(machine, size)
        call = bench.start()
        assert call.finished  # nothing had to be waited for
        assert bench.target.data == bench.source.data
        assert bench.at == (bench.length, bench.length)
        assert not bench.bitmap.count
        assert max(length for _, _, length in bench.target.log) <= MIB
        assert sum(length for _, _, length in bench.target.log) == size


async def test_only_what_is_dirty_is_copied() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.bitmap.clear()
        bench.bitmap.mark(3 * CLUSTER + 5, 1)
        bench.bitmap.mark(MIB, 2 * CLUSTER)
        bench.copy.tell()
        bench.start()
        assert bench.target.log == [
            ("write", 3 * CLUSTER, CLUSTER), ("write", MIB, 2 * CLUSTER),
        ]  # fmt: skip
        assert bench.at == (3 * CLUSTER, 3 * CLUSTER)


async def test_what_reads_as_zeroes_is_not_read() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        # The middle of the second cluster on: partly zero clusters are copied as data.
        bench.source.data[CLUSTER + 100 :] = bytes(4 * MIB - CLUSTER - 100)
        bench.source.extents = runs(
            (0, DATA | ALLOCATED, 0), (CLUSTER + 100, ZERO | ALLOCATED, NOWHERE), end=4 * MIB
        )
        bench.target.data[:] = b"x" * (4 * MIB)
        bench.start()
        assert bench.target.data == bench.source.data
        assert sum(length for _, _, length in bench.source.log) == 2 * CLUSTER
        assert sum(n for kind, _, n in bench.target.log if kind == "zero") == 4 * MIB - 2 * CLUSTER


async def test_a_chunk_limit_and_a_limit_of_workers_hold() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.source.held.add("read")
        call = bench.start(max_chunk=2 * CLUSTER, max_workers=3)
        await turns()
        assert bench.source.log == [("read", n * 2 * CLUSTER, 2 * CLUSTER) for n in range(3)]
        bench.source.let()
        await call.wait()
        assert bench.target.data == bench.source.data
        assert {length for _, _, length in bench.target.log} == {2 * CLUSTER}


@pytest.mark.parametrize("limit", [100 * KIB, 1000])
async def test_a_driver_with_small_transfers_gets_clusters(limit: int) -> None:
    async with Machine() as machine:
        machine_limits = {"max_transfer": limit}
        source, target = machine.disk("s", b"x" * MIB), machine.disk("t", MIB)
        machine.align(target, **machine_limits)
        bitmap = Bitmap(MIB, CLUSTER)
        bitmap.mark(0, MIB)
        copy = BlockCopy(
            edge_to(machine, source), edge_to(machine, target), bitmap, machine.emu.pool, machine.clock
        )  # fmt: skip
        copy.start(0, MIB, Call())
        assert {length for _, _, length in source.log} == {CLUSTER}
        assert target.data == source.data


# Side by side


async def test_calls_share_the_work_and_wait_for_each_other() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.target.held.add("write")
        first = bench.start()
        guest = Call(ignore_speed=True)
        saving = asyncio.ensure_future(bench.copy.copy(CLUSTER, CLUSTER, guest))
        await turns()
        assert not saving.done()  # the first call has that piece
        bench.target.let()
        await saving
        await first.wait()
        assert bench.target.data == bench.source.data
        assert sum(length for _, _, length in bench.target.log) == 4 * MIB  # nothing twice


async def test_what_another_call_failed_to_copy_is_tried_again() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.target.held.add("write")
        bench.target.errors["write"] = errno.EIO
        first = bench.start()
        guest = Call(ignore_speed=True)
        saving = asyncio.ensure_future(bench.copy.copy(CLUSTER, CLUSTER, guest))
        await turns()
        bench.target.let()
        await turns(1)
        del bench.target.errors["write"]
        await first.wait()
        await saving
        assert first.error == errno.EIO
        assert not guest.error
        assert bench.target.data[CLUSTER : 2 * CLUSTER] == bench.source.data[CLUSTER : 2 * CLUSTER]


@pytest.mark.parametrize(("kind", "is_read"), [("read", True), ("write", False)])
async def test_a_failure_says_which_side_and_leaves_the_piece_dirty(
    kind: str, is_read: bool
) -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        side = bench.source if is_read else bench.target
        side.errors[kind] = errno.ENOSPC
        call = bench.start()
        assert (call.error, call.error_is_read) == (errno.ENOSPC, is_read)
        assert bench.bitmap.dirty_bytes == 4 * MIB
        assert bench.at == (0, 4 * MIB)


async def test_cancel_takes_no_more_and_lets_the_rest_end() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.target.held.add("write")
        call = bench.start(max_workers=1)
        await turns()
        call.cancel()
        await turns()
        assert not call.finished
        bench.target.let()
        await call.wait()
        assert bench.at == (2 * MIB, 4 * MIB)  # one at work, one that waited for a worker
        assert bench.bitmap.dirty_bytes == 2 * MIB


async def test_an_endless_stream_of_pieces_lets_others_have_a_turn() -> None:
    async with Machine() as machine:
        bench = Bench(machine, 512 * CLUSTER)
        call = bench.start(max_chunk=CLUSTER)
        assert not call.finished
        await call.wait()
        assert bench.target.data == bench.source.data


async def test_fleecing_writes_shut_readers_out() -> None:
    async with Machine() as machine:
        source, target = machine.disk("s", MIB), machine.disk("t", MIB)
        with Transaction() as transaction:
            machine.emu.graph.add_child(target, "backing", Role.COW, source, transaction)
        copy = BlockCopy(
            edge_to(machine, source), edge_to(machine, target), Bitmap(MIB, CLUSTER),
            machine.emu.pool, machine.clock,
        )  # fmt: skip
        assert copy.write_flags == Write.SERIALISING


# Speed


async def test_with_a_speed_the_user_sees_qemus_steps() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.copy.set_speed(MIB)
        call = bench.start()
        await turns()
        for done in (1, 2, 3):
            assert bench.at == (done * MIB, 4 * MIB)
            deadline = machine.clock.next_deadline
            assert deadline is not None
            wait = deadline - machine.clock.now()
            assert SECOND <= wait < 1.001 * SECOND  # a slice holds whole bytes
            machine.clock.step(wait - 1)
            assert bench.at == (done * MIB, 4 * MIB)
            machine.clock.step(1)
        assert call.finished
        assert bench.at == (4 * MIB, 4 * MIB)


async def test_with_a_speed_a_piece_is_within_one_run_of_the_source() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.source.extents = runs(
            (0, DATA | ALLOCATED, 3 * MIB), (2 * CLUSTER, DATA | ALLOCATED, 0), end=4 * MIB
        )
        bench.copy.set_speed(1)
        bench.start().cancel()
        assert bench.at == (2 * CLUSTER, 4 * MIB)


async def test_a_kick_ends_the_wait_and_a_guest_does_not_wait_at_all() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.copy.set_speed(1)
        call = bench.start()
        assert bench.at[0] == MIB
        guest = Call(ignore_speed=True)
        await bench.copy.copy(2 * MIB, CLUSTER, guest)
        assert bench.at[0] == MIB + CLUSTER
        bench.copy.set_speed(0)
        assert not call.finished
        call.kick()
        assert call.finished
        assert bench.target.data == bench.source.data


async def test_cancel_while_a_piece_is_looked_at_does_not_wait_for_the_speed() -> None:
    class Slow(Disk):
        gate: asyncio.Future[None] | None = None

        async def block_status(self, offset: int, length: int) -> Extents:
            if self.gate is not None:
                await self.gate
            return await super().block_status(offset, length)

    async with Machine() as machine:
        bench = Bench(machine)
        bench.source.__class__ = Slow
        bench.copy.set_speed(1)
        bench.start().cancel()
        bench.source.gate = asyncio.get_running_loop().create_future()
        call = bench.start()
        call.cancel()
        bench.source.gate.set_result(None)
        async with asyncio.timeout(5):
            await call.wait()


# The top image only


@pytest.mark.parametrize("window", [64, 1 << 16])
async def test_what_the_top_image_has_not_is_skipped(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_copy, "WINDOW", window)
    async with Machine() as machine:
        bench = Bench(machine, 12 * MIB)
        bench.source.extents = runs(
            (0, 0, NOWHERE), (CLUSTER, DATA | ALLOCATED, CLUSTER), (2 * CLUSTER + 1, 0, NOWHERE),
            end=12 * MIB,
        )  # fmt: skip
        bench.copy.skip_unallocated = True
        offset = 0
        while offset < 12 * MIB:
            offset = await bench.copy.reset_unallocated(offset)
        starts, ends = bench.bitmap.extents()
        assert (starts.tolist(), ends.tolist()) == ([CLUSTER], [3 * CLUSTER])
        assert bench.at == (0, 2 * CLUSTER)


async def test_a_save_while_that_is_still_found_out_skips_it_too() -> None:
    async with Machine() as machine:
        bench = Bench(machine)
        bench.source.extents = runs(
            (0, 0, NOWHERE), (MIB, DATA | ALLOCATED, 0), end=4 * MIB
        )  # fmt: skip
        bench.copy.skip_unallocated = True
        bench.start()
        assert min(offset for _, offset, _ in bench.target.log) == MIB
        assert bench.at == (3 * MIB, 3 * MIB)


# By the kernel


async def files(machine: Machine, folder: Path, size: int) -> tuple[Any, Any]:
    (folder / "s").write_bytes(os.urandom(size))
    (folder / "t").write_bytes(bytes(size))
    nodes = []
    for name in "st":
        options = {"driver": "file", "node-name": name, "filename": str(folder / name)}
        node = await machine.emu.opener.open(options)
        node.monitor_owned = True
        nodes.append(node)
    return nodes[0], nodes[1]


async def test_the_kernel_copies_between_files_in_large_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = os.copy_file_range

    def spy(src: int, dst: int, count: int, at: int, to: int) -> int:
        calls.append(count)
        return real(src, dst, count, at, to)

    monkeypatch.setattr(offload.os, "copy_file_range", spy)
    async with Machine() as machine:
        size = 40 * MIB
        source, target = await files(machine, tmp_path, size)
        bitmap = Bitmap(size, CLUSTER)
        bitmap.mark(0, size)
        copy = BlockCopy(
            edge_to(machine, source), edge_to(machine, target), bitmap, machine.emu.pool, machine.clock
        )  # fmt: skip
        copy.start(0, size, call := Call())
        await call.wait()
        assert (tmp_path / "t").read_bytes() == (tmp_path / "s").read_bytes()
        assert max(calls) == 16 * MIB


@pytest.mark.parametrize(
    ("code", "tries"), [(errno.EXDEV, 1), (errno.EINVAL, 1), (errno.ENOSPC, 3)]
)
async def test_where_the_kernel_cannot_buffers_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    calls: list[int] = []

    def refuse(*args: int) -> int:
        calls.append(1)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(offload.os, "copy_file_range", refuse)
    async with Machine() as machine:
        size = 40 * MIB
        source, target = await files(machine, tmp_path, size)
        bitmap = Bitmap(size, CLUSTER)
        bitmap.mark(0, size)
        copy = BlockCopy(
            edge_to(machine, source), edge_to(machine, target), bitmap, machine.emu.pool, machine.clock
        )  # fmt: skip
        copy.start(0, size, call := Call(max_chunk=MIB, max_workers=1))
        await call.wait()
        assert not call.error
        assert (tmp_path / "t").read_bytes() == (tmp_path / "s").read_bytes()
        assert len(calls) == tries
