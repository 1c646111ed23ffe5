"""Requests that few drivers know: the VM state beside the disk."""

import errno
import os
from typing import Any, Protocol, runtime_checkable

from blockemu.backend import Backend
from blockemu.node import Node


@runtime_checkable
class StateKeeper(Protocol):
    """A driver with room for a VM's state; offsets count from where that begins."""

    async def load_vmstate(self, offset: int, buf: bytearray) -> None:
        """Fill ``buf``."""

    async def save_vmstate(self, offset: int, data: bytes | bytearray) -> None:
        """Keep ``data``."""


async def load_state(backend: Backend, offset: int, buf: bytearray) -> None:
    """Read from the VM state (after bdrv_co_readv_vmstate, block/io.c)."""
    await backend.enter()
    try:
        await _keeper(backend).load_vmstate(offset, buf)
    finally:
        backend.leave()


async def save_state(backend: Backend, offset: int, data: bytes | bytearray) -> None:
    """Write to the VM state (after bdrv_co_writev_vmstate, block/io.c)."""
    await backend.enter()
    try:
        await _keeper(backend).save_vmstate(offset, data)
    finally:
        backend.leave()


def _keeper(backend: Backend) -> StateKeeper:
    node: Node[Any] | None = backend.inserted
    if node is None:
        raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))
    while not isinstance(node, StateKeeper):
        if node.primary is None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        node = node.primary.node
    return node
