"""Images of which blockemu-img copies much at a time, beside qemu-img, and disks that get full."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.img_programs import Pair

pytestmark = pytest.mark.compat

MIB = 1 << 20
SIZE = 44 * MIB + 512  # the last chunk is odd
ZERO = (  # ranges of zeroes that are written, not left out: (offset, length)
    (9 * MIB, 4096),
    (10 * MIB - 512, 1024),
    (13 * MIB + 4096, 65536 + 4096),
    (27 * MIB - 2048, 4096),
    (44 * MIB - 4096, 4096),
)
HOLE = (30 * MIB, 5 * MIB)


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Pair]:
    """Give both programs, in folders with disk.raw, disk.qcow2 and other.raw."""
    data = bytearray(random.Random(7).randbytes(SIZE))
    for offset, length in ZERO:
        data[offset : offset + length] = bytes(length)
    with Pair.made(tmp_path, program("qemu-img"), program("qemu-io")) as pair:
        for folder in pair.folders.values():
            with (folder / "disk.raw").open("wb") as file:
                file.write(data[: HOLE[0]])
                file.seek(sum(HOLE))
                file.write(data[sum(HOLE) :])
            (folder / "other.raw").write_bytes(data[: 9 * MIB])
        pair.prepare("convert", "-O", "qcow2", "-S", "0", "disk.raw", "disk.qcow2")
        yield pair


def _map(pair: Pair, folder: Path) -> str:
    argv = [pair.real, "map", "--output=json", "out.img"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "line",
    [
        "disk.raw",
        "-f raw disk.raw",
        "-p -O qcow2 disk.qcow2",
        "-O qcow2 -S 0 disk.raw",
        "-O qcow2 -S 64k -m 1 disk.raw",
        "-O qcow2 -S 1k -m 16 disk.raw",
        "-O qcow2 -o cluster_size=4k -W -m 2 disk.qcow2",
        "-O qcow2 disk.raw other.raw disk.qcow2",
        "-O qcow2 other.raw disk.raw",
        "-O vdi disk.raw",
        "--salvage -O qcow2 disk.raw",
        "-r 400M -O qcow2 disk.raw",
    ],
)
def test_much_is_copied_the_same(pair: Pair, line: str) -> None:
    pair.same("convert", *line.split(), "out.img")
    one, other = (folder / "out.img" for folder in pair.folders.values())
    fmt = line.partition("-O ")[2].partition(" ")[0] or "raw"
    if fmt == "raw":
        assert one.read_bytes() == other.read_bytes()
    else:
        subprocess.run([pair.real, "compare", "-f", fmt, "-F", fmt, one, other], check=True)
    if "-W" not in line.split():  # else what comes where is left to chance
        real, ours = (_map(pair, folder) for folder in pair.folders.values())
        assert ours == real


@pytest.mark.parametrize("line", ["disk.raw", "-m 1 disk.qcow2", "-m 3 -S 0 disk.raw"])
@pytest.mark.parametrize("room", [5, 14, 26])
def test_a_full_disk_is_told_of_once(pair: Pair, line: str, room: int) -> None:
    """Where the copy ended is told as if chunks were written one after the other."""
    folders = [folder / "small" for folder in pair.folders.values()]
    mounted = []
    try:
        for folder in folders:
            folder.mkdir()
            argv = ["mount", "-t", "tmpfs", "-o", f"size={room}M", "tmpfs", str(folder)]
            if subprocess.run(argv, capture_output=True, check=False).returncode:
                pytest.skip("file systems cannot be mounted here")
            mounted.append(folder)
        ran = pair.same("convert", *line.split(), "small/out.img")
        assert "No space left on device" in ran.errors
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
