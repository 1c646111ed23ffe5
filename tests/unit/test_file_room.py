"""What files are asked by who copies much: for room, for holes, for pages."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from blockemu.drivers.file import File
from blockemu.drivers.qcow2 import writeback
from blockemu.drivers.qcow2.filled import MOST, WORTH_NOTING, Filled
from blockemu.extents import Extents
from blockemu.host.sysfile import FileLeaf, data_runs
from blockemu.images.qcow2 import new_image
from blockemu.testing import Running, running

MIB = 1 << 20
SIZE = 48 * MIB
CLUSTER = 1 << 16


def row(first: int) -> tuple[int, int]:
    """A row of clusters that is worth to be noted."""
    return first, WORTH_NOTING


@pytest.mark.parametrize(
    ("rows", "gaps"),
    [
        ([], [(10, 100)]),
        ([(10, 90)], []),
        ([(0, 200)], []),
        ([row(10), row(26)], [(42, 100)]),
        ([row(26), row(10)], [(42, 100)]),
        ([row(20)], [(10, 20), (36, 100)]),
        ([(11, WORTH_NOTING - 1)], [(10, 100)]),
        ([row(0), row(90)], [(16, 90)]),
    ],
)
def test_room_is_made_where_nothing_was_written_whole(
    rows: list[tuple[int, int]], gaps: list[tuple[int, int]]
) -> None:
    filled = Filled()
    for first, count in rows:
        filled.add(first, count)
    assert filled.take_gaps(10, 100) == gaps
    assert filled.take_gaps(10, 100) == [(10, 100)]  # all is forgotten


def test_no_more_is_noted_than_there_is_memory_for() -> None:
    filled = Filled()
    for i in range(MOST + 10):
        filled.add(i * 100, 100)
    assert filled.take_gaps(0, 100 * (MOST + 10)) == [(100 * MOST, 100 * (MOST + 10))]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offsets and lengths that the file system is asked to make room for."""
    asked: list[tuple[int, int]] = []

    def spy(fd: int, mode: int, offset: int, length: int) -> None:
        asked.append((offset, length))

    monkeypatch.setattr(writeback, "fallocate", spy)
    return asked


async def copied(emu: Running, folder: Path, command: str, **more: Any) -> None:
    """Copy a disk full of data to a new image, by whose flush it has its tables."""
    (folder / "source").write_bytes(os.urandom(SIZE))
    (folder / "target").write_bytes(new_image(SIZE))
    for name, kind in (("source", "raw"), ("target", "qcow2")):
        file = {"driver": "file", "filename": str(folder / name)}
        await emu.execute("blockdev-add", driver=kind, node_name=name, file=file, discard="unmap")
    await emu.execute(command, job_id="j", device="source", target="target", sync="full", **more)


async def test_room_is_not_made_for_what_was_copied(
    tmp_path: Path, room: list[tuple[int, int]]
) -> None:
    async with running() as emu:
        await copied(emu, tmp_path, "blockdev-backup")
        await emu.job("j", "null")
        await emu.execute("blockdev-del", node_name="target")
    assert sum(length for _, length in room) <= 4 * CLUSTER  # for tables


async def test_room_is_made_for_clusters_that_guests_write_in_part(
    tmp_path: Path, room: list[tuple[int, int]]
) -> None:
    (tmp_path / "target").write_bytes(new_image(SIZE))
    async with running() as emu:
        file = {"driver": "file", "filename": str(tmp_path / "target")}
        await emu.execute("blockdev-add", driver="qcow2", node_name="target", file=file)
        await emu.write("target", 4096, bytes(range(256)) * (SIZE // 512))
        await emu.execute("blockdev-del", node_name="target")
    assert sum(length for _, length in room) >= SIZE // 2


async def test_a_mirror_does_not_ask_a_file_which_bytes_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = File.block_status

    async def spy(file: File, offset: int, length: int) -> Extents:
        asked.append(length)
        return await real(file, offset, length)

    monkeypatch.setattr(File, "block_status", spy)
    async with running() as emu:
        await copied(emu, tmp_path, "blockdev-mirror")
        await emu.event("BLOCK_JOB_READY")
        assert max(asked) < SIZE
        await emu.execute("block-job-cancel", device="j")
        await emu.job("j", "null")
        assert await emu.read("target", 0, SIZE) == (tmp_path / "source").read_bytes()


def test_only_data_is_mapped_ahead(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.truncate(4 * MIB)
    with path.open("rb") as file:
        leaf = FileLeaf(file.fileno())
        before = data_runs(leaf.fd, 0, 4 * MIB, 9)
        for offset, length in ((0, MIB), (100, 5000), (0, 2 * MIB), (3 * MIB, MIB), (0, 9 * MIB)):
            leaf.map_ahead(offset, length)
        assert data_runs(leaf.fd, 0, 4 * MIB, 9) == before  # holes of a file in memory stay


def test_a_file_that_is_let_go_of_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(os.urandom(4096))
        file.truncate(100 * MIB)
    with path.open("rb") as file:
        leaf = FileLeaf(file.fileno())
        window = leaf.window(0, 4096)
        assert window is not None
        del window
        assert str(path) in Path("/proc/self/maps").read_text()
        leaf.forget_pages()
        for thread in threading.enumerate():
            if thread.name == "unmapping":
                thread.join()
        assert str(path) not in Path("/proc/self/maps").read_text()
