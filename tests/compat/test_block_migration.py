"""Disks that go along with a machine: old-style block migration, ours beside QEMU's.

QEMU's empty machine has no devices, and writes to a disk that no device may write to end it; so
what it receives is received by a machine with a device, and sent by one.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Blockemu, Both, Daemon, System, image
from compat.test_migration import Ours, Real, heard, set_capabilities

from blockemu.graph import Graph
from blockemu.migration import block_wire
from blockemu.migration.bitmaps import ComingBitmaps
from blockemu.migration.block_wire import BLOCK, SECTOR
from blockemu.migration.load import Load, Reading, Settings
from blockemu.migration.wire import Input

MIB = 1 << 20
PC = ["-machine", "pc", "-m", "16", "-nodefaults", "-display", "none", "-S"]
HELD = 10  # bytes a second: less than a section's header each tenth of one, so no block is sent
Kind = type[Daemon]


class RealPc(System):
    """QEMU's, with a device."""

    def program(self) -> list[str]:
        return ["qemu-system-x86_64", "-accel", "tcg", *PC]


class OursPc(Blockemu):
    """Ours, with a device."""

    kind = "blockemu-qemu"

    def program(self) -> list[str]:
        return [sys.executable, "-m", "blockemu.programs.qemu_main", "--compat", "7.2", *PC]

    def monitor(self, number: int) -> list[str]:
        return ["-chardev", f"socket,id=compat,fd={number}", "-mon", "chardev=compat,mode=control"]


DEVICES = pytest.mark.parametrize("kind", [RealPc, OursPc], ids=["real", "ours"])
EITHER = pytest.mark.parametrize("sender", [Real, Ours], ids=["real", "ours"])


@pytest.fixture(autouse=True)
def oracle(program: Callable[[str], str]) -> None:
    program("qemu-system-x86_64")


def disk(folder: Path, name: str, size: int, form: str = "qcow2", *base: str) -> Path:
    path = folder / f"{name}.{form}"
    image("create", "-q", "-f", form, *base, str(path), *([] if base else [str(size)]))
    return path


def drive(path: Path, device: bool) -> list[str]:
    form = path.suffix[1:]
    options = ["-drive", f"if=none,id=d,format={form},file={path}"]
    return [*options, "-device", "virtio-blk-pci,drive=d"] if device else options


def hmp(daemon: Daemon, line: str) -> str:
    return str(daemon("human-monitor-command", {"command-line": line}))


def write(daemon: Daemon, command: str) -> None:
    text = hmp(daemon, f'qemu-io d "{command}"')
    assert "failed" not in text, text


def prepare(daemon: Daemon, *capabilities: str) -> None:
    """Let events be told.

    With a pause that may be longer than none QEMU takes a disk that it has not read to its end for
    one that is nearly all sent.
    """
    set_capabilities(daemon, "events", *capabilities)
    daemon("migrate-set-parameters", downtime_limit=0)


@contextmanager
def meeting(
    folder: Path, kind: Kind, one: Path, other: Path
) -> Iterator[tuple[Daemon, Daemon, str]]:
    """Give a machine with a disk, one with another that waits for it, and where it does."""
    socket = f"unix:{folder}/socket"
    with (
        kind(folder / "there", *drive(other, True), "-incoming", socket) as there,
        kind(folder / "here", *drive(one, True)) as here,
    ):
        prepare(here)
        prepare(there)
        yield here, there, socket


def over(daemon: Daemon) -> str:
    data = daemon.wait("MIGRATION", lambda told: told["status"] in ("completed", "failed"))
    return str(data["status"])


def forgets_disks(daemon: Daemon) -> None:
    """Ask, off the record, until disks go along no more: QEMU's main loop sees to that later."""
    recording, daemon.recording = daemon.recording, False
    deadline = time.monotonic() + DEADLINE
    try:
        while True:
            states = {s["capability"]: s["state"] for s in daemon("query-migrate-capabilities")}
            incremental = daemon("query-migrate-parameters")["block-incremental"]
            if not states["block"] and not incremental:
                return
            assert time.monotonic() < deadline
    finally:
        daemon.recording = recording


def test_how_it_is_asked_for_is_answered_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        block = [{"capability": "block", "state": True}]
        daemon("migrate-set-capabilities", capabilities=block)
        daemon.execute("migrate", uri="unix:none", blk=True)
        daemon.execute("migrate", uri="unix:none", inc=True)
        block[0]["state"] = False
        daemon("migrate-set-capabilities", capabilities=block)
        daemon("migrate-set-parameters", block_incremental=True)
        daemon.execute("migrate", uri="unix:none", blk=True)
        daemon("migrate-set-parameters", block_incremental=False)
        set_capabilities(daemon, "events")
        for line in ("-d -b", "-d -i", "-d -b -i"):
            hmp(daemon, f"migrate {line} unix:none")
            assert over(daemon) == "failed"
            forgets_disks(daemon)

    both(script, oracle=Real, ours=Ours)


@DEVICES
@pytest.mark.parametrize("zeroes", [False, True])
def test_a_disk_arrives(tmp_path: Path, kind: Kind, zeroes: bool) -> None:
    one, other = (disk(tmp_path, name, 8 * MIB) for name in ("one", "other"))
    with meeting(tmp_path, kind, one, other) as (here, there, socket):
        if zeroes:
            set_capabilities(here, "zero-blocks")
        write(here, "write -P 1 700k 1M")
        write(here, "write -P 2 5M 64k")
        here("migrate", uri=socket, blk=True)
        assert over(here) == over(there) == "completed"
        assert [e for e in heard(here) if e != "STOP"] == [
            f"MIGRATION{status}" for status in ("setup", "active", "completed")
        ]
        forgets_disks(here)
        shown = there.printed().replace("\r", "\n").splitlines()
        assert shown[0] == "Receiving block device images"
        assert shown[1] == "Completed 0 %"
        assert shown[-1] == "Completed 100 %"
        assert here.stop() == there.stop() == 0
    assert "identical" in image("compare", str(one), str(other))


@EITHER
def test_a_disk_of_the_empty_machine_arrives_here(tmp_path: Path, sender: Kind) -> None:
    """Even if no device of ours may write to it."""
    one, other = disk(tmp_path, "one", 4 * MIB), disk(tmp_path, "other", 4 * MIB, "raw")
    socket = f"unix:{tmp_path}/socket"
    with (
        Ours(tmp_path / "there", *drive(other, False), "-incoming", socket) as there,
        sender(tmp_path / "here", *drive(one, False)) as here,
    ):
        prepare(here)
        prepare(there)
        write(here, "write -P 1 700k 1M")
        here("migrate", uri=socket, blk=True)
        assert over(here) == over(there) == "completed"
        there("query-status")
        assert here.stop() == there.stop() == 0
    assert "identical" in image("compare", "-f", "qcow2", "-F", "raw", str(one), str(other))


@DEVICES
def test_only_what_a_disk_has_of_its_own_is_sent(tmp_path: Path, kind: Kind) -> None:
    base = disk(tmp_path, "base", 8 * MIB, "raw")
    base.write_bytes(b"b" * 8 * MIB)
    backing = ("-b", str(base), "-F", "raw")
    one, other = (disk(tmp_path, name, 0, "qcow2", *backing) for name in ("one", "other"))
    with meeting(tmp_path, kind, one, other) as (here, there, socket):
        write(here, "write -P 1 3M 64k")
        here("migrate", uri=socket, inc=True)
        assert over(here) == over(there) == "completed"
        forgets_disks(here)
        assert here.stop() == there.stop() == 0
    assert "identical" in image("compare", str(one), str(other))
    owned = re.findall(r'"start": (\d+), "length": (\d+), "depth": 0', _map(other))
    assert owned == [(str(3 * MIB), str(MIB))]


def _map(path: Path) -> str:
    return image("map", "--output=json", str(path))


@DEVICES
def test_what_is_written_meanwhile_arrives(tmp_path: Path, kind: Kind) -> None:
    one, other = (disk(tmp_path, name, 32 * MIB) for name in ("one", "other"))
    with meeting(tmp_path, kind, one, other) as (here, there, socket):
        here("migrate-set-parameters", max_bandwidth=HELD)
        here("migrate", uri=socket, blk=True)
        here.wait("MIGRATION", lambda data: data["status"] == "active")
        told = here("query-migrate")
        assert told["status"] == "active"
        assert told["disk"]["total"] == 32 * MIB
        assert told["disk"]["remaining"] > 0
        node = here("query-named-block-nodes")[0]["node-name"]
        here.execute("block_resize", device="d", size=64 * MIB)
        refused = here.execute("blockdev-snapshot-internal-sync", device="d", name="x")
        text = f"Node '{node}' is busy: block device is in use by migration"
        assert refused["error"]["desc"].replace("'d'", f"'{node}'") == text
        write(here, "write -P 3 0 3M")
        write(here, "write -P 4 31M 1M")
        here("migrate-set-parameters", max_bandwidth=1 << 30)
        assert over(here) == over(there) == "completed"
        assert here.stop() == there.stop() == 0
    assert "identical" in image("compare", str(one), str(other))


@EITHER
def test_it_can_be_cancelled_on_the_way(tmp_path: Path, sender: Kind) -> None:
    path = disk(tmp_path, "one", 32 * MIB)
    with sender(tmp_path / "here", *drive(path, False)) as here:
        prepare(here)
        here("migrate-set-parameters", max_bandwidth=HELD)
        here("migrate", uri="exec:cat >/dev/null", blk=True)
        here.wait("MIGRATION", lambda data: data["status"] == "active")
        here("migrate_cancel")
        here.wait("MIGRATION", lambda data: data["status"] == "cancelled")
        forgets_disks(here)
        assert here("query-status")["status"] == "running"
        here("blockdev-snapshot-internal-sync", device="d", name="x")
        assert here.stop() == 0


@EITHER
def test_a_disk_that_cannot_be_read_stays(tmp_path: Path, sender: Kind) -> None:
    path = disk(tmp_path, "one", 4 * MIB, "raw")
    options = (
        "if=none,id=d,format=raw,file.driver=blkdebug,file.image.driver=file,"
        f"file.image.filename={path},file.inject-error.0.event=none,"
        "file.inject-error.0.iotype=read"
    )
    with sender(tmp_path / "here", "-drive", options) as here:
        prepare(here)
        here("migrate", uri="exec:cat >/dev/null", blk=True)
        assert over(here) == "failed"
        assert here("query-status")["status"] == "running"
        assert "error-desc" not in here("query-migrate")
        assert here.stop() == 0 or sender is Real  # which ends by an assertion
        lines = [line.partition(": ")[2] for line in here.errors().splitlines()]
        assert lines[:1] == ["failed to save SaveStateEntry with id(name): 1(block): -5"]


class Recorder:
    """Notes the blocks of a stream."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str | None, int, bytes | None]] = []

    def load(self, source: Input, version: int) -> Reading:
        while True:
            word = yield from source.u64()
            flags = word & (SECTOR - 1)
            if flags & block_wire.DEVICE_BLOCK:
                name = yield from source.counted()
                data = None
                if not flags & block_wire.ZERO_BLOCK:
                    data = yield from source.exactly(BLOCK)
                self.blocks.append((name, word & -SECTOR, data))
            elif flags & block_wire.END:
                return -source.error


def blocks(sender: Kind, folder: Path, path: Path) -> list[tuple[str | None, int, bytes | None]]:
    """Return the blocks that a machine sends."""
    stream = folder / "stream"
    with sender(folder, *drive(path, False)) as here:
        prepare(here, "zero-blocks")
        here("migrate", uri=f"exec:cat >{stream}", blk=True)
        assert over(here) == "completed"
        assert here.stop() == 0
    recorder, said = Recorder(), list[str]()
    settings = Settings("none", postcopy_ram=False, validate_uuid=False)
    source = Input(stream.read_bytes(), ended=True)
    load = Load(source, settings, ComingBitmaps(Graph(0), lambda: None, said.append), said.append)
    load.expect("block", 1, recorder.load)
    assert not [step for step in load.read() if step is not None]
    assert not said
    return recorder.blocks


def test_the_same_blocks_are_sent(tmp_path: Path) -> None:
    path = disk(tmp_path, "one", 6 * MIB)
    with Ours(tmp_path / "first", *drive(path, False)) as daemon:
        write(daemon, "write -P 1 700k 1M")
        write(daemon, "write -P 7 4M 64k")
        assert daemon.stop() == 0
    real, ours = (blocks(kind, tmp_path / kind.kind, path) for kind in (Real, Ours))
    assert len(ours) == 6
    assert ours == sorted(real, key=lambda told: told[1])  # reads end in any order
