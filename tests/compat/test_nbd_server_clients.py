"""libnbd's scripts and fio, which know nothing of us: they find our server and QEMU's alike."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon, StorageDaemon, image

SIZE = 1 << 20
SCRIPT = """
import itertools, nbd, sys

def tried(name, call, *arguments, **members):
    try:
        result = call(*arguments, **members)
    except nbd.Error as e:
        result = f"{e.errno} {e.string.rsplit(': ', 1)[-1]}"
    if isinstance(result, (bytes, bytearray)) and len(result) > 64:
        result = [(key, len(list(same))) for key, same in itertools.groupby(result)]
    print(name, [each for each in arguments if isinstance(each, int)], members, result)

def status(name, offset, extents, error):
    found.append((name, offset, list(extents), error.value))

h = nbd.NBD()
h.set_strict_mode(0)
h.set_request_structured_replies(STRUCTURED)
h.set_export_name("x")
for context in ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b"):
    h.add_meta_context(context)
h.connect_unix(sys.argv[1])
print(h.get_size(), h.get_protocol(), h.get_structured_replies_negotiated(), h.is_read_only())
for number in range(3):
    print(h.get_block_size(number))
for asked in ("can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn",
              "can_trim", "can_zero", "is_rotational"):
    print(asked, getattr(h, asked)())
PLACES = [(0, 1), (1, 1), (511, 513), (65535, 2), (65536, 65536), (100000, 200001), (0, 1048576),
          (1048575, 1), (1048575, 2), (1048576, 1), (0, 0)]
for at, length in PLACES:
    for flags in range(4):
        tried("pwrite", h.pwrite, bytes([flags + 1]) * min(length, 300000), at, flags=flags)
    for flags in (0, nbd.CMD_FLAG_DF):
        tried("pread", h.pread, length, at, flags=flags)
    for flags in (0, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO,
                  nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE):
        tried("zero", h.zero, length, at, flags=flags)
    tried("pread", h.pread, length, at)
    for flags in (0, nbd.CMD_FLAG_FUA):
        tried("trim", h.trim, length, at, flags=flags)
    tried("cache", h.cache, length, at)
    for flags in (0, nbd.CMD_FLAG_REQ_ONE):
        found = []
        tried("block_status", h.block_status, length, at, status, flags=flags)
        print(sorted(found))
tried("flush", h.flush)
cookies = [h.aio_pread(nbd.Buffer(4096), at) for at in range(0, 1048576, 4096)]
for cookie in cookies:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
h.shutdown()
"""


def prepare(folder: Path) -> None:
    image("create", "-f", "qcow2", "disk.qcow2", str(SIZE), cwd=folder)
    commands = ["-c", "write -q -P 9 0 192k", "-c", "write -q -z 256k 64k"]
    subprocess.run(["qemu-io", *commands, "disk.qcow2"], cwd=folder, check=True, timeout=DEADLINE)
    image("bitmap", "--add", "--disable", "disk.qcow2", "b", cwd=folder)
    (folder / "disk.raw").write_bytes(bytes(8 * SIZE))


def serve(daemon: Daemon, kind: str, **options: object) -> str:
    """Export a disk, writable; return where."""
    path = str(daemon.folder / "nbd.sock")
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
    file = {"driver": "file", "filename": str(daemon.folder / f"disk.{kind}")}
    daemon("blockdev-add", {"driver": kind, "node-name": "disk", "file": file})
    export = {"type": "nbd", "id": "e", "node-name": "disk", "name": "x", "writable": True}
    daemon("block-export-add", export | {key.replace("_", "-"): v for key, v in options.items()})
    return path


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "simple"])
def test_a_script_finds_the_same_server(
    both: Both, structured: bool, program: Callable[[str], str]
) -> None:
    program("nbdsh")
    heard: list[list[str]] = []

    def script(daemon: Daemon) -> None:
        path = serve(daemon, "qcow2", allocation_depth=True, bitmaps=["b"])
        source = SCRIPT.replace("STRUCTURED", str(structured))
        done = subprocess.run(
            ["/usr/bin/python3", "-", path],
            input=source,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        heard.append(done.stdout.splitlines())

    both(script, prepare=prepare)
    real, ours = heard
    assert len(real) > 200
    assert ours == real


LOADS = {
    "4 KiB": ["--bs=4k", "--iodepth=16"],
    "odd sizes": ["--bsrange=512-70000", "--bs_unaligned", "--iodepth=8", "--io_size=4m"],
    "1 MiB": ["--bs=1m", "--iodepth=4"],
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_fio_finds_all_it_has_written(
    both: Both, kind: str, load: str, program: Callable[[str], str]
) -> None:
    program("fio")

    def script(daemon: Daemon) -> None:
        path = serve(daemon, kind)
        done = subprocess.run(
            ["fio", "--name=v", "--ioengine=nbd", f"--uri=nbd+unix:///x?socket={path}",
             "--rw=randwrite", f"--size={SIZE if kind == 'qcow2' else 8 * SIZE}", "--thread",
             "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--randrepeat=1",
             *LOADS[load]],
            cwd=daemon.folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    both(script, prepare=prepare)


ASKED = [
    ["nbdinfo", "--json", "URI"],
    ["nbdinfo", "--json", "--map", "URI"],
    ["nbdinfo", "--json", "--map=qemu:allocation-depth", "URI"],
    ["nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", "URI"],
    ["nbdinfo", "--json", "--map=no:such-context", "URI"],
    ["nbdinfo", "--json", "--list", "URI"],
    ["nbdkit", "-U", "-", "nbd", "URI", "--run", "nbdinfo --json --map $uri"],
    ["nbdkit", "-U", "-", "nbd", "URI", "--run", "nbdcopy $uri copy && cksum copy"],
    ["nbdkit", "-U", "-", "--filter=retry", "nbd", "URI", "--run", "nbdcopy disk.raw $uri:"],
    ["nbdcopy", "URI", "copy"],
    ["nbdcopy", "--synchronous", "--request-size=4096", "URI", "copy"],
    ["nbdcopy", "--connections=4", "--sparse=0", "URI", "copy"],
    ["cksum", "copy"],
    ["nbdcopy", "--connections=4", "--destination-is-zero", "small", "URI"],
    ["nbdcopy", "--allocated", "--flush", "small", "URI"],
    ["qemu-img", "compare", "-f", "raw", "-F", "raw", "small", "URI"],
    ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "URI", "copy.qcow2"],
    ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", "small", "copy.qcow2"],
    ["qemu-img", "map", "--output=json", "--image-opts",
     "driver=nbd,server.type=unix,server.path=nbd.sock,export=x,x-dirty-bitmap=qemu:dirty-bitmap:b"],
]  # fmt: skip


def test_tools_that_read_and_write_find_the_same_server(
    both: Both, program: Callable[[str], str]
) -> None:
    for each in ("nbdinfo", "nbdcopy", "nbdkit"):
        program(each)
    heard: list[dict[str, tuple[int, str]]] = []

    def script(daemon: Daemon) -> None:
        path = serve(daemon, "qcow2", allocation_depth=True, bitmaps=["b"])
        uri = f"nbd+unix:///x?socket={path}"
        (daemon.folder / "small").write_bytes(bytes(SIZE // 2) + bytes(range(256)) * (SIZE // 512))
        answers: dict[str, tuple[int, str]] = {}
        for argv in ASKED:
            done = subprocess.run(
                [uri if word == "URI" else word for word in argv],
                cwd=daemon.folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            said = done.stdout + done.stderr
            said = re.sub(r"nbd\+unix:[^\s\"]*|/tmp/nbdkit\w+", "URI", said)
            answers[f"{len(answers)} {' '.join(argv)}"] = done.returncode, said
        heard.append(answers)

    both(script, prepare=prepare)
    real, ours = heard
    wrong = {key: (ours[key], real[key]) for key in real if ours[key] != real[key]}
    assert wrong == {}
    assert sum(status == 0 for status, _ in real.values()) > len(ASKED) - 4


def test_qemus_daemon_is_a_client_of_ours(both: Both, tmp_path: Path) -> None:
    """A disk that one real daemon has from the server under test: jobs, bitmaps, status."""

    def script(daemon: Daemon) -> None:
        path = serve(daemon, "qcow2", bitmaps=["b"])
        server = {"type": "unix", "path": path}
        with StorageDaemon(daemon.folder / "client") as client:
            client("blockdev-add", driver="nbd", node_name="n", server=server, export="x")
            file = {"driver": "file", "filename": str(daemon.folder / "disk.raw")}
            client("blockdev-add", driver="raw", node_name="t", file=file, size=SIZE)
            client("blockdev-mirror", job_id="j", device="n", target="t", sync="full")
            client.job_until("j", "ready")
            client("job-complete", id="j")
            client.job_until("j", "null")
            client(
                "blockdev-add",
                {"driver": "nbd", "node-name": "m", "server": server, "export": "x",
                 "x-dirty-bitmap": "qemu:dirty-bitmap:b", "read-only": True},
            )  # fmt: skip
            client("blockdev-del", node_name="m")
            client("blockdev-del", node_name="n")
        copied = (daemon.folder / "disk.raw").read_bytes()
        sums.append(hashlib.sha256(copied).hexdigest())

    sums: list[str] = []
    both(script, prepare=prepare)
    assert sums[0] == sums[1]
    expected = bytes([9]) * (192 << 10) + bytes(8 * SIZE - (192 << 10))
    assert sums[0] == hashlib.sha256(expected).hexdigest()
