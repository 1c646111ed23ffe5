"""The image as such: its length and size changes, what it has allocated, what it is."""

import errno
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from blockemu.errors import HostError, QmpError
from blockemu.extents import ALLOCATED, Extents
from blockemu.image_info import outline
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.qemu_io.options import Options
from blockemu.qemu_io.refusals import (
    BadPreallocation,
    Failed,
    LengthUnknown,
    NotASize,
    SizeTooLarge,
    Unmappable,
)
from blockemu.qemu_io.sizes import size_text
from blockemu.qemu_io.table import IoCommand
from blockemu.qmp_server.qapi import dump
from blockemu.records import replace

if TYPE_CHECKING:
    from blockemu.backend import Backend
    from blockemu.qemu_io.interpreter import Interpreter

SECTOR = 512
PREALLOCATION = ("off", "metadata", "falloc", "full")
MAP_LINE = "{} (0x{:x}) bytes {} at offset {} (0x{:x})\n"
MAP_WORDS = {True: "    allocated", False: "not allocated"}


class NoMediumInserted(QmpError):
    """There is nothing to resize."""

    template = "No medium inserted"


class ResizeFailed(QmpError):
    """The host did not change the size: (strerror)."""

    template = "Failed to resize the image: {}"


def image_length(backend: "Backend") -> int:
    """Return the size in bytes, whole sectors; raise OSError if there is no medium."""
    if backend.inserted is None:
        raise os_error(errno.ENOMEDIUM)
    return backend.fresh_length()


async def length(io: "Interpreter", options: Options) -> int:
    """Print the size."""
    try:
        io.print(f"{size_text(image_length(io.image))}\n")
    except OSError as e:
        raise LengthUnknown("getlength", e) from None
    return 0


async def truncate(io: "Interpreter", options: Options) -> int:
    """Change the size."""
    prealloc = options.get("m", "off")
    if prealloc not in PREALLOCATION:
        raise BadPreallocation(prealloc)
    if not options.operands:
        raise TRUNCATE.usage()  # QEMU crashes here
    try:
        size = io.size(options.operands[0])
    except (NotASize, SizeTooLarge) as e:
        raise type(e)(options.first) from None  # QEMU names the first argument, whatever it is
    try:
        await _truncate(io.image, size, prealloc)
    except QmpError as e:
        io.report_error(e)
        return -errno.EIO
    return 0


async def _truncate(backend: "Backend", size: int, prealloc: str) -> None:
    if backend.inserted is None:
        raise NoMediumInserted
    try:
        await backend.truncate(size, exact=False, prealloc=prealloc)
    except HostError:
        raise
    except OSError as e:
        raise ResizeFailed(os.strerror(e.errno or errno.EIO)) from None


async def runs(backend: "Backend", offset: int, end: int) -> AsyncIterator[Extents]:
    """Yield batches of runs, with no status but whether the node itself has them allocated."""
    if offset < end:
        async for batch in backend.extents(offset, end - offset):
            yield replace(batch, status=batch.status & np.uint8(ALLOCATED)).merged(ignore_host=True)


async def alloc(io: "Interpreter", options: Options) -> int:
    """Print how much of a range is allocated in the node itself."""
    operands = options.operands
    offset = io.size(operands[0])
    count = io.size(operands[1]) if len(operands) > 1 else SECTOR
    total = 0
    try:
        end = min(offset + count, image_length(io.image))
        async for batch in runs(io.image, offset, end):
            total += int(batch.length[batch.status != 0].sum())
    except OSError as e:
        raise Failed("is_allocated", e) from None
    covered = max(end - offset, 0)
    io.print(f"{total}/{covered} bytes allocated at offset {size_text(offset)}\n")
    return 0


async def map_(io: "Interpreter", options: Options) -> int:
    """Print what the node itself has allocated."""
    try:
        end = image_length(io.image)
    except OSError as e:
        raise Unmappable("query image length", e) from None
    first, there = 0, False
    try:
        async for batch in runs(io.image, 0, end):
            for start, _, status, _ in batch:
                if bool(status) != there:
                    _print_run(io, first, start, there)
                    first, there = start, bool(status)
    except OSError as e:
        raise Unmappable("get allocation status", e) from None
    _print_run(io, first, end, there)
    return 0


def _print_run(io: "Interpreter", start: int, end: int, there: bool) -> None:
    if end > start:
        size = end - start
        words = size_text(size), size, MAP_WORDS[there], size_text(start), start
        io.print(MAP_LINE.format(*words))


async def info(io: "Interpreter", options: Options) -> int:
    """Print the format, and what it tells about itself."""
    node = io.image.inserted
    if node is None:
        return -errno.ENOMEDIUM
    io.print(f"format name: {node.driver}\n" * (2 if node.is_protocol else 1))
    if node.cluster_size is None:
        return -errno.ENOTSUP
    io.print(f"cluster size: {size_text(node.cluster_size)}\n")
    io.print(f"vm state offset: {size_text(node.vm_state_offset)}\n")
    specific = node.specific_info()
    if specific is not None:
        io.print("Format specific information:\n")
        io.tell(outline(dump(specific)["data"]))
    return 0


TRUNCATE = IoCommand(
    name="truncate",
    alias="t",
    oneline="truncates the current file at the given offset",
    run=truncate,
    perm=Perm.WRITE | Perm.RESIZE,
    least=1,
    most=3,
    arguments="[-m prealloc_mode] off",
    letters="m:",
)
COMMANDS = (
    TRUNCATE,
    IoCommand(
        name="alloc",
        alias="a",
        oneline="checks if offset is allocated in the file",
        run=alloc,
        least=1,
        most=2,
        arguments="offset [count]",
    ),
    IoCommand(name="map", oneline="prints the allocated areas of a file", run=map_, arguments=""),
    IoCommand(name="length", alias="l", oneline="gets the length of the current file", run=length),
    IoCommand(
        name="info", alias="i", oneline="prints information about the current file", run=info
    ),
)
