"""Bitmaps that images store: the same on the real daemon and on ours, in memory and on disk."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Both, Daemon, image

MIB = 1 << 20
SIZE = 8 * MIB


def disk(options: str = "cluster_size=65536", size: str = "8M") -> Callable[[Path], None]:
    """Make ``disk.qcow2``, and ``top.qcow2`` above it."""

    def make(folder: Path) -> None:
        image("create", "-f", "qcow2", "-o", options, "disk.qcow2", size, cwd=folder)
        below = ["-b", "disk.qcow2", "-F", "qcow2"]
        image("create", "-f", "qcow2", *below, "top.qcow2", cwd=folder)

    return make


def attach(daemon: Daemon, name: str = "disk", **more: Any) -> Any:
    """Open an image as a node of its name; return the reply."""
    file = {"driver": "file", "node-name": f"{name}-file", "filename": f"{name}.qcow2"}
    options = {key.replace("_", "-"): value for key, value in more.items()}
    return daemon.execute(
        "blockdev-add", {"driver": "qcow2", "node-name": name, "file": file} | options
    )


def detach(daemon: Daemon, name: str = "disk") -> None:
    """Close an image; what it has is sound and the same."""
    daemon("blockdev-del", node_name=name)
    stored(daemon, name)


def stored(daemon: Daemon, name: str = "disk") -> None:
    """Take note of what qemu-img says of an image that is closed."""
    report = json.loads(image("info", "--output=json", f"{name}.qcow2", cwd=daemon.folder))
    daemon.transcript.append(("reply", report["format-specific"]))
    assert "No errors were found" in image("check", f"{name}.qcow2", cwd=daemon.folder)


def reopen(daemon: Daemon, *, read_only: bool, name: str = "disk") -> Any:
    """Reopen an image; return the reply."""
    file = f"{name}-file"
    options = {"driver": "qcow2", "node-name": name, "file": file, "read-only": read_only}
    return daemon.execute("blockdev-reopen", {"options": [options]})


def state(daemon: Daemon, *bitmaps: str, node: str = "disk") -> None:
    """Take note of all images' states, and of what these bitmaps contain."""
    for each in nodes(daemon):
        daemon.transcript.append(("reply", daemon.normalise(each)))
    for name in bitmaps:
        daemon("x-debug-block-dirty-bitmap-sha256", node=node, name=name)


def nodes(daemon: Daemon) -> list[Any]:
    """Return what is told of all images; of the files below, the size is not the same."""
    recording, daemon.recording = daemon.recording, False
    try:
        found = daemon("query-named-block-nodes", flat=True)
    finally:
        daemon.recording = recording
    return [node for node in found if node["drv"] == "qcow2"]


def try_all(daemon: Daemon, name: str, node: str = "disk") -> None:
    """Try what could be done with a bitmap; removing it comes last."""
    daemon.execute("block-dirty-bitmap-add", node=node, name=name, persistent=True)
    daemon.execute("block-dirty-bitmap-add", node=node, name=name)
    for command in ("clear", "disable", "enable"):
        daemon.execute(f"block-dirty-bitmap-{command}", node=node, name=name)
    daemon.execute("block-dirty-bitmap-add", node=node, name="other")
    for target, source in ((name, "other"), ("other", name), (name, name)):
        merge = {"node": node, "target": target, "bitmaps": [source]}
        daemon.execute("block-dirty-bitmap-merge", merge)
    daemon.execute("block-dirty-bitmap-remove", node=node, name="other")
    daemon.execute("block-dirty-bitmap-remove", node=node, name=name)


CLUSTERS = ["cluster_size=512", "cluster_size=4096", "cluster_size=65536", "cluster_size=2M"]


@pytest.mark.parametrize("options", [*CLUSTERS, "extended_l2=on", "data_file=x.data"])
def test_bitmaps_are_stored_and_loaded(both: Both, options: str) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        for shift in (9, 12, 16, 31):
            daemon("block-dirty-bitmap-add", node="disk", name=f"g{shift}", granularity=1 << shift,
                   persistent=True)  # fmt: skip
        daemon("block-dirty-bitmap-add", node="disk", name="off", persistent=True, disabled=True)
        daemon("block-dirty-bitmap-add", node="disk", name="here")
        daemon("block-dirty-bitmap-add", node="disk", name="ä b", persistent=True)
        daemon.write("disk", 0, 512, 1)
        daemon.write("disk", 5 * MIB - 100, 70000, 2)
        daemon.write("disk", SIZE - 512, 512, 3)
        state(daemon, "g9", "g31", "off")
        detach(daemon)
        for pattern in (4, 5):
            attach(daemon)
            state(daemon, "g9", "g12", "g16", "g31", "off", "ä b")
            daemon.write("disk", pattern * MIB, 200000, pattern)
            daemon("block-dirty-bitmap-clear", node="disk", name="g16")
            state(daemon, "g9", "g12", "g16", "g31", "off")
            detach(daemon)
        attach(daemon, read_only=True)
        state(daemon, "g9", "g12", "g16", "g31", "off")
        detach(daemon)
        attach(daemon)
        for name in ("g12", "g31", "off", "g9", "ä b", "g16"):
            daemon("block-dirty-bitmap-remove", node="disk", name=name)
            state(daemon)
        detach(daemon)

    both(script, prepare=disk(options))


def test_the_end_of_the_program_stores_them_too(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        daemon("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        daemon.write("disk", MIB, MIB, 1)
        daemon.stop()
        stored(daemon)

    both(script, prepare=disk())


def test_a_reopen_keeps_them(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        for name in ("a", "b"):
            daemon("block-dirty-bitmap-add", node="disk", name=name, persistent=True)
        daemon.write("disk", MIB, MIB, 1)
        for _ in range(2):
            daemon("block-dirty-bitmap-add", node="disk", name="here")
            reopen(daemon, read_only=True)
            state(daemon, "a", "b", "here")
            try_all(daemon, "a")
            try_all(daemon, "here")
            reopen(daemon, read_only=True)
            reopen(daemon, read_only=False)
            state(daemon, "a", "b")
            daemon.write("disk", 0, 1, 1)
            reopen(daemon, read_only=False)
            state(daemon, "a", "b")
        daemon("block-dirty-bitmap-remove", node="disk", name="a")
        reopen(daemon, read_only=True)
        detach(daemon)
        attach(daemon, read_only=True)
        reopen(daemon, read_only=False)
        state(daemon, "b")
        try_all(daemon, "b")
        detach(daemon)

    both(script, prepare=disk())


def crashed(daemon: Daemon) -> None:
    """Leave ``crash.qcow2`` as if the machine had stopped while it was open."""
    attach(daemon)
    for name, disabled in (("a", False), ("b", True), ("c", False)):
        daemon("block-dirty-bitmap-add", node="disk", name=name, persistent=True, disabled=disabled)
    daemon.write("disk", MIB, MIB, 1)
    detach(daemon)
    attach(daemon)
    daemon("block-dirty-bitmap-add", node="disk", name="new", persistent=True)
    shutil.copyfile(daemon.folder / "disk.qcow2", daemon.folder / "crash.qcow2")
    detach(daemon)


@pytest.mark.parametrize("read_only", [False, True])
def test_after_a_crash_they_are_inconsistent_and_can_only_be_removed(
    both: Both, read_only: bool
) -> None:
    def script(daemon: Daemon) -> None:
        crashed(daemon)
        attach(daemon, "crash", read_only=read_only)
        state(daemon, "a", "b", node="crash")
        try_all(daemon, "a", node="crash")
        reopen(daemon, read_only=True, name="crash")
        try_all(daemon, "b", node="crash")
        reopen(daemon, read_only=False, name="crash")
        state(daemon, node="crash")
        daemon.execute("block_resize", node_name="crash", size=MIB)
        try_all(daemon, "b", node="crash")
        detach(daemon, "crash")
        attach(daemon, "crash")
        daemon("block-dirty-bitmap-add", node="crash", name="b", persistent=True)
        detach(daemon, "crash")
        attach(daemon, "crash")
        state(daemon, "b", node="crash")
        for name in ("a", "b", "c"):
            daemon.execute("block-dirty-bitmap-remove", node="crash", name=name)
        detach(daemon, "crash")

    both(script, prepare=disk())


def test_no_job_or_export_takes_an_inconsistent_bitmap(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        crashed(daemon)
        attach(daemon, "crash")
        daemon("blockdev-add", {"driver": "null-co", "node-name": "target", "size": SIZE})
        for sync in ("incremental", "bitmap", "full", "top", "none"):
            for mode in ("on-success", "never", "always"):
                daemon.execute(
                    "blockdev-backup", job_id="j", device="crash", target="target", sync=sync,
                    bitmap="a", bitmap_mode=mode,
                )  # fmt: skip
        detach(daemon, "crash")

    both(script, prepare=disk())


@pytest.mark.parametrize("granularity", [512, 65536, MIB])
def test_they_follow_the_disk_to_another_size(both: Both, granularity: int) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        daemon("block-dirty-bitmap-add", node="disk", name="b", granularity=granularity,
               persistent=True)  # fmt: skip
        daemon.write("disk", 0, SIZE, 1)
        for size in (SIZE + 512, 5 * MIB + 512, 100 * MIB, 512, SIZE):
            daemon("block_resize", node_name="disk", size=size)
            state(daemon, "b")
            detach(daemon)
            attach(daemon)
            state(daemon, "b")
            daemon.write("disk", size - 512, 512, 1)
        reopen(daemon, read_only=True)
        daemon.execute("block_resize", node_name="disk", size=MIB)
        detach(daemon)

    both(script, prepare=disk("cluster_size=512"))


def test_a_disk_without_bytes_loses_its_bitmap(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        daemon("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        detach(daemon)
        attach(daemon)
        daemon("block_resize", node_name="disk", size=0)
        state(daemon, "b")
        daemon("blockdev-del", node_name="disk")
        attach(daemon)
        state(daemon)

    real, ours = both(script, prepare=disk())
    assert complaints(ours) == complaints(real)


def complaints(daemon: Daemon) -> list[str]:
    """Return what a daemon said on standard error, without its name."""
    return [line.removeprefix("qemu-storage-daemon: ") for line in daemon.errors().splitlines()]


def test_bitmaps_below_an_overlay(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        daemon("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        daemon.write("disk", 0, MIB, 1)
        detach(daemon)
        attach(daemon, read_only=True)
        attach(daemon, "top", backing="disk")
        daemon.write("top", 0, 2 * MIB, 2)
        daemon("block-dirty-bitmap-add", node="top", name="b", persistent=True)
        daemon.write("top", 4 * MIB, MIB, 2)
        state(daemon, "b")
        merge = {"node": "disk", "target": "b", "bitmaps": [{"node": "top", "name": "b"}]}
        daemon.execute("block-dirty-bitmap-merge", merge)
        daemon("block-dirty-bitmap-add", node="disk", name="late", persistent=True)
        try_all(daemon, "b")
        daemon("block-dirty-bitmap-add", node="disk", name="late2", persistent=True)
        reopen(daemon, read_only=False)
        state(daemon, "b", "late")
        daemon.execute("block-dirty-bitmap-merge", merge)
        daemon.execute("block-dirty-bitmap-remove", node="disk", name="late2")
        state(daemon, "b", "late")
        daemon("blockdev-del", node_name="top")
        detach(daemon)
        attach(daemon, "top")
        state(daemon, "b", node="top")
        daemon("blockdev-del", node_name="top")
        stored(daemon, "top")

    both(script, prepare=disk())


def test_a_bitmap_added_to_a_read_only_image_is_lost(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon, read_only=True)
        daemon("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        state(daemon, "b")
        detach(daemon)

    real, ours = both(script, prepare=disk())
    assert complaints(ours) == complaints(real)


@pytest.mark.parametrize(
    ("options", "size"),
    [("cluster_size=65536", "8M"), ("cluster_size=65536", "7T"), ("compat=0.10", "8M")],
)
def test_what_cannot_be_stored_is_refused(both: Both, options: str, size: str) -> None:
    def script(daemon: Daemon) -> None:
        attach(daemon)
        for shift in (9, 10, 16, 31):
            daemon.execute("block-dirty-bitmap-add", node="disk", name=f"g{shift}",
                           granularity=1 << shift, persistent=True)  # fmt: skip
        for name in ("x" * 1023, "x" * 1024, "ä" * 511, "ä" * 512):
            daemon.execute("block-dirty-bitmap-add", node="disk", name=name, persistent=True)
        daemon.execute("block-dirty-bitmap-add", node="disk-file", name="f", persistent=True)
        detach(daemon)

    both(script, prepare=disk(options, size))


# Bad images: one bitmap called "b", whose bytes are edited

ENTRY = struct.Struct(">QIIBBHI")
FIELDS = ("table", "entries", "flags", "type", "shift", "name", "extra")


class Edited:
    """``disk.qcow2`` with a bitmap, of which bytes can be changed."""

    def __init__(self, folder: Path) -> None:
        disk("cluster_size=4096", "64M")(folder)
        for name in ("b", "c"):
            image("bitmap", "--add", "-g", "512", "disk.qcow2", name, cwd=folder)
        self.path = folder / "disk.qcow2"
        self.data = bytearray(self.path.read_bytes())
        self.at = self.data.index(struct.pack(">II", 0x23852875, 24)) + 8
        self.directory = struct.unpack_from(">Q", self.data, self.at + 16)[0]

    def header(self, code: str, at: int, value: int) -> None:
        struct.pack_into(">" + code, self.data, self.at + at, value)

    def entry(self, **fields: int) -> None:
        old = dict(zip(FIELDS, ENTRY.unpack_from(self.data, self.directory), strict=True))
        ENTRY.pack_into(self.data, self.directory, *(old | fields).values())

    def table(self, index: int, value: int) -> None:
        (table,) = struct.unpack_from(">Q", self.data, self.directory)
        struct.pack_into(">Q", self.data, table + index * 8, value)

    def name(self, text: bytes) -> None:
        at = self.directory + ENTRY.size
        self.data[at : at + len(text)] = text


def all_ones(edited: Edited) -> None:
    for index in range(4):
        edited.table(index, 1)


TOP = 1 << 63
LIES: dict[str, Callable[[Edited], None]] = {
    "count-less": lambda i: i.header("I", 0, 1),
    "count-more": lambda i: i.header("I", 0, 3),
    "size-less": lambda i: i.header("Q", 8, 56),
    "size-odd": lambda i: i.header("Q", 8, 63),
    "size-more": lambda i: i.header("Q", 8, 72),
    "directory-elsewhere": lambda i: i.header("Q", 16, 4096),
    "directory-past-the-end": lambda i: i.header("Q", 16, 1 << 40),
    "directory-far-off": lambda i: i.header("Q", 16, (1 << 63) - 4096),
    "no-table": lambda i: i.entry(table=0),
    "table-unaligned": lambda i: i.entry(table=512),
    "table-past-the-end": lambda i: i.entry(table=1 << 40),
    "table-far-off": lambda i: i.entry(table=(1 << 63) - 4096),
    "no-entries": lambda i: i.entry(entries=0),
    "fewer-entries": lambda i: i.entry(entries=3),
    "more-entries": lambda i: i.entry(entries=5),
    "many-entries": lambda i: i.entry(entries=1 << 17),
    "too-many-entries": lambda i: i.entry(entries=(1 << 17) + 1),
    "most-entries": lambda i: i.entry(entries=(1 << 32) - 1),
    "in-use": lambda i: i.entry(flags=1),
    "in-use-auto": lambda i: i.entry(flags=3),
    "not-auto": lambda i: i.entry(flags=0),
    "unknown-flag": lambda i: i.entry(flags=4),
    "unknown-flags": lambda i: i.entry(flags=0xFFFFFFFE),
    "type-0": lambda i: i.entry(type=0),
    "type-2": lambda i: i.entry(type=2),
    "shift-8": lambda i: i.entry(shift=8),
    "shift-10": lambda i: i.entry(shift=10),
    "shift-31": lambda i: i.entry(shift=31),
    "shift-32": lambda i: i.entry(shift=32),
    "shift-255": lambda i: i.entry(shift=255),
    "no-name": lambda i: i.entry(name=0),
    "name-longer": lambda i: i.entry(name=8),
    "name-too-long": lambda i: i.entry(name=1024),
    "extra-data": lambda i: i.entry(extra=8),
    "extra-data-beyond": lambda i: i.entry(extra=(1 << 32) - 1),
    "twice-the-same": lambda i: i.name(b"c"),
    "name-is-zero": lambda i: i.name(b"\0"),
    "name-no-utf8": lambda i: i.name(b"\xff"),
    "ones": lambda i: i.table(0, 1),
    "all-ones": all_ones,
    "ones-at-the-end": lambda i: i.table(3, 1),
    "cluster-past-the-end": lambda i: i.table(1, 1 << 40),
    "cluster-far-off": lambda i: i.table(1, (1 << 56) - 4096),
    "cluster-unaligned": lambda i: i.table(1, 512),
    "cluster-and-ones": lambda i: i.table(1, 4097),
    "reserved-low": lambda i: i.table(1, 2),
    "reserved-high": lambda i: i.table(2, TOP),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_bitmaps_is_taken_as_by_qemu(both: Both, lie: str) -> None:
    def prepare(folder: Path) -> None:
        edited = Edited(folder)
        LIES[lie](edited)
        edited.path.write_bytes(edited.data)

    def script(daemon: Daemon) -> None:
        for read_only in (True, False):
            if "return" not in attach(daemon, read_only=read_only):
                continue
            names = bitmap_names(daemon)
            state(daemon, *names)
            daemon.execute("block_resize", node_name="disk", size=128 * MIB)
            for name in names[:1]:
                daemon.execute("block-dirty-bitmap-remove", node="disk", name=name)
            daemon("blockdev-del", node_name="disk")
            if "return" in attach(daemon):
                state(daemon, *bitmap_names(daemon))
                daemon("blockdev-del", node_name="disk")

    both(script, prepare=prepare)


def bitmap_names(daemon: Daemon) -> list[str]:
    """Return the names of the bitmaps of the only image."""
    (node,) = nodes(daemon)
    names = (bitmap["name"] for bitmap in node.get("dirty-bitmaps", ()))
    return [name for name in names if "\ufffd" not in name]  # which QMP cannot name


def test_a_program_without_bitmaps_makes_them_stale(both: Both) -> None:
    """The autoclear bit is gone: all bitmaps are dropped as soon as the image is written to."""

    def prepare(folder: Path) -> None:
        edited = Edited(folder)
        struct.pack_into(">Q", edited.data, 88, 0)
        edited.path.write_bytes(edited.data)

    def script(daemon: Daemon) -> None:
        for read_only in (True, False):
            attach(daemon, read_only=read_only)
            state(daemon)
            daemon("blockdev-del", node_name="disk")
        attach(daemon)
        daemon("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
        daemon("blockdev-del", node_name="disk")
        image("check", "-r", "leaks", "disk.qcow2", cwd=daemon.folder)
        stored(daemon)

    real, ours = both(script, prepare=prepare)
    assert [line.removeprefix("warning: ") for line in complaints(ours)][:1] == [
        line.removeprefix("warning: ") for line in complaints(real)
    ][:1]


def test_what_needs_repair_is_repaired_with_its_bitmaps(both: Both) -> None:
    def prepare(folder: Path) -> None:
        edited = Edited(folder)
        struct.pack_into(">Q", edited.data, 72, 1)
        edited.path.write_bytes(edited.data)

    def script(daemon: Daemon) -> None:
        attach(daemon)
        state(daemon, "b", "c")
        daemon.write("disk", 0, MIB, 1)
        detach(daemon)

    both(script, prepare=prepare)
