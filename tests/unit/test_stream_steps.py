"""How a stream goes over a large image: it looks seldom, and what guests write meanwhile stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MIB

from blockemu.drivers.copy_on_read import CopyOnRead
from blockemu.jobs import stream
from blockemu.perm import Perm
from blockemu.testing import Running, running

SIZE = 48 * MIB


@pytest.fixture
def images(tmp_path: Path, program: Callable[[str], str]) -> tuple[Path, Path]:
    """Return a full raw disk and an empty overlay of it."""
    qemu_img = program("qemu-img")
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(os.urandom(SIZE))
    create = [qemu_img, "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(top)]
    subprocess.run(create, check=True)
    return base, top


async def add(emu: Running, top: Path) -> None:
    file = {"driver": "file", "filename": str(top)}
    await emu.execute("blockdev-add", driver="qcow2", node_name="top", file=file)


async def test_what_is_alike_is_looked_at_once(
    images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    real = stream.is_allocated_above

    async def spy(edge: Any, offset: int, *rest: Any, **options: Any) -> tuple[bool, int]:
        looks.append(offset)
        return await real(edge, offset, *rest, **options)

    monkeypatch.setattr(stream, "is_allocated_above", spy)
    base, top = images
    async with running() as emu:
        await add(emu, top)
        await emu.execute("block-stream", job_id="j", device="top")
        await emu.job("j", "null")
        assert await emu.read("top", 0, SIZE) == base.read_bytes()
    assert looks == [0, 0]  # in the image, and in what is below it


async def test_what_guests_write_or_drop_meanwhile_stays(
    images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, top = images
    expected = bytearray(base.read_bytes())
    fetched: list[int] = []
    real = CopyOnRead.prefetch

    async with running() as emu:
        await add(emu, top)
        async with emu.guest("top", Perm.CONSISTENT_READ | Perm.WRITE) as guest:

            async def spy(self: CopyOnRead, offset: int, length: int) -> None:
                fetched.append(offset)
                if len(fetched) == 2:  # the job knows by now what lies ahead
                    for at in (SIZE // 2 + 512, SIZE - MIB - 100):
                        await guest.pwrite(at, memoryview(b"\xaa" * MIB))
                        expected[at : at + MIB] = b"\xaa" * MIB
                    await guest.write_zeroes(SIZE // 2 + 4 * MIB, MIB)
                    expected[SIZE // 2 + 4 * MIB : SIZE // 2 + 5 * MIB] = bytes(MIB)
                await real(self, offset, length)

            monkeypatch.setattr(CopyOnRead, "prefetch", spy)
            await emu.execute("block-stream", job_id="j", device="top")
            await emu.job("j", "null")
            assert await emu.read("top", 0, SIZE) == expected
    assert fetched == list(range(0, SIZE, 4 * MIB))
