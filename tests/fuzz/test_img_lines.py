"""Command lines drawn at random: blockemu-img says what qemu-img says, and leaves the same images."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.drawn_lines import Dealer
from compat.img_programs import Pair
from compat.programs import Ran
from hypothesis import settings

EACH = 25  # lines
SEEDS = range(max(8, settings.default.max_examples // 20))
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r'("date-n?sec": )\d+'), r"\1N"),
    (re.compile(r"disk size: .*"), "disk size"),
    (re.compile(r'("actual-size": )\d+'), r"\1N"),
    (re.compile(r"#block\d+"), "#blockN"),
    (re.compile(r"in \d+\.\d+ seconds"), "in N seconds"),
    # How often progress is looked at is a matter of time.
    (re.compile(r"(    \(\d+\.\d+/100%\)\r?\n?)+"), "(progress)"),
    # QEMU warns again when it opens the image once more, to load a snapshot that it cannot.
    (re.compile(r"(WARNING: Image format(?:.*\n){3})\1"), r"\1"),
)


@functools.cache
def images(qemu_img: str, qemu_io: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder with the images that all lines begin with."""
    folder = tempfile.TemporaryDirectory()

    def run(program: str, *argv: str) -> None:
        subprocess.run([program, *argv], cwd=folder.name, check=True, stdout=subprocess.DEVNULL)

    def create(*argv: str) -> None:
        run(qemu_img, "create", "-q", "-f", *argv)

    def write(image: str, *commands: str) -> None:
        run(qemu_io, *(word for command in commands for word in ("-c", command)), image)

    create("raw", "base.raw", "5M")
    write("base.raw", "write -P 7 64k 128k", "write -P 8 3M 1k")
    Path(folder.name, "odd.raw").write_bytes(bytes(range(1, 256)) * 5)
    Path(folder.name, "empty").write_bytes(b"")
    Path(folder.name, "text").write_bytes(b"nothing to see here\n" * 99)
    create("qcow2", "base.qcow2", "4M")
    write("base.qcow2", "write -P 1 1M 1M", "write -z 2M 256k", "write -c -P 3 3M 64k")
    chain = ["qcow2", "-F", "qcow2", "-b"]
    create(*chain, "base.qcow2", "mid.qcow2", "8M")
    write("mid.qcow2", "write -P 4 1536k 1M", "write -P 4 6M 64k")
    create(*chain, "mid.qcow2", "-o", "cluster_size=4k", "top.qcow2")
    write("top.qcow2", "write -P 5 1M 12k", "write -z 1792k 64k", "write -P 5 5M 4k")
    create("qcow2", "-o", "compat=0.10", "v2.qcow2", "1M")
    create("qcow2", "-o", "extended_l2=on,compression_type=zstd", "wide.qcow2", "2M")
    write("wide.qcow2", "write -P 6 2k 3k", "write -P 6 1M 64k")
    create("qcow2", "-o", "data_file=split.data", "split.qcow2", "2M")
    write("split.qcow2", "write -P 6 64k 64k")
    create("qcow2", "snap.qcow2", "2M")
    write("snap.qcow2", "write -P 1 0 64k")
    run(qemu_img, "snapshot", "-c", "s0", "snap.qcow2")
    write("snap.qcow2", "write -P 2 0 64k")
    run(qemu_img, "snapshot", "-c", "s1", "snap.qcow2")
    for bitmap in ("b0", "b1"):
        run(qemu_img, "bitmap", "--add", "base.qcow2", bitmap)
    run(qemu_img, "bitmap", "--disable", "base.qcow2", "b1")
    create("qcow2", "-u", "-F", "raw", "-b", "gone.raw", "orphan.qcow2", "1M")
    whole = Path(folder.name, "base.qcow2").read_bytes()
    Path(folder.name, "broken.qcow2").write_bytes(whole[:0x40000] + bytes(16) + whole[0x40010:])
    return folder


def masked(text: str) -> str:
    for pattern, shown in _MASKS:
        text = pattern.sub(shown, text)
    return text


def said(ran: Ran) -> Ran:
    return Ran(ran.status, masked(ran.output), masked(ran.errors))


def looked_at(pair: Pair, folder: Path, name: str) -> list[str]:
    """Return what the real program tells of an image."""

    def ask(command: str) -> str:
        argv = [pair.real, command, "--output=json", "-U", name]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        return masked(done.stdout)

    runs: list[Any] = []
    for run in json.loads(ask("map") or "[]"):  # in one row or several: clusters may lie anywhere
        kind = [run[key] for key in ("depth", "present", "zero", "data")]
        if not runs or runs[-1][1:] != kind:
            runs.append([run["start"], *kind])
    checked = json.loads(ask("check") or "{}")
    wrong = [checked.get(key) for key in ("corruptions", "leaks", "check-errors")]
    return [ask("info"), *map(str, runs), str(wrong)]


def changed(pair: Pair, before: dict[str, Any]) -> set[str]:
    """Return the names of files that are not as they were; ``before`` is brought up to date."""
    names = set()
    for who, folder in pair.folders.items():
        for path in folder.iterdir():
            stat = path.stat()
            if before.get((who, path.name)) != (now := (stat.st_mtime_ns, stat.st_size)):
                before[who, path.name] = now
                names.add(path.name)
    return names


def difference(pair: Pair, name: str) -> str | None:
    """Return how the files of a name differ, None if they hold the same.

    Ours becomes what the real program made if only the places of clusters differ, so that what
    follows begins with the same files.
    """
    real, ours = (pair.folders[who] / name for who in ("real", "ours"))
    if not (real.exists() and ours.exists()):
        return f"{name}: exists {real.exists()} {ours.exists()}"
    if real.read_bytes() == ours.read_bytes():
        return None
    told = [looked_at(pair, folder, name) for folder in pair.folders.values()]
    if told[0] != told[1]:
        return f"{name}: {told[0]}\n{told[1]}"
    argv = [pair.real, "compare", "-U", str(real), str(ours)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode == 1:
        return f"{name}: {done.stdout}"
    shutil.copyfile(real, ours)
    return None


@pytest.mark.parametrize("wild", [1.0, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_say_and_leave_the_same(
    seed: int, wild: float, program: Callable[[str], str], tmp_path: Path
) -> None:
    real, io = program("qemu-img"), program("qemu-io")
    dealer, lines = Dealer(seed, wild), []
    with Pair.made(tmp_path, real, io) as pair:
        for folder in pair.folders.values():
            shutil.copytree(images(real, io).name, folder, dirs_exist_ok=True)
        before: dict[str, Any] = {}
        changed(pair, before)
        for _ in range(EACH):
            line = dealer.draw()
            lines.append("qemu-img " + shlex.join(line))
            try:
                theirs = said(pair.run("real", *line))
            except subprocess.TimeoutExpired:
                theirs = Ran(-1, "", "")
            if theirs.status < 0:  # it dies of that, or hangs
                shutil.copytree(pair.folders["real"], pair.folders["ours"], dirs_exist_ok=True)
                continue
            mine = said(pair.run("ours", *line))
            told = "\n".join(lines)
            assert mine == theirs, f"{told}\nours {mine}\nreal {theirs}"
            for name in changed(pair, before):
                found = difference(pair, name)
                assert found is None, f"{told}\n{found}"
            changed(pair, before)
