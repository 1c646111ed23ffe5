"""Images whose refcounts were left wrong: opening them for writing sets all right."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from compat.qcow2_images import Op, check, create, guest, qemu_io, run

DIRTY_AT = 72
IMAGES = ["", ",cluster_size=512", ",extended_l2=on", ",refcount_bits=64,cluster_size=4k"]


def flags(path: Path) -> int:
    return int(struct.unpack_from(">Q", path.read_bytes(), DIRTY_AT)[0])


def killed(path: Path) -> None:
    """Write to an image with lazy refcounts and die."""
    commands = [
        "write -P 5 1M 4M",
        "write -P 6 7M 300k",
        "flush",
        "discard 2M 1M",
        "flush",
        "abort",
    ]
    arguments = [part for c in commands for part in ("-c", c)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, path], capture_output=True)


def scrambled(path: Path) -> None:
    """Let refcounts say anything, and the header that they may."""
    qemu_io(path, [Op("write", 1 << 20, 4 << 20, 5), Op("write", 7 << 20, 300 << 10, 6)])
    data, rng = bytearray(path.read_bytes()), random.Random(1)
    table = struct.unpack_from(">Q", data, 48)[0]
    block = struct.unpack_from(">Q", data, table)[0]
    for _ in range(20):
        data[block + rng.randrange(200)] ^= rng.randrange(256)
    struct.pack_into(">Q", data, DIRTY_AT, flags(path) | 1)
    path.write_bytes(data)


def without_block(path: Path) -> None:
    """Lose the first refcount block."""
    scrambled(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">Q", data, struct.unpack_from(">Q", data, 48)[0], 0)
    path.write_bytes(data)


def with_snapshot(path: Path) -> None:
    qemu_io(path, [Op("write", 0, 3 << 20, 1)])
    run("qemu-img", "snapshot", "-c", "one", path)
    killed(path)


@pytest.mark.parametrize("damage", [killed, scrambled, without_block, with_snapshot])
@pytest.mark.parametrize("options", IMAGES)
async def test_a_dirty_image_is_repaired_when_opened(tmp_path, program, options, damage):
    program("qemu-io")
    path, copy = tmp_path / "ours.qcow2", tmp_path / "copy.qcow2"
    create(path, "lazy_refcounts=on" + options)
    damage(path)
    assert flags(path) & 1
    copy.write_bytes(path.read_bytes())
    async with guest(path) as (backend, node):
        assert node.image_info()["dirty-flag"] is False
        await backend.pwrite(6 << 20, b"z" * 100000)
    assert not flags(path) & 1
    check(path, leaks=damage is scrambled)  # what is said beyond the file's end stays, as in QEMU
    qemu_io(copy, [Op("write", 6 << 20, 100000, ord("z"))])
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, copy)


async def test_a_dirty_image_may_be_read_as_it_is(tmp_path, program):
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path, "lazy_refcounts=on")
    killed(path)
    before = path.read_bytes()
    async with guest(path, **{"read-only": True}) as (backend, node):
        assert node.image_info()["dirty-flag"] is True
        data = bytearray(4096)
        await backend.pread(1 << 20, data)
        assert data == b"\5" * 4096
    assert path.read_bytes() == before


async def test_lazy_refcounts_leave_the_image_dirty_until_it_is_closed(tmp_path, program):
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path, "lazy_refcounts=on")
    async with guest(path) as (backend, _):
        await backend.pwrite(0, b"x" * 4096)
        await backend.flush()
        assert flags(path) & 1
    assert not flags(path) & 1
    check(path)
