"""block-dirty-bitmap-* and the checksum that tests ask for."""

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
from blockemu.node import Node
from blockemu.qmp_server.dispatch import command
from blockemu.schema.bitmaps import (
    BlockDirtyBitmapAdd,
    BlockDirtyBitmapMerge,
    BlockDirtyBitmapSha256,
    BlockDirtyInfo,
    DirtyBitmapStatus,
)


class NamelessBitmap(QmpError):
    """Only jobs' own bitmaps have no name."""

    template = "Bitmap name cannot be empty"


class BadGranularity(QmpError):
    """A bit cannot stand for so many bytes."""

    template = "Granularity must be power of 2 and at least 512"


class CannotStore(QmpError):
    """The format has no place for bitmaps."""

    template = "Can't store persistent bitmaps to {}: {}"


class BitmapNodeNotFound(QmpError):
    """There is no such node or device; the words are those of bitmap commands."""

    template = "Node '{}' not found"


class BitmapNotFound(QmpError):
    """The node has no bitmap of this name."""

    template = "Dirty bitmap '{}' not found"


def find_bitmap(emu: Emulator, node_name: str, name: str) -> tuple[Node[Any], DirtyBitmap]:
    """Look up a bitmap and its node (after block_dirty_bitmap_lookup)."""
    try:
        node = emu.graph.lookup(node_name)
    except QmpError:
        raise BitmapNodeNotFound(node_name) from None
    return node, _find_on(node, name)


def _find_on(node: Node[Any], name: str) -> DirtyBitmap:
    found = node.bitmap_set.find(name) if node.bitmap_set is not None else None
    if found is None:
        raise BitmapNotFound(name)
    return found


def add_bitmap(emu: Emulator, options: BlockDirtyBitmapAdd) -> tuple[Node[Any], DirtyBitmap]:
    """Make a bitmap (after qmp_block_dirty_bitmap_add); writes planned before do not know it."""
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
    return node, added


def merge_sources(
    emu: Emulator, options: BlockDirtyBitmapMerge
) -> tuple[DirtyBitmap, list[DirtyBitmap]]:
    """Return the target and what is to be merged into it, all fit for that."""
    node, target = find_bitmap(emu, options.node, options.target)
    sources = []
    for each in options.bitmaps:
        if isinstance(each, str):
            source = _find_on(node, each)
        else:
            _, source = find_bitmap(emu, each.node, each.name)
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
    node, _ = add_bitmap(context.emu, options)
    await settle(node)


@command(since="2.4")
async def block_dirty_bitmap_remove(context: Context, *, node: str, name: str) -> None:
    """Forget a bitmap, in the image too."""
    owner, bitmap = find_bitmap(context.emu, node, name)
    bitmap.check(ALLOW_INCONSISTENT)
    if bitmap.stored and isinstance(owner, StoresBitmaps):
        await owner.remove_stored_bitmap(name)
    bitmap.release()


@command(since="2.4")
def block_dirty_bitmap_clear(context: Context, *, node: str, name: str) -> None:
    """Make all of a bitmap clean."""
    _, bitmap = find_bitmap(context.emu, node, name)
    bitmap.check()
    bitmap.bits.clear()


@command(since="4.0")
async def block_dirty_bitmap_enable(context: Context, *, node: str, name: str) -> None:
    """Let a bitmap record writes."""
    await _set_enabled(context, node, name, value=True)


@command(since="4.0")
async def block_dirty_bitmap_disable(context: Context, *, node: str, name: str) -> None:
    """Let a bitmap record no more writes."""
    await _set_enabled(context, node, name, value=False)


async def _set_enabled(context: Context, node: str, name: str, *, value: bool) -> None:
    owner, bitmap = find_bitmap(context.emu, node, name)
    bitmap.check(ALLOW_READONLY)
    bitmap.enabled = value
    await settle(owner)


@command(since="4.0")
def block_dirty_bitmap_merge(context: Context, options: BlockDirtyBitmapMerge) -> None:
    """Add what other bitmaps have to one, or nothing if any of them may not be used."""
    target, sources = merge_sources(context.emu, options)
    for source in sources:
        target.bits.merge(source.bits)


@command(since="2.10", features=("unstable",))
def x_debug_block_dirty_bitmap_sha256(
    context: Context, *, node: str, name: str
) -> BlockDirtyBitmapSha256:
    """Checksum a bitmap."""
    _, bitmap = find_bitmap(context.emu, node, name)
    return BlockDirtyBitmapSha256(sha256=bitmap.bits.sha256())
