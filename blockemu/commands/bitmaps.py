"""block-dirty-bitmap-* and the checksum that tests ask for.

What a command does is a function of its own, ``stage_…``, which takes a ``Transaction``: it does
its work at once and notes how to take it back, so that `transaction` can do several.
"""

import errno
import os
from typing import Any

from blockemu.commands.context import Context
from blockemu.dirty import (
    ALLOW_INCONSISTENT,
    ALLOW_READONLY,
    MIN_GRANULARITY,
    BitmapInfo,
    DirtyBitmap,
    StoresBitmaps,
    bitmaps_of,
    default_granularity,
)
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.find_bitmap import bitmap_on, find_bitmap
from blockemu.node import Node
from blockemu.qmp_server.dispatch import command
from blockemu.schema.bitmaps import (
    BlockDirtyBitmapAdd,
    BlockDirtyBitmapMerge,
    BlockDirtyBitmapSha256,
    BlockDirtyInfo,
    DirtyBitmapStatus,
)
from blockemu.transaction import Transaction


class NamelessBitmap(QmpError):
    """Only jobs' own bitmaps have no name."""

    template = "Bitmap name cannot be empty"


class BadGranularity(QmpError):
    """A bit cannot stand for so many bytes."""

    template = "Granularity must be power of 2 and at least 512"


class CannotStore(QmpError):
    """The format has no place for bitmaps."""

    template = "Can't store persistent bitmaps to {}: {}"


def stage_add(emu: Emulator, options: BlockDirtyBitmapAdd, transaction: Transaction) -> Node[Any]:
    """Make a bitmap, and return its node (after qmp_block_dirty_bitmap_add).

    Writes planned before do not know it: see ``settle``.
    """
    if not options.name:
        raise NamelessBitmap
    node = emu.graph.lookup(options.node)
    granularity = options.granularity
    if granularity is None:
        granularity = default_granularity(node.cluster_size)
    elif granularity < MIN_GRANULARITY or granularity & (granularity - 1):
        raise BadGranularity
    if options.persistent:
        if not isinstance(node, StoresBitmaps):
            raise CannotStore(node.title, os.strerror(errno.ENOTSUP))
        node.can_store_bitmap(options.name, granularity)
    added = bitmaps_of(node).add(
        options.name,
        granularity,
        enabled=not options.disabled,
        persistent=bool(options.persistent),
    )
    transaction.on_abort(added.release)
    return node


async def stage_remove(
    emu: Emulator, node_name: str, name: str, transaction: Transaction
) -> Node[Any]:
    """Drop a bitmap from its image at once, and from memory in the end; return its node.

    An abort leaves it in memory only, from where it is stored again when the image is closed.
    """
    node, bitmap = find_bitmap(emu.graph.lookup, node_name, name)
    bitmap.check(ALLOW_INCONSISTENT)
    if bitmap.stored and isinstance(node, StoresBitmaps):
        await node.remove_stored_bitmap(name)
    _hide(bitmap, True)

    def release() -> None:
        _hide(bitmap, False)
        bitmap.release()

    transaction.on_commit(release)
    transaction.on_abort(lambda: _hide(bitmap, False))
    return node


def _hide(bitmap: DirtyBitmap, value: bool) -> None:
    """Let nobody use or store a bitmap until it is known whether it stays."""
    bitmap.busy = bitmap.skip_store = value


def stage_clear(emu: Emulator, node_name: str, name: str, transaction: Transaction) -> None:
    """Make all of a bitmap clean."""
    bits = _to_clear(emu, node_name, name).bits
    old = bits.take()
    transaction.on_abort(lambda: bits.restore(old))


def _to_clear(emu: Emulator, node_name: str, name: str) -> DirtyBitmap:
    """Return a bitmap that may be cleared."""
    _, bitmap = find_bitmap(emu.graph.lookup, node_name, name)
    bitmap.check()
    return bitmap


def stage_enabled(
    emu: Emulator, node_name: str, name: str, transaction: Transaction, *, value: bool
) -> Node[Any]:
    """Let a bitmap record writes, or no more; return its node."""
    node, bitmap = find_bitmap(emu.graph.lookup, node_name, name)
    bitmap.check(ALLOW_READONLY)
    old, bitmap.enabled = bitmap.enabled, value
    transaction.on_abort(lambda: setattr(bitmap, "enabled", old))
    return node


def stage_merge(emu: Emulator, options: BlockDirtyBitmapMerge, transaction: Transaction) -> None:
    """Add what other bitmaps have to one, or nothing if any of them may not be used."""
    target, sources = _to_merge(emu, options)
    if sources:
        old = target.bits.contents()
        transaction.on_abort(lambda: target.bits.restore(old))
    for source in sources:
        target.bits.merge(source.bits)


def _to_merge(
    emu: Emulator, options: BlockDirtyBitmapMerge
) -> tuple[DirtyBitmap, list[DirtyBitmap]]:
    """Return the target and what is to be merged into it, all fit for that."""
    node, target = find_bitmap(emu.graph.lookup, options.node, options.target)
    sources = []
    for each in options.bitmaps:
        if isinstance(each, str):
            source = bitmap_on(node, each)
        else:
            _, source = find_bitmap(emu.graph.lookup, each.node, each.name)
        target.check_merge(source)
        sources.append(source)
    return target, sources


def block_dirty_info(info: BitmapInfo) -> BlockDirtyInfo:
    """Describe a bitmap as queries do."""
    return BlockDirtyInfo(
        name=info.name,
        count=info.count,
        granularity=info.granularity,
        recording=info.recording,
        busy=info.busy,
        status=DirtyBitmapStatus(info.status),
        persistent=info.persistent,
        inconsistent=info.inconsistent or None,
    )


async def settle(node: Node[Any]) -> None:
    """Wait for writes that were planned before the node's bitmaps changed.

    It is no drained section: that would let jobs pause, which can be seen.
    """
    for root in list(node.roots()):
        await root.settle()


@command(since="2.4")
async def block_dirty_bitmap_add(context: Context, options: BlockDirtyBitmapAdd) -> None:
    """Begin to record writes."""
    with Transaction() as transaction:
        node = stage_add(context.emu, options, transaction)
    await settle(node)


@command(since="2.4")
async def block_dirty_bitmap_remove(context: Context, *, node: str, name: str) -> None:
    """Forget a bitmap, in the image too."""
    with Transaction() as transaction:
        await stage_remove(context.emu, node, name, transaction)


@command(since="2.4")
def block_dirty_bitmap_clear(context: Context, *, node: str, name: str) -> None:
    """Make all of a bitmap clean."""
    _to_clear(context.emu, node, name).bits.clear()  # nothing is kept to take it back


@command(since="4.0")
async def block_dirty_bitmap_enable(context: Context, *, node: str, name: str) -> None:
    """Let a bitmap record writes."""
    with Transaction() as transaction:
        owner = stage_enabled(context.emu, node, name, transaction, value=True)
    await settle(owner)


@command(since="4.0")
async def block_dirty_bitmap_disable(context: Context, *, node: str, name: str) -> None:
    """Let a bitmap record no more writes."""
    with Transaction() as transaction:
        owner = stage_enabled(context.emu, node, name, transaction, value=False)
    await settle(owner)


@command(since="4.0")
def block_dirty_bitmap_merge(context: Context, options: BlockDirtyBitmapMerge) -> None:
    """Add what other bitmaps have to one, or nothing if any of them may not be used."""
    target, sources = _to_merge(context.emu, options)
    for source in sources:  # nothing can go wrong any more, so nothing is kept to take it back
        target.bits.merge(source.bits)


@command(since="2.10", features=("unstable",))
def x_debug_block_dirty_bitmap_sha256(
    context: Context, *, node: str, name: str
) -> BlockDirtyBitmapSha256:
    """Checksum a bitmap."""
    _, bitmap = find_bitmap(context.emu.graph.lookup, node, name)
    return BlockDirtyBitmapSha256(sha256=bitmap.bits.sha256())
