"""Bitmap commands in steps: what is taken back when a transaction is aborted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from compat.qcow2_images import create

from blockemu.commands.bitmaps import (
    stage_add,
    stage_clear,
    stage_enabled,
    stage_merge,
    stage_remove,
)
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.find_bitmap import find_bitmap
from blockemu.schema.bitmaps import BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
from blockemu.transaction import Transaction

MIB = 1 << 20


@pytest.fixture
async def emu(tmp_path: Path) -> AsyncIterator[Emulator]:
    """An emulator with a disk, which can store bitmaps and has ``a``, with a bit set, and ``b``."""
    create(tmp_path / "disk.qcow2", size=MIB)
    emu = Emulator()
    file = {"driver": "file", "filename": str(tmp_path / "disk.qcow2")}
    node = await emu.opener.open({"driver": "qcow2", "node-name": "disk", "file": file})
    node.monitor_owned = True
    for name in "ab":
        options = BlockDirtyBitmapAdd(node="disk", name=name, persistent=True)
        stage_add(emu, options, Transaction())
    _, bitmap = find_bitmap(emu.graph.lookup, "disk", "a")
    bitmap.bits.mark(0, 1)
    yield emu
    await emu.close()


def state(emu: Emulator) -> list[tuple[str | None, int, bool, bool, bool]]:
    bitmaps = emu.graph.find("disk").bitmap_set
    assert bitmaps is not None
    return [(b.name, b.bits.count, b.enabled, b.busy, b.stored) for b in bitmaps]


async def everything(emu: Emulator, transaction: Transaction) -> None:
    stage_add(emu, BlockDirtyBitmapAdd(node="disk", name="c"), transaction)
    merge = BlockDirtyBitmapMerge(node="disk", target="c", bitmaps=["a"])
    stage_merge(emu, merge, transaction)
    stage_merge(emu, BlockDirtyBitmapMerge(node="disk", target="b", bitmaps=["c"]), transaction)
    stage_clear(emu, "disk", "a", transaction)
    stage_enabled(emu, "disk", "a", transaction, value=False)
    stage_enabled(emu, "disk", "b", transaction, value=True)
    await stage_remove(emu, "disk", "a", transaction)


async def test_an_abort_takes_back_all_that_was_done(emu: Emulator) -> None:
    before, transaction = state(emu), Transaction()
    await everything(emu, transaction)
    assert state(emu) == [
        ("c", 1, True, False, False),
        ("b", 1, True, False, True),
        ("a", 0, False, True, False),
    ]
    transaction.abort()
    assert state(emu) == before


async def test_a_commit_makes_it_final(emu: Emulator) -> None:
    with Transaction() as transaction:
        await everything(emu, transaction)
    assert state(emu) == [("c", 1, True, False, False), ("b", 1, True, False, True)]


async def test_a_bitmap_about_to_be_removed_is_busy(emu: Emulator) -> None:
    transaction = Transaction()
    await stage_remove(emu, "disk", "a", transaction)
    with pytest.raises(QmpError, match="Bitmap 'a' is currently in use by another operation"):
        stage_clear(emu, "disk", "a", transaction)
    transaction.abort()


async def test_a_merge_with_one_unfit_source_merges_nothing(emu: Emulator) -> None:
    merge = BlockDirtyBitmapMerge(node="disk", target="b", bitmaps=["a", "absent"])
    with pytest.raises(QmpError, match="Dirty bitmap 'absent' not found"):
        stage_merge(emu, merge, Transaction())
    assert [row[1] for row in state(emu)] == [0, 1]
