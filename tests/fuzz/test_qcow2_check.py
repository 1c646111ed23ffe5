"""Images with random damage: a check ends, finds what qemu-img check finds, and repairs for good."""

from __future__ import annotations

import asyncio
import random
import struct
import subprocess
from pathlib import Path

import pytest
from compat.qcow2_checks import Verdict, ours, theirs
from compat.qcow2_images import Op, create, qemu_io, run
from hypothesis import given, settings
from hypothesis import strategies as st

from blockemu.check import Fix

SIZE = 4 << 20
IMAGES = (
    "cluster_size=512",
    "cluster_size=64k",
    "cluster_size=4k,refcount_bits=1",
    "cluster_size=4k,refcount_bits=64",
    "compat=0.10,cluster_size=4k",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=4k,DATA",
    "cluster_size=1k,lazy_refcounts=on",
)
SEEDS = st.integers(0, (1 << 32) - 1)
FEW = settings(max_examples=min(settings.default.max_examples, 20_000) // 2)
_SAID_BY_OPENING = ("a program lacking bitmap support", "Some clusters may be leaked")


@pytest.fixture(scope="module")
def images(tmp_path_factory, program) -> list[Path]:
    program("qemu-img")
    program("qemu-io")
    folder = tmp_path_factory.mktemp("images")
    return [_make(folder / f"{i}.qcow2", options) for i, options in enumerate(IMAGES)]


def _make(path: Path, options: str) -> Path:
    """Make an image with all kinds of clusters, a snapshot or a bitmap."""
    create(path, options, size=SIZE)
    ops = [Op("write", 0, 300 << 10, 1), Op("write", 1 << 20, 500 << 10, 2)]
    qemu_io(path, [*ops, Op("zero", 2 << 20, 128 << 10), Op("unmap", 1 << 20, 64 << 10)])
    if "DATA" not in options:
        pack = ["write -q -c 3M 64k", "write -q -c 3136k 64k"]
        run("qemu-io", "-f", "qcow2", "-c", pack[0], "-c", pack[1], path)
    if "lazy" in options:
        run("qemu-img", "bitmap", "--add", path, "b")
    elif "refcount_bits=1" not in options and "DATA" not in options:
        run("qemu-img", "snapshot", "-c", "one", path)
        qemu_io(path, [Op("write", 128 << 10, 300 << 10, 3)])
    return path


class Damage:
    """Changes words of an image's metadata, at random."""

    def __init__(self, data: bytearray, seed: int) -> None:
        self.data, self.rng = data, random.Random(seed)
        self.cluster = 1 << data[23]

    def word(self, at: int, code: str = "Q") -> int:
        if at + 8 > len(self.data):
            return 0
        return int(struct.unpack_from(f">{code}", self.data, at)[0])

    def place(self) -> int:
        """Return where a word of metadata is: in a table, a refcount block, the header."""
        rng, l1, reftable = self.rng, self.word(40), self.word(48)
        entries = min(self.word(36, "I"), 500) or 1
        places = [l1 + 8 * rng.randrange(entries), reftable + 8 * rng.randrange(4)]
        l2 = [self.word(l1 + 8 * i) & 0xFFFFFFFFFFFE00 for i in range(entries)]
        l2 = [host for host in l2 if host]
        if l2:
            places += [rng.choice(l2) + 8 * rng.randrange(self.cluster // 8)] * 4
            places += [rng.choice(l2) + 8 * rng.randrange(64)] * 4
        block = self.word(reftable) & ~511
        places += [block + 8 * rng.randrange(32), self.word(64) + 8 * rng.randrange(16)]
        return rng.choice([*places, 8 * rng.randrange(3, 14)])

    def change(self) -> None:
        """Change one word."""
        rng, at, size = self.rng, self.place(), self.cluster
        if at + 8 > len(self.data):
            return
        old = self.word(at)
        somewhere = rng.randrange(len(self.data) + 3 * size) // size * size
        new = rng.choice([
            old ^ 1 << rng.randrange(64),
            rng.getrandbits(64),
            old & ~0xFFFFFFFFFFFE00 | somewhere,
            0,
            old + rng.choice([512, size, -size, 1, -1]) & (1 << 64) - 1,
            self.word(self.place()),
            old ^ rng.choice([1 << 63, 1 << 62, 1, 3 << 62, 0x1FF]),
        ])  # fmt: skip
        struct.pack_into(">Q", self.data, at, new)

    def all(self) -> bytes:
        """Change some words, and now and then cut off the end."""
        for _ in range(self.rng.choice([1, 1, 1, 2, 3, 6])):
            self.change()
        if self.rng.random() < 0.1:
            del self.data[self.rng.randrange(self.cluster, len(self.data)) :]
        return bytes(self.data)


def damaged(images: list[Path], seed: int, folder: Path) -> Path:
    source = images[seed % len(images)]
    path = folder / "damaged.qcow2"
    path.write_bytes(Damage(bytearray(source.read_bytes()), seed).all())
    return path


def without_opening(verdict: Verdict) -> Verdict:
    """Leave out warnings, whose line ends differ."""
    lines = [line for line in verdict.lines if not any(s in line for s in _SAID_BY_OPENING)]
    return verdict._replace(lines=lines)


@FEW
@given(seed=SEEDS)
def test_a_check_of_a_damaged_image_finds_what_qemu_finds(images, tmp_path_factory, seed):
    path = damaged(images, seed, tmp_path_factory.getbasetemp())
    try:
        wanted = theirs(path, timeout=10)
    except subprocess.TimeoutExpired:
        wanted = None
    got = asyncio.run(ours(path))
    assert wanted is None or without_opening(got) == without_opening(wanted)


@FEW
@given(seed=SEEDS)
def test_what_a_repair_left_is_what_qemu_finds_then(images, tmp_path_factory, seed):
    path = damaged(images, seed, tmp_path_factory.getbasetemp())
    got = asyncio.run(ours(path, Fix.ALL))
    if not got.failure:
        assert got.numbers == theirs(path).numbers
