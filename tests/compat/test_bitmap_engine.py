"""The bitmap engine against the real daemon: checksum and count after the same writes."""

import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, StorageDaemon

from blockemu.bitmaps.bitmap import Bitmap

MIB = 1 << 20
SIZES = (512, 64 * 65536, 64 * 65536 + 512, 10 * MIB + 1536, 40 << 30)
GRANULARITIES = (512, 4096, 65536, 2 * MIB, 1 << 31)


def patterns(size: int) -> list[list[tuple[int, int]]]:
    """Return lists of writes: none, all of a part, the ends, and many at random."""
    chance = random.Random(size)
    most = min(size, 8 * MIB)
    scattered = []
    for _ in range(60):
        offset = chance.randrange(size // 512) * 512
        scattered.append((offset, min(chance.choice((512, 4096, 100 * 512)), size - offset)))
    return [[], [(0, most)], [(0, 512), (size - 512, 512)], scattered]


def write(folder: Path, node: str, writes: list[tuple[int, int]]) -> None:
    """Write as a guest, over the daemon's NBD server."""
    commands = [part for at, n in writes for part in ("-c", f"write -q {at} {n}")]
    subprocess.run(
        ["qemu-io", "-f", "raw", *commands, f"nbd+unix:///{node}?socket={folder}/nbd.sock"],
        check=True, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def programs(program: Callable[[str], str]) -> None:
    """Skip without QEMU, or fail where nothing may be skipped."""
    program("qemu-storage-daemon")
    program("qemu-io")


@pytest.mark.parametrize("size", SIZES)
def test_checksum_count_and_merges_equal_the_real_daemons(size: int, tmp_path: Path) -> None:
    with StorageDaemon(tmp_path) as daemon:
        daemon("nbd-server-start", addr={"type": "unix", "data": {"path": f"{tmp_path}/nbd.sock"}})
        for number, writes in enumerate(patterns(size)):
            node = f"n{number}"
            daemon("blockdev-add", driver="null-co", node_name=node, size=size)
            daemon("block-export-add", type="nbd", id=node, node_name=node, writable=True)
            ours = {}
            for granularity in GRANULARITIES:
                name = str(granularity)
                daemon("block-dirty-bitmap-add", node=node, name=name, granularity=granularity)
                ours[name] = Bitmap(size, granularity)
                for offset, length in writes:
                    ours[name].mark(offset, length)
            if writes:
                write(tmp_path, node, writes)
            for one, other in itertools.permutations(list(ours), 2):
                merged = f"{one}+{other}"
                ours[merged] = Bitmap(size, int(one))
                ours[merged].merge(ours[other])
                add = {"node": node, "name": merged, "granularity": int(one), "disabled": True}
                daemon("block-dirty-bitmap-add", add)
                daemon("block-dirty-bitmap-merge", node=node, target=merged, bitmaps=[other])
            told = next(
                each["dirty-bitmaps"]
                for each in daemon("query-named-block-nodes", flat=True)
                if each["node-name"] == node
            )
            assert {each["name"]: each["count"] for each in told} == {
                name: bitmap.dirty_bytes for name, bitmap in ours.items()
            }
            for name, bitmap in ours.items():
                theirs = daemon("x-debug-block-dirty-bitmap-sha256", node=node, name=name)
                assert theirs == {"sha256": bitmap.sha256()}, (size, number, name)


def test_checksum_follows_a_resize(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(10 * MIB))
    ours = Bitmap(10 * MIB, 4096)
    with StorageDaemon(tmp_path) as daemon:
        daemon("nbd-server-start", addr={"type": "unix", "data": {"path": f"{tmp_path}/nbd.sock"}})
        file = {"driver": "file", "filename": str(image)}
        daemon("blockdev-add", driver="raw", node_name="n", file=file)
        daemon("block-dirty-bitmap-add", node="n", name="b", granularity=4096)
        daemon("block-export-add", type="nbd", id="n", node_name="n", writable=True)
        writes = [(0, 4096), (4 * MIB, 3 * MIB), (10 * MIB - 512, 512)]
        write(tmp_path, "n", writes)
        for offset, length in writes:
            ours.mark(offset, length)
        daemon("block-export-del", id="n", mode="hard")
        daemon.wait("BLOCK_EXPORT_DELETED")
        for size in (5 * MIB + 512, 5 * MIB, 900 * MIB, 0, 512):
            daemon("block_resize", node_name="n", size=size)
            ours.resize(size)
            theirs = daemon("x-debug-block-dirty-bitmap-sha256", node="n", name="b")
            assert theirs == {"sha256": ours.sha256()}, size
