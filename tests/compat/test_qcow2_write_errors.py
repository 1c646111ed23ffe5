"""Requests that fail in the middle, for want of a working file, leave an image that can be used."""

from __future__ import annotations

import errno
import os
import random
from typing import Any

import pytest
from compat.qcow2_images import check, create, guest

from blockemu.errors import QmpError
from blockemu.node import Node, Write

SIZE = 4 << 20
OPTIONS = [
    "",
    "cluster_size=512",
    "compat=0.10,cluster_size=4k",
    "extended_l2=on",
    "refcount_bits=1,cluster_size=4k",
    "lazy_refcounts=on",
    "DATA",
]
Model = bytearray


class Faults:
    """Makes a file's requests fail now and then, some after half of the work."""

    def __init__(self, file: Node[Any], rng: random.Random) -> None:
        self.rng = rng
        self.rate = 0.0
        self.happened = 0
        self._pwrite, self._flush = file.pwrite, file.flush
        self._write_zeroes, self._pread = file.write_zeroes, file.pread
        faulty: Any = file
        faulty.pwrite, faulty.flush = self.pwrite, self.flush
        faulty.write_zeroes, faulty.pread = self.write_zeroes, self.pread

    def _fails(self) -> bool:
        failed = self.rng.random() < self.rate
        self.happened += failed
        return failed

    def _error(self) -> OSError:
        code = self.rng.choice([errno.EIO, errno.ENOSPC])
        return OSError(code, os.strerror(code))

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        if self._fails():
            if self.rng.random() < 0.5:
                await self._pwrite(offset, buf[: len(buf) // 2], flags)
            raise self._error()
        await self._pwrite(offset, buf, flags)

    async def pread(self, offset: int, buf: memoryview) -> None:
        if self._fails():
            raise self._error()
        await self._pread(offset, buf)

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        if self._fails():
            raise self._error()
        await self._write_zeroes(offset, length, flags)

    async def flush(self) -> None:
        if self._fails():
            raise self._error()
        await self._flush()


class Expected:
    """What the disk must hold; of what a failed request was about to change nothing is known."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.unsure = bytearray(size)

    def changed(self, offset: int, data: bytes, *, good: bool) -> None:
        end = offset + len(data)
        self.data[offset:end] = data
        self.unsure[offset:end] = bytes([not good]) * len(data)

    def matches(self, seen: bytes) -> bool:
        return all(
            seen[at : at + 512] == self.data[at : at + 512] or any(self.unsure[at : at + 512])
            for at in range(0, len(self.data), 512)
        )


async def one_request(backend: Any, expected: Expected, rng: random.Random, cluster: int) -> None:
    offset = rng.randrange(SIZE) // 512 * 512
    length = min(rng.choice([512, 4096, 70_000, 300_000]), SIZE - offset)
    kind = rng.choice(["write", "write", "write", "zero", "discard", "packed", "flush"])
    if kind in ("packed", "discard"):
        offset &= -cluster
        length = min(-(-length // cluster) * cluster, SIZE - offset)
    data = bytes(length) if kind in ("zero", "discard") else rng.randbytes(1) * length
    good = True
    try:
        match kind:
            case "write":
                await backend.pwrite(offset, data)
            case "packed":
                await backend.pwrite(offset, data, Write.COMPRESSED)
            case "zero":
                await backend.write_zeroes(offset, length)
            case "discard":
                await backend.discard(offset, length)
            case "flush":
                await backend.flush()
                return
    except OSError:
        good = False
    if kind != "flush":
        expected.changed(offset, data, good=good)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", OPTIONS)
async def test_failed_requests_do_no_harm(tmp_path, program, options, seed):
    program("qemu-img")
    path, rng = tmp_path / "image.qcow2", random.Random(seed)
    create(path, options, size=SIZE)
    expected = Expected(SIZE)
    happened = 0
    for _ in range(3):
        async with guest(path) as (backend, node):
            faults = [Faults(child.node, rng) for child in node.children.values()]
            for _ in range(15):
                for each in faults:
                    each.rate = rng.choice([0, 0.05, 0.3])
                await one_request(backend, expected, rng, node.cluster_size)
            for each in faults:
                each.rate = 0
            seen = bytearray(SIZE)
            await backend.pread(0, seen)
            assert expected.matches(seen)
            await backend.flush()
            happened += sum(each.happened for each in faults)
        check(path, leaks=True)
        async with guest(path, **{"read-only": True}) as (backend, _):
            seen = bytearray(SIZE)
            await backend.pread(0, seen)
        assert expected.matches(seen)
    assert happened


@pytest.mark.parametrize("options", ["", "cluster_size=512", "extended_l2=on"])
@pytest.mark.parametrize("mode", ["off", "metadata", "full"])
async def test_a_resize_that_fails_can_be_done_again(tmp_path, program, options, mode):
    program("qemu-img")
    path = tmp_path / "image.qcow2"
    create(path, options, size=SIZE)
    async with guest(path) as (backend, node):
        await backend.pwrite(0, b"\1" * SIZE)
        rng = random.Random(0)
        faults = Faults(node.file.node, rng)
        failures = 0
        for turn in range(8):
            faults.rate = 0.2
            length = (2 << 20) * (turn + 1)
            try:
                await backend.truncate(length, prealloc=mode if length > backend.length else "off")
            except (QmpError, OSError):
                failures += 1
            faults.rate = 0
            seen = bytearray(min(SIZE, backend.length))
            await backend.pread(0, seen)
            await backend.flush()
            check(path, shared=True, leaks=True)
        assert failures
    check(path, leaks=True)
