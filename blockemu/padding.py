"""Reading what an unaligned write leaves of the blocks at its ends."""

from typing import Any

from blockemu.node import Node


async def read_ends(node: Node[Any], start: int, bounce: memoryview, head: int, tail: int) -> None:
    """Read the blocks of which a write leaves something (after bdrv_padding_rmw_read).

    ``bounce`` is whole blocks at ``start``; the write leaves ``head`` and ``tail`` bytes of them.
    """
    align = node.limits.request_alignment
    if head and tail and len(bounce) <= 2 * align:
        await _read_block(node, start, bounce, "head", "tail")
        return
    if head:
        await _read_block(node, start, bounce[:align], "head")
    if tail and (not head or len(bounce) > align):
        end = start + len(bounce)
        await _read_block(node, end - align, bounce[-align:], "tail")


async def _read_block(node: Node[Any], offset: int, view: memoryview, *ends: str) -> None:
    most = node.limits.max_transfer
    for end in ends:
        if node.debug is not None:
            await node.debug(f"pwritev_rmw_{end}")
    for at in range(0, len(view), most):
        await node.pread(offset + at, view[at : at + most])
    for end in ends:
        if node.debug is not None:
            await node.debug(f"pwritev_rmw_after_{end}")
