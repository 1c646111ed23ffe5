"""How the file driver turns runs of data into extents, and knows holes."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockemu.extents import ALLOCATED, DATA, ZERO
from blockemu.host.hostspace import status_of
from blockemu.host.sysfile import PAGE, FileLeaf, data_runs, holes_are_pages

D, Z = DATA | ALLOCATED, ZERO | ALLOCATED


@pytest.mark.parametrize(
    ("runs", "offset", "end", "align", "extents"),
    [
        ([], 0, 4096, 1, [(0, 4096, Z)]),
        ([(0, 4096)], 0, 4096, 1, [(0, 4096, D)]),
        ([(0, 9999)], 0, 4096, 1, [(0, 4096, D)]),
        ([(1000, 2000)], 0, 4096, 1, [(0, 1000, Z), (1000, 1000, D), (2000, 2096, Z)]),
        ([(1000, 2000)], 0, 4096, 512, [(0, 512, Z), (512, 1536, D), (2048, 2048, Z)]),
        ([(0, 1000), (1020, 4096)], 0, 4096, 512, [(0, 1024, D), (1024, 3072, D)]),
        ([(0, 100), (200, 300), (1000, 1100)], 0, 2048, 512, [(0, 512, D), (512, 1024, D), (1536, 512, Z)]),
        ([(700, 800)], 512, 1024, 512, [(512, 512, D)]),
    ],
)  # fmt: skip
def test_runs_become_data_and_the_rest_holes_on_aligned_boundaries(
    runs: list[tuple[int, int]],
    offset: int,
    end: int,
    align: int,
    extents: list[tuple[int, int, int]],
) -> None:
    found = status_of(runs, offset, end, align)
    assert [(run.start, run.length, run.status) for run in found] == extents
    assert found.host.tolist() == found.start.tolist()
    assert found.end == end


KIB = 1 << 10


@pytest.fixture
def leaf(tmp_path: Path) -> Iterator[FileLeaf]:
    """Make a file of 1 MiB with data in its middle, 8 KiB long."""
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), bytes(8 * KIB), 512 * KIB)
        yield FileLeaf(file.fileno())


RUNS = [
    (0, 512, []),
    (768, 1024, []),
    (768, 2048, []),  # beyond the end
    (512, 516, [(512, 516)]),
    (0, 516, [(512, 516)]),
    (516, 1024, [(516, 520)]),
]


@pytest.mark.parametrize(("start", "end", "runs"), RUNS)
def test_what_is_asked_of_files_in_memory_is_answered_at_once(
    leaf: FileLeaf, start: int, end: int, runs: list[tuple[int, int]]
) -> None:
    leaf.memory = True
    assert leaf.data_now(start * KIB, end * KIB) == [(a * KIB, b * KIB) for a, b in runs]


@pytest.mark.parametrize(("start", "end", "runs"), RUNS)
def test_a_disk_is_asked_at_once_where_it_was_asked_before(
    leaf: FileLeaf, start: int, end: int, runs: list[tuple[int, int]]
) -> None:
    leaf.memory = False
    assert leaf.data_now(start * KIB, end * KIB) is None
    assert leaf.ask(0, 4096, 1) == []
    assert leaf.data_now(start * KIB, end * KIB) == [(a * KIB, b * KIB) for a, b in runs]
    far = 1 << 30
    assert leaf.data_now(far, far + 4096) is None
    leaf.writing = 1  # a thread changes the file, and may hold others up
    assert leaf.data_now(start * KIB, end * KIB) is None


def test_a_hole_that_somebody_else_fills_is_one_no_more(leaf: FileLeaf) -> None:
    leaf.ask(0, 4096, 1)
    assert leaf.data_now(0, 4096) == []
    os.pwrite(leaf.fd, b"data", 0)
    assert leaf.data_now(0, 4096) == [(0, 4096)]


def test_only_data_is_remembered_and_forgotten_when_holes_are_made(leaf: FileLeaf) -> None:
    leaf.memory = True
    assert leaf.has_data(512 * KIB, 8 * KIB)
    assert (leaf.data_start, leaf.data_end) == (512 * KIB, 520 * KIB)
    assert not leaf.has_data(0, 4096)
    assert not leaf.has_data(512 * KIB, 9 * KIB)
    leaf.forget_data()
    os.ftruncate(leaf.fd, 512 * KIB)
    assert not leaf.has_data(512 * KIB, 4096)


def test_a_file_of_many_pieces_is_not_described_at_once(tmp_path: Path) -> None:
    with (tmp_path / "pieces").open("w+b") as file:
        for number in range(100):
            os.pwrite(file.fileno(), b"data", number * 64 * KIB)
        leaf = FileLeaf(file.fileno())
        leaf.memory = True
        assert leaf.data_now(0, 6400 * KIB) is None
        assert leaf.data_now(0, 128 * KIB) == [(0, 4096), (64 * KIB, 68 * KIB)]


def find_in_each_page(folder: Path, *, memory: bool) -> None:
    """Hold what is found in parts of pages against what the file system tells of the range."""
    with (folder / "sparse").open("w+b") as file:
        fd, page = file.fileno(), PAGE
        file.truncate(9 * page)
        os.pwrite(fd, b"data", 3 * page + 7)
        os.pwrite(fd, b"data", 5 * page - 1)
        os.ftruncate(fd, 8 * page + 100)
        leaf = FileLeaf(fd)
        assert leaf.memory == memory
        leaf.ask(0, 9 * page, 64)
        for at in range(0, 8 * page + 1, page):
            for first, last in ((0, page), (0, 1), (page - 1, page), (50, 99), (page // 2, page)):
                start, end = at + first, at + last
                runs = [(max(a, start), min(b, end)) for a, b in data_runs(fd, start, end, 64)]
                found = leaf.data_now(start, end)
                assert found == runs or (found is None and start >= 8 * page + 100)
                leaf.forget_data()


def test_a_page_in_memory_is_looked_at_once_and_the_same_is_found() -> None:
    try:
        folder = tempfile.TemporaryDirectory(dir="/dev/shm")
    except OSError:
        pytest.skip("/dev/shm is not there")
    with folder as name:
        with Path(name, "page").open("w+b") as file:
            assert holes_are_pages(file.fileno())
        find_in_each_page(Path(name), memory=True)


def test_a_page_on_a_disk_is_looked_at_once_and_the_same_is_found(tmp_path: Path) -> None:
    with (tmp_path / "page").open("w+b") as file:
        memory = FileLeaf(file.fileno()).memory
    find_in_each_page(tmp_path, memory=memory)
