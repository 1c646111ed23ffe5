"""The file driver leaves the same traces on the host as QEMU's: locks, access modes, holes, sizes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import StorageDaemon

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.images.qcow2.new import new_image
from blockemu.node import Write
from blockemu.perm import Perm
from blockemu.walk import extents_above

MEMORY = Path("/dev/shm")
Json = Any


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk file system, and one in memory: they report holes differently."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access(MEMORY, os.W_OK):
        pytest.skip("there is no file system in memory here")
    path = MEMORY / f"blockemu-{os.getpid()}-{request.node.name[:30].replace('/', '_')}"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@asynccontextmanager
async def guest(options: Json) -> Any:
    """Give a root on a fresh disk, which may do all."""
    emulator = Emulator()
    emulator.warnings = lambda text: None
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    node = await emulator.opener.open({"read-only": False} | options)
    emulator.graph.insert(backend, node)
    try:
        yield backend
    finally:
        await emulator.graph.remove(backend)
        await emulator.close()


def qemu(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Holes and sizes

KIB = 1024
SCRIPTS: dict[str, list[tuple[Any, ...]]] = {
    "write": [("write", 4 * KIB, 8 * KIB)],
    "writes-apart": [("write", at, 4 * KIB) for at in range(0, 256 * KIB, 16 * KIB)],
    "odd-write": [("write", 100 * KIB, 512), ("write", 101 * KIB, 512)],
    "zero": [("write", 0, 256 * KIB), ("zero", 64 * KIB, 64 * KIB)],
    "unmap": [("write", 0, 256 * KIB), ("unmap", 64 * KIB, 64 * KIB)],
    "discard": [("write", 0, 256 * KIB), ("discard", 64 * KIB, 64 * KIB)],
    "odd-discard": [("write", 0, 256 * KIB), ("discard", 65 * KIB, 3 * KIB), ("discard", 512, 512)],
    "zero-all": [("zero", 0, 256 * KIB)],
    "unmap-all": [("write", 0, 256 * KIB), ("unmap", 0, 256 * KIB)],
    "zero-then-write": [("zero", 0, 256 * KIB), ("write", 64 * KIB, 4 * KIB)],
    "grow": [("truncate", 512 * KIB), ("write", 400 * KIB, 4 * KIB)],
    "shrink": [("write", 0, 256 * KIB), ("truncate", 64 * KIB)],
    "shrink-and-grow": [("write", 0, 256 * KIB), ("truncate", 64 * KIB), ("truncate", 256 * KIB)],
}
FLAGS = {"zero": ["write", "-z"], "unmap": ["write", "-z", "-u"]}


async def ours(path: Path, script: list[tuple[Any, ...]]) -> list[tuple[int, int, bool, bool]]:
    """Do a script by our driver; return its map as start, length, zero, data."""
    raw = {
        "driver": "raw",
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(path), "discard": "unmap"},
    }
    async with guest(raw) as backend:
        for what, *numbers in script:
            if what == "write":
                await backend.pwrite(numbers[0], b"\xcd" * numbers[1])
            elif what == "discard":
                await backend.discard(*numbers)
            elif what == "truncate":
                await backend.truncate(*numbers)
            else:
                await backend.write_zeroes(*numbers, Write.MAY_UNMAP if what == "unmap" else 0)
        await backend.flush()
        runs = [
            run
            async for batch in extents_above(backend, 0, backend.length)
            for run in batch.merged()
        ]
        return [(run.start, run.length, bool(run.status & 2), bool(run.status & 1)) for run in runs]


def theirs(path: Path, script: list[tuple[Any, ...]]) -> None:
    commands = [[*FLAGS.get(what, [what]), *map(str, numbers)] for what, *numbers in script]
    run = [part for command in commands for part in ("-c", " ".join(command))]
    qemu("qemu-io", "-d", "unmap", "-f", "raw", *run, "-c", "flush", path.name, cwd=path.parent)


def shown(path: Path) -> list[tuple[int, int, bool, bool]]:
    runs = json.loads(
        qemu("qemu-img", "map", "-f", "raw", "--output=json", path.name, cwd=path.parent)
    )
    return [(run["start"], run["length"], run["zero"], run["data"]) for run in runs]


def forget_pages(path: Path) -> None:
    """Have a file out of memory: ext4 takes what is in memory, in pages of any size, for data."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("size", [256 * KIB, 256 * KIB - 100], ids=["even", "odd"])
def test_the_file_has_the_same_holes_bytes_and_size(
    script: list[tuple[Any, ...]], size: int, folder: Path, program: Callable[[str], str]
) -> None:
    program("qemu-io"), program("qemu-img")
    real, mine = folder / "real.raw", folder / "mine.raw"
    for path in (real, mine):
        path.touch()
        os.truncate(path, size)
    theirs(real, script)
    runs = asyncio.run(ours(mine, script))
    assert runs == shown(mine)
    for path in (mine, real):
        forget_pages(path)
    assert shown(mine) == shown(real)
    assert mine.stat().st_blocks == real.stat().st_blocks
    assert mine.read_bytes() == real.read_bytes()


@pytest.mark.parametrize("mode", ["off", "falloc", "full"])
@pytest.mark.parametrize("begin", [0, 65536])
def test_growing_takes_room_as_asked(
    mode: str, begin: int, folder: Path, program: Callable[[str], str]
) -> None:
    program("qemu-img")
    real, mine = folder / "real.raw", folder / "mine.raw"
    for path in (real, mine):
        path.write_bytes(b"\xcd" * begin)
    qemu(
        "qemu-img",
        "resize",
        "-q",
        "-f",
        "raw",
        f"--preallocation={mode}",
        real.name,
        "1M",
        cwd=folder,
    )

    async def resize() -> None:
        async with guest({"driver": "file", "filename": str(mine)}) as backend:
            await backend.truncate(1 << 20, prealloc=mode)

    asyncio.run(resize())
    assert mine.read_bytes() == real.read_bytes()
    assert mine.stat().st_blocks == real.stat().st_blocks
    assert shown(mine) == shown(real)


@pytest.mark.parametrize(
    ("length", "mode", "error"),
    [
        (1000, "falloc", "Cannot use preallocation for shrinking files"),
        (1 << 20, "metadata", "Unsupported preallocation mode: metadata"),
        (1 << 62, "off", "Could not resize file: File too large"),
    ],
)
async def test_a_resize_that_fails_says_why_and_leaves_the_file(
    tmp_path: Path, length: int, mode: str, error: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\xcd" * 65536)
    async with guest({"driver": "file", "filename": str(path)}) as backend:
        with pytest.raises(QmpError) as raised:
            await backend.node.truncate(length, prealloc=mode)
        assert str(raised.value) == error
        assert isinstance(raised.value, OSError)
    assert path.read_bytes() == b"\xcd" * 65536


# Locks

_FLOCK = struct.Struct("hhqqi0q")


def locked(path: Path) -> list[int]:
    """Return the bytes of the image that somebody has locked."""
    found = []
    with path.open("r+b") as file:
        for byte in (*range(90, 115), *range(190, 215)):
            ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            if _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, ask))[0] != fcntl.F_UNLCK:
                found.append(byte)
    return found


def modes(pid: int, path: Path) -> list[str]:
    """Return how a process has a file open."""
    out = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry) == str(path):
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                flags = int(info.split("flags:")[1].split()[0], 8)
                out.append(
                    ("r", "w", "rw")[flags & os.O_ACCMODE] + ("d" if flags & os.O_DIRECT else "")
                )
        except FileNotFoundError:
            continue
    return out


def chain(folder: Path) -> None:
    (folder / "base.raw").write_bytes(bytes(65536))
    (folder / "disk.qcow2").write_bytes(
        new_image(65536, backing_file="base.raw", backing_format="raw")
    )


OPENINGS: dict[str, list[Json]] = {
    "file": [{"driver": "file", "filename": "base.raw"}],
    "file-read-only": [{"driver": "file", "filename": "base.raw", "read-only": True}],
    "file-auto": [{"driver": "file", "filename": "base.raw", "auto-read-only": True}],
    "file-direct": [{"driver": "file", "filename": "base.raw", "cache": {"direct": True}}],
    "file-unlocked": [{"driver": "file", "filename": "base.raw", "locking": "off"}],
    "raw": [{"driver": "raw", "file": {"driver": "file", "filename": "base.raw"}}],
    "raw-auto": [{"driver": "raw", "auto-read-only": True, "file": {"driver": "file", "filename": "base.raw"}}],
    "raw-window": [{"driver": "raw", "size": 512, "file": {"driver": "file", "filename": "base.raw"}}],
    "qcow2": [{"driver": "qcow2", "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "qcow2-auto": [{"driver": "qcow2", "auto-read-only": True, "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "qcow2-file-auto": [{"driver": "qcow2", "file": {"driver": "file", "auto-read-only": True, "filename": "disk.qcow2"}}],
    "qcow2-read-only": [{"driver": "qcow2", "read-only": True, "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "qcow2-shared": [{"driver": "qcow2", "read-only": True, "force-share": True, "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "qcow2-no-backing": [{"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "twice": [{"driver": "raw", "read-only": True, "file": {"driver": "file", "filename": "base.raw"}},
              {"driver": "raw", "read-only": True, "file": {"driver": "file", "filename": "base.raw"}}],
    "writers": [{"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": "disk.qcow2"}},
                {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": "disk.qcow2"}}],
    "reader-and-writer": [{"driver": "qcow2", "read-only": True, "file": {"driver": "file", "filename": "disk.qcow2"}},
                          {"driver": "qcow2", "file": {"driver": "file", "filename": "disk.qcow2"}}],
}  # fmt: skip


def state(pid: int, folder: Path) -> Json:
    return [
        (name, locked(folder / name), sorted(modes(pid, folder / name)))
        for name in ("base.raw", "disk.qcow2")
    ]


@pytest.mark.parametrize("graph", OPENINGS.values(), ids=OPENINGS)
def test_locks_and_access_modes_are_those_of_the_real_daemon(
    graph: list[Json],
    tmp_path: Path,
    program: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program("qemu-storage-daemon")
    chain(tmp_path)
    nodes = [{"node-name": f"n{i}"} | node for i, node in enumerate(graph)]
    real: list[Json] = []
    with StorageDaemon(tmp_path) as daemon:
        for node in nodes:
            error = daemon.execute("blockdev-add", node).get("error", {}).get("desc")
            real.append((error, state(daemon.process.pid, tmp_path)))
    monkeypatch.chdir(tmp_path)

    async def mine() -> list[Json]:
        emulator, out = Emulator(), []
        for node in nodes:
            try:
                opened = await emulator.opener.open({"read-only": False, **node})
                opened.monitor_owned, error = True, None
            except QmpError as e:
                error = str(e)
            out.append((error, state(os.getpid(), tmp_path)))
        await emulator.close()
        return out

    assert asyncio.run(mine()) == real
    assert [(locks, open_) for _, locks, open_ in state(os.getpid(), tmp_path)] == [
        ([], []),
        ([], []),
    ]


async def test_the_first_writer_makes_it_open_for_writing_and_the_last_ends_that(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    options = {"driver": "file", "filename": str(path), "auto-read-only": True, "read-only": False}
    emulator = Emulator()
    node = await emulator.opener.open(options)
    node.monitor_owned = True
    number = node.fd
    for _ in range(2):
        assert modes(os.getpid(), path) == ["r"]
        assert locked(path) == []
        backend = Backend("w", Perm.WRITE | Perm.CONSISTENT_READ, Perm.ALL & ~Perm.WRITE)
        emulator.graph.insert(backend, node)
        assert modes(os.getpid(), path) == ["rw"]
        assert locked(path) == [100, 101, 201]
        await backend.pwrite(0, b"x" * 512)
        await emulator.graph.remove(backend)
        assert node.fd == number
    assert modes(os.getpid(), path) == ["r"]
    await emulator.close()


async def test_a_writer_of_what_cannot_be_written_is_refused_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    emulator = Emulator()
    node = await emulator.opener.open(
        {"driver": "file", "filename": str(path), "auto-read-only": True}
    )
    node.monitor_owned = True
    path.unlink()
    with pytest.raises(QmpError, match=f"Could not open '{path}': No such file or directory"):
        emulator.graph.insert(Backend("w", Perm.WRITE, Perm.ALL), node)
    assert node.parents == []
    reader = Backend("r", Perm.CONSISTENT_READ, Perm.ALL)
    emulator.graph.insert(reader, node)
    await reader.pread(0, bytearray(512))
    await emulator.graph.remove(reader)
    await emulator.close()


async def test_a_descriptor_handed_over_is_opened_by_the_name_of_its_set(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\xcd" * 65536)
    emulator = Emulator()
    emulator.fdsets.monitors = 1
    emulator.fdsets.add(os.open(path, os.O_RDONLY), 7)
    emulator.fdsets.add(os.open(path, os.O_RDWR), 7)
    options = {
        "driver": "file",
        "filename": "/dev/fdset/7",
        "auto-read-only": True,
        "read-only": False,
    }
    node = await emulator.opener.open(options)
    node.monitor_owned = True
    assert node.full_filename == "/dev/fdset/7"
    backend = Backend("w", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    await backend.pwrite(512, b"x" * 512)
    await emulator.graph.remove(backend)
    await emulator.graph.delete(node)
    assert path.read_bytes()[512:1024] == b"x" * 512
    assert sorted(modes(os.getpid(), path)) == ["r", "rw"]  # those in the set, no duplicates
    with pytest.raises(
        QmpError, match="Could not dup FD for /dev/fdset/8 flags 2: No such file or directory"
    ):
        await emulator.opener.open(
            {"driver": "file", "filename": "/dev/fdset/8", "read-only": False}
        )
    emulator.fdsets.close_all()
    await emulator.close()


async def test_direct_io_keeps_bytes_at_any_offset_and_reads_zeroes_beyond_an_odd_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\xcd" * 70000)
    options = {"driver": "file", "filename": str(path), "cache": {"direct": True}}
    async with guest(options) as backend:
        assert backend.node.limits.request_alignment in (512, 4096)
        await backend.pwrite(5, b"hello")
        buf = bytearray(b"\xa5" * 1000)
        await backend.pread(backend.length - 1000, buf)
        at = 70000 - (backend.length - 1000)
        assert buf[:at] == b"\xcd" * at
        assert not any(buf[at:])
        block = memoryview(bytearray(b"\xa5" * 8192))
        await backend.node.pread(65536, block)
        assert bytes(block) == (b"\xcd" * 4464).ljust(8192, b"\0")
    assert path.read_bytes()[:12] == b"\xcd" * 5 + b"hello" + b"\xcd" * 2


async def test_a_flush_that_failed_once_never_succeeds_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    async with guest({"driver": "file", "filename": str(path)}) as backend:
        await backend.flush()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(OSError, match="Input/output error"):
                await backend.flush()
        with pytest.raises(OSError, match="Input/output error"):
            await backend.flush()


async def test_a_full_disk_is_an_oserror(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    async with guest({"driver": "file", "filename": str(path)}) as backend:
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, backend.node.fd)
        os.close(full)
        with pytest.raises(OSError, match="No space left on device"):
            await backend.node.pwrite(0, memoryview(b"x" * 512), 0)


async def test_discards_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    async with guest({"driver": "file", "filename": str(path), "discard": "unmap"}) as backend:
        await backend.discard(0, 4096)
        await backend.discard(8192, 8192)
        stats = backend.node.driver_stats()
        assert (stats.discard_nb_ok, stats.discard_nb_failed, stats.discard_bytes_ok) == (
            2,
            0,
            12288,
        )


async def test_a_probed_raw_image_keeps_being_raw(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    emulator = Emulator()
    warnings: list[str] = []
    emulator.warnings = warnings.append
    node = await emulator.opener.open(
        {"read-only": False, "file": {"driver": "file", "filename": str(path)}}
    )
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    assert warnings[0].splitlines()[0] == (
        f"WARNING: Image format was not specified for '{path}' and probing guessed raw."
    )
    with pytest.raises(PermissionError):
        await backend.pwrite(0, new_image(65536)[:512])
    with pytest.raises(PermissionError):
        await backend.pwrite(0, b"QFI\xfb\0\0\0\3")
    await backend.pwrite(0, b"fine" * 200)
    await backend.pwrite(512, new_image(65536)[:512])
    await emulator.graph.remove(backend)
    await emulator.close()
    assert path.read_bytes()[:800] == (b"fine" * 200)[:512] + new_image(65536)[:288]
