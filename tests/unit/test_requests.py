"""What an edge does to a request before the driver sees it."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from fakes import KIB, Disk, Machine, turns

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.node import Write
from blockemu.requests import Request, Tracker, split

SIZE = 64 * KIB


# Who waits for whom


def test_plain_requests_wait_for_nobody() -> None:
    tracker = Tracker()
    assert not tracker.enter(Request(0, 10))
    assert not tracker.enter(Request(0, 10))


@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)])
def test_serialising_requests_wait_for_those_that_overlap(which: tuple[bool, bool]) -> None:
    tracker = Tracker()
    tracker.enter(Request(0, 10, which[0]))
    assert tracker.enter(Request(9, 12, which[1]))
    assert not tracker.enter(Request(12, 14, which[1]))


async def test_a_request_overtakes_one_that_waits() -> None:
    tracker = Tracker()
    first, second, third = Request(0, 10, True), Request(5, 15, True), Request(10, 20, True)
    assert not tracker.enter(first)
    assert tracker.enter(second)
    waiting = asyncio.ensure_future(tracker.turn(second))
    await turns(1)
    assert not tracker.enter(third)  # only the second is in its way, which does not run
    tracker.end(first)
    await turns(2)
    assert not waiting.done()  # now the third is in its way
    tracker.end(third)
    await turns(2)
    assert waiting.done()


async def test_who_waits_is_woken_at_the_end() -> None:
    tracker = Tracker()
    request = Request(0, 10, True)
    tracker.enter(request)
    waiting = asyncio.ensure_future(request.finished())
    await turns(2)
    assert not waiting.done()
    tracker.end(request)
    await turns(2)
    assert waiting.done()
    assert not tracker.serialising


# Splitting


@pytest.mark.parametrize(
    ("offset", "length", "align", "most", "parts"),
    [
        (0, 100, 0, 0, [(0, 100)]),
        (0, 100, 1, 40, [(0, 40), (40, 40), (80, 20)]),
        (5, 20, 10, 0, [(5, 5), (10, 10), (20, 5)]),
        (10, 20, 10, 15, [(10, 10), (20, 10)]),
        (3, 4, 10, 0, [(3, 4)]),
        (8, 4, 10, 0, [(8, 2), (10, 2)]),
        (0, 0, 10, 0, []),
    ],
)
def test_split(offset: int, length: int, align: int, most: int, parts: list[Any]) -> None:
    assert split(offset, length, align, most) == parts


async def test_reads_and_writes_are_cut_to_what_the_driver_takes() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        machine.align(disk, max_transfer=10 * KIB)
        guest = machine.guest("d")
        await guest.pwrite(0, b"x" * 25 * KIB)
        await guest.pread(KIB, buf := bytearray(15 * KIB))
        assert bytes(buf) == b"x" * 15 * KIB
        assert disk.log == [
            ("write", 0, 10 * KIB), ("write", 10 * KIB, 10 * KIB), ("write", 20 * KIB, 5 * KIB),
            ("read", KIB, 10 * KIB), ("read", 11 * KIB, 5 * KIB),
        ]  # fmt: skip


async def test_an_unaligned_write_keeps_what_is_around_it() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", bytes(range(256)) * 256)
        machine.align(disk, request_alignment=512)
        guest = machine.guest("d")
        wanted = bytearray(disk.data)
        wanted[700:1500] = b"y" * 800
        await guest.pwrite(700, b"y" * 800)
        assert disk.data == wanted
        assert disk.log == [("read", 512, 1024), ("write", 512, 1024)]
        await guest.pread(3, buf := bytearray(5))
        assert bytes(buf) == bytes(wanted[3:8])


async def test_an_unaligned_write_shuts_others_out_of_its_blocks() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        machine.align(disk, request_alignment=4096)
        guest = machine.guest("d")
        disk.held.add("read")
        first = asyncio.ensure_future(guest.pwrite(100, b"a" * 100))
        await turns()
        second = asyncio.ensure_future(guest.pwrite(0, b"b" * 4096))
        other = asyncio.ensure_future(guest.pwrite(4096, b"c" * 4096))
        await turns()
        assert disk.log == [("read", 0, 4096), ("write", 4096, 4096)]
        disk.let()
        await asyncio.gather(first, second, other)
        assert disk.data[:8192] == b"b" * 4096 + b"c" * 4096


# Zeroes


async def test_zeroes_go_to_the_driver_cut_to_its_alignment() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", b"x" * SIZE)
        machine.align(disk, write_zeroes_alignment=4096, max_write_zeroes=8192)
        await machine.guest("d").write_zeroes(1000, 20000)
        assert disk.data == b"x" * 1000 + bytes(20000) + b"x" * (SIZE - 21000)
        assert disk.log == [
            ("zero", 1000, 3096), ("zero", 4096, 8192), ("zero", 12288, 8192), ("zero", 20480, 520),
        ]  # fmt: skip


async def test_unaligned_ends_of_zeroes_are_read_changed_and_written() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", b"x" * SIZE)
        machine.align(disk, request_alignment=512)
        await machine.guest("d").write_zeroes(100, 2000)
        assert disk.data == b"x" * 100 + bytes(2000) + b"x" * (SIZE - 2100)
        assert [entry for entry in disk.log if entry[0] == "zero"] == [("zero", 512, 1536)]


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOTSUP, "x")])
async def test_zeroes_that_the_driver_cannot_write_are_written_as_data(error: Exception) -> None:
    class Poor(Disk):
        async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
            raise error

    async with Machine() as machine:
        disk = Poor(machine.emu, "d", b"x" * SIZE)
        machine.emu.graph.add(disk)
        disk.monitor_owned = True
        guest = machine.guest("d")
        await guest.write_zeroes(0, 5000)
        assert disk.data[:5001] == bytes(5000) + b"x"
        with pytest.raises(OSError, match="not supported"):
            await guest.write_zeroes(0, SIZE, Write.NO_FALLBACK)
        assert disk.data[5000:] == b"x" * (SIZE - 5000)


async def test_zeroes_written_as_data_are_one_request() -> None:
    class Poor(Disk):
        async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
            raise NotImplementedError

    async with Machine() as machine:
        disk = Poor(machine.emu, "d", b"x" * SIZE)
        machine.emu.graph.add(disk)
        disk.monitor_owned = True
        machine.align(disk, max_transfer=4096)
        bitmap = Bitmap(SIZE, 512)
        disk.add_bitmap(bitmap)
        guest = machine.guest("d")
        disk.held.add("write")
        zeroing = asyncio.ensure_future(guest.write_zeroes(0, 8192))
        await turns()
        assert not bitmap.count  # marked when done, not before
        serialising = asyncio.ensure_future(guest.pwrite(4096, b"y" * 4096, Write.SERIALISING))
        await turns()
        disk.let()
        await asyncio.gather(zeroing, serialising)
        assert disk.data[:8192] == bytes(4096) + b"y" * 4096
        assert bitmap.count == 16


async def test_detect_zeroes_turns_zeroes_into_zero_writes() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", b"x" * SIZE, detect_zeroes="on")
        guest = machine.guest("d")
        await guest.pwrite(0, bytes(4096))
        await guest.pwrite(4096, b"y" * 4096)
        assert disk.log == [("zero", 0, 4096), ("write", 4096, 4096)]


# Discards, marks, limits of the disk


@pytest.mark.parametrize("unmap", [True, False])
async def test_a_discard_is_done_and_marked_only_where_that_is_wanted(unmap: bool) -> None:
    class Thin(Disk):
        async def discard(self, offset: int, length: int) -> None:
            self.log.append(("discard", offset, length))

    async with Machine() as machine:
        disk = Thin(machine.emu, "d", b"x" * SIZE, unmap=unmap)
        machine.emu.graph.add(disk)
        disk.monitor_owned = True
        bitmap = Bitmap(SIZE, 512)
        disk.add_bitmap(bitmap)
        await machine.guest("d").discard(0, 4096)
        assert disk.log == ([("discard", 0, 4096)] if unmap else [])
        assert bitmap.count == (8 if unmap else 0)
        assert disk.highest_written == 0  # it is no write


async def test_a_driver_without_discard_is_not_asked() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE, unmap=True)
        bitmap = Bitmap(SIZE, 512)
        disk.add_bitmap(bitmap)
        await machine.guest("d").discard(0, 4096)
        assert not bitmap.count


async def test_a_failed_write_is_marked_all_the_same() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        bitmap = Bitmap(SIZE, 512)
        disk.add_bitmap(bitmap)
        disk.errors["write"] = errno.EIO
        with pytest.raises(OSError, match="Input/output"):
            await machine.guest("d").pwrite(0, b"x" * 512)
        assert bitmap.count == 1  # some of it may have been written
        assert not disk.tracker.requests


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2)])
async def test_requests_beyond_the_end_fail(offset: int, length: int) -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        guest = machine.guest("d")
        for request in (
            guest.pread(offset, bytearray(length)),
            guest.pwrite(offset, bytes(length)),
            guest.write_zeroes(offset, length),
            guest.discard(offset, length),
        ):
            with pytest.raises(OSError, match="Input/output error"):
                await request
        assert not disk.log


async def test_reading_needs_no_permission_but_writing_does() -> None:
    async with Machine() as machine:
        machine.disk("d", SIZE)
        guest = machine.guest("d")
        guest.perm = type(guest.perm)(0)
        await guest.pread(0, bytearray(10))
        with pytest.raises(PermissionError):
            await guest.pwrite(0, b"x")


async def test_a_resize_is_told_and_lets_nobody_into_what_is_new() -> None:
    async with Machine() as machine:
        disk = machine.disk("d", SIZE)
        guest = machine.guest("d")
        guest.perm |= type(guest.perm).RESIZE
        guest.allow_beyond_end = True
        heard: list[Any] = []
        disk.on_resize.append(heard.append)
        guest.resize_hooks.append(lambda: heard.append("told"))
        disk.held.add("truncate")
        resizing = asyncio.ensure_future(guest.truncate(2 * SIZE))
        await turns()
        beyond = asyncio.ensure_future(guest.pwrite(SIZE, b"x"))
        await turns()
        assert [kind for kind, *_ in disk.log] == ["truncate"]
        disk.let()
        await asyncio.gather(resizing, beyond)
        assert heard == [2 * SIZE, "told"]
        assert guest.length == 2 * SIZE
