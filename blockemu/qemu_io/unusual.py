"""Requests that few drivers know: the VM state beside the disk."""

import errno
from typing import Any

from blockemu.backend import Backend
from blockemu.node import Node
from blockemu.os_errors import os_error


async def load_state(backend: Backend, offset: int, buf: bytearray) -> None:
    """Read from the VM state (after bdrv_co_readv_vmstate, block/io.c)."""
    await backend.enter()
    try:
        await _keeper(backend).load_vmstate(offset, memoryview(buf))
    finally:
        backend.leave()


async def save_state(backend: Backend, offset: int, data: bytes | bytearray) -> None:
    """Write to the VM state, durably if there is no write cache (after blk_save_vmstate)."""
    await backend.enter()
    try:
        await _keeper(backend).save_vmstate(offset, memoryview(data))
    finally:
        backend.leave()
    if not backend.write_cache:
        await backend.flush()


def _keeper(backend: Backend) -> Node[Any]:
    node: Node[Any] | None = backend.inserted
    if node is None:
        raise os_error(errno.ENOMEDIUM)
    while type(node).save_vmstate is Node.save_vmstate:
        if node.primary is None:
            raise os_error(errno.ENOTSUP)
        node = node.primary.node
    return node
