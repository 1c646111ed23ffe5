"""What a parent may rely on, whatever the driver."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from random import Random

import numpy as np
import pytest
from contract.conftest import Opens
from contract.disks import DISKS, SIZE, Disk, Guest

from blockemu.extents import ALLOCATED, DATA, ZERO
from blockemu.node import Node, Write
from blockemu.perm import Perm


class Model:
    """What the disk must hold: a bytearray."""

    def __init__(self, disk: Disk) -> None:
        self.forgets = disk.forgets
        self.bytes = bytearray([disk.pattern]) * SIZE

    def write(self, offset: int, data: bytes) -> None:
        if not self.forgets:
            self.bytes[offset : offset + len(data)] = data


async def play(guest: Guest, model: Model, seed: int, steps: int = 60) -> AsyncIterator[str]:
    """Do random requests on disk and model alike; yield what each was."""
    rng = Random(seed)
    for _ in range(steps):
        align = rng.choice((1, 512, 4096, 65536))
        offset = rng.randrange(SIZE) // align * align
        length = min(
            rng.choice((1, 511, 512, 4096, 70000, 300000)) * rng.randint(1, 2), SIZE - offset
        )
        what = rng.choice(("write", "write", "zero", "unmap", "discard", "flush", "read"))
        if what == "write":
            data = rng.randbytes(length)
            await guest.write(offset, data)
            model.write(offset, data)
        elif what in ("zero", "unmap"):
            await guest.backend.write_zeroes(
                offset, length, Write.MAY_UNMAP if what == "unmap" else 0
            )
            model.write(offset, bytes(length))
        elif what == "discard":  # afterwards it may read as anything, but always as the same
            await guest.backend.discard(offset, length)
            model.write(offset, await guest.read(offset, length))
        elif what == "flush":
            await guest.backend.flush()
        else:
            assert await guest.read(offset, length) == model.bytes[offset : offset + length]
        yield f"{what} {offset} {length}"


@pytest.mark.parametrize("seed", range(3))
async def test_random_requests_read_back(opens: Opens, disk: Disk, seed: int) -> None:
    async with opens() as guest:
        model = Model(disk)
        async for step in play(guest, model, seed):
            assert await guest.read(0, SIZE) == model.bytes, step


async def test_flush_close_open_keeps_the_data(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        model = Model(disk)
        async for _ in play(guest, model, 5):
            pass
        await guest.backend.flush()
        await guest.open_anew()
        assert await guest.read(0, SIZE) == model.bytes


async def test_plans_and_coroutines_leave_and_show_the_same(opens: Opens, disk: Disk) -> None:
    async with opens(folder="p") as planned, opens(plans=False, folder="c") as awaited:
        one, two = Model(disk), Model(disk)
        steps = play(awaited, two, 7)
        async for step in play(planned, one, 7):
            assert await anext(steps) == step
        assert await planned.read(0, SIZE) == await awaited.read(0, SIZE)
        assert one.bytes == two.bytes


async def test_a_plan_reads_what_the_coroutine_reads(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        model = Model(disk)
        async for _ in play(guest, model, 11, 30):
            read = guest.backend.route.read
            for offset, length in ((0, 512), (1, 70000), (SIZE - 65536, 65536), (300000, 5)):
                if read is None or (segments := read(offset, length)) is None:
                    continue
                at, buf = 0, memoryview(bytearray(length))
                for leaf, host, part in segments:
                    if leaf is not None:
                        leaf.read(host, buf[at : at + part])
                    at += part
                assert at == length
                assert buf == model.bytes[offset : offset + length]


async def test_extents_tile_any_range(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        async for _ in play(guest, Model(disk), 13):
            pass
        rng = Random(13)
        for _ in range(30):
            offset = rng.randrange(SIZE)
            length = rng.randint(1, SIZE - offset)
            at = offset
            for batch in await guest.extents(offset, length):
                assert int(batch.start[0]) == at
                assert (np.diff(batch.start, append=batch.end) > 0).all()
                if not disk.forgets:  # all is decided somewhere in the chain
                    assert (batch.status & (DATA | ZERO) != 0).all()
                assert set(batch.status.tolist()) <= {
                    0,
                    ZERO,
                    DATA,
                    ZERO | ALLOCATED,
                    DATA | ALLOCATED,
                    7,
                }
                at = batch.end
            assert at == offset + length


async def test_a_fresh_disk_is_said_to_read_as_it_does(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        for batch in await guest.extents():
            for start, length, status, _ in batch:
                assert disk.forgets or status & (DATA | ZERO)
                assert await guest.read(start, length) == bytes([disk.pattern]) * length
                assert not (status & ZERO and disk.pattern)


async def test_what_is_said_to_be_zero_reads_so(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        async for _ in play(guest, Model(disk), 17):
            pass
        zeroes = 0
        for batch in await guest.extents():
            for start, length, status, _ in batch:
                if status & ZERO:
                    zeroes += length
                    assert not any(await guest.read(start, length)), (start, length)
        if disk.name not in ("null-co", "null-aio", "raw-null", "raw-qcow2", "vdi"):
            assert zeroes  # else this test proves nothing


async def test_host_offsets_say_where_the_bytes_lie(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        async for _ in play(guest, Model(disk), 19):
            pass
        await guest.backend.flush()
        child = guest.node.children.get("data-file") or guest.node.file
        if child is None:
            return  # a protocol: its host offsets are its own
        async for batch in guest.backend.extents(0, SIZE):
            for start, length, status, host in batch:
                if host < 0 or not status & DATA or status & ZERO:
                    continue
                there = bytearray(length)
                await child.pread(host, there)
                assert await guest.read(start, length) == there


async def test_zeroes_can_be_had_without_writing_where_the_driver_says_so(
    opens: Opens, disk: Disk
) -> None:
    async with opens() as guest:
        model = Model(disk)
        await guest.write(0, b"\x11" * SIZE)
        model.write(0, b"\x11" * SIZE)
        try:
            await guest.backend.write_zeroes(65536, 131072, Write.NO_FALLBACK | Write.MAY_UNMAP)
            code = 0
            model.write(65536, bytes(131072))
        except OSError as e:
            code = e.errno
        assert code in (0, errno.ENOTSUP)
        assert await guest.read(0, SIZE) == model.bytes


async def test_requests_out_of_bounds_fail_and_change_nothing(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        for offset, length in (
            (SIZE, 1),
            (SIZE - 1, 2),
            (0, SIZE + 512),
            (-512, 512),
            (1 << 62, 512),
        ):
            with pytest.raises(OSError, match=r".") as read:
                await guest.backend.pread(offset, bytearray(length))
            with pytest.raises(OSError, match=r".") as write:
                await guest.backend.pwrite(offset, bytes(length))
            with pytest.raises(OSError, match=r".") as zero:
                await guest.backend.write_zeroes(offset, length)
            with pytest.raises(OSError, match=r".") as discard:
                await guest.backend.discard(offset, length)
            assert {e.value.errno for e in (read, write, zero, discard)} == {errno.EIO}
        assert await guest.read(0, SIZE) == Model(disk).bytes
        assert guest.node.length == SIZE


async def test_who_may_not_write_is_refused(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        guest.backend.perm = Perm.CONSISTENT_READ
        assert guest.backend.route.write is None
        for request in (
            guest.backend.pwrite(0, bytes(512)),
            guest.backend.write_zeroes(0, 512),
            guest.backend.truncate(SIZE // 2),
        ):
            with pytest.raises(PermissionError):
                await request
        if type(guest.node).discard is not Node.discard:
            with pytest.raises(PermissionError):
                await guest.backend.discard(0, 512)
        assert await guest.read(0, SIZE) == Model(disk).bytes
        guest.backend.perm = Perm.ALL


KEEPS_ONE = [disk for disk in DISKS if not disk.forgets and not disk.compares]


@pytest.mark.parametrize("disk", KEEPS_ONE, ids=str)
async def test_overlapping_writes_end_as_one_of_them(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        values = range(1, 17)
        await asyncio.gather(*(guest.write(8192 * (v % 4), bytes([v]) * 65536) for v in values))
        await guest.backend.flush()
        for block in range(0, 65536 + 3 * 8192, 512):
            written = await guest.read(block, 512)
            assert len(set(written)) == 1
            assert written[0] in values


async def test_zeroes_and_data_side_by_side_do_not_mix(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        model = Model(disk)
        requests = []
        for i in range(16):
            at = i * 60000 + 100
            if i % 2:
                requests.append(guest.backend.write_zeroes(at, 60000, Write.MAY_UNMAP))
                model.write(at, bytes(60000))
            else:
                requests.append(guest.write(at, bytes([i + 1]) * 60000))
                model.write(at, bytes([i + 1]) * 60000)
        await asyncio.gather(*requests)
        assert await guest.read(0, SIZE) == model.bytes


async def test_a_read_buffer_keeps_nothing_of_what_it_held(opens: Opens, disk: Disk) -> None:
    async with opens() as guest:
        assert await guest.read(0, SIZE) == Model(disk).bytes
        async with opens(plans=False, folder="c") as other:
            assert await other.read(0, SIZE) == Model(disk).bytes
