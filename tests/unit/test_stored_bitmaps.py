"""What storing bitmaps does to an image's file."""

from pathlib import Path
from typing import Any

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
