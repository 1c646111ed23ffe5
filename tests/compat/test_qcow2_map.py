"""The same requests leave our images as QEMU's own: contents, block status, soundness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compat.qcow2_images import Op, check, create, mapped, ours, qemu_io, random_ops, run, same

IMAGES = [
    "",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=4096",
    "cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=2",
    "refcount_bits=4",
    "refcount_bits=8",
    "refcount_bits=32",
    "cluster_size=512,refcount_bits=64",
    "lazy_refcounts=on",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,preallocation=metadata",
    "preallocation=metadata",
    "preallocation=falloc",
    "preallocation=full",
    "DATA",
    "DATA,data_file_raw=on",
    "DATA,extended_l2=on",
]
BACKED = [o for o in IMAGES if "raw" not in o and "prealloc" not in o]


@pytest.fixture
def base(tmp_path: Path, program: Callable[[str], str]) -> Callable[[str], Path]:
    """Make a backing file of a format, shorter than the disk."""
    program("qemu-img")
    program("qemu-io")

    def make(format_: str) -> Path:
        path = tmp_path / f"base.{format_}"
        run("qemu-img", "create", "-q", "-f", format_, path, "5M")
        commands = "write -P 7 64k 2M", "write -z 3M 1M", "write -P 3 4M 70k"
        run("qemu-io", "-f", format_, *(p for c in commands for p in ("-c", c)), path)
        return path

    return make


def both(
    folder: Path,
    options: str,
    ops: list[Op],
    prepare: Callable[[Path], object] | None = None,
    *,
    backing: Path | None = None,
) -> tuple[Path, Path]:
    theirs, mine = folder / "theirs.qcow2", folder / "ours.qcow2"
    for path in theirs, mine:
        create(path, options, backing=backing)
        if prepare is not None:
            prepare(path)
    qemu_io(theirs, ops)
    return theirs, mine


@pytest.mark.parametrize("options", IMAGES)
async def test_all_kinds_of_images_are_written_as_by_qemu(tmp_path, program, options):
    program("qemu-io")
    for plans in True, False:
        ops = random_ops(len(options) + plans, 25, whole="extended" in options)
        theirs, mine = both(tmp_path, options, ops)
        await ours(mine, ops, plans=plans)
        same(theirs, mine)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
@pytest.mark.parametrize("options", BACKED)
async def test_images_with_a_backing_file_are_written_as_by_qemu(tmp_path, base, options, format_):
    ops = random_ops(len(options) + 100, 25, whole="extended" in options)
    theirs, mine = both(tmp_path, options, ops, backing=base(format_))
    await ours(mine, ops)
    same(theirs, mine)


async def test_without_unmap_nothing_is_dropped(tmp_path, program):
    program("qemu-io")
    ops = random_ops(5, 40)
    theirs, mine = tmp_path / "theirs.qcow2", tmp_path / "ours.qcow2"
    for path in theirs, mine:
        create(path)
    qemu_io(theirs, ops, discard="ignore")
    await ours(mine, ops, discard="ignore")
    same(theirs, mine)


def with_snapshots(path: Path) -> None:
    ops = [Op("write", 0, 3 << 20, 1), Op("write", 5 << 20, 100 << 10, 2)]
    qemu_io(path, ops)
    run("qemu-img", "snapshot", "-c", "one", path)
    qemu_io(path, [Op("write", 1 << 20, 300 << 10, 3)])
    run("qemu-img", "snapshot", "-c", "two", path)


@pytest.mark.parametrize(
    "options",
    ["", "compat=0.10", "cluster_size=4k", "cluster_size=512,refcount_bits=64", "extended_l2=on"],
)
async def test_writing_leaves_internal_snapshots_alone(tmp_path, program, options):
    program("qemu-io")
    ops = random_ops(3, 40, whole="extended" in options)
    theirs, mine = both(tmp_path, options, ops, with_snapshots)
    await ours(mine, ops)
    same(theirs, mine)
    for name in "one", "two":
        flat = []
        for path in theirs, mine:
            out = tmp_path / "flat"
            run("qemu-img", "convert", "-l", name, "-f", "qcow2", "-O", "raw", path, out)
            flat.append(out.read_bytes())
        assert flat[0] == flat[1]


@pytest.mark.parametrize("extended", ["off", "on"])
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
async def test_compressed_clusters_are_read_and_overwritten(
    tmp_path, program, compression, extended
):
    program("qemu-io")
    source = tmp_path / "source.raw"
    run("qemu-img", "create", "-q", "-f", "raw", source, "8M")
    run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -P 4 3M 2M", source)

    def prepare(path: Path) -> None:
        options = f"compression_type={compression},extended_l2={extended}"
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source, path)

    ops = random_ops(8, 40, whole=extended == "on")
    theirs, mine = both(tmp_path, "", ops, prepare)
    await ours(mine, ops)
    same(theirs, mine)


async def test_space_freed_before_is_used_again(tmp_path, program):
    program("qemu-io")
    path = tmp_path / "ours.qcow2"
    create(path)
    qemu_io(path, [Op("write", 0, 6 << 20, 1), Op("discard", 64 << 10, 5 << 20)])
    size = path.stat().st_size
    await ours(path, [Op("write", 1 << 20, 4 << 20, 2), Op("flush")])
    check(path)
    assert path.stat().st_size == size


async def test_space_freed_now_is_used_again_after_a_flush(tmp_path, program):
    program("qemu-img")
    path = tmp_path / "ours.qcow2"
    create(path)
    one = [Op("write", 0, 2 << 20, 1), Op("flush")]
    await ours(path, [*one, *[Op("discard", 0, 2 << 20), Op("flush"), *one] * 5])
    check(path)
    assert path.stat().st_size < 3 << 20
    assert mapped(path)[0][:2] == (0, 2 << 20)
