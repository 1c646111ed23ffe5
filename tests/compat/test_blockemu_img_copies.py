"""Images that blockemu-img makes, copies, rebases and measures, beside qemu-img."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.img_programs import Pair

pytestmark = pytest.mark.compat


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Pair]:
    """Give both programs, in folders with base.raw, base.qcow2, mid.qcow2 and top.qcow2."""
    with Pair.made(tmp_path, program("qemu-img"), program("qemu-io")) as pair:
        pair.prepare("create", "-q", "-f", "raw", "base.raw", "5M")
        pair.prepare("create", "-q", "-f", "raw", "empty.raw", "0")
        pair.write("base.raw", "write -P 7 64k 128k", "write -P 8 3M 1k", "write -P 9 4M 5k")
        pair.prepare("create", "-q", "-f", "qcow2", "base.qcow2", "4M")
        pair.write("base.qcow2", "write -P 1 1M 1M", "write -z 2M 256k", "write -c -P 3 3M 64k")
        chain = ["create", "-q", "-f", "qcow2", "-F", "qcow2"]
        pair.prepare(*chain, "-b", "base.qcow2", "mid.qcow2", "8M")
        pair.write("mid.qcow2", "write -P 4 1536k 1M", "write -P 4 6M 64k")
        pair.prepare(*chain, "-b", "mid.qcow2", "-o", "cluster_size=4k", "top.qcow2")
        pair.write("top.qcow2", "write -P 5 1M 12k", "write -z 1792k 64k", "write -P 5 5M 4k")
        yield pair


def _described(pair: Pair, folder: Path, name: str) -> tuple[str, ...]:
    """Return what the real program tells of an image, without what it takes on the host.

    Where clusters that were written over lie is left out as well: QEMU uses freed ones earlier.
    """
    told = []
    for command in ("info", "map --output=json"):
        argv = [pair.real, *command.split(), name]
        text = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False).stdout
        if name == "mid.qcow2":
            text = re.sub(', "offset": [0-9]+', "", text)
        told += [line for line in text.splitlines() if not line.startswith("disk size")]
    return tuple(told)


def _same_image(pair: Pair, name: str, why: str) -> None:
    one, other = (folder / name for folder in pair.folders.values())
    assert one.exists() == other.exists(), why
    if one.exists() and one.stat().st_size < 1 << 20 and "-c" not in why.split():
        assert one.read_bytes() == other.read_bytes(), why
    shown = [_described(pair, folder, name) for folder in pair.folders.values()]
    assert shown[0] == shown[1], why
    if one.exists() and "missing" not in why:
        compared = subprocess.run([pair.real, "compare", one, other], capture_output=True)
        assert compared.returncode == 0, why


CREATE = [
    "-f qcow2 new.img 10M",
    "new.img 1M",
    "-q -f qcow2 -o cluster_size=4k,compat=0.10 new.img 1G",
    "-f qcow2 -o size=3M -o lazy_refcounts=on new.img",
    "-f qcow2 -b base.qcow2 -F qcow2 new.img",
    "-f qcow2 -b base.qcow2 new.img",
    "-f qcow2 -b missing -F raw new.img",
    "-f qcow2 -u -b missing -F raw new.img 1M",
    "-f qcow2 -u -b missing -F raw new.img",
    "-f raw -b base.qcow2 new.img",
    "-f raw -o preallocation=full new.img 64k",
    "-f nonsense new.img 1M",
    "-f null-co new.img 1M",
    "-f qcow2 new.img",
    "-f qcow2 new.img 1x",
    "-f qcow2 new.img -- -1",
    "-f qcow2 new.img 16E",
    "-f qcow2 new.img 1M 2M",
    "-f qcow2",
    "-f qcow2 -o nonsense=1 new.img 1M",
    "-f qcow2 -o , new.img 1M",
    "-f qcow2 -o a,,, new.img 1M",
    "-f qcow2 -o help",
    "-f qcow2 -o help new.img",
    "-f qcow2 -o cluster_size=4k,help new.img 1M",
    "-f raw -o ?",
    "-f raw -o help new.img",
    "-f nonsense -o help",
    "-f bochs -o help",
    "-f bochs new.img 1M",
    "-f qcow2 -o cluster_size=3k new.img 1M",
    "-f qcow2 /nonexistent/new.img 1M",
]


def test_the_same_images_are_made(pair: Pair) -> None:
    for line in CREATE:
        for folder in pair.folders.values():
            (folder / "new.img").unlink(missing_ok=True)
        pair.same("create", *line.split())
        _same_image(pair, "new.img", line)


def test_tables_that_outgrow_refcount_tables_leave_nothing_behind(pair: Pair) -> None:
    options = "preallocation=metadata,cluster_size=512,refcount_bits=64"
    ran = pair.run("ours", "create", "-q", "-f", "qcow2", "-o", options, "new.img", "16M")
    assert not ran.status
    check = [pair.real, "check", "-q", pair.folders["ours"] / "new.img"]
    assert not subprocess.run(check, check=False).returncode


CONVERT = [
    "top.qcow2 out.img",
    "-O qcow2 top.qcow2 out.img",
    "-p -O qcow2 base.raw out.img",
    "-q -p -O qcow2 top.qcow2 out.img",
    "-c -O qcow2 top.qcow2 out.img",
    "-c -O qcow2 -o compression_type=zstd,cluster_size=4k top.qcow2 out.img",
    "-c -O raw top.qcow2 out.img",
    "-c -o preallocation=metadata -O qcow2 top.qcow2 out.img",
    "-S 0 -O qcow2 base.raw out.img",
    "-S 0 base.raw out.img",
    "-S 512 base.raw out.img",
    "-S 64k -O qcow2 base.raw out.img",
    "-S 100 base.raw out.img",
    "-S 17M base.raw out.img",
    "-S x base.raw out.img",
    "-m 1 -W base.raw out.img",
    "-m 16 -O qcow2 base.raw out.img",
    "-m 0 base.raw out.img",
    "-m 17 base.raw out.img",
    "-m x base.raw out.img",
    "-O qcow2 -B mid.qcow2 -F qcow2 top.qcow2 out.img",
    "-O qcow2 -B base.qcow2 -F qcow2 mid.qcow2 out.img",
    "-O qcow2 -B base.qcow2 mid.qcow2 out.img",
    "-O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 mid.qcow2 out.img",
    "-O raw -B base.qcow2 -F qcow2 mid.qcow2 out.img",
    "-O qcow2 base.raw base.qcow2 out.img",
    "-B base.raw -F raw -O qcow2 base.raw base.qcow2 out.img",
    "-O qcow2 empty.raw out.img",
    "empty.raw out.img",
    "-O qcow2 -o cluster_size=512 base.raw out.img",
    "-O qcow2 -o extended_l2=on mid.qcow2 out.img",
    "-O nonsense base.raw out.img",
    "-O null-co base.raw out.img",
    "-O qcow2 -o nonsense=on base.raw out.img",
    "-O qcow2 -o help",
    "-O qcow2 -o help base.raw out.img",
    "-o help --target-image-opts -n base.raw out.img",
    "base.raw",
    "missing out.img",
    "-t nonsense base.raw out.img",
    "-T nonsense base.raw out.img",
    "-T none -t writethrough base.raw out.img",
    "-U -r 100M base.raw out.img",
    "-r x base.raw out.img",
    "-C base.raw out.img",
    "-C -c base.raw out.img",
    "-C -S 4k base.raw out.img",
    "-C --salvage base.raw out.img",
    "--salvage -O qcow2 top.qcow2 out.img",
    "--target-image-opts base.raw out.img",
    "-n -o size=1 base.raw out.img",
    "--target-is-zero base.raw out.img",
    "--skip-broken-bitmaps base.raw out.img",
    "--bitmaps base.raw out.img",
    "--bitmaps -O raw base.qcow2 out.img",
    "--bitmaps -O qcow2 base.qcow2 out.img",
    "-l nonsense -O qcow2 base.qcow2 out.img",
    "-l snapshot.name=nonsense -O qcow2 base.qcow2 out.img",
    "-l snapshot.nonsense=x -O qcow2 base.qcow2 out.img",
    "--image-opts driver=qcow2,file.filename=top.qcow2 out.img",
    "-n -O qcow2 base.raw base.qcow2",
    "-n -O qcow2 base.qcow2 mid.qcow2",
    "-n --target-is-zero -O qcow2 base.qcow2 mid.qcow2",
    "-n --target-image-opts base.raw driver=qcow2,file.filename=mid.qcow2",
    "-n base.qcow2 missing",
]


def test_copies_come_out_the_same(pair: Pair) -> None:
    for line in CONVERT:
        for folder in pair.folders.values():
            (folder / "out.img").unlink(missing_ok=True)
        pair.same("convert", *line.split())
        _same_image(pair, "out.img", line)
        _same_image(pair, "mid.qcow2", line)


REBASE = [
    "top.qcow2",
    "-b base.qcow2",
    "-b base.qcow2 top.qcow2",
    "-b base.qcow2 -F nonsense top.qcow2",
    "-b missing -F raw top.qcow2",
    "-t nonsense -b base.qcow2 -F qcow2 top.qcow2",
    "-T nonsense -b base.qcow2 -F qcow2 top.qcow2",
    "-p -b base.qcow2 -F qcow2 top.qcow2",
    "-b base.raw -F raw top.qcow2",
    "-b mid.qcow2 -F qcow2 top.qcow2",
    "-u -b base.qcow2 -F qcow2 top.qcow2",
    "-u -b mid.qcow2 -F qcow2 top.qcow2",
    "-q -b  top.qcow2",
    "-u -b missing -F raw base.qcow2",
    "-u -b missing -F raw base.raw",
    "-f raw -u -b missing -F raw base.raw",
]


def test_rebased_images_hold_the_same(pair: Pair) -> None:
    for line in REBASE:
        pair.same("rebase", *line.split(" "))
        _same_image(pair, "top.qcow2", line)
    pair.same("rebase", "-b", "", "top.qcow2")
    _same_image(pair, "top.qcow2", "no backing file")


DD = [
    "if=base.raw of=out.img",
    "bs=64k count=3 if=base.raw of=out.img",
    "bs=64k skip=1 if=base.raw of=out.img",
    "bs=1M skip=4 count=1 if=base.raw of=out.img",
    "bs=1M skip=100 if=base.raw of=out.img",
    "-O qcow2 bs=1M if=top.qcow2 of=out.img",
    "-f raw -O qcow2 -U bs=1M if=base.qcow2 of=out.img",
    "if=base.raw",
    "of=out.img",
    "nonsense",
    "nonsense=1 if=base.raw of=out.img",
    "bs=0 if=base.raw of=out.img",
    "bs=x if=base.raw of=out.img",
    "count=-1 if=base.raw of=out.img",
    "if=missing of=out.img",
    "-O nonsense if=base.raw of=out.img",
    "if=base.raw of=/nonexistent/out.img",
]


def test_blocks_are_copied_the_same(pair: Pair) -> None:
    for line in DD:
        for folder in pair.folders.values():
            (folder / "out.img").unlink(missing_ok=True)
        pair.same("dd", *line.split())
        _same_image(pair, "out.img", line)


MEASURE = [
    "--size 1G",
    "--size 1000",
    "--size 1G -O qcow2",
    "--size 1G -O qcow2 --output=json",
    "--size 1G -O qcow2 -o cluster_size=512",
    "--size 1G -O qcow2 -o extended_l2=on,cluster_size=2M",
    "--size 1G -O qcow2 -o refcount_bits=1",
    "--size 1G -O qcow2 -o refcount_bits=3",
    "--size 1G -O qcow2 -o compat=0.10,refcount_bits=1",
    "--size 1G -O qcow2 -o compat=nonsense",
    "--size 1G -O qcow2 -o preallocation=full",
    "--size 1G -O qcow2 -o preallocation=nonsense",
    "--size 1G -O qcow2 -o nonsense=1",
    "--size 1P -O qcow2",
    "--size 8E -O qcow2",
    "--size x",
    "-O qcow2 top.qcow2",
    "-O qcow2 base.raw",
    "-O qcow2 -o cluster_size=4k base.raw",
    "-O qcow2 -o backing_file=x base.raw",
    "-O raw --output json top.qcow2",
    "-O qcow2 --output json base.qcow2",
    "-O qcow2 marked.qcow2",
    "-O qcow2 -o compat=0.10 marked.qcow2",
    "-U -f qcow2 -l nonsense base.qcow2",
    "-O nonsense --size 1G",
    "-O null-co --size 1G",
    "--size 1G base.raw",
    "-f raw --size 1G",
    "--output=nonsense --size 1G",
    "",
    "a b",
]


def test_sizes_are_measured_the_same(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "qcow2", "marked.qcow2", "100G")
    pair.prepare("bitmap", "--add", "-g", "512", "marked.qcow2", "b0")
    pair.prepare("bitmap", "--add", "marked.qcow2", "b1")
    for line in MEASURE:
        pair.same("measure", *line.split())


SNAPSHOT = [
    "",
    "-l top.qcow2",
    "-l base.raw",
    "-c",
    "-c a -d b top.qcow2",
    "-a missing top.qcow2",
    "-d missing top.qcow2",
    "-c one base.raw",
    "-a one --image-opts driver=raw,file.filename=base.raw",
    "-d one base.raw",
    "-c one missing",
    "-c one base.qcow2",
    "-c two base.qcow2",
    "-a one base.qcow2",
    "-d one base.qcow2",
    "-q -d two base.qcow2",
]


def test_snapshots_come_out_the_same(pair: Pair) -> None:
    for line in SNAPSHOT:
        pair.same("snapshot", *line.split())
        for folder in pair.folders.values():
            argv = [pair.real, "check", "-q", "base.qcow2"]
            assert subprocess.run(argv, cwd=folder, check=False).returncode == 0, line
    _same_image(pair, "base.qcow2", "snapshots")
