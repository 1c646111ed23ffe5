"""How a stream goes over a large image: it looks seldom, and what guests write meanwhile stays."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import MIB

from blockemu.drivers.copy_on_read import CopyOnRead
from blockemu.drivers.qcow2 import Qcow2
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
    assert fetched == list(range(0, SIZE, 16 * MIB))


async def test_the_kernel_fetches_what_is_surely_data_and_zeroes_stay_zeroes(
    images: tuple[Path, Path], program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, top = images
    with base.open("r+b") as file:
        for start, size in ((3 * MIB, MIB), (20 * MIB, 64 << 10), (30 * MIB - 7, 2 * MIB + 7)):
            file.seek(start)
            file.write(bytes(size))
    buffered: list[tuple[int, int]] = []
    real = Qcow2.pwrite

    async def spy(self: Qcow2, offset: int, buf: memoryview, flags: int) -> None:
        buffered.append((offset, len(buf)))
        await real(self, offset, buf, flags)

    monkeypatch.setattr(Qcow2, "pwrite", spy)
    async with running() as emu:
        await add(emu, top)
        await emu.execute("block-stream", job_id="j", device="top")
        await emu.job("j", "null")
        assert await emu.read("top", 0, SIZE) == base.read_bytes()
    assert buffered == [(20 * MIB, MIB)]  # it begins with zeroes, and so had to be looked at whole
    show = [program("qemu-img"), "map", "-f", "qcow2", "--output=json", str(top)]
    told = json.loads(subprocess.run(show, check=True, stdout=subprocess.PIPE).stdout)
    zeroes = [(run["start"], run["length"]) for run in told if run["zero"]]
    assert zeroes == [(3 * MIB, MIB), (30 * MIB, 2 * MIB)]
    check = [program("qemu-img"), "check", "-q", "-f", "qcow2", str(top)]
    subprocess.run(check, check=True)


@pytest.mark.parametrize("cluster", [512, 4096, 2 << 20])
async def test_clusters_of_any_size_are_fetched_whole(
    tmp_path: Path, program: Callable[[str], str], cluster: int
) -> None:
    size = 9 * MIB + 512  # the last cluster of the image is not whole, nor is the base as long
    base, top = tmp_path / "base", tmp_path / "top"
    content = os.urandom(size - 3 * 512)
    base.write_bytes(content)
    create = [program("qemu-img"), "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}"]
    create += ["-b", str(base), "-F", "raw", str(top), str(size)]
    subprocess.run(create, check=True)
    async with running() as emu:
        await add(emu, top)
        await emu.execute("block-stream", job_id="j", device="top")
        await emu.job("j", "null")
        assert await emu.read("top", 0, size) == content + bytes(3 * 512)
    subprocess.run([program("qemu-img"), "check", "-q", "-f", "qcow2", str(top)], check=True)
