"""Random qcow2 images: the same requests by QEMU and by us, against plain bytes."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat.qcow2_images import check, planned_write, run

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.node import Write
from blockemu.perm import Perm

MOST = 4 << 20  # bytes of a disk
NOISE = random.Random(0).randbytes(40_000)  # does not compress


@dataclass(frozen=True)
class Op:
    """One request; ``kind`` is a key of COMMANDS, ``mode`` how a resize preallocates."""

    kind: str
    offset: int = 0
    length: int = 0
    pattern: int = 0
    mode: str = "off"


COMMANDS = {
    "write": "write -q -P {op.pattern} {op.offset} {op.length}",
    "noise": "write -q -s {noise} {op.offset} {op.length}",
    "packed": "write -q -c -P {op.pattern} {op.offset} {op.length}",
    "packed-noise": "write -q -c -s {noise} {op.offset} {op.length}",
    "zero": "write -q -z {op.offset} {op.length}",
    "unmap": "write -q -z -u {op.offset} {op.length}",
    "discard": "discard -q {op.offset} {op.length}",
    "flush": "flush",
    "truncate": "truncate -m {op.mode} {op.offset}",
}


@dataclass
class Case:
    """An image that is drawn: how it is made, and what shall be done to it.

    ``before`` is done by QEMU alone; then, maybe, a snapshot is taken; ``after`` is done by both.
    """

    rng: random.Random
    cluster_bits: int = 16
    old: bool = False  # version 2
    extended: bool = False
    data_file: bool = False
    options: dict[str, str] = field(default_factory=dict)
    caches: dict[str, Any] = field(default_factory=dict)  # of our node
    first_size: int = 0
    size: int = 0
    backing: bytes | None = None
    below: str = "raw"  # the backing file's format; a chain is qcow2 over qcow2 over VDI
    cut: int = 0  # bytes of the lower images of a chain
    snapshot: bool = False
    before: list[Op] = field(default_factory=list)
    after: list[Op] = field(default_factory=list)
    model: bytearray = field(default_factory=bytearray)
    touched: set[int] = field(default_factory=set)  # clusters that may be allocated
    packed: set[int] = field(default_factory=set)  # clusters that were compressed
    may_pack: bool = True
    neat: bool = True  # nothing was freed
    shrunk: bool = False  # then what is new shows old contents up to the next cluster

    @classmethod
    def draw(cls, seed: int) -> Case:
        case = cls(random.Random(seed))
        case._draw_format()
        case._draw_backing()
        case.before = [case._draw_op() for _ in range(case.rng.randrange(8))]
        narrow = case.options.get("refcount_bits") in ("1", "2", "4")
        case.snapshot = case.rng.random() < 0.2 and not narrow and not case.data_file
        case.after = [case._draw_op() for _ in range(case.rng.randrange(1, 12))]
        return case

    # How it is made

    def _draw_format(self) -> None:
        rng, options = self.rng, self.options
        self.cluster_bits = rng.choice([9, 9, 10, 12, 12, 14, 15, 16, 16, 16, 17, 21])
        options["cluster_size"] = str(1 << self.cluster_bits)
        self.old = rng.random() < 0.15
        most = min(MOST, 300 << self.cluster_bits)
        self.size = rng.randrange(1, most >> 9) << 9
        if rng.random() < 0.3:
            self.size = min(MOST, max(1, self.size >> self.cluster_bits) << self.cluster_bits)
        self.first_size = self.size
        if self.old:
            options["compat"] = "0.10"
        else:
            self._draw_features()
        if rng.random() < 0.25:
            options["preallocation"] = rng.choice(["metadata", "falloc", "full"])
            self._touch(0, self.size)
        if rng.random() < 0.3:
            entry = max(512, 1 << self.cluster_bits - 2)
            self.caches = {"l2-cache-size": 2 << self.cluster_bits, "l2-cache-entry-size": entry}

    def _draw_features(self) -> None:
        rng, options = self.rng, self.options
        self.extended = self.cluster_bits >= 14 and rng.random() < 0.4
        if self.extended:
            options["extended_l2"] = "on"
        options["refcount_bits"] = str(rng.choice([1, 2, 4, 8, 16, 16, 16, 32, 64]))
        options["compression_type"] = rng.choice(["zlib", "zstd"])
        options["lazy_refcounts"] = rng.choice(["on", "off", "off"])
        self.data_file = rng.random() < 0.2
        if self.data_file:
            options["data_file"] = "DATA"
            options["data_file_raw"] = rng.choice(["on", "off"])

    def _draw_backing(self) -> None:
        rng = self.rng
        raw_data = self.options.get("data_file_raw") == "on"
        preallocated = "preallocation" in self.options and not self.extended
        self.model = bytearray(self.size)
        if raw_data or preallocated or rng.random() < 0.6:
            return
        length = rng.choice([self.size, rng.randrange(1, 2 * self.size >> 9) << 9])
        words = rng.randbytes(3)
        self.backing = bytes(b for w in words for b in bytes([w]) * (length // 3 + 1))[:length]
        self.below = rng.choice(["raw", "qcow2", "vdi", "chain", "chain"])
        self.cut = rng.randrange(1, 2 * (length >> 9)) << 9
        some = self.backing[: self.size]
        self.model[: len(some)] = some

    # What is done to it

    def _draw_op(self) -> Op:
        kinds = list(COMMANDS)
        weights = [6, 2, 3, 1, 2, 2, 2, 1, 2]
        op = self._fit(self.rng.choices(kinds, weights)[0])
        self._apply(op)
        return op

    def _fit(self, kind: str) -> Op:
        rng, size = self.rng, self.size
        if kind.startswith("packed"):
            return self._untouched(kind) or Op("flush")
        if kind == "truncate":
            return self._resize()
        if kind == "flush":
            return Op(kind)
        cluster = 1 << self.cluster_bits
        align = rng.choice([1, 512, 4096, cluster // 32 or 1, cluster, cluster])
        offset = rng.randrange(size) // align * align
        most = rng.choice([1, 512, 4096, cluster // 32, cluster, 5 * cluster, 1 << 20])
        length = max(1, min(most, size - offset))
        return Op(kind, offset, length, rng.randrange(1, 255))

    def _untouched(self, kind: str) -> Op | None:
        """Compressed writes fail where anything is allocated already."""
        clusters = -(-self.size // (1 << self.cluster_bits))
        free = [i for i in range(clusters) if i not in self.touched]
        if self.data_file or not free or not self.may_pack:
            return None
        first = end = self.rng.choice(free)
        while end < min(clusters, first + self.rng.choice([1, 3, 20])) and end not in self.touched:
            end += 1
        offset = first << self.cluster_bits
        length = min(end << self.cluster_bits, self.size) - offset
        return Op(kind, offset, length, self.rng.randrange(1, 255))

    def _resize(self) -> Op:
        rng = self.rng
        length = rng.randrange(1, min(2 * self.size, MOST) >> 9 or 2) << 9
        grows = length > self.size
        modes = ["off", "metadata", "falloc", "full"]
        # Of what was freed QEMU shows the old contents where it preallocates again.
        mode = rng.choice(modes) if grows and self.neat else "off"
        below = len(self.backing or b"")
        if (self.old and (self.snapshot or below > self.size)) or (grows and self.shrunk):
            return Op("flush")
        return Op("truncate", length, mode=mode)

    def _touch(self, offset: int, end: int) -> set[int]:
        bits = self.cluster_bits
        clusters = set(range(offset >> bits, (end - 1 >> bits) + 1) if end > offset else ())
        self.touched |= clusters
        # QEMU goes on filling a cluster even if all in it was freed and others have it by now.
        self.may_pack = self.may_pack and not clusters & self.packed
        return clusters

    def _apply(self, op: Op) -> None:
        """Do it to the bytes."""
        end, cluster = op.offset + op.length, 1 << self.cluster_bits
        clusters = self._touch(op.offset, end)
        self.packed |= clusters if op.kind.startswith("packed") else set()
        self.neat = self.neat and op.kind in ("write", "noise", "flush")
        match op.kind:
            case "write" | "packed":
                self.model[op.offset : end] = bytes([op.pattern]) * op.length
            case "noise" | "packed-noise":
                self.model[op.offset : end] = noise(op.length)
            case "zero" | "unmap":
                self.model[op.offset : end] = bytes(op.length)
            case "discard":
                start = -(-op.offset // cluster) * cluster
                stop = end if end == self.size else end // cluster * cluster
                if stop > start and not (self.old and self.backing is not None):
                    self.model[start:stop] = bytes(stop - start)
            case "truncate":
                shows_backing = self.old and self.backing is not None
                if op.offset < self.size or op.mode != "off" or shows_backing:
                    low, high = sorted((op.offset, self.size))
                    self._touch(low // cluster * cluster, high)
                self.shrunk = self.shrunk or op.offset < self.size
                self.model[op.offset :] = bytes(max(0, op.offset - self.size))
                self.size = op.offset


def noise(length: int) -> bytes:
    return (NOISE * (length // len(NOISE) + 1))[:length]


@dataclass
class Pair:
    """A case as files: by QEMU in ``theirs``, continued by us in ``ours``."""

    case: Case
    folder: Path

    def __post_init__(self) -> None:
        for path in self.theirs, self.ours:
            path.parent.mkdir(parents=True)

    @property
    def theirs(self) -> Path:
        return self.folder / "theirs" / "disk.qcow2"

    @property
    def ours(self) -> Path:
        return self.folder / "ours" / "disk.qcow2"

    @property
    def prepared(self) -> list[Path]:
        """What QEMU prepares: one image to be copied; or both, since each has its data file."""
        return [self.theirs, self.ours] if self.case.data_file else [self.theirs]

    def create(self) -> None:
        case = self.case
        below: list[object] = []
        if case.backing is not None:
            self._make_backing(case.backing)
            fmt = "qcow2" if case.below == "chain" else case.below
            below = ["-b", self.folder / "base", "-F", fmt]
        for path in self.prepared:
            options = dict(case.options)
            if case.data_file:
                options["data_file"] = str(path.parent / "data")
            listed = ",".join(f"{name}={value}" for name, value in options.items())
            how = ["-q", "-f", "qcow2", "-o", listed, *below]
            run("qemu-img", "create", *how, path, case.first_size)

    def _make_backing(self, data: bytes) -> None:
        base, form = self.folder / "base", self.case.below
        if form == "raw":
            base.write_bytes(data)
            return
        raw = self.folder / "base.raw"
        raw.write_bytes(data)
        convert = ["qemu-img", "convert", "-f", "raw"]
        if form != "chain":
            run(*convert, "-O", form, raw, base)
            return
        # The lower ones are short or long, and do not hold what the one above them has itself.
        cut = self.case.cut
        part = self.folder / "part.raw"
        part.write_bytes((data + data)[:cut])
        run(*convert, "-O", "vdi", part, self.folder / "lowest")
        part.write_bytes(bytes(b ^ 255 for b in data[: cut // 3]) + (data + data)[cut // 3 : cut])
        over = ["-B", self.folder / "lowest", "-F", "vdi"]
        run(*convert, "-O", "qcow2", *over, part, self.folder / "middle")
        over = ["-B", self.folder / "middle", "-F", "qcow2"]
        run(*convert, "-O", "qcow2", *over, raw, base)

    def divide(self) -> None:
        """Take the snapshot; from here on ours goes its own way."""
        if self.case.snapshot:
            run("qemu-img", "snapshot", "-c", "one", self.theirs)
        if not self.case.data_file:
            shutil.copyfile(self.theirs, self.ours)

    async def carry_on(self, emulator: Emulator) -> None:
        """Do the rest by our driver; what it and QEMU made must read as it should."""
        case = self.case
        async with opened(emulator, self.ours, **case.caches) as backend:
            for op in case.after:
                await _do(backend, op, plans=case.rng.random() < 0.5)
            assert await contents(backend) == case.model
        for path in self.theirs, self.ours:
            async with opened(emulator, path, **{"read-only": True}) as backend:
                assert await contents(backend) == case.model, path

    def check(self) -> None:
        """Let QEMU see what we made."""
        check(self.ours)
        raw = self.folder / "model"
        raw.write_bytes(self.case.model)
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, self.ours)


def by_qemu(work: list[tuple[Path, list[Op]]], folder: Path) -> None:
    """Carry out requests on many images in one go."""
    source = folder / "noise"
    source.write_bytes(NOISE)
    lines = []
    for path, ops in work:
        lines.append(f"open -o driver=qcow2,discard=unmap {path}")
        lines += [COMMANDS[op.kind].format(op=op, noise=source) for op in ops]
        lines.append("close")
    argv = [part for line in lines for part in ("-c", line)]
    done = subprocess.run(["qemu-io", *argv], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), lines


@asynccontextmanager
async def opened(emulator: Emulator, path: Path, **more: Any) -> AsyncIterator[Backend]:
    """Open an image by our driver."""
    file = {"driver": "file", "filename": str(path)}
    options = {"driver": "qcow2", "discard": "unmap", "read-only": False, "file": file} | more
    node = await emulator.opener.open(options)
    backend = Backend("guest", Perm.CONSISTENT_READ if node.flags.read_only else Perm.ALL)
    emulator.graph.insert(backend, node)
    try:
        yield backend
    finally:
        await emulator.graph.remove(backend)


async def contents(backend: Backend) -> bytes:
    data = bytearray(backend.length)
    await backend.pread(0, data)
    return bytes(data)


async def _do(backend: Backend, op: Op, *, plans: bool) -> None:
    data = noise(op.length) if "noise" in op.kind else bytes([op.pattern]) * op.length
    match op.kind:
        case "write" | "noise":
            if not (plans and planned_write(backend, op.offset, memoryview(data))):
                await backend.pwrite(op.offset, data)
        case "packed" | "packed-noise":
            await backend.pwrite(op.offset, data, Write.COMPRESSED)
        case "zero" | "unmap":
            flags = Write.MAY_UNMAP if op.kind == "unmap" else 0
            await backend.write_zeroes(op.offset, op.length, flags)
        case "discard":
            await backend.discard(op.offset, op.length)
        case "flush":
            await backend.flush()
        case "truncate":
            await backend.truncate(op.offset, prealloc=op.mode)


async def exchange(seeds: range, folder: Path) -> None:
    """Make an image for each seed, and have both sides work on and read it."""
    pairs = [Pair(Case.draw(seed), folder / str(seed)) for seed in seeds]
    for pair in pairs:
        pair.create()
    by_qemu([(path, pair.case.before) for pair in pairs for path in pair.prepared], folder)
    for pair in pairs:
        pair.divide()
    by_qemu([(pair.theirs, pair.case.after) for pair in pairs], folder)
    emulator = Emulator()
    emulator.warnings = lambda text: None
    try:
        for seed, pair in zip(seeds, pairs, strict=True):
            try:
                await pair.carry_on(emulator)
                pair.check()
            except BaseException as e:
                e.add_note(f"seed {seed}: {pair.case}")
                raise
    finally:
        await emulator.close()
