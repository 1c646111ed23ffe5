"""blockemu-img commit and bench beside qemu-img's: what they say, and what is left on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.img_programs import Pair

pytestmark = pytest.mark.compat


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Iterator[Pair]:
    """Give both programs, in folders with a chain top.qcow2, mid.qcow2, base.raw."""
    with Pair.made(tmp_path, program("qemu-img"), program("qemu-io")) as pair:
        pair.prepare("create", "-q", "-f", "raw", "base.raw", "4M")
        pair.prepare("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2")
        over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "mid.qcow2"]
        pair.prepare(*over, "top.qcow2", "6M")
        pair.write("mid.qcow2", "write -P 1 0 1M", "write -P 2 3M 1M")
        pair.write("top.qcow2", "write -P 3 512k 1M", "write -z 3M 64k", "write -P 4 5M 64k")
        yield pair


def first_difference(one: bytes, other: bytes) -> int | None:
    """Return where two disks begin to differ; None: nowhere."""
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def same_disks(pair: Pair, *names: str) -> None:
    """Fail unless the real program finds images of both folders sound and equal."""
    for name in names:
        for who, folder in pair.folders.items():
            pair.prepare("convert", "-O", "raw", name, "flat")
            if not name.endswith(".raw"):
                pair.prepare("check", "-q", name)
            (folder / f"{name}.{who}").write_bytes((folder / "flat").read_bytes())
        real, ours = ((pair.folders[who] / f"{name}.{who}") for who in ("real", "ours"))
        at = first_difference(real.read_bytes(), ours.read_bytes())
        assert at is None, f"{name} differs at {at}"


REFUSALS = """
commit
commit base.raw
commit -f raw base.raw
commit nonsense
commit -b nonsense top.qcow2
commit -b top.qcow2 top.qcow2
commit -t nonsense top.qcow2
commit -r nonsense top.qcow2
commit -r -1 top.qcow2
commit -x top.qcow2
commit -b
commit a b
commit -f raw --image-opts top.qcow2
commit -f nonsense top.qcow2
bench
bench a b
bench nonsense
bench -c x top.qcow2
bench -c -1 top.qcow2
bench -c 3000000000 top.qcow2
bench -c 1k top.qcow2
bench -d x top.qcow2
bench -i nonsense top.qcow2
bench -i native top.qcow2
bench -n top.qcow2
bench -o x top.qcow2
bench -o -1 top.qcow2
bench -s 3G top.qcow2
bench -S x top.qcow2
bench -t nonsense top.qcow2
bench --pattern=256 top.qcow2
bench --flush-interval=x top.qcow2
bench --flush-interval=64 top.qcow2
bench -w --flush-interval=3 top.qcow2
bench -f raw --image-opts top.qcow2
bench --object nonsense top.qcow2
bench -x top.qcow2
""".strip().splitlines()


def test_what_cannot_be_done_is_refused_in_the_same_words(pair: Pair) -> None:
    assert all(ran.status for ran in pair.all_same(REFUSALS))


COMMITS = [
    ["top.qcow2"],
    ["-f", "qcow2", "top.qcow2"],
    ["-d", "top.qcow2"],
    ["-q", "top.qcow2"],
    ["-b", "mid.qcow2", "top.qcow2"],
    ["-b", "base.raw", "top.qcow2"],
    ["-t", "writethrough", "-r", "1G", "top.qcow2"],
    ["--image-opts", "driver=qcow2,file.filename=top.qcow2"],
    ["--image-opts", "driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2"],
]


@pytest.mark.parametrize("argv", COMMITS, ids=" ".join)
def test_a_commit_leaves_the_same_images(pair: Pair, argv: list[str]) -> None:
    ran = pair.same("commit", *argv)
    assert ran.status == 0
    assert ran.output == ("" if "-q" in argv else "Image committed.\n")
    same_disks(pair, "top.qcow2", "mid.qcow2", "base.raw")


def test_progress_ends_at_all_of_it(pair: Pair) -> None:
    shown = [pair.run(who, "commit", "-p", "top.qcow2").output for who in ("real", "ours")]
    for text in shown:
        lines = text.splitlines()
        assert lines[0] == "    (0.00/100%)"
        assert lines[-2:] == ["    (100.00/100%)", "Image committed."]


EMPTIED = {
    "plain": ["check", "-q", "top.qcow2"],
    "version 2": ["amend", "-o", "compat=0.10", "top.qcow2"],
    "snapshot": ["snapshot", "-c", "s", "top.qcow2"],
    "bitmap": ["bitmap", "--add", "top.qcow2", "b"],
}


@pytest.mark.parametrize("what", EMPTIED)
def test_an_emptied_image_is_as_large_as_qemu_leaves_it(pair: Pair, what: str) -> None:
    pair.prepare(*EMPTIED[what])
    pair.same("commit", "top.qcow2")
    sizes = {who: (f / "top.qcow2").stat().st_size for who, f in pair.folders.items()}
    assert sizes["ours"] == sizes["real"]
    same_disks(pair, "top.qcow2", "mid.qcow2")


@pytest.mark.parametrize("options", ["cluster_size=512", "extended_l2=on", "lazy_refcounts=on"])
def test_an_emptied_image_can_be_written_to(pair: Pair, options: str) -> None:
    made = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        "-b",
        "base.raw",
        "-F",
        "raw",
        "new.qcow2",
    ]
    pair.prepare(*made)
    pair.write("new.qcow2", "write -P 7 0 1M", "write -P 8 2M 100k")
    pair.same("commit", "new.qcow2")
    pair.write("new.qcow2", "write -P 9 1M 200k")
    same_disks(pair, "new.qcow2", "base.raw")


EVENTS = ["l1_update", "empty_image_prepare", "reftable_update", "refblock_alloc"]


@pytest.mark.parametrize("event", EVENTS)
def test_an_error_while_emptying_is_told(pair: Pair, event: str) -> None:
    rules = f'[inject-error]\nevent = "{event}"\n'
    for folder in pair.folders.values():
        (folder / "rules").write_text(rules)
    pair.same("commit", "blkdebug:rules:top.qcow2")
    for who in pair.folders:
        assert pair.run(who, "check", "-r", "all", "mid.qcow2").status == 0
    same_disks(pair, "mid.qcow2")


BENCHES = """
-c 100 top.qcow2
-c 0 top.qcow2
-c 0x10 top.qcow2
-c 010 top.qcow2
-c 3 -s 0 top.qcow2
-c 10 -U -o 1k -s 64k -S 128k -d 3 top.qcow2
-c 100 -o 7M top.qcow2
-c 100 -s 1M -o 5.9M top.qcow2
-c 1 -n -t none top.qcow2
-c 100 -w top.qcow2
-c 70 -w -q --pattern=7 -f qcow2 -t writethrough top.qcow2
-c 10 -w -s 64k -d 3 --pattern=0x1f --flush-interval=3 top.qcow2
-c 200 -w -d 4 --flush-interval=4 --no-drain -t unsafe top.qcow2
-c 5 --image-opts driver=qcow2,file.filename=top.qcow2
""".strip().splitlines()


@pytest.mark.parametrize("line", BENCHES)
def test_a_bench_says_and_writes_the_same(pair: Pair, line: str) -> None:
    real, ours = (pair.run(who, "bench", *line.split()) for who in ("real", "ours"))
    times = [re.sub(r"in \d+\.\d{3} seconds", "in TIME seconds", r.output) for r in (real, ours)]
    assert times[1] == times[0]
    assert (ours.status, ours.errors) == (real.status, real.errors)
    same_disks(pair, "top.qcow2")
