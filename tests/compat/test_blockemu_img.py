"""blockemu-img beside qemu-img: the same arguments, the same text, status and images."""

from __future__ import annotations

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
        _prepare(pair)
        yield pair


def _prepare(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "raw", "base.raw", "5M")
    pair.write("base.raw", "write -P 7 64k 128k", "write -P 8 3M 1k")
    pair.prepare("create", "-q", "-f", "qcow2", "base.qcow2", "4M")
    pair.write("base.qcow2", "write -P 1 1M 1M", "write -z 2M 256k", "write -c -P 3 3M 64k")
    chain = ["create", "-q", "-f", "qcow2", "-F", "qcow2"]
    pair.prepare(*chain, "-b", "base.qcow2", "mid.qcow2", "8M")
    pair.write("mid.qcow2", "write -P 4 1536k 1M", "write -P 4 6M 64k")
    pair.prepare(*chain, "-b", "mid.qcow2", "-o", "cluster_size=4k", "top.qcow2")
    pair.write("top.qcow2", "write -P 5 1M 12k", "write -z 1792k 64k", "write -P 5 5M 4k")


USAGE = [
    "",
    "--nonsense",
    "-x",
    "--trace",
    "nonsense",
    "info",
    "info a b",
    "info -f",
    "info --output",
    "info --output=xml top.qcow2",
    "info --nonsense",
    "info -f raw --image-opts driver=qcow2",
    "map",
    "map -s 1x top.qcow2",
    "map -s 9E top.qcow2",
    "map -l -1 top.qcow2",
    "map --output",
    "compare top.qcow2",
    "compare -T nonsense top.qcow2 mid.qcow2",
    "compare missing top.qcow2",
    "compare top.qcow2 missing",
    "resize",
    "resize top.qcow2",
    "resize a b c",
    "resize --preallocation=nonsense top.qcow2 9M",
    "resize top.qcow2 nonsense",
    "resize top.qcow2 +",
    "resize missing 1M",
]


def test_a_wrong_command_line_is_refused_in_qemus_words(pair: Pair) -> None:
    for line in USAGE:
        assert pair.same(*line.split()).status > 0, line


def test_help_and_version_end_well(pair: Pair) -> None:
    for argv in (["--help"], ["--version"], ["info", "--help"], ["-h", "nonsense"]):
        ran = pair.run("ours", *argv)
        assert ran.status == 0
        assert "qemu-img" in ran.output


INFO = [
    "top.qcow2",
    "base.raw",
    "--output=json top.qcow2",
    "--backing-chain top.qcow2",
    "--backing-chain --output=json top.qcow2",
    "-f raw top.qcow2",
    "-U top.qcow2",
    "--force-share --format qcow2 --output human mid.qcow2",
    "--image-opts driver=qcow2,file.filename=top.qcow2",
    "--image-opts top.qcow2",
    "-U --image-opts force-share=off,driver=qcow2,file.filename=top.qcow2",
    "missing",
    "-f qcow2 base.raw",
    "-f nonsense base.raw",
    "-- top.qcow2",
    "loop.qcow2 --backing-chain",
    "orphan.qcow2 --backing-chain",
    "orphan.qcow2",
    "plain.qcow2 --output=json",
    "json:{} --output=json",
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"orphan.qcow2"}} --backing-chain',
    'json:{"driver":"null-co","size":1048576}',
    'json:{"driver":"null-co","size":1048576} --output=json',
    "snapshots.qcow2",
    "snapshots.qcow2 --output=json",
    "bitmaps.qcow2",
    "v2.qcow2",
    "--help-me",
]


def test_info_says_the_same(pair: Pair) -> None:
    pair.prepare("create", "-q", "-f", "qcow2", "loop.qcow2", "1M")
    pair.prepare("rebase", "-u", "-F", "qcow2", "-b", "loop.qcow2", "loop.qcow2")
    orphan = ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b"]
    pair.prepare(*orphan, "missing.raw", "orphan.qcow2", "1M")
    options = "extended_l2=on,lazy_refcounts=on,compression_type=zstd,refcount_bits=1"
    pair.prepare("create", "-q", "-f", "qcow2", "-o", options, "plain.qcow2", "3G")
    pair.prepare("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2.qcow2", "1023")
    pair.prepare("create", "-q", "-f", "qcow2", "snapshots.qcow2", "1M")
    pair.prepare("create", "-q", "-f", "qcow2", "bitmaps.qcow2", "1M")
    pair.prepare("bitmap", "--add", "bitmaps.qcow2", "b0")
    real = pair.folders["real"]
    pair.run("real", "snapshot", "-c", "first", "snapshots.qcow2")
    pair.run("real", "snapshot", "-c", "a much longer name than there is room", "snapshots.qcow2")
    dated = (real / "snapshots.qcow2").read_bytes()
    for folder in pair.folders.values():
        (folder / "snapshots.qcow2").write_bytes(dated)
    for line in INFO:
        pair.same("info", *line.split())


MAP = [
    "top.qcow2",
    "--output=json top.qcow2",
    "--output json mid.qcow2",
    "mid.qcow2",
    "base.raw",
    "--output=json base.raw",
    "-s 1M -l 512k --output=json top.qcow2",
    "--start-offset=5M --max-length 100k top.qcow2 --output=json",
    "-s 1G --output=json base.raw",
    "-s 1G base.raw",
    "-l 0 base.raw --output=json",
    "base.qcow2",
    "--output=json base.qcow2",
    "--output=json -f raw base.qcow2",
    '--output=json json:{"driver":"null-co","size":1048576}',
    '--output=json json:{"driver":"null-co","size":1048576,"read-zeroes":true}',
    'json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"base.raw"}}',
    "--image-opts driver=blkdebug,image.filename=base.raw --output=json",
    "--image-opts driver=blkdebug,image.filename=base.raw",
    "--image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=mid.qcow2",
    "prealloc.qcow2 --output=json",
    "prealloc.qcow2",
    "zeroes.qcow2 --output=json",
]


def test_map_says_the_same(pair: Pair) -> None:
    pair.prepare(
        "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "prealloc.qcow2", "1G"
    )
    pair.write("prealloc.qcow2", "write -P 5 5M 4k")
    pair.prepare("create", "-q", "-f", "qcow2", "zeroes.qcow2", "1G")
    pair.write("zeroes.qcow2", "write -P 5 5M 64k", "write -z 5M 64k", "write -zu 8M 1M")
    for line in MAP:
        pair.same("map", *line.split())


COMPARE = [
    ("top.qcow2 flat.qcow2", 0),
    ("top.qcow2 flat.raw", 0),
    ("-p flat.qcow2 flat.raw", 0),
    ("-q mid.qcow2 flat.raw", 1),
    ("mid.qcow2 flat.raw", 1),
    ("-s mid.qcow2 flat.raw", 1),
    ("-s flat.qcow2 flat.qcow2", 0),
    ("-s base.qcow2 top.qcow2", 1),
    ("base.qcow2 top.qcow2", 1),
    ("longer.raw flat.qcow2", 0),
    ("flat.qcow2 longer.raw -F raw -f qcow2", 0),
    ("-s flat.qcow2 longer.raw", 1),
    ("more.raw flat.raw", 1),
    ("-f raw flat.qcow2 flat.qcow2", 1),
    ("-T none -U flat.qcow2 top.qcow2", 0),
    ("-f qcow2 flat.raw flat.raw", 2),
    ("broken.qcow2 flat.raw", 4),
    ('json:{"driver":"null-co","size":8388608,"read-zeroes":true} empty.qcow2', 0),
    ('json:{"driver":"null-co","size":8388608} empty.qcow2', 0),
]


def test_compare_comes_to_the_same(pair: Pair) -> None:
    pair.prepare("convert", "-O", "qcow2", "top.qcow2", "flat.qcow2")
    pair.prepare("convert", "-O", "raw", "top.qcow2", "flat.raw")
    pair.prepare("convert", "-O", "raw", "top.qcow2", "longer.raw")
    pair.prepare("resize", "-q", "-f", "raw", "longer.raw", "9M")
    pair.prepare("convert", "-O", "raw", "longer.raw", "more.raw")
    pair.write("more.raw", "write -P 6 8700k 1k")
    pair.prepare("create", "-q", "-f", "qcow2", "empty.qcow2", "8M")
    pair.prepare("create", "-q", "-f", "qcow2", "broken.qcow2", "8M")
    pair.write("broken.qcow2", "write -c -P 5 0 64k")
    for folder in pair.folders.values():
        with (folder / "broken.qcow2").open("r+b") as f:
            f.seek(5 * 65536)
            f.write(b"\xff" * 1024)
    for line, status in COMPARE:
        assert pair.same("compare", *line.split()).status == status, line


def _described(pair: Pair, image: Path) -> list[str]:
    """Return what the real program tells of an image, without what it takes on the host."""
    text = subprocess.check_output([pair.real, "info", image.name], cwd=image.parent, text=True)
    return [line for line in text.splitlines() if not line.startswith("disk size")]


RESIZE = [
    "top.qcow2 +1M",
    "top.qcow2 12M",
    "-q top.qcow2 13M",
    "top.qcow2 -- -3M",
    "--shrink top.qcow2 -- -3M",
    "--shrink top.qcow2 -1M",
    "top.qcow2 5M",
    "--shrink top.qcow2 -1T",
    "top.qcow2 0",
    "--preallocation=full top.qcow2 +0",
    "--preallocation=metadata base.qcow2 +1M",
    "--preallocation=falloc -f raw base.raw 6M",
    "--preallocation=full -f raw base.raw 7M",
    "--preallocation=metadata -f raw base.raw 8M",
    "base.raw 8M",
    "-f raw base.raw 8M",
    "-f raw --shrink base.raw 3M",
    "--image-opts driver=qcow2,file.filename=mid.qcow2 9M",
    "mid.qcow2 7E",
    "mid.qcow2 8E",
    "mid.qcow2 1023",
    "missing 1M",
]


def test_resize_leaves_the_same(pair: Pair) -> None:
    for line in RESIZE:
        pair.same("resize", *line.split())
        for name in ("top.qcow2", "mid.qcow2", "base.qcow2", "base.raw"):
            one, other = (_described(pair, folder / name) for folder in pair.folders.values())
            assert one == other, line
    for name in ("top.qcow2", "base.raw"):
        images = [str(folder / name) for folder in pair.folders.values()]
        assert pair.run("real", "compare", "-s", *images).status == 0
