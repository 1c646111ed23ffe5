"""What NBD clients hear of holes as they read, and what is noted of how far they write."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import DEADLINE, Both, Daemon, image
from compat.test_nbd_server_bytes import Client, agree

from blockemu.host.sysfile import KEEP_SIZE, PUNCH_HOLE, fallocate
from blockemu.nbd import wire

SIZE, CLUSTER, PAGE = 4 << 20, 1 << 16, 4096
READS = 150


def sparse(path: Path, seed: int, size: int = SIZE) -> None:
    """Make a file with data here and there."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(20):
            file.seek(rng.randrange(size // PAGE) * PAGE)
            data = bytes([number + 10]) * rng.choice((1, 3, 20)) * PAGE
            file.write(data[: size - file.tell()])


def io(folder: Path, name: str, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, name], cwd=folder, check=True,
                   timeout=DEADLINE, stdout=subprocess.DEVNULL)  # fmt: skip


def prepare(folder: Path) -> None:
    sparse(folder / "raw", 1)
    sparse(folder / "base", 2, SIZE // 2 + 3 * PAGE)
    image("create", "-f", "qcow2", "-b", "base", "-F", "raw", "over-raw", str(SIZE), cwd=folder)
    writes = [
        f"write -q -P 3 {random.Random(n).randrange(SIZE // CLUSTER - 2) * CLUSTER} 100k"
        for n in range(8)
    ]
    io(folder, "over-raw", *writes, f"write -q -z {CLUSTER} 128k")
    image("create", "-f", "qcow2", "-b", "over-raw", "-F", "qcow2", "top", cwd=folder)
    io(folder, "top", "write -q -P 5 1M 64k", "write -q -P 6 100k 1k", "write -q -zu 3M 128k")
    image(
        "create", "-f", "qcow2", "-o", "preallocation=metadata", "reserved", str(SIZE), cwd=folder
    )
    io(folder, "reserved", "write -q -P 5 1M 64k", "write -q -P 6 100k 1k", "write -q -P 7 2M 1M")
    image("create", "-f", "qcow2", "-o", "extended_l2=on", "parts", str(SIZE), cwd=folder)
    io(folder, "parts", "write -q -P 5 1M 6k", "write -q -P 6 100k 3k", "write -q -z 2M 10k")
    image("create", "-f", "qcow2", "punched", str(SIZE), cwd=folder)
    io(folder, "punched", "write -q -P 5 0 4M")
    with (folder / "punched").open("r+b") as file:  # all clusters are in use, and too few holes
        where = json.loads(image("map", "--output=json", "punched", cwd=folder))[0]["offset"]
        fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, where, 2 * PAGE)


DISKS: dict[str, dict[str, Any]] = {
    "file": {"driver": "file", "filename": "raw"},
    "raw": {"driver": "raw", "file": {"driver": "file", "filename": "raw"}},
    "window": {
        "driver": "raw",
        "offset": 3 * PAGE,
        "size": SIZE // 2,
        "file": {"driver": "file", "filename": "raw"},
    },
    **{
        name: {"driver": "qcow2", "file": {"driver": "file", "filename": name}}
        for name in ("over-raw", "top", "reserved", "parts", "punched")
    },
    "filter": {
        "driver": "copy-on-read",
        "file": {"driver": "qcow2", "file": {"driver": "file", "filename": "reserved"}},
    },
    "zeroes": {"driver": "null-co", "size": SIZE, "read-zeroes": True},
}


def located(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return options with their files in a folder."""
    found = {k: located(v, folder) if isinstance(v, dict) else v for k, v in options.items()}
    if "filename" in found:
        found["filename"] = str(folder / found["filename"])
    return found


def serve(daemon: Daemon, disk: str) -> int:
    """Export a disk that may be written to; return its size."""
    options = located(DISKS[disk], daemon.folder)
    if "file" in options:
        options["file"]["node-name"] = "below"
    daemon("blockdev-add", options | {"node-name": "disk"})
    path = str(daemon.folder / "nbd.sock")
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
    export = {"type": "nbd", "id": "e", "node-name": "disk", "name": "e", "writable": True}
    daemon("block-export-add", export)
    return int(options.get("size", SIZE))


def somewhere(rng: random.Random, size: int) -> tuple[int, int]:
    """Return a range: small, or large, or of no round numbers."""
    if rng.random() < 0.5:
        length = rng.choice((512, PAGE, 8 * PAGE))
        return rng.randrange(size // length) * length, length
    offset = rng.randrange(size)
    return offset, rng.randrange(1, min(size - offset, rng.choice((PAGE, CLUSTER, size))) + 1)


def read(client: Client, flags: int, offset: int, length: int) -> list[tuple[str, int, bytes]]:
    """Read; return what the chunks of the reply are, their offsets, and data or the hole's size.

    Data that follows data is joined: it may lie elsewhere in the image, since clusters that were
    freed are used again only after a flush, which QEMU does not wait for.
    """
    client.send(wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, wire.CMD_READ, 7, offset, length))
    if client.receive(4) == struct.pack(">I", wire.SIMPLE_MAGIC):
        assert client.receive(wire.SIMPLE.size - 4) == struct.pack(">IQ", 0, 7)
        return [("simple", offset, client.receive(length))]
    parts: list[tuple[str, int, bytes]] = []
    while True:
        ends, kind, _, size = struct.unpack(">HHQI", client.receive(wire.CHUNK.size - 4))
        at = int.from_bytes(client.receive(8), "big")
        body = client.receive(size - 8)
        if kind == wire.CHUNK_OFFSET_HOLE:
            parts.append(("hole", at, body))
        elif parts and parts[-1][0] == "data" and parts[-1][1] + len(parts[-1][2]) == at:
            parts[-1] = "data", parts[-1][1], parts[-1][2] + body
        else:
            parts.append(("data", at, body))
        if ends & wire.CHUNK_DONE:
            return parts
        client.receive(4)


def heights(daemon: Daemon) -> list[tuple[str, int]]:
    """Return how far each named node was written to."""
    stats = daemon("query-blockstats", {"query-nodes": True})
    found = [(each.get("node-name", ""), each["stats"]["wr_highest_offset"]) for each in stats]
    return sorted((name, end) for name, end in found if name in ("disk", "below"))


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
@pytest.mark.parametrize("disk", DISKS)
def test_holes_are_told_as_by_qemu(both: Both, disk: str, structured: bool) -> None:
    """Before anything is written, and between writes, zeroes and discards."""
    heard: dict[str, dict[str, list[tuple[str, int, bytes]]]] = {}

    def script(daemon: Daemon) -> None:
        answers = heard.setdefault(daemon.kind, {})
        size = serve(daemon, disk)
        rng = random.Random(3)
        with Client(daemon) as client:
            client.enter("e", structured=structured)
            client.ask(0, wire.CMD_WRITE, size - PAGE, PAGE, b"\5" * PAGE)
            answers["first"] = read(client, 0, 0, PAGE)
            for number in range(READS):
                offset, length = somewhere(rng, size)
                flags = rng.choice((0, 0, 0, wire.FLAG_DF)) if structured else 0
                asked = f"{number}: {offset}+{length} flags {flags}"
                answers[asked] = read(client, flags, offset, length)
                if number % 5 == 4:
                    offset, length = somewhere(rng, size)
                    kind = rng.choice((wire.CMD_WRITE, wire.CMD_WRITE, wire.CMD_WRITE_ZEROES))
                    data = b"\7" * length if kind == wire.CMD_WRITE else b""
                    client.ask(0, kind, offset, length, data)

    both(script, prepare=prepare)
    agree(heard)
    if structured and disk != "punched":
        parts = [part for said in next(iter(heard.values())).values() for part in said]
        assert {kind for kind, _, _ in parts} >= {"hole"}


@pytest.mark.parametrize("disk", DISKS)
def test_how_far_was_written_is_noted_as_by_qemu(both: Both, disk: str) -> None:
    """In what is there already and in what has to be allocated, of the disk and of its file."""
    heard: dict[str, dict[str, object]] = {}

    def script(daemon: Daemon) -> None:
        answers = heard.setdefault(daemon.kind, {})
        size = serve(daemon, disk)
        rng = random.Random(4)
        with Client(daemon) as client:
            client.enter("e", structured=True)
            answers["before"] = heights(daemon)
            for number in range(20):
                offset = rng.randrange(size // PAGE * (number + 1) // 20) * PAGE
                client.ask(0, wire.CMD_WRITE, offset, PAGE, b"\7" * PAGE)
                client.ask(0, wire.CMD_FLUSH, 0, 0)
                answers[f"{number} at {offset}"] = heights(daemon)

    both(script, prepare=prepare)
    agree(heard)
