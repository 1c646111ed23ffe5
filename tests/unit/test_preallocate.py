"""Room made ahead of writes: no byte of theirs is lost to it, and none of it is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path

import pytest
from fakes import MIB, Machine

from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.perm import Perm
from blockemu.permissions import refresh, set_perm
from blockemu.transaction import Transaction


async def grower(machine: Machine, path: Path, **options: int) -> Backend:
    """Put a user that may resize on a filter over a file."""
    path.touch()
    file = {"driver": "file", "filename": str(path)}
    await machine("blockdev-add", driver="preallocate", node_name="p", file=file, **options)
    backend = Backend("", Perm.ALL, Perm.CONSISTENT_READ)
    backend.allow_beyond_end = True
    machine.emu.graph.insert(backend, machine.emu.graph.find("p"))
    return backend


def only_read(user: Backend) -> None:
    """Let a user do nothing more than read."""
    with Transaction() as transaction:
        set_perm(user, Perm.CONSISTENT_READ, Perm.ALL, transaction)
        refresh(user.node, transaction=transaction)


@pytest.mark.parametrize("seed", range(4))
async def test_writes_that_race_for_the_end_keep_their_bytes(tmp_path: Path, seed: int) -> None:
    rng, path, model = random.Random(seed), tmp_path / "f", bytearray()
    async with Machine() as machine:
        user = await grower(machine, path, prealloc_size=MIB, prealloc_align=65536)

        async def write(offset: int, data: bytes) -> None:
            await asyncio.sleep(0)
            if any(data):
                await user.pwrite(offset, data)
            else:
                await user.write_zeroes(offset, len(data))

        for _ in range(8):
            work, at = [], len(model)
            for _ in range(rng.randint(1, 6)):
                length = rng.choice([512, 4096, 200 * 1024])
                data = bytes([rng.choice([0, 1, 2])]) * length
                gap = rng.choice([0, 0, 0, 65536])
                model += bytes(at + gap - len(model)) + data
                work.append(write(at + gap, data))
                at += gap + length
            rng.shuffle(work)
            await asyncio.gather(*work)
            assert user.fresh_length() == len(model)
            assert path.stat().st_size >= len(model)
        buf = bytearray(len(model))
        await user.pread(0, buf)
        assert buf == model
        await machine.emu.graph.remove(user)
        assert path.read_bytes() == model


async def test_room_is_dropped_when_nobody_may_resize_any_more(tmp_path: Path) -> None:
    path = tmp_path / "f"
    async with Machine() as machine:
        user = await grower(machine, path)
        await user.pwrite(0, b"x" * 512)
        assert path.stat().st_size == 129 * MIB
        assert user.fresh_length() == 512
        await machine.emu.graph.remove(user)
        assert path.read_bytes() == b"x" * 512


async def test_a_file_that_cannot_shrink_keeps_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "f"
    async with Machine() as machine:
        user = await grower(machine, path)
        await user.pwrite(0, b"x" * 512)

        def fail(length: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        below = user.node.children["file"].node
        below.truncate_now = fail  # type: ignore[method-assign]
        with pytest.raises(QmpError, match="Failed to drop preallocation"):
            only_read(user)
        assert user.perm == Perm.ALL
        del below.truncate_now
        await machine.emu.graph.remove(user)
        assert path.stat().st_size == 512
