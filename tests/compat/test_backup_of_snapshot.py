"""Backups of a point-in-time snapshot, by the commands and in the order of a backup program."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Machine, image

SIZE = 4 << 20
DISKS = {  # the drive's own options, and what query-block calls its device
    "scsi": ("-device", "virtio-scsi", "-device", "scsi-hd,id=sd0,drive=d"),
    "virtio": ("-device", "virtio-blk-pci,id=vd0,drive=d"),
}


def prepare(folder: Path) -> None:
    for name in ("disk", "full", "inc", "fleece"):
        image("create", "-q", "-f", "qcow2", f"{name}.qcow2", str(SIZE), cwd=folder)


def write(daemon: Daemon, offset: int, length: int, pattern: int) -> None:
    """Write as the machine's guest does, by the drive."""
    daemon(
        "human-monitor-command",
        {"command-line": f'qemu-io d "write -P {pattern} {offset} {length}"'},
    )


def add(daemon: Daemon, name: str, node: str) -> None:
    file = {"driver": "file", "filename": str(daemon.folder / f"{name}.qcow2"), "aio": "threads"}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": node, "file": file})


def back_up(daemon: Daemon, target: str, *, full: bool) -> None:
    """Make one backup while the guest writes; then take the filter out again."""
    (disk,) = (each for each in daemon("query-block") if each.get("inserted"))
    node, device = disk["inserted"]["node-name"], disk["qdev"]
    add(daemon, target, "target")
    add(daemon, "fleece", "fleece")
    cbw = {"driver": "copy-before-write", "node-name": "cbw", "file": node, "target": "fleece"}
    cbw |= {"on-cbw-error": "break-snapshot", "cbw-timeout": 45}
    daemon("blockdev-add", cbw if full else cbw | {"bitmap": {"node": node, "name": "b"}})
    daemon("qom-set", path=device, property="drive", value="cbw")
    daemon("blockdev-add", driver="snapshot-access", node_name="snap", file="cbw")
    job = {"job-id": "j", "device": "snap", "target": "target", "speed": 1}
    mark = {"node": node, "name": "b"}
    if full:
        bitmaps = [("block-dirty-bitmap-add", mark | {"persistent": True})]
        job |= {"sync": "full"}
    else:
        bitmaps = [
            ("block-dirty-bitmap-add", {"node": "snap", "name": "tmp"}),
            (
                "block-dirty-bitmap-merge",
                {"node": "snap", "target": "tmp", "bitmaps": [mark]},
            ),
        ]
        job |= {"sync": "incremental", "bitmap": "tmp"}
    actions = [*bitmaps, ("blockdev-backup", job)]
    actions += [] if full else [("block-dirty-bitmap-clear", mark)]
    daemon("transaction", actions=[{"type": kind, "data": data} for kind, data in actions])
    write(daemon, 65536, 65536, 9)
    daemon("block-job-set-speed", device="j", speed=0)
    daemon.job_until("j", "null")
    daemon("query-block-jobs")
    daemon("blockdev-del", node_name="snap")
    daemon("qom-set", path=device, property="drive", value=node)
    for each in ("cbw", "target", "fleece"):
        daemon("blockdev-del", node_name=each)
    daemon("query-block")


@pytest.mark.parametrize("disk", DISKS)
def test_full_and_incremental_backups_are_of_one_moment(both: Both, disk: str) -> None:
    def script(daemon: Daemon) -> None:
        write(daemon, 0, 2 << 20, 1)
        back_up(daemon, "full", full=True)
        write(daemon, 1 << 20, 65536, 2)
        back_up(daemon, "inc", full=False)

    drive = "if=none,id=d,file=disk.qcow2,format=qcow2,node-name=node"
    options = ("-drive", drive, *DISKS[disk])
    for daemon in both(
        script, *options, oracle=Machine, ours=BlockemuMachine, prepare=prepare, racing=True
    ):
        full, inc = daemon.folder / "full.raw", daemon.folder / "inc.raw"
        image("convert", "-O", "raw", "full.qcow2", str(full), cwd=daemon.folder)
        assert full.read_bytes() == bytes([1]) * (2 << 20) + bytes(2 << 20)
        image("rebase", "-u", "-b", "full.qcow2", "-F", "qcow2", "inc.qcow2", cwd=daemon.folder)
        image("convert", "-O", "raw", "inc.qcow2", str(inc), cwd=daemon.folder)
        wanted = bytearray(full.read_bytes())
        wanted[65536:131072] = bytes([9]) * 65536
        wanted[1 << 20 : (1 << 20) + 65536] = bytes([2]) * 65536
        assert inc.read_bytes() == wanted
