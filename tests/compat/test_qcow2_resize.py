"""Resizing leaves our images as qemu-img resize does its own."""

from __future__ import annotations

import json
import subprocess

import pytest
from compat.qcow2_images import Op, check, create, guest, mapped, qemu_io, run, same

from blockemu.errors import QmpError
from blockemu.images.qcow2 import new_image

MEGA = 1 << 20
BEFORE = [
    Op("write", 500000, 2 * MEGA, 5),
    Op("write", 5 * MEGA + 3, 70000, 6),
    Op("write", 8190 << 10, 1000, 6),
]
SIZES = [
    (16 * MEGA, "off"),
    (16 * MEGA, "metadata"),
    (16 * MEGA, "falloc"),
    (16 * MEGA, "full"),
    (3 * MEGA, "off"),
    (MEGA + 512, "off"),
    (8 * MEGA, "off"),
    (300 << 30, "off"),
]


ODD = ["compat=0.10", "cluster_size=4k", "DATA"]
TRIED = [(o, s) for o in ("", "extended_l2=on") for s in SIZES]
TRIED += [(o, s) for o in ODD for s in SIZES[:2] + SIZES[4:5]]


@pytest.mark.parametrize(("options", "size"), TRIED)
async def test_resized_as_by_qemu(tmp_path, program, options, size):
    program("qemu-io")
    length, mode = size
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in theirs, mine:
        create(path, options, size=8191 << 10)
        qemu_io(path, BEFORE)
    how = "--shrink", f"--preallocation={mode}", "-f", "qcow2"
    run("qemu-img", "resize", "-q", *how, theirs, length)
    async with guest(mine) as (backend, _):
        await backend.truncate(length, prealloc=mode)
        assert backend.length == length
        await backend.pwrite(min(length, 16 * MEGA) - 600, b"\5" * 600)
    qemu_io(theirs, [Op("write", min(length, 16 * MEGA) - 600, 600, 5)])
    same(theirs, mine)


@pytest.mark.parametrize(
    ("old", "new", "mode"),
    [
        (5 * MEGA, 3000 * MEGA, "metadata"),
        (30 << 30, 33 << 30, "metadata"),
        (5 * MEGA, 15 * MEGA, "falloc"),
        (8 * MEGA, 12 * MEGA, "full"),
        (5 * MEGA, 700 * MEGA, "falloc"),
        (31 << 10, 96 << 10, "full"),
        (2000 << 10, 2080 << 10, "falloc"),
    ],
)
async def test_preallocated_where_qemu_does(tmp_path, program, old, new, mode):
    """The reference count table moves for data; each L2 table comes before what it maps."""
    program("qemu-img")
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in theirs, mine:
        create(path, "", size=old)
    run("qemu-img", "resize", "-q", f"--preallocation={mode}", "-f", "qcow2", theirs, new)
    async with guest(mine) as (backend, _):
        await backend.truncate(new, prealloc=mode)
    run("cmp", mine, theirs)


@pytest.mark.parametrize("options", ["", "extended_l2=on"])
@pytest.mark.parametrize("mode", ["falloc", "full"])
@pytest.mark.parametrize(("old", "new"), [(31, 96), (33, 60), (2000, 2080), (2000, 2016)])
@pytest.mark.parametrize("written", [0, 16])
async def test_what_is_preallocated_begins_with_the_last_cluster_so_far(
    tmp_path, program, options, mode, old, new, written
):
    """That moves to where the file has room for all of it, with what it holds."""
    program("qemu-img")
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in theirs, mine:
        create(path, options, size=old << 10)
        if written:
            qemu_io(path, [Op("write", (old - written) << 10, written << 10, 5)])
    size = new << 10
    run("qemu-img", "resize", "-q", f"--preallocation={mode}", "-f", "qcow2", theirs, size)
    async with guest(mine) as (backend, _):
        await backend.truncate(size, prealloc=mode)
        taken = mine.stat().st_blocks
        await backend.pwrite(old << 10, b"\6" * (size - (old << 10)))
        await backend.flush()
        assert mine.stat().st_blocks == taken
    qemu_io(theirs, [Op("write", old << 10, size - (old << 10), 6)])
    same(theirs, mine)


@pytest.mark.parametrize("options", ["", "compat=0.10"])
async def test_refused_as_by_qemu(tmp_path, program, options):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, options)
    async with guest(path) as (backend, _):
        for length, mode, text in (
            (1 << 60, "off", "Failed to grow the L1 table: File too large"),
            (MEGA, "falloc", "Preallocation can't be used for shrinking an image"),
            (MEGA + 1, "off", "The new size must be a multiple of 512"),
            (9 * MEGA, "some", "Unsupported preallocation mode 'some'"),
        ):
            with pytest.raises(QmpError, match=text.replace("(", ".")):
                await backend.truncate(length, prealloc=mode)
    assert json.loads(run("qemu-img", "info", "--output=json", path))["virtual-size"] == 8 * MEGA


async def test_version_2_with_snapshots_is_not_resized(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path, "compat=0.10")
    run("qemu-img", "snapshot", "-c", "one", path)
    async with guest(path) as (backend, _):
        with pytest.raises(QmpError, match="Can't resize a v2 image which has snapshots"):
            await backend.truncate(16 * MEGA)


async def test_what_is_new_reads_as_zeroes_whatever_was_there(tmp_path, program):
    """QEMU shows what it finds in clusters used before; that is nothing to imitate."""
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path, "cluster_size=512", size=8191 << 10)
    qemu_io(path, BEFORE)
    async with guest(path) as (backend, _):
        await backend.truncate(16 * MEGA, prealloc="metadata")
        data = bytearray(16 * MEGA - (8191 << 10))
        await backend.pread(8191 << 10, data)
        assert not any(data)


@pytest.mark.parametrize("options", ["", "extended_l2=on", "compat=0.10", "DATA"])
@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
async def test_a_backing_file_does_not_show_in_what_is_new(tmp_path, program, options, mode):
    """The disk ends amid a cluster that is not allocated; the backing file goes on."""
    program("qemu-img")
    base = tmp_path / "base.raw"
    base.write_bytes(b"\7" * (400 << 10))
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in theirs, mine:
        create(path, options, backing=base, size=70 << 10)
    resize = ["qemu-img", "resize", "-q", "-f", "qcow2", f"--preallocation={mode}"]
    done = subprocess.run([*resize, theirs, str(300 << 10)], capture_output=True, text=True)
    async with guest(mine) as (backend, _):
        said = ""
        try:
            await backend.truncate(300 << 10, prealloc=mode)
        except QmpError as e:
            said = f"qemu-img: {e}\n"
    assert done.stderr == said
    check(mine)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", theirs, mine)
    if options != "extended_l2=on":  # QEMU copies more than it must
        assert mapped(mine) == mapped(theirs)


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize(
    ("header", "options"),
    [
        ({}, ""),
        ({"cluster_bits": 12}, "cluster_size=4k"),
        ({"extended_l2": True}, "extended_l2=on"),
        ({"version": 2}, "compat=0.10"),
    ],
)
async def test_an_empty_image_that_grows_is_as_one_made_preallocated(
    tmp_path, program, header, options, mode
):
    program("qemu-img")
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for size in 700 << 10, 9 << 20:
        create(theirs, ",".join(filter(None, (options, f"preallocation={mode}"))), size=size)
        mine.write_bytes(new_image(0, **header))
        async with guest(mine) as (backend, _):
            await backend.truncate(size, prealloc=mode)
        same(theirs, mine)
        # QEMU has the last cluster last, and of that only the subclusters that the disk needs.
        more = mine.stat().st_size - theirs.stat().st_size
        assert 0 <= more < 65536 if "extended" in options else more == 0
