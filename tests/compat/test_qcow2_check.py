"""Checking and repairing images: the same lines, numbers and bytes as qemu-img check has."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.qcow2_bytes import Bytes
from compat.qcow2_checks import compare, ours, theirs
from compat.qcow2_images import Op, create, qemu_io, run

from blockemu.check import Fix

COPIED = 1 << 63
IMAGES = {
    "plain": "",
    "small-clusters": "cluster_size=512",
    "version-2": "compat=0.10,cluster_size=4k",
    "one-bit-refcounts": "cluster_size=4k,refcount_bits=1",
    "wide-refcounts": "cluster_size=4k,refcount_bits=64",
    "subclusters": "cluster_size=16k,extended_l2=on",
    "data-file": "cluster_size=4k,DATA",
}


DAMAGE = {
    "nothing": lambda b: None,
    "leak": lambda b: b.poke(b.l2, 0),
    "cluster-used-twice": lambda b: b.poke(b.l2 + 16, b.word(b.l2)),
    "data-over-l1": lambda b: b.poke(b.l2, COPIED | b.l1),
    "data-unaligned": lambda b: b.poke(b.l2, b.word(b.l2) + 512),
    "zeroes-unaligned": lambda b: b.poke(b.l2, b.word(b.l2) + 513),
    "data-outside": lambda b: b.poke(b.l2, COPIED | 1 << 40),
    "run-past-the-last-offset": lambda b: (
        b.poke(b.l2, COPIED | (1 << 56) - b.cluster),
        b.poke(b.l2 + 8, COPIED | 1 << 56),
    ),
    "all-unaligned-in-a-run": lambda b: [
        b.poke(b.l2 + 8 * i, COPIED | 512 + (9 + i) * b.cluster) for i in range(4)
    ],
    "not-copied": lambda b: b.poke(b.l2, b.word(b.l2) & ~COPIED),
    "reserved-bits": lambda b: b.poke(b.l2, b.word(b.l2) | 1 << 60 | 2),
    "compressed-copied": lambda b: b.poke(b.l2, 3 << 62 | 5 * b.cluster),
    "l2-table-itself": lambda b: b.poke(b.l1, COPIED | b.l1),
    "l2-table-unaligned": lambda b: b.poke(b.l1, b.word(b.l1) + 512),
    "l2-table-outside": lambda b: b.poke(b.l1, COPIED | 1 << 50),
    "l1-reserved-bits": lambda b: b.poke(b.l1, b.word(b.l1) | 1 << 61),
    "l1-outside": lambda b: b.poke(40, 1 << 50),
    "refcount-block-missing": lambda b: b.poke(b.reftable, 0),
    "refcount-block-unaligned": lambda b: b.poke(b.reftable, b.word(b.reftable) + 512),
    "refcount-block-outside": lambda b: b.poke(b.reftable + 8, 1 << 24),
    "refcount-block-far-outside": lambda b: b.poke(b.reftable + 8, 1 << 62),
    "refcount-block-reserved-bits": lambda b: b.poke(b.reftable, b.word(b.reftable) | 8),
    "refcount-block-twice": lambda b: b.poke(b.reftable + 8, b.word(b.reftable)),
    "refcount-block-is-data": lambda b: b.poke(b.reftable, b.word(b.l2) & 0xFFFFFFFFFE00),
    "refcounts-wrong": lambda b: b.poke(b.word(b.reftable), 0x0001_0002_0000_0001),
    "refcounts-beyond-the-end": lambda b: b.poke(b.word(b.reftable) + b.cluster - 8, 1),
    "refcount-table-outside": lambda b: b.poke(48, 1 << 50),
    "refcount-table-is-l1": lambda b: b.poke(48, b.l1),
    "snapshots-outside": lambda b: b.poke(64, 1 << 50),
}


def make(path: Path, options: str) -> None:
    """Make an image with a bit of everything."""
    create(path, options, size=4 << 20)
    ops = [Op("write", 0, 300 << 10, 1), Op("write", 1 << 20, 500 << 10, 2)]
    qemu_io(path, [*ops, Op("zero", 2 << 20, 128 << 10), Op("unmap", 1 << 20, 64 << 10)])
    if "data_file" not in options and "DATA" not in options:
        run(
            "qemu-io",
            "-f",
            "qcow2",
            "-c",
            "write -q -c 3M 64k",
            "-c",
            "write -q -c 3136k 64k",
            path,
        )
    if "refcount_bits=1" not in options and "DATA" not in options:
        run("qemu-img", "snapshot", "-c", "one", path)
        qemu_io(path, [Op("write", 128 << 10, 300 << 10, 3)])


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("options", ["plain", "version-2", "wide-refcounts", "data-file"])
async def test_a_check_finds_what_qemu_finds(tmp_path, program, options, damage):
    program("qemu-img")
    path = tmp_path / "image.qcow2"
    make(path, IMAGES[options])
    DAMAGE[damage](Bytes(path))
    wanted, got = await compare(path)
    assert got == wanted


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("options", ["small-clusters", "subclusters"])
@pytest.mark.parametrize("fix", [Fix.LEAKS, Fix.ALL])
async def test_a_repair_does_what_qemu_does(tmp_path, program, options, damage, fix):
    program("qemu-img")
    path = tmp_path / "image.qcow2"
    make(path, IMAGES[options])
    DAMAGE[damage](Bytes(path))
    if damage == "snapshots-outside" and fix == Fix.ALL:
        return  # QEMU meets the file system's limits on the way, and makes things worse
    wanted, got = await compare(path, fix)
    assert got == wanted
    if wanted.failure:
        return  # given up halfway
    assert path.with_suffix(".ours").read_bytes() == path.with_suffix(".theirs").read_bytes()


async def test_a_check_of_what_was_written_by_us_finds_nothing(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "image.qcow2"
    make(path, "")
    assert (await ours(path)).lines == theirs(path).lines == []
