"""What crashes leave of bitmaps: ours on demand, the real program's by SIGKILL."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu, Daemon, StorageDaemon, image

SIZE = 1 << 20
GRANULARITY = 65536


class Crashing(Blockemu):
    """Ours, with what no QEMU has."""

    def program(self) -> list[str]:
        return [*super().program(), "--compat", "all"]

    def crash(self, **members: Any) -> None:
        self.send("x-emu-crash", members)
        self.died()

    def send(self, command: str, arguments: dict[str, Any]) -> None:
        """Send a command to which there may be no reply."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())

    def died(self) -> None:
        assert self.process.wait(30) == 137


def make(folder: Path) -> None:
    folder.mkdir()
    image("create", "-q", "-f", "qcow2", "disk.qcow2", str(SIZE), cwd=folder)


def attach(daemon: Daemon) -> None:
    file = {"driver": "file", "filename": str(daemon.folder / "disk.qcow2")}
    daemon("blockdev-add", driver="qcow2", node_name="disk", file=file)


def detach(daemon: Daemon) -> None:
    daemon("blockdev-del", node_name="disk")


def add(daemon: Daemon, name: str, **members: Any) -> None:
    named = {"node": "disk", "name": name, "granularity": GRANULARITY}
    daemon("block-dirty-bitmap-add", **named, **members)


def work(daemon: Daemon) -> None:
    """Leave stored bitmaps, some in use, one new; nothing but the first round was closed."""
    attach(daemon)
    for name in ("a", "removed", "disabled"):
        add(daemon, name, persistent=True)
    daemon("block-dirty-bitmap-disable", node="disk", name="disabled")
    daemon.write("disk", 0, GRANULARITY, 1)
    detach(daemon)
    attach(daemon)
    add(daemon, "new", persistent=True)
    add(daemon, "passing")
    daemon("block-dirty-bitmap-remove", node="disk", name="removed")
    daemon.write("disk", 2 * GRANULARITY, GRANULARITY, 2)


def check_image(folder: Path) -> None:
    """Fail unless an image is sound; clusters may be leaked."""
    done = subprocess.run(
        ["qemu-img", "check", "disk.qcow2"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr


def left(folder: Path) -> tuple[Any, Any]:
    """Return what an image says of its bitmaps, before and after the real program opens it."""
    told = json.loads(image("info", "--output=json", "disk.qcow2", cwd=folder))
    check_image(folder)
    with StorageDaemon(folder) as daemon:
        attach(daemon)
        nodes = daemon("query-named-block-nodes")
        (live,) = [node.get("dirty-bitmaps", []) for node in nodes if node["drv"] == "qcow2"]
        daemon.stop()
    specific = told["format-specific"]["data"]
    return specific.get("bitmaps"), live


def test_bitmaps_in_use_are_left_as_a_killed_qemu_leaves_them(tmp_path: Path, program) -> None:
    program("qemu-img")
    program("qemu-storage-daemon")
    folders = [tmp_path / "real", tmp_path / "ours"]
    for folder in folders:
        make(folder)
    with StorageDaemon(folders[0]) as real:
        work(real)
        real.process.kill()
        real.process.wait()
    with Crashing(folders[1]) as ours:
        ours("x-emu-crash-record")
        work(ours)
        ours.crash()
    stored, live = left(folders[1])
    assert (stored, live) == left(folders[0])
    assert {each["name"]: each.get("inconsistent", False) for each in live} == {
        "a": True, "disabled": True
    }  # fmt: skip


def outcome(folder: Path) -> str:
    """Return what is left of the one bitmap of an image."""
    _, live = left(folder)
    if not live:
        return "none"
    (bitmap,) = live
    return "inconsistent" if bitmap.get("inconsistent") else str(bitmap["count"])


@pytest.mark.parametrize("survivors", ["all", "none", "torn"])
def test_bitmaps_that_are_being_stored_are_whole_or_known_to_be_not(
    tmp_path: Path, program, survivors: str
) -> None:
    program("qemu-img")
    program("qemu-storage-daemon")
    found = []
    for count in range(1, 20):
        folder = tmp_path / str(count)
        make(folder)
        with Crashing(folder) as daemon:
            attach(daemon)
            add(daemon, "b", persistent=True)
            detach(daemon)
            attach(daemon)
            daemon.write("disk", 0, 3 * GRANULARITY, 1)
            at = {"event": "bitmap-write", "count": count}
            daemon("x-emu-crash", at=at, survivors=survivors, seed=count)
            daemon.send("blockdev-del", {"node-name": "disk"})
            if daemon.socket.recv(1 << 16):
                break  # so many writes there are not
            daemon.died()
        found.append(outcome(folder))
    assert len(found) > 2, "there are several writes"
    assert set(found) <= {"inconsistent", str(3 * GRANULARITY)}


@pytest.mark.parametrize("event", ["prepare", "commit"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_snapshot_and_its_bitmap_survive_a_cut_in_their_transaction(
    tmp_path: Path, program, event: str, count: int
) -> None:
    program("qemu-img")
    program("qemu-storage-daemon")
    folder = tmp_path / "images"
    make(folder)
    with Crashing(folder) as daemon:
        attach(daemon)
        add(daemon, "b", persistent=True)
        daemon.write("disk", 0, GRANULARITY, 7)
        daemon("x-emu-crash", at={"event": event, "count": count})
        snapshot = {"node-name": "disk", "snapshot-file": str(folder / "top"), "format": "qcow2"}
        snapshot |= {"snapshot-node-name": "top"}
        bitmap = {"node": "disk", "name": "c"}
        actions = [
            {"type": "blockdev-snapshot-sync", "data": snapshot},
            {"type": "block-dirty-bitmap-add", "data": bitmap},
        ]
        daemon.send("transaction", {"actions": actions})
        assert daemon.socket.recv(1 << 16) == b""
        daemon.died()
    # The commit of the snapshot makes the image read-only, and so stores its bitmaps.
    assert outcome(folder) == ("none" if event == "prepare" else str(GRANULARITY))
    image("check", "-q", "top", cwd=folder)
    image("compare", "-q", "disk.qcow2", "top", cwd=folder)
