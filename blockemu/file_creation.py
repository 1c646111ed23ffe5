"""Creating files of the host: the options, and how it is done."""

import os
from contextlib import suppress
from functools import partial
from typing import Annotated, Final

from blockemu.create_options import (
    CreationOptions,
    Creator,
    PreallocMode,
    TextOption,
    Texts,
    UnknownValue,
)
from blockemu.errors import QmpError
from blockemu.host.hostpath import create_path, make_image
from blockemu.optlist import is_on, size
from blockemu.qmp_server.qapi import Since, Size

FDSET: Final = "/dev/fdset/"  # a descriptor that a client has handed over
_MAX_HINT: Final = (1 << 32) - 1

TEXT_OPTIONS = (
    TextOption("size", "size", "Virtual disk size"),
    TextOption("nocow", "bool", "Turn off copy-on-write (valid only on btrfs)"),
    TextOption("preallocation", "string", "Preallocation mode (allowed values: off, falloc, full)"),
    TextOption(
        "extent_size_hint", "size", "Extent size hint for the image file, 0 to disable"
    ),
)  # fmt: skip


class ExtentHintTooLarge(QmpError):
    """File systems count it in 32 bits."""

    template = "Extent size hint is too large"


class BlockdevCreateOptionsFile(CreationOptions, tag="file"):
    """A file to be created.

    @filename: its name
    @size: its size in bytes
    @preallocation: what to allocate: off, falloc or full
    @nocow: ask for no copy-on-write (btrfs)
    @extent-size-hint: bytes that the file system shall allocate at a time, 0 for its own choice
    """

    filename: str
    size: Size
    preallocation: PreallocMode | None = None
    nocow: bool | None = None
    extent_size_hint: Annotated[Size | None, Since("5.1")] = None


def options_of(filename: str, texts: Texts) -> BlockdevCreateOptionsFile:
    """Return what ``-o`` options come to (raw_co_create_opts); sizes are in whole sectors.

    Raises:
        UnknownValue: there is no such way to preallocate.

    """
    mode = texts.get("preallocation", "off")
    if mode not in {each.value for each in PreallocMode}:
        raise UnknownValue(mode)
    hint = texts.get("extent_size_hint")
    return BlockdevCreateOptionsFile(
        filename=filename,
        size=-(-(size(texts.get("size", "0")) or 0) // 512) * 512,
        preallocation=PreallocMode(mode),
        nocow=is_on(texts.get("nocow")),
        extent_size_hint=None if hint is None else size(hint),
    )


async def create_file(options: BlockdevCreateOptionsFile, creator: Creator) -> None:
    """Make the file, or empty it, and give it its size (raw_co_create).

    Raises:
        QmpError: in QEMU's words.

    """
    hint, name, services = options.extent_size_hint, options.filename, creator.services
    if hint is not None and hint > _MAX_HINT:
        raise ExtentHintTooLarge
    shared = name.startswith(FDSET)
    fd = services.fdsets.dup(name, os.O_RDWR) if shared else create_path(name)
    try:
        make = partial(
            make_image,
            prealloc=(options.preallocation or PreallocMode.OFF).value,
            nocow=bool(options.nocow),
            extent_hint=hint,
        )
        warning = await services.pool.run(make, fd, name, options.size)
    finally:
        if shared:
            services.fdsets.close(fd)
        else:
            os.close(fd)
    if warning:
        services.report(f"warning: {warning}")


def remove_file(filename: str) -> None:
    """Remove a file, if it is there; ``pathlib`` would take a part of a tool's start."""
    with suppress(FileNotFoundError):
        os.unlink(filename)  # noqa: PTH108
