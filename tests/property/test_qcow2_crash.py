"""Whatever moment a crash comes at, the image is sound and what was flushed is there.

A long random workload goes to an image on a disk that records; then each state is looked at that a
crash may have left.  Leaks are allowed, and so is a copied flag that does not fit a refcount, as
long as no cluster that is shared has one: refcounts and flags do not lie in one sector, and QEMU
leaves such, too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from blockemu import snapshots
from blockemu.backend import Backend
from blockemu.check import CheckResult
from blockemu.commands.bitmaps import stage_add
from blockemu.crashes import Crash, RecordingDisk, crashes
from blockemu.drivers.qcow2 import writer
from blockemu.drivers.qcow2.check import check_refcounts
from blockemu.drivers.qcow2.check.references import References
from blockemu.drivers.qcow2.check.snapshot_table import check_snapshot_table
from blockemu.drivers.qcow2.check.storage import MemoryStorage, Structure, at_once
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.images.qcow2.bitmaps import parse_directory
from blockemu.images.qcow2.extensions import parse_extensions
from blockemu.images.qcow2.header import check_header, check_tables, parse_header
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Write
from blockemu.perm import Perm
from blockemu.schema.bitmaps import BlockDirtyBitmapAdd
from blockemu.transaction import Transaction

SIZE = 96 << 10
SECTOR = 512
BOUND = 8  # states for each point of the log
STEPS = 200
STATES = 2000  # at least, for each kind of image; there are over 20,000 in all
OFFSET = np.uint64(0x00FFFFFFFFFFFE00)
COPIED, COMPRESSED, ZERO = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1)
IMAGES: dict[str, dict[str, Any]] = {
    "tiny-clusters": {"cluster_bits": 9},
    "pages": {"cluster_bits": 12},
    "version-2": {"cluster_bits": 10, "version": 2},
    "wide-refcounts": {"cluster_bits": 9, "refcount_order": 6},
    "subclusters": {"cluster_bits": 14, "extended_l2": True},
    "bitmap": {"cluster_bits": 12},
}
FULL = {"full-table": {"cluster_bits": 9, "refcount_order": 6}}  # its table counts 4096 clusters
LEFT = 40  # of these are free
KINDS = {
    "write": 10,
    "zero": 4,
    "discard": 3,
    "flush": 3,
    "create": 1,
    "apply": 1,
    "delete": 1,
    "resize": 1,
}


@dataclass(repr=False)
class Promise:
    """What must be found from a point of the log on.

    ``disks``: what the disk held at the last flush, and since; each sector is in one of them.
    ``kept``: what snapshots hold, by id.  ``changing``: snapshots are being worked on.
    """

    at: int
    disks: list[bytes]
    kept: dict[str, bytes]
    changing: bool = False


@dataclass(repr=False)  # asyncio.run makes one of the result, for nothing
class Story:
    """A workload, the log that it left, and what was promised on the way.

    ``opened`` and ``end``: the image was in use from here on in the log, and up to there.
    """

    before: bytes
    disk: RecordingDisk
    promises: list[Promise] = field(default_factory=list)
    opened: int = 0
    end: int = 0


async def workload(kind: str, seed: int, steps: int) -> Story:
    """Do random things to a new image."""
    emulator, rng = Emulator(), random.Random(seed)
    before = new_image(SIZE, **(IMAGES | FULL)[kind])
    if kind == "bitmap":
        before = await with_bitmap(before)
    if kind == "full-table":
        before = await with_full_table(before)
    disk = RecordingDisk.add(emulator.graph, "disk", before, emulator)
    backend, node = await inserted(emulator)
    story = Story(before, disk, [Promise(0, [bytes(SIZE)], {})], len(disk.log))
    for _ in range(steps):
        await step(story, backend, node, rng)
    story.end = len(disk.log)
    await emulator.graph.remove(backend)
    await emulator.close()
    return story


async def inserted(emulator: Emulator) -> tuple[Backend, Any]:
    """Open the image on the disk, with a guest on it."""
    node = await emulator.opener.open(
        {
            "driver": "qcow2",
            "discard": "unmap",
            "read-only": False,
            "file": "disk",
            "node-name": "n",
        }
    )
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    return backend, node


async def with_bitmap(content: bytes) -> bytes:
    """Return an image with a bitmap stored in it."""
    emulator = Emulator()
    disk = RecordingDisk.add(emulator.graph, "disk", content, emulator)
    backend, _ = await inserted(emulator)
    with Transaction() as transaction:
        stage_add(emulator, BlockDirtyBitmapAdd(node="n", name="b", persistent=True), transaction)
    await emulator.graph.remove(backend)
    after = bytes(disk.content)
    await emulator.close()
    assert opened(bytearray(after)).structure.bitmaps is not None
    return after


async def with_full_table(content: bytes) -> bytes:
    """Return an image whose refcount table will soon be too small, since much was leaked."""
    emulator = Emulator()
    disk = RecordingDisk.add(emulator.graph, "disk", content, emulator)
    backend, node = await inserted(emulator)
    refcounts = node.image.refcounts
    end = len(refcounts.table) * refcounts.per - LEFT
    while refcounts.cursor < end:
        if refcounts.take(end - refcounts.cursor) is None:
            await node.image.ready()
    await emulator.graph.remove(backend)
    after = bytes(disk.content)
    await emulator.close()
    return after


async def step(story: Story, backend: Backend, node: Any, rng: random.Random) -> None:
    """Do one thing; note what may be found while it is done, and what must be from then on."""
    old = story.promises[-1]
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    taken = snapshots.listed(node)
    if (kind in ("apply", "delete") and not taken) or (kind == "create" and len(taken) > 3):
        kind = "flush"
    if kind == "apply" and node.image.bitmaps:
        kind = "flush"
    if kind == "resize" and (taken or node.image.bitmaps):
        kind = "write"
    at, log = len(story.disk.log), story.disk.log
    during = Promise(
        at, list(old.disks), dict(old.kept), changing=kind in ("create", "apply", "delete")
    )
    story.promises.append(during)
    offset = rng.randrange(backend.length // SECTOR) * SECTOR
    length = min(rng.choice([1, 2, 8, 20, 60]) * SECTOR, backend.length - offset)
    durable = False
    match kind:
        case "write":
            # What the disk will hold, sector by sector: not all of it may arrive.
            data = bytes([rng.randrange(1, 256)]) * length
            during.disks.append(changed(during.disks[-1], offset, data))
            await backend.pwrite(offset, data)
        case "zero":
            during.disks.append(changed(during.disks[-1], offset, bytes(length)))
            flags = rng.choice([Write.NONE, Write.MAY_UNMAP])
            await backend.write_zeroes(offset, length, flags)
        case "discard":
            during.disks.append(changed(during.disks[-1], offset, bytes(length)))
            await backend.discard(offset, length)
        case "flush":
            await backend.flush()
            durable = True
        case "create":
            new = Snapshot("", "s", 0, 0, 0, 0, 0, 0, 0, None)
            made = await snapshots.create(node, new)
            old = during
            during = Promise(
                len(log), [await held(backend)], old.kept | {made.id: await held(backend)}
            )
            story.promises.append(during)
        case "apply":
            chosen = rng.choice(taken)
            during.disks.append(during.kept[chosen.id])
            await snapshots.goto(node, chosen.id)
            durable = True
        case "delete":
            chosen = rng.choice(taken)
            del during.kept[chosen.id]
            await snapshots.delete(node, chosen.id, None)
        case "resize":
            sectors = rng.randrange(SIZE // SECTOR // 2, SIZE // SECTOR * 2)
            during.disks.append(during.disks[-1][: sectors * SECTOR].ljust(sectors * SECTOR, b"\0"))
            await backend.truncate(sectors * SECTOR)
            during.disks.append(await held(backend))  # a shrink may leave data in the last cluster
            durable = True
    now = await held(backend)
    disks = [now] if durable else [*during.disks, now]
    if len(disks) > 12:
        await backend.flush()
        disks = [now]
    story.promises.append(Promise(len(log), disks, during.kept))


def changed(disk: bytes, offset: int, data: bytes) -> bytes:
    return disk[:offset] + data + disk[offset + len(data) :]


async def held(backend: Backend) -> bytes:
    seen = bytearray(backend.length)
    await backend.pread(0, seen)
    return bytes(seen)


# Looking at what a crash left


@dataclass
class Found:
    """An image in memory, opened as the driver does."""

    storage: MemoryStorage
    structure: Structure
    extended: bool


def opened(content: bytearray) -> Found:
    storage = MemoryStorage(content)
    header = parse_header(bytes(content[:112]))
    check_header(header)
    check_tables(header)
    extensions = parse_extensions(content[: header.extensions_end], header)
    table = header.refcount_table_clusters << header.cluster_bits - 3
    structure = Structure(
        geometry=header.geometry(),
        length=header.size,
        l1=words(content, header.l1_table_offset, header.l1_size),
        l1_offset=header.l1_table_offset,
        reftable=words(content, header.refcount_table_offset, table),
        reftable_offset=header.refcount_table_offset,
        bitmaps=extensions.bitmaps,
    )
    return Found(storage, structure, header.extended_l2)


def words(content: bytearray, at: int, count: int) -> Any:
    """Return big-endian words; beyond the end are zeroes."""
    raw = bytes(content[at : at + count * 8]).ljust(count * 8, b"\0")
    return np.frombuffer(raw, ">u8").astype(np.uint64)


def guest_bytes(found: Found, l1: Any, length: int) -> bytes:
    """Return what a guest reads, by means that have nothing to do with the driver's."""
    geometry = found.structure.geometry
    size, per = geometry.cluster_size, geometry.subcluster_size
    content = np.frombuffer(bytes(found.storage.data).ljust(1, b"\0"), np.uint8)
    whole = np.zeros((-(-len(content) // size) + 1, size), np.uint8)
    whole.reshape(-1)[: len(content)] = content
    out = np.zeros((-(-length // size), size), np.uint8)
    width = 2 if found.extended else 1
    for index in np.flatnonzero(l1 & OFFSET).tolist():
        raw = whole[int(l1[index] & OFFSET) // size].view(">u8").astype(np.uint64)
        entries = raw[::width]
        assert not (entries & COMPRESSED).any()
        has = entries & OFFSET != 0
        if not found.extended:
            has &= entries & ZERO == 0
        at = np.flatnonzero(has[: max(0, len(out) - index * geometry.l2_size)])
        hosts = (entries[at] & OFFSET).astype(np.int64) // size
        rows = whole[np.minimum(hosts, len(whole) - 1)]
        if found.extended:
            allocated = raw[2 * at + 1][:, None] >> np.arange(32, dtype=np.uint64) & ZERO
            rows = rows * np.repeat(allocated.astype(np.uint8), per, axis=1)
        out[index * geometry.l2_size + at] = rows
    return out.tobytes()[:length].ljust(length, b"\0")


def look(story: Story, crash: Crash, promise: Promise, during: Promise) -> None:
    """Assert that what a crash left is sound, and keeps what was promised."""
    found = opened(crash.content)
    at_once(check_snapshot_table(found.storage, found.structure, 0))
    result = at_once(check_refcounts(found.storage, found.structure, 0))
    assert not result.check_errors
    wrong = [line for line in found.storage.lines if line.startswith("ERROR")]
    flags = [line for line in wrong if "OFLAG_COPIED" in line]
    assert wrong == flags, wrong
    if flags:
        check_shared(found)
    ext = found.structure.bitmaps
    if ext is not None and story.opened < crash.at <= story.end:
        raw = bytes(crash.content[ext.directory_offset :][: ext.directory_size])
        stored = parse_directory(raw, ext.nb_bitmaps, found.structure.length, 1 << 12)
        assert all(bitmap.in_use for bitmap in stored)
    length = found.structure.length
    sectors = np.frombuffer(guest_bytes(found, found.structure.l1, length), np.uint8)
    sectors = sectors.reshape(-1, SECTOR)
    good = np.zeros(len(sectors), np.bool_)
    for disk in {*promise.disks, *during.disks}:
        if len(disk) == length:
            want = np.frombuffer(disk, np.uint8).reshape(-1, SECTOR)
            good |= (want == sectors).all(axis=1)
    assert good.all(), np.flatnonzero(~good)
    have = {s.id: s for s in found.structure.snapshots}
    for ident, disk in promise.kept.items():
        if ident in during.kept:
            s = have[ident]
            raw = bytes(crash.content[s.l1_table_offset : s.l1_table_offset + s.l1_size * 8])
            l1 = np.frombuffer(raw, ">u8").astype(np.uint64)
            assert guest_bytes(found, l1, len(disk)) == disk


def check_shared(found: Found) -> None:
    """Assert that no cluster with a copied flag has two users."""
    structure = found.structure
    references = References(MemoryStorage(found.storage.data), structure, CheckResult(), 0)
    at_once(references.count())
    bits, width = structure.geometry.cluster_bits, 2 if found.extended else 1
    for entry in structure.l1[structure.l1 & OFFSET != 0].tolist():
        at = entry & int(OFFSET)
        raw = np.frombuffer(bytes(found.storage.data[at : at + (1 << bits)]), ">u8")
        entries = raw.astype(np.uint64)[::width]
        owned = entries[(entries & COPIED != 0) & (entries & OFFSET != 0)]
        hosts = (owned & OFFSET).astype(np.int64) >> bits
        assert (references.counts[hosts] <= 1).all()
        assert not entry >> 63 or references.counts[at >> bits] <= 1


def moments(story: Story, bound: int, seed: int) -> Iterator[tuple[Crash, Promise, Promise]]:
    """Yield crashes, with the promises that hold before and after the step they fell into."""
    at = 0
    for crash in crashes(story.before, story.disk.log, bound, random.Random(seed)):
        while at + 1 < len(story.promises) and story.promises[at + 1].at < crash.at:
            at += 1
        end = at
        while end + 1 < len(story.promises) and story.promises[end + 1].at <= crash.at:
            end += 1
        yield crash, story.promises[at], story.promises[end]


@pytest.mark.parametrize("kind", IMAGES)
def test_a_crash_leaves_a_sound_image_with_all_that_was_flushed(kind):
    story = asyncio.run(workload(kind, seed=1, steps=STEPS))
    states = 0
    for crash, promise, during in moments(story, BOUND, seed=2):
        look(story, crash, promise, during)
        states += 1
    assert states >= STATES


def test_a_crash_while_the_refcount_table_grows_leaves_a_sound_image():
    story = asyncio.run(workload("full-table", seed=1, steps=40))
    end = opened(bytearray(story.disk.content)).structure
    assert end.reftable_offset != opened(bytearray(story.before)).structure.reftable_offset
    for crash, promise, during in moments(story, 3, seed=2):
        look(story, crash, promise, during)


def test_a_crash_keeps_what_was_flushed_where_discarded_clusters_are_used_again(monkeypatch):
    monkeypatch.setattr(writer, "WORTH_FLUSH", 4 << 9)
    monkeypatch.setitem(KINDS, "flush", 0)
    monkeypatch.setitem(KINDS, "discard", 10)
    story = asyncio.run(workload("tiny-clusters", seed=3, steps=STEPS))
    for crash, promise, during in moments(story, 3, seed=4):
        look(story, crash, promise, during)


def test_there_are_more_than_twenty_thousand_states():
    total = 0
    for kind in IMAGES:
        story = asyncio.run(workload(kind, seed=1, steps=STEPS))
        total += sum(1 for _ in crashes(story.before, story.disk.log, BOUND, random.Random(2)))
    assert total > 20_000


def test_the_look_at_states_finds_what_is_wrong():
    story = asyncio.run(workload("tiny-clusters", seed=1, steps=20))
    last, promise = story.disk.content, story.promises[-1]
    look(story, Crash(len(story.disk.log), bytearray(last)), promise, promise)
    assert any(promise.disks[-1])
    lost = bytearray(last)
    for entry in opened(lost).structure.l1[:-1].tolist():
        at = entry & int(OFFSET)
        if at:
            lost[at : at + 512] = bytes(512)
    with pytest.raises(AssertionError):
        look(story, Crash(len(story.disk.log), lost), promise, promise)
    unsound = bytearray(last)
    table = opened(unsound).structure
    counts = int(table.reftable[0])
    unsound[counts : counts + 2] = bytes(2)
    with pytest.raises(AssertionError):
        look(story, Crash(len(story.disk.log), unsound), promise, promise)
