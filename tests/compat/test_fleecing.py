"""Image fleecing end to end: NBD clients back a disk up as it was, while its guest goes on writing."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import DEADLINE, Both, Daemon, image

SIZE, CLUSTER = 4 << 20, 65536
BITMAP = "qemu:dirty-bitmap:b"


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.returncode, done.stdout + done.stderr


class Client:
    """A backup program at the export of the snapshot."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.path = str(daemon.folder / "guest.sock")
        self.uri = f"nbd+unix:///fleece?socket={self.path}"

    def map(self, context: str) -> list[dict[str, Any]]:
        """Return the runs of a meta context; empty if the server refuses to tell."""
        code, said = run("nbdinfo", "--json", f"--map={context}", self.uri)
        return [] if code else json.loads(said)

    def read(self, offset: int, length: int) -> bytes | None:
        """Return a range of the snapshot; None if there is none."""
        out = self.daemon.folder / "part"
        file = f"file.driver=nbd,file.export=fleece,file.path={self.path}"
        source = f"driver=raw,offset={offset},size={length},{file}"
        code, _ = run("qemu-img", "convert", "--image-opts", "-O", "raw", source, str(out))
        return None if code else out.read_bytes()


class Guest:
    """Writes patterns at random, and knows what the disk holds."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon = daemon
        self.random = random.Random(seed)
        self.disk = bytearray(SIZE)

    def write(self, node: str, count: int) -> None:
        for _ in range(count):
            length = self.random.choice([512, 4096, CLUSTER, 3 * CLUSTER])
            offset = self.random.randrange((SIZE - length) // 512) * 512
            pattern = self.random.randrange(1, 256)
            self.daemon.write(node, offset, length, pattern)
            self.disk[offset : offset + length] = bytes([pattern]) * length


def prepare(folder: Path) -> None:
    (folder / "base.raw").write_bytes(bytes(SIZE))
    image("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "disk.qcow2", cwd=folder)
    (folder / "saved.raw").write_bytes(b"")
    with (folder / "saved.raw").open("r+b") as file:
        file.truncate(SIZE)


def set_up(daemon: Daemon, guest: Guest, *, bitmap: bool) -> Client:
    """Insert the filter below the guest, and export what it shows."""
    file = {"driver": "file", "filename": str(daemon.folder / "disk.qcow2")}
    backing = {"driver": "raw", "file": {"driver": "file", "filename": "base.raw"}}
    daemon("blockdev-add", driver="qcow2", node_name="disk", file=file, backing=backing)
    client = Client(daemon)
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": client.path}}})
    daemon._listening = True  # guests of the real program come there, too
    guest.write("disk", 8)
    daemon("block-dirty-bitmap-add", node="disk", name="b", granularity=CLUSTER)
    guest.write("disk", 6)
    daemon("block-dirty-bitmap-disable", node="disk", name="b")
    saved = {"driver": "file", "filename": str(daemon.folder / "saved.raw"), "discard": "unmap"}
    more = {"bitmap": {"node": "disk", "name": "b"}} if bitmap else {}
    options = {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": saved}
    daemon("blockdev-add", options | more)
    daemon("blockdev-add", driver="snapshot-access", node_name="s", file="cbw", discard="unmap")
    export = {"type": "nbd", "id": "fleece", "name": "fleece", "node-name": "s"}
    daemon("block-export-add", export | {"bitmaps": [{"node": "disk", "name": "b"}]})
    return client


@pytest.mark.parametrize("seed", range(2))
def test_what_a_bitmap_says_is_read_as_it_was(both: Both, seed: int) -> None:
    def script(daemon: Daemon) -> None:
        guest = Guest(daemon, seed)
        client = set_up(daemon, guest, bitmap=True)
        moment = bytes(guest.disk)
        seen = 0
        for run_ in client.map(BITMAP):
            start, length = run_["offset"], run_["length"]
            guest.write("cbw", 3)
            got = client.read(start, length)
            daemon.note(f"{start} {length} {run_['type']} {got is not None}")
            if run_["type"]:
                assert got == moment[start : start + length]
                seen += length
            guest.write("cbw", 2)
            assert not run_["type"] or client.read(start, length) == got
        assert seen >= CLUSTER
        daemon.note(json.dumps(client.map("base:allocation")))
        daemon("block-export-del", id="fleece", mode="hard")
        daemon.wait("BLOCK_EXPORT_DELETED")
        for node in ("s", "cbw"):
            daemon("blockdev-del", node_name=node)
        daemon.verify("disk", 0, 512, guest.disk[0])

    both(script, prepare=prepare)


def test_the_whole_disk_is_copied_as_it_was(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        guest = Guest(daemon, 7)
        client = set_up(daemon, guest, bitmap=False)
        moment = bytes(guest.disk)
        daemon.note(json.dumps(client.map("base:allocation")))
        for start in range(0, SIZE, 8 * CLUSTER):
            guest.write("cbw", 2)
            assert client.read(start, 8 * CLUSTER) == moment[start : start + 8 * CLUSTER]
        daemon.note(json.dumps(client.map("base:allocation")))
        assert client.read(0, SIZE) == moment
        daemon("query-named-block-nodes", flat=True)

    both(script, prepare=prepare)


def test_what_is_discarded_is_neither_kept_nor_saved_any_more(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        guest = Guest(daemon, 3)
        client = set_up(daemon, guest, bitmap=False)
        moment = bytes(guest.disk)
        daemon.write("cbw", 0, 4 * CLUSTER, 1)
        daemon.discard("s", 0, 2 * CLUSTER)
        daemon.discard("s", 6 * CLUSTER, 2 * CLUSTER)
        daemon.write("cbw", 6 * CLUSTER, 2 * CLUSTER, 2)
        for start, length in ((0, 1), (2, 2), (4, 2), (5, 2), (7, 1), (8, 8)):
            got = client.read(start * CLUSTER, length * CLUSTER)
            daemon.note(f"{start} {length} {got is not None}")
            if got is not None:
                assert got == moment[start * CLUSTER : (start + length) * CLUSTER]
        daemon("query-named-block-nodes", flat=True)
        held = (daemon.folder / "saved.raw").read_bytes()
        daemon.note(" ".join(str(i) for i in range(64) if any(held[i * CLUSTER :][:CLUSTER])))

    both(script, prepare=prepare)
