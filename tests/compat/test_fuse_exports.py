"""Exports as files: what programs may do with them, and why some cannot be, beside QEMU's.

Where nothing may be mounted both say so, and the file that should be covered is looked at.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Both, Daemon

MIB = 1 << 20
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
LIBC = ctypes.CDLL(None, use_errno=True)


def tried(what: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, or which error it met."""
    try:
        return what(*arguments)
    except OSError as e:
        return errno.errorcode[e.errno or 0]


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    arguments = (ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length))
    if LIBC.fallocate(ctypes.c_int(fd), *arguments):
        raise OSError(ctypes.get_errno(), "")


def runs(fd: int, end: int) -> list[Any]:
    """Return where data and holes begin, by turns."""
    found: list[Any] = []
    at: Any = 0
    while isinstance(at, int) and at < end:
        at = tried(os.lseek, fd, at, (os.SEEK_DATA, os.SEEK_HOLE)[len(found) % 2])
        found.append(at)
    return found


def seen(path: Path) -> list[Any]:
    """Return what stat tells, but for times and what else no two mounts share."""
    found = tried(path.stat)
    if isinstance(found, str):
        return [found]
    return [oct(found.st_mode), found.st_nlink, found.st_size, found.st_blksize]


def compare(both: Both, use: Callable[[Daemon, Path], object], *options: str, **more: Any) -> None:
    """Let ``use`` do something with an export of ``disk`` in both, and compare what it meets."""
    met: dict[str, object] = {}

    def script(daemon: Daemon) -> None:
        path = daemon.folder / "mount"
        path.write_bytes(b"covered")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "disk", "4M"], cwd=daemon.folder, check=True
        )
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -P 2 1M 128k",
             "-c", "write -z 2M 64k", "disk"],
            cwd=daemon.folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        file = {"driver": "file", "filename": "disk", "node-name": "file"}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": file})
        add(daemon, path, **more)
        daemon.execute("query-block-exports")
        try:
            met[daemon.kind] = use(daemon, path)
        finally:
            daemon.execute("block-export-del", id="e")
        assert path.read_bytes() == b"covered"
        met[f"{daemon.kind} prints"] = daemon.errors()

    both(script, *options)
    real, printed, ours, ours_printed = met.values()
    assert ours == real
    assert ours_printed == printed


def add(daemon: Daemon, path: Path, name: str = "e", **more: Any) -> None:
    how = {"type": "fuse", "id": name, "node-name": "disk", "mountpoint": str(path)}
    daemon.execute("block-export-add", how | {k.replace("_", "-"): v for k, v in more.items()})


def test_a_file_is_read_alike(both: Both, program: Callable[[str], str]) -> None:
    program("qemu-img")

    def use(daemon: Daemon, path: Path) -> object:
        met: list[object] = [seen(path), seen(path / "child")]
        fd = os.open(path, os.O_RDONLY)
        met += [runs(fd, 4 * MIB), tried(os.lseek, fd, 5 * MIB, os.SEEK_HOLE)]
        for offset, length in (0, 100), (65536 - 7, 20), (4 * MIB - 5, 100), (5 * MIB, 1):
            met.append(os.pread(fd, length, offset))
        met.append(hash(os.pread(fd, 4 * MIB, 0)))
        met += [tried(os.fsync, fd), tried(fallocate, fd, 0, 0, 1), tried(fcntl.flock, fd, 2)]
        met += [tried(fcntl.ioctl, fd, 0x1234), tried(os.getxattr, path, "user.x")]
        os.close(fd)
        return met

    compare(both, use)


@pytest.mark.parametrize("more", [{}, {"writable": True}, {"writable": True, "growable": True}])
def test_a_file_is_changed_and_refused_alike(
    both: Both, program: Callable[[str], str], more: dict[str, Any]
) -> None:
    program("qemu-img")

    def use(daemon: Daemon, path: Path) -> object:
        met: list[object] = [seen(path)]
        fd = os.open(path, os.O_RDWR)
        for offset, data in (5, b"x"), (MIB - 100, b"y" * 4096), (4 * MIB - 1, b"z"):
            met.append(tried(os.pwrite, fd, data, offset))
        met.append(tried(os.pwrite, fd, b"w" * 3 * MIB, MIB // 2 + 1))
        for mode, offset, length in (
            (PUNCH_HOLE | KEEP_SIZE, 0, 131072),
            (PUNCH_HOLE | KEEP_SIZE, 4 * MIB - 65536, MIB),
            (PUNCH_HOLE, 0, 65536),
            (ZERO_RANGE, 3 * MIB, 65536),
            (ZERO_RANGE | KEEP_SIZE, 65536 * 3, 65536),
            (KEEP_SIZE, 0, 65536),
            (COLLAPSE_RANGE, 0, 65536),
            (0, 0, 65536),
            (0, 4 * MIB, 65536),
            (0, 5 * MIB, 65536),
            (ZERO_RANGE, 5 * MIB, MIB),
        ):
            met += [(mode, tried(fallocate, fd, mode, offset, length)), seen(path)]
        met += [tried(os.ftruncate, fd, 6 * MIB), seen(path), runs(fd, 6 * MIB)]
        met += [tried(os.pwrite, fd, b"v" * 100, 6 * MIB - 50), seen(path)]
        met += [tried(os.pwrite, fd, b"u" * 100, 8 * MIB), seen(path)]
        met += [tried(os.ftruncate, fd, 2 * MIB), tried(os.fsync, fd), seen(path)]
        met.append(path.read_bytes())
        os.close(fd)
        with path.open("r+b") as file:
            met.append(hash(file.read()))
        with tried(path.open, "wb"):
            met.append(seen(path))
        return met

    compare(both, use, **more)


@pytest.mark.parametrize("allow", ["on", "off", "auto"])
@pytest.mark.parametrize("writable", [True, False])
def test_who_may_do_what_is_changed_alike(
    both: Both, program: Callable[[str], str], allow: str, writable: bool
) -> None:
    program("qemu-img")

    def use(daemon: Daemon, path: Path) -> object:
        met: list[object] = []
        for mode in (0o400, 0o600, 0o500, 0o444, 0o755, 0o4500):
            met += [tried(os.chmod, path, mode), seen(path)]
        met += [tried(os.chown, path, 1, -1), path.stat().st_uid]
        met += [tried(os.chown, path, -1, 1), path.stat().st_gid]
        met += [tried(os.utime, path), tried(os.setxattr, path, "user.x", b"y")]
        met += [tried(os.unlink, path), tried(os.rename, path, daemon.folder / "other")]
        return met

    compare(both, use, allow_other=allow, writable=writable)


def test_what_cannot_be_exported_is_refused_alike(
    both: Both, program: Callable[[str], str]
) -> None:
    program("qemu-img")

    def use(daemon: Daemon, path: Path) -> object:
        folder = daemon.folder
        (folder / "folder").mkdir()
        (folder / "link").symlink_to("other")
        (folder / "file").touch()
        (folder / "other").touch()
        for name in ("missing", "folder", "folder/missing", "file/x", ""):
            add(daemon, folder / name, "x")
        add(daemon, path, "x")
        add(daemon, path)
        add(daemon, folder / "file", "x", writable=True)
        add(daemon, folder / "file", "y", allow_other="nonsense")
        add(daemon, folder / "file", "no id!")
        add(daemon, folder / "file", "y", iothread="none")
        add(daemon, folder / "link", "y", growable=True, writethrough=True)
        daemon.execute("query-block-exports")
        daemon.execute("blockdev-del", node_name="disk")
        daemon.execute("nbd-server-stop")
        for name in ("x", "y"):
            daemon.execute("block-export-del", id=name, mode="safe")
            daemon.execute("block-export-del", id=name)
        return sorted(each.name for each in folder.iterdir())

    compare(both, use)


def test_an_end_of_the_program_uncovers_the_file(both: Both, program: Callable[[str], str]) -> None:
    def script(daemon: Daemon) -> None:
        path = daemon.folder / "file"
        path.write_bytes(b"covered")
        size = {"driver": "null-co", "node-name": "disk", "size": 2 * MIB, "read-zeroes": True}
        daemon("blockdev-add", size)
        add(daemon, path, writable=True)
        blocks = path.stat().st_blocks
        assert blocks in (2 * MIB // 512, 8)
        daemon.execute("quit")
        daemon.process.wait()
        assert path.read_bytes() == b"covered"

    both(script)
