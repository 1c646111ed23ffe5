"""What blockemu-img changes in images, beside qemu-img: bitmaps, repairs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.img_programs import Pair
from compat.qcow2_bytes import Bytes

pytestmark = pytest.mark.compat


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Pair]:
    """Give both programs, in folders with disk.qcow2, old.qcow2 (version 2) and disk.raw."""
    with Pair.made(tmp_path, program("qemu-img"), program("qemu-io")) as pair:
        pair.prepare("create", "-q", "-f", "raw", "disk.raw", "5M")
        pair.prepare("create", "-q", "-f", "qcow2", "disk.qcow2", "64M")
        pair.write("disk.qcow2", "write -P 1 1M 1M", "write -z 2M 256k", "write -c -P 3 3M 64k")
        pair.prepare("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "1M")
        yield pair


def _tell(pair: Pair, *argv: str) -> str:
    """Let the real program tell of both images, and return what it does if that is the same.

    How much room the images take on the host is not looked at.
    """
    one, other = (_told(pair, folder, *argv) for folder in pair.folders.values())
    assert one == other, argv
    return one


def _told(pair: Pair, folder: Path, *argv: str) -> str:
    done = subprocess.run(
        [pair.real, *argv], cwd=folder, capture_output=True, text=True, check=False
    )
    return re.sub("(disk size|Image end offset): .*", "", done.stdout)


BITMAP = [
    "disk.qcow2",
    "disk.qcow2 b0",
    "--add",
    "--add disk.qcow2",
    "--add a b c",
    "-g 64k --clear disk.qcow2 b0",
    "-F raw --merge b1 disk.qcow2 b0",
    "-b disk.qcow2 --add disk.qcow2 b0",
    "-g 1x --add disk.qcow2 b0",
    "-g 100 --add disk.qcow2 b0",
    "--add old.qcow2 b0",
    "--add missing b0",
    "--add disk.qcow2 b0",
    "--add disk.qcow2 b0",
    "--add -g 4M disk.qcow2 b1",
    "--add --disable disk.qcow2 b2",
    "--remove disk.qcow2 nonsense",
    "--clear disk.qcow2 b0",
    "--merge b1 disk.qcow2 b0",
    "--merge b0 -b disk.qcow2 other.qcow2 o0",
    "--merge nonsense disk.qcow2 b0",
    "--merge b0 --merge b2 disk.qcow2 b1",
    "--remove --image-opts driver=qcow2,file.filename=disk.qcow2 b1",
    "--add --image-opts driver=qcow2,file.filename=disk.qcow2,backing.driver=null-co b9",
    "--add --image-opts driver=qcow2,file.filename=disk.qcow2,backing=absent b9",
    "--enable disk.qcow2 b2",
    "--remove --add -g 32k disk.qcow2 b2",
    "--add -f raw disk.raw b0",
    "--merge b0 -b disk.qcow2 -F raw other.qcow2 o0",
]


def test_bitmaps_come_out_the_same(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "qcow2", "other.qcow2", "64M")
    pair.prepare("bitmap", "--add", "other.qcow2", "o0")
    for line in BITMAP:
        real, ours = (pair.run(who, "bitmap", *line.split()) for who in ("real", "ours"))
        assert (ours.status, ours.output) == (real.status, real.output), line
        if "#block" not in real.errors:  # what is made up differs from run to run
            assert ours.errors == real.errors, line
        for name in ("disk.qcow2", "other.qcow2", "old.qcow2"):
            _tell(pair, "info", name)
            _tell(pair, "check", name)


CHECK = [
    ("disk.qcow2", 0),
    ("-q disk.qcow2", 0),
    ("--output=json disk.qcow2", 0),
    ("-U -f qcow2 -T none disk.qcow2", 0),
    ("--image-opts driver=qcow2,file.filename=disk.qcow2", 0),
    ("disk.raw", 63),
    ("-f raw disk.qcow2", 63),
    ("missing", 1),
    ("-r nonsense disk.qcow2", 1),
    ("-T nonsense disk.qcow2", 1),
    ("--output=nonsense disk.qcow2", 1),
    ("", 1),
    ("leaks.qcow2", 3),
    ("--output=json leaks.qcow2", 3),
    ("-q leaks.qcow2", 3),
    ("broken.qcow2", 2),
    ("--output=json broken.qcow2", 2),
    ("-r leaks broken.qcow2", 1),
    ("-r all broken.qcow2", 0),
    ("-r leaks leaks.qcow2", 0),
    ("--output=json -r all more.qcow2", 0),
    ("--repair=all --format qcow2 more.qcow2", 0),
]


def test_checks_and_repairs_come_to_the_same(pair: Pair) -> None:
    for folder in pair.folders.values():
        for name, entry, count in (("leaks", 24, 1), ("broken", 5, 0), ("more", 9, 3)):
            shutil.copyfile(folder / "disk.qcow2", folder / f"{name}.qcow2")
            with (folder / f"{name}.qcow2").open("r+b") as f:
                f.seek(2 * 65536 + 2 * entry)  # the first refcount block
                f.write(count.to_bytes(2, "big"))
                f.truncate(25 * 65536)
    for line, status in CHECK:
        assert pair.same("check", *line.split()).status == status, line
    for name in ("leaks.qcow2", "broken.qcow2", "more.qcow2"):
        _tell(pair, "info", name)


AMEND = [
    "disk.qcow2",
    "-o nonsense=1 disk.qcow2",
    "-o cluster_size=4k disk.qcow2",
    "-o lazy_refcounts=on",
    "-o lazy_refcounts=on missing",
    "-t nonsense -o lazy_refcounts=on disk.qcow2",
    "-o help",
    "-o help -f qcow2",
    "-o help -f raw",
    "-o help -f nonsense",
    "-o help -f bochs",
    "-o help disk.qcow2",
    "-o lazy_refcounts=on disk.raw",
    "-o lazy_refcounts=on disk.qcow2",
    "-p -o compat=0.10 disk.qcow2",
    "-p -o compat=1.1 disk.qcow2",
    "-o refcount_bits=64 disk.qcow2",
    "-o refcount_bits=3 disk.qcow2",
    "-o size=65M disk.qcow2",
    "-o backing_file=disk.raw,backing_fmt=raw disk.qcow2",
    "-o compat=nonsense disk.qcow2",
    "-o , disk.qcow2",
    "--force -q -p -o compat=v3 old.qcow2",
]


def test_options_are_amended_the_same(pair: Pair) -> None:
    for line in AMEND:
        pair.same("amend", *line.split())
        for name in ("disk.qcow2", "old.qcow2"):
            _tell(pair, "info", name)
            _tell(pair, "check", name)


@pytest.mark.parametrize(
    ("at", "what"), [(0, (0x400200).to_bytes(8, "big")), (8, (0x10000000).to_bytes(4, "big"))]
)
def test_snapshots_with_l1_tables_nowhere_are_refused_alike(
    pair: Pair, at: int, what: bytes
) -> None:
    pair.prepare("snapshot", "-c", "test", "disk.qcow2")
    name = pair.folders["real"] / "disk.qcow2"
    with name.open("r+b") as f:
        f.seek(64)  # where the header says that the snapshot table is
        f.seek(int.from_bytes(f.read(8), "big") + at)
        f.write(what)
    shutil.copyfile(name, pair.folders["ours"] / "disk.qcow2")  # of the same second
    for command in ("amend -o compat=0.10", "snapshot -a test", "snapshot -d test"):
        assert pair.same(*command.split(), "disk.qcow2").status == 1
    _tell(pair, "info", "disk.qcow2")


def test_a_snapshot_that_cannot_be_taken_leaks_its_table_alike(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "qcow2", "-o", "refcount_bits=2", "narrow.qcow2", "64M")
    pair.write("narrow.qcow2", "write 0 512")
    for name, status in (("one", 0), ("two", 0), ("three", 1)):
        assert pair.same("snapshot", "-c", name, "narrow.qcow2").status == status
        _tell(pair, "check", "narrow.qcow2")
    images = [Bytes(folder / "narrow.qcow2") for folder in pair.folders.values()]
    copies = [image.word(image.word(image.snapshots)) for image in images]
    assert len(images[0].data) == len(images[1].data)
    assert copies[0] == copies[1]


def test_a_downgrade_tells_of_its_progress_alike(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "qcow2", "large.qcow2", "4G")
    pair.write("large.qcow2", "write -z 1G 128k", "write 3G 64k")
    pair.prepare("snapshot", "-c", "one", "large.qcow2")
    assert "50.00" in pair.same("amend", "-p", "-o", "compat=0.10", "large.qcow2").output
    _tell(pair, "compare", "large.qcow2", "large.qcow2")
    _tell(pair, "check", "large.qcow2")


def test_images_are_made_on_what_an_nbd_server_has(
    pair: Pair, program: Callable[[str], str]
) -> None:
    nbd = program("qemu-nbd")
    uri = "nbd+unix:///e?socket=s"
    for folder in pair.folders.values():
        argv = [nbd, "-t", "-f", "raw", "-k", folder / "s", "-x", "e", "--fork", "--pid-file", "p"]
        subprocess.run([*argv, "disk.raw"], cwd=folder, check=True)
    try:
        for line, status in (
            ("-f raw", 0), ("-f qcow2", 0), ("-f raw -o preallocation=full", 1),
            ("-f qcow2 -o preallocation=full", 1),
        ):  # fmt: skip
            length = "64M" if "qcow2" in line else "1M"
            assert pair.same("create", *line.split(), uri, length).status == status
        assert pair.same("create", "-f", "raw", uri, "64M").status == 1
        _tell(pair, "check", uri)
    finally:
        for folder in pair.folders.values():
            os.kill(int((folder / "p").read_text()), signal.SIGTERM)
