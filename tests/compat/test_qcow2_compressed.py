"""Compressed clusters: ours are as QEMU's, refused where QEMU's are, damaged ones found out."""

from __future__ import annotations

import random
import subprocess
import sys
from zlib import compressobj

import pytest
from compat.daemon import Both, Daemon, image
from compat.qcow2_images import check, create, guest, run

from blockemu.images.qcow2 import compression
from blockemu.node import Write

MIB = 1 << 20
OUR_IO = [
    sys.executable,
    "-c",
    "import sys; from blockemu.programs.io_cli import main; sys.exit(main())",
]
OPTIONS = [
    "compression_type=zlib",
    "compression_type=zstd",
    "cluster_size=512",
    "compat=0.10,cluster_size=4k",
    "refcount_bits=1",
    "refcount_bits=64,cluster_size=2M",
    "extended_l2=on",
]


def data_of(seed: int, length: int) -> bytes:
    """Return data of which some compresses well, some badly and some not at all."""
    rng, out = random.Random(seed), bytearray()
    while len(out) < length:
        size = rng.choice([512, 4096, 65536, 100_000])
        letters = rng.choice([1, 2, 10, 256])
        out += bytes(rng.choices(range(letters), k=1000)) * (size // 1000 + 1)
        if letters == 256:
            out += rng.randbytes(70_000)
    return bytes(out[:length])


def write_by_qemu(path, tmp_path, data: bytes, step: int = 2 * MIB) -> None:
    """Write from the beginning, all in one run: the next would begin with a new host cluster."""
    commands: list[object] = []
    for at in range(0, len(data), step):
        source = tmp_path / f"source{at}"
        source.write_bytes(data[at : at + step])
        commands += ["-c", f"write -q -c -s {source} {at} {source.stat().st_size}"]
    run("qemu-io", "-f", "qcow2", *commands, path)


async def contents(path) -> bytes:
    async with guest(path, **{"read-only": True}) as (backend, _):
        data = bytearray(backend.length)
        await backend.pread(0, data)
        return bytes(data)


@pytest.mark.parametrize("more", [0, 3], ids=["zlib", "zlib-ng"])  # percent, or less
@pytest.mark.parametrize("options", OPTIONS)
async def test_ours_is_as_good_as_theirs(tmp_path, program, monkeypatch, options, more):
    program("qemu-io")
    monkeypatch.setattr(
        compression, "_packer", compression._packer if more else lambda: compressobj
    )
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    last = 100_352  # ends with a part of a cluster, however large they are
    whole = 6 * MIB
    data = data_of(1, whole + last)
    for path in theirs, mine:
        create(path, options, size=len(data))
    write_by_qemu(theirs, tmp_path, data)
    async with guest(mine) as (backend, node):
        assert node.can_compress
        for at in range(0, len(data), 2 * MIB):
            await backend.pwrite(at, data[at : at + 2 * MIB], Write.COMPRESSED)
        await backend.pwrite(0, b"", Write.COMPRESSED)
        assert node.file.node.length % 512 == 0
    check(mine)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", theirs, mine)
    assert await contents(theirs) == data == await contents(mine)
    # Either packs in the order in which its threads are done.
    size = theirs.stat().st_size
    assert abs(mine.stat().st_size - size) <= size * more // 100 + 4 * node.cluster_size + 8192


async def test_rewritten_and_dropped_clusters_leave_no_leak(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, "cluster_size=4k", size=MIB)
    data = data_of(2, MIB)
    rng, model = random.Random(3), bytearray(data)
    async with guest(path) as (backend, _):
        await backend.pwrite(0, data, Write.COMPRESSED)
        for turn in range(60):
            at, length = rng.randrange(MIB - 20_000), rng.randrange(1, 20_000)
            if turn % 3:
                await backend.pwrite(at, bytes([turn]) * length)
                model[at : at + length] = bytes([turn]) * length
            else:
                at, length = at & -4096, max(4096, length & -4096)
                await backend.discard(at, length)
                model[at : at + length] = bytes(length)
                if turn % 2:
                    await backend.flush()
                again = rng.randbytes(2000).ljust(length, b"7")
                await backend.pwrite(at, again, Write.COMPRESSED)
                model[at : at + length] = again
    check(path)
    assert await contents(path) == model


WRITES = [
    "write -c 0 512",
    "write -c 64k 512",
    "write -c 0 100k",
    "write -c 512 64k",
    "write -c 960k 128k",
    "write -c 0 0",
    "write -c -z 0 64k",
    "write -c 64k 64k",
    "write -c 64k 64k",  # in use
    "write 384k 512",
    "write -c 256k 256k",
    "read -P 0xcd 256k 128k",
    "write -z 512k 64k",  # zeroes without a cluster
    "write -c 512k 64k",
    "write 576k 64k",
    "write -z 576k 64k",  # zeroes with one
    "write -c 576k 64k",
    "read -P 0 0 64k",
    "read -P 0xcd 64k 64k",
]


@pytest.mark.parametrize("options", ["", "extended_l2=on", "DATA", "raw"])
def test_refused_as_by_qemu(tmp_path, program, options):
    said = []
    for kind, tool in ("theirs", [program("qemu-io")]), ("ours", OUR_IO):
        path = tmp_path / f"{kind}.img"
        create_any(path, options)
        argv = [part for c in WRITES for part in ("-c", c)]
        form = "raw" if options == "raw" else "qcow2"
        done = subprocess.run([*tool, "-f", form, *argv, path], capture_output=True, text=True)
        said.append([line for line in done.stdout.splitlines() if "ops/sec" not in line])
        if form == "qcow2":
            check(path)
    assert said[0] == said[1]


def create_any(path, options: str) -> None:
    if options == "raw":
        run("qemu-img", "create", "-q", "-f", "raw", path, MIB)
    else:
        create(path, options, size=MIB)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
async def test_a_damaged_cluster_is_an_error(tmp_path, program, kind):
    real = program("qemu-io")
    path = tmp_path / "image.qcow2"
    create(path, f"compression_type={kind}", size=MIB)
    data = bytes(random.Random(4).choices(b"abc", k=MIB))
    write_by_qemu(path, tmp_path, data, 1 << 16)  # in order
    raw = bytearray(path.read_bytes())
    rng = random.Random(5)
    for _ in range(20):
        at = rng.randrange(5 << 16, len(raw) - 600)
        raw[at : at + 600] = b"\xff" * 600
        raw[rng.randrange(5 << 16, len(raw))] ^= 1 << rng.randrange(8)
    raw[5 << 16] = 0xFF  # where the first one begins: no kind of block, no magic
    path.write_bytes(raw)
    failed = 0
    for offset in range(0, MIB, 1 << 17):
        argv = [real, "-r", "-f", "qcow2", "-c", f"read -v {offset} 64k", path]
        done = subprocess.run(argv, capture_output=True, text=True)
        expected = dumped(done.stdout) or done.stdout
        failed += expected == "read failed: Input/output error\n"
        assert await read_or_error(path, offset, 1 << 16) == expected
    assert failed


async def read_or_error(path, offset: int, length: int) -> bytes | str:
    """Return what is there, or how qemu-io would tell of an error."""
    async with guest(path, **{"read-only": True}) as (backend, _):
        seen = bytearray(length)
        try:
            await backend.pread(offset, seen)
        except OSError as e:
            return f"read failed: {e.strerror}\n"
        return bytes(seen)


def dumped(text: str) -> bytes:
    """Return the bytes that ``read -v`` shows."""
    lines = [line for line in text.splitlines() if line[8:9] == ":"]
    return b"".join(bytes.fromhex(line[9:].split("  ")[1]) for line in lines)


def compressed_backup(daemon: Daemon) -> None:
    image("create", "-q", "-f", "qcow2", "source", "4M", cwd=daemon.folder)
    image("create", "-q", "-f", "qcow2", "target", "4M", cwd=daemon.folder)
    image("create", "-q", "-f", "raw", "plain", "4M", cwd=daemon.folder)
    for name, driver in ("source", "qcow2"), ("target", "qcow2"), ("plain", "raw"):
        file = {"driver": "file", "filename": str(daemon.folder / name)}
        daemon("blockdev-add", {"driver": driver, "node-name": name, "file": file})
    daemon.write("source", 0, 1000, 1)
    daemon.write("source", MIB, 2 * MIB, 2)
    for target in "plain", "target":
        arguments = {"job-id": "j", "device": "source", "target": target, "sync": "full"}
        reply = daemon.execute("blockdev-backup", arguments | {"compress": True})
        if "return" in reply:
            daemon.job_until("j", "null")
    daemon.execute("blockdev-add", {"driver": "compress", "node-name": "c", "file": "plain"})
    daemon("blockdev-add", {"driver": "compress", "node-name": "c", "file": "target"})
    daemon("query-named-block-nodes", {"flat": True})


def test_a_backup_compresses_as_qemus_does(both: Both):
    real, ours = both(compressed_backup)
    sizes = [(each.folder / "target").stat().st_size for each in (real, ours)]
    assert sizes[0] == sizes[1]
    for each in real, ours:
        assert "compressed" in run("qemu-img", "check", each.folder / "target")
    run("qemu-img", "compare", real.folder / "source", ours.folder / "target")
