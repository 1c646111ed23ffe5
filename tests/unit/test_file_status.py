"""How the file driver turns runs of data into extents, and knows holes."""

import os
from pathlib import Path

import pytest

from blockemu.extents import ALLOCATED, DATA, ZERO
from blockemu.hostspace import status_of
from blockemu.sysfile import FileLeaf

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


def test_holes_of_files_in_memory_are_known(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), b"data", 512 << 10)
        leaf = FileLeaf(file.fileno())
        leaf.memory = True
        assert leaf.is_hole(0, 512 << 10)
        assert leaf.is_hole(768 << 10, 256 << 10)
        assert not leaf.is_hole(0, 513 << 10)
        assert not leaf.is_hole(512 << 10, 1)
        leaf.memory = False
        assert not leaf.is_hole(0, 4096)
