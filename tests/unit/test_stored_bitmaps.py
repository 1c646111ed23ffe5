"""What storing bitmaps does to an image's file."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compat.qcow2_images import check, create

from blockemu.dirty import bitmaps_of
from blockemu.emulator import Emulator
from blockemu.node import Node


async def attach(emu: Emulator, path: Path) -> Node[Any]:
    file = {"driver": "file", "filename": str(path)}
    node = await emu.opener.open({"driver": "qcow2", "file": file})
    node.monitor_owned = True
    return node


@pytest.mark.parametrize("cluster", [512, 4096, 65536])
async def test_an_image_that_is_opened_again_and_again_does_not_grow(
    cluster: int, tmp_path: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, f"cluster_size={cluster}", size=64 << 20)
    sizes = []
    emu = Emulator()
    for round_ in range(6):
        node = await attach(emu, path)
        if not round_:
            for number in range(40):  # so the directory has many clusters
                name = f"{number:0>100}"
                bitmap = bitmaps_of(node).add(name, 512, persistent=True)
                bitmap.bits.mark(number << 20, 20 << 20)
        await emu.graph.delete(node)
        sizes.append(path.stat().st_size)
        check(path)
    await emu.close()
    assert sizes[-1] <= sizes[2]  # old and new are there at the same time, but no more


async def test_clusters_are_loaded_wherever_they_lie(tmp_path: Path) -> None:
    path, cluster, length = tmp_path / "disk.qcow2", 4096, (1 << 30) + (5 << 20)
    create(path, f"cluster_size={cluster}", size=length)
    rng = np.random.default_rng(6)
    emu = Emulator()
    node = await attach(emu, path)
    bits = bitmaps_of(node).add("b", 512, persistent=True).bits
    covers = bits.serial_coverage(cluster)
    for entry in range(-(-length // covers)):
        if entry % 3:  # what lies in a row in the file does not in the table
            bits.mark(entry * covers + int(rng.integers(1000)) * 512, int(rng.integers(1, 1 << 20)))
    await emu.graph.delete(node)

    raw = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from(">Q", raw, raw.index(b"\x23\x85\x28\x75") + 24)
    offset, entries = struct.unpack_from(">QI", raw, directory)
    table = np.frombuffer(raw, ">u8", entries, offset)  # a view: what is changed in it is in raw
    used = np.flatnonzero(table)
    moved = rng.permutation(used[10:20])
    table[used[10:20]] = table[moved]
    table[[0, 3, 6, 30]] = 1  # all ones
    same = {0: bytes(cluster), 1: b"\xff" * cluster}
    expected = b"".join(same.get(at) or bytes(raw[at : at + cluster]) for at in table.tolist())
    path.write_bytes(raw)

    node = await attach(emu, path)
    (bitmap,) = bitmaps_of(node)
    assert bytes(bitmap.bits.bits) == expected[: len(bitmap.bits.bits)]
    assert bitmap.bits.count == int.from_bytes(expected, "little").bit_count()
    await emu.close()
    check(path)
