"""Real servers as disks: what is written is there, what is there is read, on both programs alike."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image
from compat.io_prompt import PATIENCE, PROGRAMS, Session

SIZE = 4 << 20


@contextmanager
def running(folder: Path, *argv: str, socket: str = "s.sock") -> Iterator[None]:
    """Run a server in the foreground; give it when it listens, and end it afterwards."""
    process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not listens(folder / socket):
            assert process.poll() is None, argv
            assert time.monotonic() < deadline, argv
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(path: Path) -> bool:
    """Tell whether anybody listens at a socket: the file is there somewhat earlier."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return any(line[3] == "00010000" and line[-1] == str(path) for line in lines)


def qemu_nbd(folder: Path, *options: str, name: str = "disk") -> list[str]:
    return ["qemu-nbd", "-t", "-e", "8", "-k", str(folder / "s.sock"), *options, name]


def nbdkit(folder: Path, *options: str) -> list[str]:
    return ["nbdkit", "-f", "-U", str(folder / "s.sock"), *options]


def storage_daemon(folder: Path) -> list[str]:
    address = f"addr.type=unix,addr.path={folder / 's.sock'}"
    node = "driver=file,node-name=d,filename=disk,discard=unmap"
    export = "nbd,id=e,node-name=d,name=,writable=on"
    options = ("--nbd-server", address, "--blockdev", node, "--export", export)
    return ["qemu-storage-daemon", *options]


COMMANDS = [
    "length",
    "read -P 0 0 4M",
    "write -P 1 0 1M",
    "write -P 2 1536k 512",
    "write -P 3 3M 1M",
    "write -f -P 4 512 1024",
    "write -z 64k 64k",
    "write -z -u 128k 64k",
    "write -z -f 192k 512",
    "discard 1M 64k",
    "flush",
    "aio_write -P 5 2M 256k",
    "aio_write -P 6 2304k 256k",
    "aio_flush",
    "read -P 1 256k 512k",
    "read -P 4 512 1024",
    "read -P 0 64k 64k",
    "read -P 0 128k 64k",
    "read -P 5 2M 256k",
    "read -P 6 2304k 256k",
    "read -P 3 3M 1M",
    "read 4M 512",
    "write 4M 512",
    "truncate 8M",
    "truncate 4M",
    "map",
    "read -v 1024 600",
]
SERVERS: dict[str, Callable[[Path], list[str]]] = {
    "qemu-nbd": lambda folder: qemu_nbd(folder, "-f", "raw", "--discard=unmap"),
    "storage-daemon": storage_daemon,
    "qemu-nbd-ro": lambda folder: qemu_nbd(folder, "-f", "raw", "-r"),
    "nbdkit-file": lambda folder: nbdkit(folder, "file", "disk"),
    "nbdkit-memory": lambda folder: nbdkit(folder, "memory", str(SIZE)),
    "nbdkit-plain": lambda folder: nbdkit(folder, "--filter=nozero", "--filter=noextents", "--filter=fua",
                                          "memory", str(SIZE), "fuamode=discard"),
    "nbdkit-blocks": lambda folder: nbdkit(folder, "--filter=blocksize-policy", "memory", str(SIZE),
                                           "blocksize-minimum=4096", "blocksize-preferred=4096",
                                           "blocksize-error-policy=error", "blocksize-maximum=65536"),
    "nbdkit-no-structured": lambda folder: nbdkit(folder, "--no-sr", "memory", str(SIZE)),
    "nbdkit-oldstyle": lambda folder: nbdkit(folder, "-o", "memory", str(SIZE)),
    "nbdkit-odd": lambda folder: nbdkit(folder, "memory", str(SIZE - 100)),
    "nbdkit-errors": lambda folder: nbdkit(folder, "--filter=error", "memory", str(SIZE),
                                           "error-pwrite=ENOSPC", "error-pwrite-rate=1",
                                           "error-trim=EPERM", "error-trim-rate=1"),
}  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_a_guest_sees_the_same_disk_as_qemus(
    tmp_path: Path, server: str, program: Callable[[str], str]
) -> None:
    program(SERVERS[server](tmp_path)[0])
    heard = []
    for who in PROGRAMS:
        (tmp_path / "disk").write_bytes(bytes(SIZE))
        with running(tmp_path, *SERVERS[server](tmp_path)):
            session = Session(who, tmp_path)
            read_only = "-r " if server.endswith("-ro") else ""
            where = "driver=nbd,server.type=unix,server.path=s.sock,discard=unmap"
            said = [session.says(f"open {read_only}-d unmap -o {where}")]
            for command in COMMANDS:
                answer = session.says(command).replace("blockemu-io", "qemu-io")
                if not command.startswith("aio"):  # when those end is a matter of time
                    said.append(f"{command}: {answer}")
            session.says("close")
            session.close()
        heard.append(said)
        (tmp_path / "s.sock").unlink(missing_ok=True)
    real, ours = heard
    assert ours == real


def _backup(daemon: Daemon) -> None:
    """Copy a disk to a server, then what has changed since."""
    folder = daemon.folder
    (folder / "disk").write_bytes(bytes(SIZE))
    with running(folder, *qemu_nbd(folder, "-f", "raw")):
        source = {"driver": "file", "filename": "source.qcow2"}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": "d", "file": source})
        server = {"type": "unix", "path": "s.sock"}
        daemon("blockdev-add", {"driver": "nbd", "node-name": "t", "server": server})
        daemon("block-dirty-bitmap-add", {"node": "d", "name": "b"})
        daemon("blockdev-backup", {"job-id": "j", "device": "d", "target": "t", "sync": "full"})
        daemon.wait("BLOCK_JOB_COMPLETED")
        daemon.write("d", 1 << 20, 65536, 9)
        daemon(
            "blockdev-backup",
            {"job-id": "k", "device": "d", "target": "t", "sync": "incremental", "bitmap": "b"},
        )
        daemon.wait("BLOCK_JOB_COMPLETED")
        daemon("blockdev-del", node_name="t")
        daemon("blockdev-del", node_name="d")
    image("compare", "-f", "qcow2", "-F", "raw", "source.qcow2", "disk", cwd=folder)


def _source(folder: Path) -> None:
    image("create", "-f", "qcow2", "source.qcow2", str(SIZE), cwd=folder)
    subprocess.run(
        ["qemu-io", "-c", "write -P 7 0 1M", "-c", "write -P 8 3M 64k", "source.qcow2"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_backup_to_a_server_goes_as_with_qemu(both: Both) -> None:
    both(_backup, prepare=_source, racing=True)
