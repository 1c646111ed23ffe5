"""Nodes whose users must stay in I/O threads: they are not joined when the threads differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Machine, image

THREADS = ["", "one", "two"]


def prepare(folder: Path) -> None:
    for name in ("a", "b", "c"):
        image("create", "-q", "-f", "qcow2", name, "1M", cwd=folder)


def options(name: str, **more: object) -> dict[str, object]:
    file = {"driver": "file", "filename": name}
    return {"driver": "qcow2", "node-name": name, "file": file, "backing": None} | more


def plug(daemon: Daemon, kind: str, name: str, thread: str) -> None:
    """Put a disk on a node; it is to be served by a thread, or by the main loop if that is empty."""
    more = {"iothread": thread} if thread else {}
    disk = {"driver": kind, "drive": name, "share-rw": True}
    if kind == "scsi-hd":
        daemon("device_add", {"driver": "virtio-scsi", "id": f"bus-{name}"} | more)
        more = {"bus": f"bus-{name}.0"}
    daemon("device_add", disk | more)


@pytest.mark.parametrize("kind", ["scsi-hd", "virtio-blk-pci"])
@pytest.mark.parametrize("above", THREADS)
@pytest.mark.parametrize("below", THREADS)
def test_disks_in_threads_are_joined_or_not(both: Both, kind: str, above: str, below: str) -> None:
    """The thread of a virtio-blk disk takes over once the guest runs, which it does not here."""

    def script(daemon: Daemon) -> None:
        for name in ("one", "two"):
            daemon("object-add", {"qom-type": "iothread", "id": name})
        for name, thread in (("a", above), ("b", below)):
            daemon("blockdev-add", options(name))
            plug(daemon, kind, name, thread)
        daemon("blockdev-add", options("c"))
        for child in ("b", "c", None):
            daemon.execute("blockdev-reopen", {"options": [options("a", backing=child)]})
        mirror = {"job-id": "j", "device": "a", "target": "b", "sync": "full"}
        daemon.execute("blockdev-mirror", mirror)
        daemon("x-debug-query-block-graph")

    both(script, oracle=Machine, ours=BlockemuMachine, prepare=prepare, racing=True)
