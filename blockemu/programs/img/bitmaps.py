"""Bitmaps of images: merging one into another, and the copies that ``convert`` makes."""

from collections.abc import Iterator
from typing import Any

from blockemu.commands.bitmaps import stage_add, stage_merge, stage_remove
from blockemu.dirty import DirtyBitmap
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.programs.img.program import Program
from blockemu.programs.img.refusals import Failed, Refusal
from blockemu.schema.bitmaps import BlockDirtyBitmap, BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
from blockemu.transaction import Transaction


class NoBitmaps(Refusal):
    """The source's format has none."""

    template = "Source lacks bitmap support"


class Inconsistent(Refusal):
    """(name)."""

    template = "Cannot copy inconsistent bitmap '{}'"


def merge(emu: Emulator, node: Node[Any], name: str, source: Node[Any], other: str) -> None:
    """Add to one bitmap what another has, of the same node or not; raises QmpError."""
    options = BlockDirtyBitmapMerge(
        node=node.name,
        target=name,
        bitmaps=[BlockDirtyBitmap(node=source.name, name=other)],
    )
    with Transaction() as transaction:
        stage_merge(emu, options, transaction)


def check_bitmaps(program: Program, source: Node[Any], *, skip_broken: bool) -> None:
    """See that bitmaps can be copied from an image (convert_check_bitmaps, qemu-img.c)."""
    if not source.supports_bitmaps:
        raise NoBitmaps
    for bitmap in _persistent(source):
        if bitmap.inconsistent and not skip_broken:
            hint = (
                f"Try --skip-broken-bitmaps, or use '{program.name} bitmap --remove' to delete it\n"
            )
            raise Inconsistent(bitmap.name, hint=hint)


async def copy_bitmaps(
    program: Program, source: Node[Any], target: Node[Any], *, skip_broken: bool
) -> None:
    """Let an image have another's bitmaps, too (convert_copy_bitmaps, qemu-img.c)."""
    for bitmap in _persistent(source):
        assert bitmap.name is not None
        if bitmap.inconsistent and skip_broken:
            program.warn(f"Skipping inconsistent bitmap '{bitmap.name}'")
            continue
        await _copy(program.emu, source, target, bitmap.name, bitmap)


async def _copy(
    emu: Emulator, source: Node[Any], target: Node[Any], name: str, bitmap: DirtyBitmap
) -> None:
    options = BlockDirtyBitmapAdd(
        node=target.name,
        name=name,
        granularity=bitmap.granularity,
        persistent=True,
        disabled=not bitmap.enabled,
    )
    try:
        with Transaction() as transaction:
            stage_add(emu, options, transaction)
    except QmpError as e:
        raise Failed(f"Failed to create bitmap {name}", e, hint=e.hint) from e
    try:
        merge(emu, target, name, source, name)
    except QmpError as e:
        with Transaction() as transaction:
            await stage_remove(emu, target.name, name, transaction)
        raise Failed(f"Failed to populate bitmap {name}", e, hint=e.hint) from e


def _persistent(node: Node[Any]) -> Iterator[DirtyBitmap]:
    for bitmap in list(node.bitmap_set or ()):
        if bitmap.persistent:
            yield bitmap
