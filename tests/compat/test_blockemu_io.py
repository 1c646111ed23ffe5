"""blockemu-io beside qemu-io: the same argument lists and the same input, the same text and status."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.programs import Pair

SPEED = re.compile(r"ops; .* ops/sec\)")
MIB = 1 << 20


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Pair:
    """Give both programs, with images raw (1 MiB of 0xaa), empty.qcow2 and top.qcow2 on it."""
    img = program("qemu-img")
    pair = Pair.made(
        tmp_path, program("qemu-io"), "blockemu.programs.io_cli", masked={SPEED: "ops; SPEED"}
    )
    for folder in pair.folders.values():
        (folder / "raw").write_bytes(b"\xaa" * MIB)
        create = [img, "create", "-q", "-f", "qcow2"]
        subprocess.run([*create, "empty.qcow2", "1M"], cwd=folder, check=True)
        backing = ["-b", "raw", "-F", "raw", "top.qcow2"]
        subprocess.run([*create, *backing], cwd=folder, check=True)
    return pair


ARGUMENTS = [
    ["-c", "quit"],
    ["-c", "", "-c", "q", "-c", "nonsense"],
    ["-c", "read 0 512"],
    ["-c", "nonsense"],
    ["-f", "raw", "raw", "-c", "read -P 0xaa 0 1M", "-c", "length", "-c", "read -v 0 32"],
    ["-f", "raw", "raw", "-c", "read -P 0 0 4k"],
    ["-f", "raw", "raw", "-c", "read 0 4M", "-c", "read 0 512"],
    ["-f", "raw", "-r", "raw", "-c", "write 0 512"],
    ["-f", "qcow2", "top.qcow2", "-c", "map", "-c", "write 64k 4k", "-c", "map"],
    ["-f", "qcow2", "-s", "top.qcow2", "-c", "write -P 1 0 64k", "-c", "read -P 1 0 64k"],
    ["--format=qcow2", "--snapshot", "--read-only", "top.qcow2", "-c", "read 0 512"],
    ["raw", "-c", "read 0 512"],
    ["-r", "raw", "-c", "read 0 512"],
    ["top.qcow2", "-c", "read -P 0xaa 0 1M"],
    ["-f", "nonsense", "raw"],
    ["missing"],
    ["-f", "qcow2", "raw"],
    ["-f", "raw", ""],
    ["-f", "raw", "-U", "raw", "-c", "read 0 512"],
    ["-f", "raw", "-U", "-r", "raw", "-c", "read 0 512"],
    ["-d", "nonsense", "raw"],
    ["-t", "nonsense", "raw"],
    ["-i", "nonsense", "raw"],
    ["-i", "native", "-f", "raw", "raw", "-c", "quit"],
    ["-k", "-f", "raw", "raw", "-c", "quit"],
    ["-f", "raw", "raw", "-c", "info"],
    ["-f", "file", "raw", "-c", "info"],
    ["-f", "qcow2", "top.qcow2", "-c", "info"],
    ["--image-opts", "driver=null-co,size=1M", "-c", "info", "-c", "length"],
    ["-n", "-k", "-f", "raw", "raw", "-c", "read 0 4k"],
    *([*f"-f raw -t {mode} raw -c".split(), "write 0 4k"] for mode in ("none", "unsafe", "off")),
    [
        "-f",
        "raw",
        "--cache=directsync",
        "--discard=on",
        "--aio=threads",
        "raw",
        "-c",
        "discard 0 4k",
    ],
    ["-C", "-r", "-f", "qcow2", "top.qcow2"],
    ["-f", "raw", "--image-opts", "raw"],
    ["--image-opts", "driver=raw,file.filename=raw", "-c", "read -P 0xaa 0 512"],
    ["--image-opts", "driver=qcow2,file.filename=empty.qcow2,l2-cache-size=64k", "-c", "length"],
    ["--image-opts", "driver=qcow2,file.filename=empty.qcow2,l2-cache-size=64x"],
    ["--image-opts", "driver=raw,file.filename=raw,size=nonsense"],
    ["--image-opts", "driver=raw,file.filename=raw,id=0"],
    ["--image-opts", "driver=raw,file.filename=raw,nonsense=1"],
    ["--image-opts", "driver=raw,file.filename=raw,read-only=on"],
    ["--image-opts", "-r", "-U", "driver=raw,file.filename=raw,force-share=off"],
    ["--image-opts", "raw"],
    ["--image-opts", "nofoo"],
    ["--image-opts", "help"],
    ["--image-opts", "-c", "open -o driver=raw raw", "-c", "open driver=raw,file.filename=raw"],
    ['json:{"driver":"raw","file":{"driver":"file","filename":"raw"}}', "-c", "read 0 512"],
    ["json:{", "-c", "quit"],
    ["json:[]", "-c", "quit"],
    ["--object", "secret,id=s,data=x", "-c", "quit"],
    ["--object", "secret,id=s", "-c", "quit"],
    ["--object", "nonsense,id=s", "-c", "quit"],
    ["--object", "secret,help"],
    ["-c", "open raw", "-c", "open raw", "-c", "close", "-c", "close"],
    ["-c", "open", "-c", "open -o driver=raw", "-c", "open -t nonsense raw"],
    ["-c", "open -z", "-c", "open a b", "-c", "open -o", "-c", "open missing"],
    ["-c", "open -r -o driver=raw raw", "-c", "write 0 512", "-c", "read 0 512"],
    ["-c", "open -o driver=raw,file.filename=raw", "-c", "read 0 512", "-c", "close now"],
    ["-c", "open -s -n -o driver=qcow2 top.qcow2", "-c", "write 0 64k"],
    ["-c", "open -d nonsense raw", "-c", "open -i nonsense raw", "-c", "q", "-c", "length"],
    ["--", "missing"],
]


@pytest.mark.parametrize("argv", ARGUMENTS, ids=" ".join)
def test_an_argument_list_does_the_same(pair: Pair, argv: list[str]):
    pair.same(*argv)


@pytest.mark.parametrize(
    "argv", [["-x"], ["-c"], ["--foo"], ["a", "b"], ["--c", "x"]], ids=" ".join
)
def test_wrong_usage_is_told_and_help_follows(pair: Pair, argv: list[str]):
    real, ours = (pair.run(who, *argv) for who in ("real", "ours"))
    errors = [
        ran.errors.replace(str(pair.programs[who]), "PROGRAM")
        for who, ran in (("real", real), ("ours", ours))
    ]
    assert (ours.status, errors[1]) == (real.status, errors[0])
    assert ours.output.startswith("Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n")
    assert real.output.startswith("Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n")


def test_typed_lines_are_prompted_for_also_on_a_pipe(pair: Pair):
    stdin = "read 0 512\nnonsense\n\nclose\nlength\nopen -o driver=raw raw\nlength\nq\nlength\n"
    ran = pair.same("-f", "raw", "raw", stdin=stdin)
    assert ran.output.startswith("qemu-io> read 512/512 bytes")
    assert ran.status == 1


def test_input_may_end_without_an_end_of_line(pair: Pair):
    assert pair.same("-f", "raw", "raw", stdin="length").output == "qemu-io> 1 MiB\nqemu-io> "


def test_a_line_that_is_too_long_counts_as_several(pair: Pair):
    pair.same(stdin="a" * 1500 + " 1\nq\n")


def test_input_may_be_a_file(pair: Pair):
    results = []
    for who in ("real", "ours"):
        (pair.folders[who] / "script").write_text("length\nread 0 512\n")
        with (pair.folders[who] / "script").open() as stdin:
            done = subprocess.run(
                [pair.programs[who], "-f", "raw", "raw"],
                cwd=pair.folders[who],
                stdin=stdin,
                capture_output=True,
                text=True,
                check=False,
            )
        results.append((done.returncode, SPEED.sub("", done.stdout), done.stderr))
    assert results[0] == results[1]


@pytest.mark.parametrize("command", ["abort", "sigraise 9", "sigraise 15", "quit"])
def test_errors_come_before_output_that_is_held_back(pair: Pair, command: str):
    outcomes = []
    for who in ("real", "ours"):
        done = subprocess.run(
            [pair.programs[who], "-f", "raw", "raw", "-c", "length", "-c", "no", "-c", command],
            cwd=pair.folders[who],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        outcomes.append((done.returncode, done.stdout))
    assert outcomes[0] == outcomes[1]


def test_much_output_is_written_in_the_same_blocks(pair: Pair):
    outputs = []
    for who in ("real", "ours"):
        argv = ["-f", "raw", "raw", "-c", "read -v 0 1k", "-c", "no", "-c", "length"]
        done = subprocess.run(
            [pair.programs[who], *argv],
            cwd=pair.folders[who],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        outputs.append(SPEED.sub("", done.stdout).index('command "no" not found'))
    assert outputs[0] == outputs[1]


def test_requests_under_way_are_finished_before_the_end(pair: Pair):
    requests = ("-c", "aio_write -P 5 0 64k", "-c", "aio_read 64k 4k")
    real, ours = (pair.run(who, "-f", "raw", "raw", *requests) for who in ("real", "ours"))
    assert sorted(ours.output.splitlines()) == sorted(real.output.splitlines())  # in any order
    assert "wrote 65536/65536" in ours.output
    assert (ours.status, ours.errors) == (real.status, real.errors) == (0, "")
    assert pair.same("-f", "raw", "raw", "-c", "read -P 5 0 64k").status == 0


def test_what_was_written_is_in_the_image_afterwards(pair: Pair):
    pair.same("-f", "qcow2", "top.qcow2", "-c", "write -P 7 100k 50k", "-c", "discard 512k 64k")
    img = shutil.which("qemu-img")
    assert img is not None
    compare = [img, "compare", "real/top.qcow2", "ours/top.qcow2"]
    subprocess.run(compare, cwd=pair.folders["ours"].parent, check=True, capture_output=True)
    subprocess.run([img, "check", pair.folders["ours"] / "top.qcow2"], check=True)


def test_a_snapshot_leaves_the_image_alone(pair: Pair):
    before = (pair.folders["ours"] / "top.qcow2").read_bytes()
    pair.same("-s", "-f", "qcow2", "top.qcow2", "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M")
    assert (pair.folders["ours"] / "top.qcow2").read_bytes() == before


def test_an_image_that_is_open_can_be_opened_again(pair: Pair):
    with subprocess.Popen(
        [pair.programs["ours"], "-f", "raw", "raw"],
        cwd=pair.folders["ours"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert os.read(holder.stdout.fileno(), 9) == b"qemu-io> "
        results = []
        for who in ("real", "ours"):
            done = subprocess.run(
                [pair.programs[who], "-f", "raw", "raw", "-c", "quit"],
                cwd=pair.folders["ours"],
                capture_output=True,
                text=True,
                check=False,
            )
            results.append((done.returncode, done.stderr))
        holder.communicate(b"q\n")
    assert results == [(0, ""), (0, "")]


@pytest.mark.parametrize(
    "commands",
    [
        ["write 0 2028k", "write 2028k 4k", "write 2032k 4k"],
        ["write 0 2028k", "write 2028k 8k", "write 2036k 4k"],
        ["write 0 2024k", "write 2024k 16k", "write 2040k 16k"],
        ["write 0 1200k", "write 1200k 6000k"],
    ],
    ids=" ".join,
)
def test_refcount_blocks_lie_behind_the_clusters_that_needed_them(pair: Pair, commands: list[str]):
    img = shutil.which("qemu-img")
    assert img is not None
    small = ["-o", "cluster_size=4k,refcount_bits=64", "small.qcow2", "16M"]
    for folder in pair.folders.values():
        subprocess.run([img, "create", "-q", "-f", "qcow2", *small], cwd=folder, check=True)
    pair.same("-f", "qcow2", "small.qcow2", *(word for c in commands for word in ("-c", c)))
    real, ours = (pair.folders[who] / "small.qcow2" for who in ("real", "ours"))
    assert ours.read_bytes() == real.read_bytes()


def _two(pair: Pair, *, differ: bool) -> None:
    for folder in pair.folders.values():
        (folder / "a").write_bytes(b"\x07" * MIB)
        (folder / "b").write_bytes(b"\x07" * MIB)
        if differ:
            with (folder / "b").open("r+b") as file:
                file.seek(70000)
                file.write(b"\x08")


QUORUM = (
    "driver=quorum,vote-threshold=2,blkverify=on,"
    "children.0.driver=file,children.0.filename=a,children.1.driver=file,children.1.filename=b"
)


@pytest.mark.parametrize("differ", [False, True])
@pytest.mark.parametrize(
    "image",
    [
        ("blkverify:a:b",),
        (
            "--image-opts",
            "driver=blkverify,raw.driver=file,raw.filename=a,test.driver=file,test.filename=b",
        ),
        ("--image-opts", QUORUM),
    ],
    ids=["name", "options", "quorum"],
)
def test_a_difference_ends_the_program(pair: Pair, image: tuple[str, ...], differ: bool) -> None:
    _two(pair, differ=differ)
    read = ["-c", "read -P 7 65536 65536", "-c", "read 0 512"]
    done = pair.same("-f", "raw", *read, *image) if len(image) == 1 else pair.same(*read, *image)
    assert done.status == int(differ)
    assert ("contents mismatch at offset 70000" in done.errors) is differ


@pytest.mark.parametrize(
    "image",
    [
        "blkverify:a",
        "blkverify:",
        "blkverify:a:absent",
        "blkverify:absent:a",
        "json:{'driver':'blkverify','raw':{'driver':'file','filename':'a'},'test':{'filename':'b'}}",
        "json:{'driver':'quorum','children':[],'vote-threshold':1}",
        "json:{'driver':'quorum','children.0.filename':'a','vote-threshold':1}",
        "json:{'driver':'quorum','children.1.filename':'a','vote-threshold':1}",
        "json:{'driver':'quorum','children.0.filename':'a'}",
        "json:{'driver':'quorum','vote-threshold':1}",
        "json:{'driver':'quorum','children.0.filename':'a','vote-threshold':'x'}",
        "json:{'driver':'quorum','children.0.filename':'a','vote-threshold':1,'read-pattern':'x'}",
        "json:{'driver':'preallocate','file.filename':'a','prealloc-size':'x'}",
        "json:{'driver':'preallocate','file.filename':'a','prealloc-size':'1M'}",
        "json:{'driver':'blklogwrites','file.filename':'a'}",
        "json:{'driver':'blklogwrites','file.filename':'a','log.filename':'b','log-sector-size':'x'}",
        "json:{'driver':'blklogwrites','file.filename':'a','log.filename':'b','log-sector-size':'1k'}",
        "json:{'driver':'snapshot-access','file.filename':'a'}",
        "json:{'driver':'copy-before-write','file.filename':'a'}",
        "json:{'driver':'copy-before-write','file.filename':'a','target.driver':'file','target.filename':'b'}",
        "json:{'driver':'compress','file.filename':'a'}",
        "json:{'driver':'compress','file.driver':'qcow2','file.file.filename':'empty.qcow2'}",
        "json:{'driver':'throttle','file.filename':'a'}",
        "json:{'driver':'copy-on-read','file.filename':'a'}",
    ],
)
def test_filters_are_named_as_qemu_has_it(pair: Pair, image: str) -> None:
    _two(pair, differ=False)
    pair.same("-c", "info", "-c", "write -P 3 65536 65536", "-c", "map", image)


DATA_WITHOUT_FLUSH = (
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "split.qcow2"}, '
    '"data-file": {"driver": "blkdebug", "inject-error": [{"event": "none", "iotype": "flush"}], '
    '"image": {"driver": "file", "filename": "data"}}}'
)


def test_a_data_file_that_cannot_be_flushed_does_not_lose_the_tables(
    pair: Pair, program: Callable[[str], str]
) -> None:
    create = [program("qemu-img"), "create", "-q", "-f", "qcow2", "-o", "data_file=data"]
    for folder in pair.folders.values():
        subprocess.run([*create, "split.qcow2", "1M"], cwd=folder, check=True)
    pair.same("-t", "writeback", "-c", "write -P 7 0 512", "-c", "flush", DATA_WITHOUT_FLUSH)
    pair.same("-f", "qcow2", "-c", "map", "-c", "read -P 7 0 512", "split.qcow2")


@pytest.mark.parametrize("size", ["16E", "99999999999999999999999", "1Q", "x", "-1", "0x10000"])
def test_sizes_of_drivers_options_are_read_or_refused_alike(pair: Pair, size: str):
    options = f"driver=raw,size={size},file.driver=file,file.filename=raw"
    pair.same("--image-opts", "-c", "length", options)
