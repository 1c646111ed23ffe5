"""What queries tell of a bitmap, in each profile's terms, through all of its states."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from compat.qcow2_images import create

from blockemu.testing import Running, running

STATES = ("active", "disabled", "frozen", "inconsistent")


async def attach(emu: Running, name: str, path: Path) -> None:
    file = {"driver": "file", "filename": str(path)}
    await emu.execute("blockdev-add", driver="qcow2", node_name=name, file=file)


async def told(emu: Running, name: str) -> Any:
    """Return what is told of a node's oldest bitmap."""
    nodes = await emu.execute("query-named-block-nodes")
    (node,) = (node for node in nodes if node["node-name"] == name)
    return node["dirty-bitmaps"][-1]


async def all_states(emu: Running, folder: Path) -> list[Any]:
    """Bring bitmaps into each state, in the order of ``STATES``."""
    path, crashed = folder / "disk.qcow2", folder / "crashed.qcow2"
    create(path, size=1 << 20)
    await attach(emu, "disk", path)
    await emu.execute("block-dirty-bitmap-add", node="disk", name="b", persistent=True)
    await emu.execute("blockdev-del", node_name="disk")
    await attach(emu, "disk", path)
    found = [await told(emu, "disk")]
    shutil.copyfile(path, crashed)
    await emu.execute("block-dirty-bitmap-disable", node="disk", name="b")
    found.append(await told(emu, "disk"))
    await emu.execute("blockdev-add", driver="null-co", node_name="target", size=1 << 20)
    await emu.execute(
        "blockdev-backup",
        {"job-id": "j", "device": "disk", "target": "target", "sync": "bitmap", "bitmap": "b"}
        | {"bitmap-mode": "never", "auto-finalize": False},
    )
    await emu.job("j", "pending")
    found.append(await told(emu, "disk"))
    await emu.execute("job-finalize", id="j")
    await attach(emu, "crashed", crashed)
    return [*found, await told(emu, "crashed")]


@pytest.mark.parametrize("profile", ["4.2", "5.2", "6.2", "7.2", "all"])
async def test_the_state_in_one_word_is_told_until_5_2(profile: str, tmp_path: Path) -> None:
    async with running(profile=profile) as emu:
        found = await all_states(emu, tmp_path)
    words = [bitmap.get("status") for bitmap in found]
    assert words == ([None] * 4 if profile in ("6.2", "7.2") else list(STATES))
    assert [bitmap["recording"] for bitmap in found] == [True, False, False, False]
    assert [bitmap["busy"] for bitmap in found] == [False, False, True, False]
    assert [bitmap["persistent"] for bitmap in found] == [True] * 4
    assert [bitmap.get("inconsistent") for bitmap in found] == [None, None, None, True]
