"""The transaction actions on dirty bitmaps (after block_dirty_bitmap_*_prepare, blockdev.c)."""

from typing import Any

from blockemu.commands import bitmaps
from blockemu.commands.actions import Action
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.find_bitmap import find_bitmap
from blockemu.node import Node
from blockemu.schema.bitmaps import BlockDirtyBitmap, BlockDirtyBitmapAdd, BlockDirtyBitmapMerge
from blockemu.transaction import Transaction


class BitmapAction(Action):
    """A step that is done at once and notes how to take it back."""

    def __init__(self, emu: Emulator) -> None:
        super().__init__(emu)
        self.transaction = Transaction()

    async def commit(self) -> None:
        """Make it final."""
        self.transaction.commit()

    async def abort(self) -> None:
        """Take it back."""
        self.transaction.abort()


class _OnBitmap(BitmapAction):
    """A step for one bitmap that exists."""

    def __init__(self, emu: Emulator, options: BlockDirtyBitmap) -> None:
        super().__init__(emu)
        self.bitmap = (emu, options.node, options.name, self.transaction)


class AddBitmap(BitmapAction):
    """block-dirty-bitmap-add."""

    kind = "block-dirty-bitmap-add"

    def __init__(self, emu: Emulator, options: BlockDirtyBitmapAdd) -> None:
        super().__init__(emu)
        self.options = options

    async def prepare(self) -> None:
        """Make the bitmap."""
        await bitmaps.settle(bitmaps.stage_add(self.emu, self.options, self.transaction))


class RemoveBitmap(_OnBitmap):
    """block-dirty-bitmap-remove."""

    kind = "block-dirty-bitmap-remove"

    async def prepare(self) -> None:
        """Take it out of the image, but not away: it may be wanted back."""
        await bitmaps.stage_remove(*self.bitmap)


class ClearBitmap(_OnBitmap):
    """block-dirty-bitmap-clear."""

    kind = "block-dirty-bitmap-clear"

    async def prepare(self) -> None:
        """Make it clean."""
        bitmaps.stage_clear(*self.bitmap)


class MergeBitmap(BitmapAction):
    """block-dirty-bitmap-merge."""

    kind = "block-dirty-bitmap-merge"

    def __init__(self, emu: Emulator, options: BlockDirtyBitmapMerge) -> None:
        super().__init__(emu)
        self.options = options

    async def prepare(self) -> None:
        """Merge all sources."""
        bitmaps.stage_merge(self.emu, self.options, self.transaction)


class _Recording(_OnBitmap):
    """A step that lets a bitmap record writes, or not."""

    value: bool

    async def prepare(self) -> None:
        """Set it."""
        node: Node[Any] = bitmaps.stage_enabled(*self.bitmap, value=self.value)
        await bitmaps.settle(node)


class EnableBitmap(_Recording):
    """block-dirty-bitmap-enable."""

    kind = "block-dirty-bitmap-enable"
    value = True

    async def prepare(self) -> None:
        """Set it.

        QEMU takes back what it has not done: one that may not be used is disabled from then on.
        """
        emu, node, name, transaction = self.bitmap
        _, bitmap = find_bitmap(emu.graph.lookup, node, name)
        try:
            await super().prepare()
        except QmpError:
            transaction.on_abort(lambda: setattr(bitmap, "enabled", False))
            raise


class DisableBitmap(_Recording):
    """block-dirty-bitmap-disable."""

    kind = "block-dirty-bitmap-disable"
    value = False
