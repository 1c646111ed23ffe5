"""blklogwrites: our log is, byte for byte, QEMU's, and whoever replays it has the disk."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon

SIZE = 1 << 20
MAGIC, FLUSH, DISCARD = 0x6A736677736872, 1, 4


def replay(log: bytes) -> tuple[bytes, list[str], int]:
    """Do what a log says to an empty disk; return the disk, what was done, and where the log ends.

    Written from the kernel's documentation of the format, with nothing of ours.
    """
    magic, version, count, size = struct.unpack_from("<QQQI", log)
    assert (magic, version) == (MAGIC, 1)
    disk, done, at = bytearray(SIZE), [], size
    for _ in range(count):
        sector, sectors, flags, data_length = struct.unpack_from("<4Q", log, at)
        assert data_length == 0
        at += size
        start, length = sector * size, sectors * size
        if flags & DISCARD:
            disk[start : start + length] = bytes(length)
        else:
            disk[start : start + length] = log[at : at + length]
            at += length
        kind = "flush" if flags & FLUSH else "discard" if flags & DISCARD else "write"
        done.append(f"{kind} {start} {length}")
    return bytes(disk), done, at


def prepare(folder: Path) -> None:
    (folder / "disk.raw").write_bytes(bytes(SIZE))
    (folder / "writes.log").touch()


def add(daemon: Daemon, **more: object) -> None:
    log = {"driver": "file", "filename": str(daemon.folder / "writes.log")}
    file = {"driver": "file", "filename": str(daemon.folder / "disk.raw"), "discard": "unmap"}
    options = {"driver": "blklogwrites", "node-name": "w", "file": file, "log": log}
    daemon("blockdev-add", options | {"discard": "unmap"} | more)


def guest(daemon: Daemon, *commands: str) -> None:
    """Run qemu-io over NBD, without FUA: QEMU skips some of the flushes that it makes of that."""
    path = str(daemon.folder / "guest.sock")
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
    options = {"id": "guest", "node-name": "w", "name": "g", "writable": True}
    daemon("block-export-add", {"type": "nbd"} | options)
    run = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", "-f", "raw", *run, f"nbd+unix:///g?socket={path}"],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert "failed" not in done.stdout
    daemon("nbd-server-stop")
    daemon.wait("BLOCK_EXPORT_DELETED")


def work(daemon: Daemon) -> None:
    guest(daemon, "write -P 1 0 65536", "write -P 2 4096 512", "write -z 32768 8192")
    guest(daemon, "write -z -u 131072 65536", "flush", "flush", "discard 8192 8192")
    guest(daemon, "write -P 3 999424 8192", "flush", "write -P 4 512000 4096", "read 0 512")


@pytest.mark.parametrize(
    "options",
    [{}, {"log-sector-size": 4096}, {"log-super-update-interval": 2}],
    ids=["default", "large-sectors", "often"],
)
def test_the_log_is_qemus_and_replays_to_the_disk(both: Both, options: dict[str, int]) -> None:
    def script(daemon: Daemon) -> None:
        add(daemon, **options)
        work(daemon)
        daemon("blockdev-del", node_name="w")

    real, ours = both(script, prepare=prepare)
    written = [(each.folder / "writes.log").read_bytes() for each in (real, ours)]
    (disk, done, end), (_, of_real, _) = replay(written[1]), replay(written[0])
    assert done == of_real
    assert written[1].rstrip(b"\0") == written[0].rstrip(b"\0")
    assert end <= len(written[1])
    assert disk == (ours.folder / "disk.raw").read_bytes()
    assert "flush 0 0" in done


def test_a_log_goes_on_where_it_ended(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        add(daemon, **{"log-sector-size": 1024})
        work(daemon)
        daemon("blockdev-del", node_name="w")
        add(daemon, **{"log-append": True})
        guest(daemon, "write -P 9 65536 1024", "discard 0 4096")
        daemon("query-named-block-nodes", flat=True)
        daemon("blockdev-del", node_name="w")

    real, ours = both(script, prepare=prepare)
    written = [(each.folder / "writes.log").read_bytes() for each in (real, ours)]
    assert written[1].rstrip(b"\0") == written[0].rstrip(b"\0")
    disk, done, _ = replay(written[1])
    assert done[-3:] == ["write 65536 1024", "discard 0 4096", "flush 0 0"]
    assert disk == (ours.folder / "disk.raw").read_bytes()


def test_each_reads_on_in_the_others_log(both: Both) -> None:
    def begin(daemon: Daemon) -> None:
        add(daemon)
        work(daemon)
        daemon("blockdev-del", node_name="w")

    real, ours = both(begin, prepare=prepare)
    files = {name: (real.folder / name, ours.folder / name) for name in ("disk.raw", "writes.log")}
    for theirs, mine in files.values():
        kept = theirs.read_bytes()
        theirs.write_bytes(mine.read_bytes())
        mine.write_bytes(kept)
    ends = []
    for daemon in (real, ours):
        with type(daemon)(daemon.folder) as again:
            add(again, **{"log-append": True})
            guest(again, "write -P 9 65536 512")
            again("blockdev-del", node_name="w")
            assert again.stop() == 0
        disk, done, _ = replay((daemon.folder / "writes.log").read_bytes())
        assert disk == (daemon.folder / "disk.raw").read_bytes()
        ends.append(done)
    assert ends[0] == ends[1]
