"""Creating images: for blockdev-create, and by name and ``-o`` options as programs do."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from blockemu import filenames
from blockemu.backend import Backend
from blockemu.blockdev_options import NodeOptions
from blockemu.create_options import BlockdevDriver, CreationOptions, TextOption, Texts, UnknownValue
from blockemu.errors import HostError, QmpError
from blockemu.images.errors import FormatError
from blockemu.node import Flags, Node
from blockemu.node_options import NO_CACHE_MODES, fill_cache
from blockemu.opening import Opener
from blockemu.optlist import number, parse_options, size
from blockemu.paths import combine, has_protocol, is_absolute
from blockemu.perm import Perm
from blockemu.probing import Drivers
from blockemu.qmp_server.qapi import dump

SECTOR: Final = 512
_OPENING_OPTIONS: Final = (
    TextOption("size", "size", "Virtual disk size"),
    TextOption("preallocation", "string", "Preallocation mode (allowed values: off)"),
)
_KINDS: Final = {"string": "str", "bool": "bool (on/off)", "number": "num", "size": "size"}


class UnknownFormat(QmpError):
    """There is no such driver."""

    template = "Unknown file format '{}'"


class FormatCannotCreate(QmpError):
    """The format is only read and written."""

    template = "Format driver '{}' does not support image creation"


class ProtocolCannotCreate(QmpError):
    """Nothing can be created there."""

    template = "Protocol driver '{}' does not support image creation"


class DriverCannotCreate(HostError):
    """The protocol creates nothing."""

    template = "Driver '{}' does not support image creation"


class CannotOpenInstead(QmpError):
    """(driver, why): what cannot be created is not there either."""

    template = (
        "Protocol driver '{}' does not support image creation, and opening the image failed: {}"
    )


class UnsupportedPreallocation(HostError):
    """What is there already is allocated as it is."""

    template = "Unsupported preallocation mode '{}'"


class SizeTwice(QmpError):
    """By ``-o`` and by an argument."""

    template = "The image size must be specified only once"


class NoBackingFile(QmpError):
    """The format has no backing files."""

    template = "Backing file not supported for file format '{}'"


class NoBackingFormat(QmpError):
    """The format does not store the backing file's format."""

    template = "Backing file format not supported for file format '{}'"


class OwnBackingFile(QmpError):
    """The image would be its own backing file."""

    template = "Error: Trying to create an image with the same filename as the backing file"


class EmptyBackingFile(QmpError):
    """No name is not the same as no backing file."""

    template = "Expected backing file name, got empty string"


class RelativeToNothing(QmpError):
    """(name): a relative name, and the image itself has no plain one."""

    template = "Cannot use relative backing file names for '{}'"


class BackingFormatMissing(QmpError):
    """Guessing is not safe."""

    template = "Backing file specified without backing format"


class BackingSizeUnknown(QmpError):
    """(name, why)."""

    template = "Could not get size of '{}': {}"


class SizeMissing(QmpError):
    """Nothing tells how large the image shall be."""

    template = "Image creation needs a size parameter"


class ImageTooLarge(QmpError):
    """(format, a hint that follows)."""

    template = "The image size is too large for file format '{}'{}"


class CouldNotCreate(HostError):
    """The driver failed for a reason that QEMU has no words for."""

    template = "Could not create image: {}"


class ImageCreator:
    """Lets drivers create images in one graph (``create_options.Creator``)."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener
        self.graph = opener.graph
        self.services = opener.services

    @asynccontextmanager
    async def _held(self, node: Node[Any]) -> AsyncIterator[Node[Any]]:
        node.holds += 1
        try:
            yield node
        finally:
            node.holds -= 1
            await self.graph.release(node)

    @asynccontextmanager
    async def node(self, ref: str | NodeOptions) -> AsyncIterator[Node[Any]]:
        """Open a BlockdevRef, or look it up (bdrv_open_blockdev_ref)."""
        if isinstance(ref, str):
            node = self.graph.lookup(ref)
        else:
            plain = {"read-only": False, "auto-read-only": False} | dump(ref)
            fill_cache(plain, NO_CACHE_MODES)
            node = await self.opener.open(plain)
        async with self._held(node):
            yield node

    @asynccontextmanager
    async def protocol(self, filename: str) -> AsyncIterator[Node[Any]]:
        """Open what a name means, whatever format it holds."""
        options: dict[str, Any] = {}
        if not filename.startswith(filenames.JSON):
            options["driver"] = filenames.find_protocol(filename, self.opener.drivers)
        async with self._held(await self.opener.open(options, filename=filename)) as node:
            yield node

    @asynccontextmanager
    async def root(self, node: Node[Any]) -> AsyncIterator[Backend]:
        """Write to a node, also beyond its end, and resize it."""
        backend = Backend(perm=Perm.WRITE | Perm.RESIZE)
        backend.allow_beyond_end = True
        self.graph.insert(backend, node)
        try:
            yield backend
        finally:
            await self.graph.remove(backend)

    @asynccontextmanager
    async def image(self, options: dict[str, Any]) -> AsyncIterator[Backend]:
        """Open an image for reading, writing and resizing (blk_new_open)."""
        async with self._rooted(await self.opener.open(options)) as backend:
            yield backend

    @asynccontextmanager
    async def _rooted(self, node: Node[Any]) -> AsyncIterator[Backend]:
        backend = Backend(perm=Perm.CONSISTENT_READ | Perm.WRITE | Perm.RESIZE)
        async with self._held(node):
            self.graph.insert(backend, node)
        try:
            yield backend
        finally:
            await self.graph.remove(backend)

    async def create_file(self, filename: str, texts: Texts) -> None:
        """Create what a name means, by the protocol's own options (bdrv_create_file)."""
        drivers = self.opener.drivers
        name = filenames.find_protocol(filename, drivers)
        table = text_options(drivers[name])
        if table is None:
            raise DriverCannotCreate(name, errno=errno.ENOTSUP)
        known = {option.name for option in table}
        own = {key: value for key, value in texts.items() if key in known}
        await self.create_by_text(name, filename, own)

    async def create_by_text(self, name: str, filename: str, texts: Texts) -> None:
        """Create an image by one driver (bdrv_create).

        Raises:
            QmpError: in QEMU's words.

        """
        driver = self.opener.drivers[name]
        try:
            if driver.creates_by_opening:
                await self._resize_instead(name, filename, texts)
            else:
                await driver.create_by_text(filename, texts, self)
        except FormatError as e:
            raise QmpError(str(e)) from e
        except HostError:
            raise
        except OSError as e:
            code = e.errno or errno.EIO
            raise CouldNotCreate(os.strerror(code), errno=code) from e

    async def _resize_instead(self, name: str, filename: str, texts: Texts) -> None:
        """Give what exists the size wanted, or be content with more.

        After bdrv_co_create_opts_simple, block.c.
        """
        mode = texts.get("preallocation", "off")
        if mode not in ("off", "metadata", "falloc", "full"):
            raise UnknownValue(mode)
        if mode != "off":
            raise UnsupportedPreallocation(mode, errno=errno.ENOTSUP)
        try:
            node = await self.opener.open({"driver": name}, filename=filename)
        except QmpError as e:
            raise CannotOpenInstead(name, e, hint=e.hint) from e
        async with self._rooted(node) as backend:
            wanted = size(texts.get("size", "0")) or 0
            try:
                await backend.truncate(wanted, exact=False)
            except OSError as e:
                if e.errno != errno.ENOTSUP or backend.fresh_length() < wanted:
                    raise
            start = min(backend.fresh_length(), SECTOR)
            if start:
                await backend.write_zeroes(0, start)


async def create(options: CreationOptions, opener: Opener) -> None:
    """Create an image by blockdev-create's options.

    Raises:
        QmpError: in QEMU's words; OSError and FormatError where it has none of its own.

    """
    driver = opener.drivers[type(options).tag or ""]
    await driver.create(options, ImageCreator(opener))


# By name and ``-o``


def text_options(driver: type[Node[Any]]) -> tuple[TextOption, ...] | None:
    """Return the options of ``-o`` that a driver has; None if it cannot create."""
    return _OPENING_OPTIONS if driver.creates_by_opening else driver.text_options


def is_known(fmt: str) -> bool:
    """Tell whether QEMU has such a driver, be there one here or not."""
    return fmt in {driver.value for driver in BlockdevDriver}


def all_text_options(drivers: Drivers, fmt: str, filename: str | None) -> list[TextOption]:
    """Return the ``-o`` options of a format, and of the protocol that a name means.

    Raises:
        QmpError: one of them cannot create images.

    """
    if fmt not in drivers:
        raise FormatCannotCreate(fmt) if is_known(fmt) else UnknownFormat(fmt)
    protocol = None
    if filename is not None:
        protocol = filenames.find_protocol(filename, drivers)
    own = text_options(drivers[fmt])
    if own is None:
        raise FormatCannotCreate(fmt)
    found = {option.name: option for option in own}
    if protocol is not None:
        more = text_options(drivers[protocol])
        if more is None:
            raise ProtocolCannotCreate(protocol)
        for option in more:
            found.setdefault(option.name, option)
    return list(found.values())


def option_help(options: list[TextOption]) -> str:
    """Return a line for each option, sorted, as ``-o help`` shows them."""
    lines = []
    for option in options:
        head = f"  {option.name}=<{_KINDS[option.kind]}>"
        lines.append(f"{head:<24} - {option.help}\n")
    return "".join(sorted(lines, key=os.fsencode))


def _shown(options: list[TextOption], texts: Texts) -> str:
    """Return the options as the ``Formatting`` line has them (qemu_opts_print)."""
    parts = []
    for option in options:
        value = texts.get(option.name, option.default)
        if value is None:
            continue
        if option.kind == "string":
            value = value.replace(",", ",,")
        elif option.name in texts and option.kind == "size":
            value = str(_signed(size(value) or 0))
        elif option.name in texts and option.kind == "number":
            value = str(_signed(number(value) or 0))
        parts.append(f"{option.name}={value}")
    return " ".join(parts)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 > 0 else value


async def img_create(
    opener: Opener,
    filename: str,
    fmt: str,
    *,
    base_filename: str | None = None,
    base_fmt: str | None = None,
    options_text: str | None = None,
    size: int | None = None,
    flags: Flags | None = None,
    quiet: bool = True,
) -> None:
    """Create an image as programs do (bdrv_img_create).

    Size is in bytes; without one it is the backing file's.  ``flags``: how the backing file is
    opened, if it may be (``no_backing``).

    Raises:
        QmpError: in QEMU's words.

    """
    options = all_text_options(opener.drivers, fmt, filename)
    kinds: dict[str, str] = {option.name: option.kind for option in options}
    texts: Texts = {}
    if options_text:
        texts = parse_options(options_text, "", kinds)
    if "size" not in texts:
        if size is not None:
            texts["size"] = str(size)
    elif size is not None:
        raise SizeTwice
    if base_filename is not None:
        if "backing_file" not in kinds:
            raise NoBackingFile(fmt)
        texts["backing_file"] = base_filename
    if base_fmt is not None:
        if "backing_fmt" not in kinds:
            raise NoBackingFormat(fmt)
        texts["backing_fmt"] = base_fmt
    await _check_backing(opener, filename, texts, flags or Flags())
    if "size" not in texts:
        raise SizeMissing
    if not quiet:
        shown = _shown(options, texts)
        opener.services.stdout(f"Formatting '{filename}', fmt={fmt} {shown}\n")
    try:
        await ImageCreator(opener).create_by_text(fmt, filename, texts)
    except HostError as e:
        if e.errno != errno.EFBIG:
            raise
        sized = "cluster_size" in kinds and _cluster_size(options, texts)
        hint = " (try using a larger cluster size)" if sized else ""
        raise ImageTooLarge(fmt, hint) from e


def _cluster_size(options: list[TextOption], texts: Texts) -> int:
    default = next(o.default for o in options if o.name == "cluster_size")
    return size(texts.get("cluster_size", default or "0")) or 0


async def _check_backing(opener: Opener, filename: str, texts: Texts, flags: Flags) -> None:
    """See that the backing file can be opened, and take its size where none is given."""
    backing, fmt = texts.get("backing_file"), texts.get("backing_fmt")
    if backing is None:
        return
    if backing == filename:
        raise OwnBackingFile
    if not backing:
        raise EmptyBackingFile
    if flags.no_backing:
        if fmt is None:
            raise BackingFormatMissing
        return
    full = backing
    if not has_protocol(backing) and not is_absolute(backing):
        if not filename or filename.startswith(filenames.JSON):
            raise RelativeToNothing(filename)
        full = combine(filename, backing)
    options: dict[str, Any] = {"force-share": True, "read-only": True}
    if fmt is not None:
        options["driver"] = fmt
    defaults = {"cache": {"direct": flags.direct, "no-flush": flags.no_flush}}
    unread = Flags(no_io=True)  # an encrypted one need not be decrypted
    try:
        node = await opener.open(options, filename=full, defaults=defaults, flags=unread)
    except QmpError as e:
        e.hint += "Could not open backing image.\n"
        raise
    try:
        if fmt is None:
            raise BackingFormatMissing(hint=f"Detected format of {node.driver}.")
        if "size" not in texts:
            texts["size"] = str(_length(node, backing))
    finally:
        await opener.graph.release(node)


def _length(node: Node[Any], name: str) -> int:
    try:
        return node.length
    except OSError as e:
        raise BackingSizeUnknown(name, os.strerror(e.errno or errno.EIO)) from e
