"""Opening an image: the checks of qcow2_do_open, in its order: the first that fails tells."""

import errno
import os
from contextlib import suppress
from typing import Any

import numpy as np

from blockemu.drivers.qcow2.image import Image
from blockemu.drivers.qcow2.options import Qcow2Options, settings
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.images.errors import FormatError
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2 import errors
from blockemu.images.qcow2.bitmaps import StoredBitmap, check_directory_size, parse_directory
from blockemu.images.qcow2.extensions import Extensions, NeedMoreError, parse_extensions
from blockemu.images.qcow2.header import (
    Header,
    check_features,
    check_header,
    check_tables,
    parse_header,
)
from blockemu.images.qcow2.snapshots import NeedMoreError as NeedMoreSnapshots
from blockemu.images.qcow2.snapshots import Snapshot, parse_snapshots
from blockemu.images.qcow2.tables import Table
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Role

_LEAKED = "\nSome clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
STALE_BITMAPS = (
    "a program lacking bitmap support modified this file, so all bitmaps are now considered "
    "inconsistent" + _LEAKED
)
STALE_BITMAPS_V2 = (
    "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without "
    "persistent bitmap support; so now they must all be considered inconsistent" + _LEAKED
)
MAX_LENGTH = (1 << 63) - (1 << 30)  # of any disk (BDRV_MAX_LENGTH)
AES_HINT = (
    "You can use 'qemu-img convert' to convert your image to an alternative supported format, "
    "such as unencrypted qcow2, or raw with the LUKS format instead."
)
FIRST_LOOK = 65536  # bytes of the first cluster that are read at first


class CannotRead(QmpError):
    """(what, why): a part of the image could not be read."""

    template = "{}: {}"


class CorruptReadWrite(QmpError):
    """An image marked as corrupt is only for reading."""

    template = "qcow2: Image is corrupt; cannot be opened read/write"


class AesInMachine(QmpError):
    """Only the tools still open images of the first way to encrypt."""

    template = "Use of AES-CBC encrypted qcow2 images is no longer supported in system emulators"


class DataFileRequired(QmpError):
    """The image needs a data file, and says not which."""

    template = "'data-file' is required for this image"


class DataFileUnexpected(QmpError):
    """The image has its data in itself."""

    template = "'data-file' can only be set for images with an external data file"


class RawNeedsDataFile(QmpError):
    """The raw bit without a data file."""

    template = "data-file-raw requires a data file"


class DiskTooLong(QmpError):
    """The disk's size cannot be counted in bytes."""

    template = "Could not refresh total sector count: File too large"


def probe(head: bytes) -> int:
    """Tell how sure it is that a file is a qcow2 image, by its first bytes."""
    if len(head) < Header.CODEC.size:
        return 0
    header = Header.unpack(head)
    return 100 if header.magic == c.MAGIC and header.version >= 2 else 0


async def open_image(node: Node[Any], options: Qcow2Options) -> Image:
    """Read and check the metadata that is always in memory.

    Raises:
        QmpError: in QEMU's words.
        FormatError: likewise.

    """
    file, writable = node.file, not node.flags.read_only
    assert file is not None
    raw = await _read(file, 0, Header.CODEC.size, "Could not read qcow2 header")
    header = parse_header(raw)
    check_header(header)
    front = await _read(file, 0, min(header.extensions_end, FIRST_LOOK), "Could not read header")
    if header.incompatible_features & ~c.KNOWN_INCOMPATIBLE:
        check_features(header, await _feature_names(file, header, front))
    if header.incompatible_features & c.CORRUPT and writable and not node.flags.check:
        raise CorruptReadWrite
    if header.crypt_method == c.CRYPT_AES and node.services.is_machine:
        raise AesInMachine(hint=AES_HINT)
    check_tables(header, check=node.flags.check)
    l1 = await _words(file, header.l1_table_offset, header.l1_size, "Could not read L1 table")
    chosen = settings(options, header, node.flags)
    table_words = header.refcount_table_clusters << header.cluster_bits - 3
    if table_words and file.node.debug is not None:
        await file.node.debug("reftable_load")
    reftable = await _words(
        file, header.refcount_table_offset, table_words, "Could not initialize refcount handling"
    )
    extensions = await _extensions(file, header, front)
    unknown = bytes(front[Header.CODEC.size : header.header_length])
    image = Image(node, header, extensions, unknown, chosen)
    image.mapping.l1, image.mapping.l1_offset = l1, header.l1_table_offset
    image.refcounts.table, image.refcounts.table_offset = reftable, header.refcount_table_offset
    image.refcounts.fresh = image.geometry.clusters(file.fresh_length())
    image.refcounts.reserved = image.refcounts.fresh
    await _open_data_file(node, options, header, extensions)
    _check_encryption(header, extensions, no_io=node.flags.no_io)
    image.backing_file = await _backing_file(file, header)
    if not node.flags.check:  # a check reads them by itself
        image.snapshots, image.snapshot_bytes = await _snapshots(file, header)
    image.bitmaps = await _bitmaps(file, image)
    if image.length > MAX_LENGTH:
        raise DiskTooLong
    if extensions.stale_bitmaps:
        node.services.warn(STALE_BITMAPS if header.version >= 3 else STALE_BITMAPS_V2)
    return image


async def _read(file: Edge, offset: int, length: int, what: str) -> memoryview:
    data = memoryview(bytearray(length))
    try:
        if offset + length > MAX_LENGTH:
            raise os_error(errno.EIO)
        await file.pread(offset, data)
    except OSError as e:
        raise CannotRead(what, os.strerror(e.errno or errno.EIO)) from e
    return data


async def _words(file: Edge, offset: int, count: int, what: str) -> Table:
    raw = await _read(file, offset, count * 8, what)
    return np.frombuffer(raw, ">u8").astype(np.uint64)


async def _extensions(
    file: Edge, header: Header, front: memoryview, into: Extensions | None = None
) -> Extensions:
    try:
        return parse_extensions(front, header, into)
    except NeedMoreError:
        whole = await _read(file, 0, header.extensions_end + 8, "Could not read header")
        return parse_extensions(whole, header, into)


async def _feature_names(file: Edge, header: Header, front: memoryview) -> bytes:
    """Return the table of feature names, if there is one before something is wrong."""
    found = Extensions()
    with suppress(FormatError):
        await _extensions(file, header, front, found)
    return found.feature_table


def _check_encryption(header: Header, extensions: Extensions, *, no_io: bool) -> None:
    """See that LUKS has its header, if it is needed."""
    if header.crypt_method == c.CRYPT_LUKS and extensions.crypto is None and not no_io:
        raise errors.MissingCrypto(header.crypt_method)


async def _open_data_file(
    node: Node[Any], options: Qcow2Options, header: Header, extensions: Extensions
) -> None:
    """Attach the data file that the image names, unless the options did.

    A name from the image is a plain file's, whatever it looks like: ``json:`` or a protocol in it
    would let an image open what its author likes.
    """
    said = node.said_late.pop("data-file", None)
    if said is not None and not node.flags.no_io:
        await node.services.open_child(node, "data-file", Role.DATA, said)
    given = "data-file" in node.children
    if not header.has_data_file:
        if given:
            raise DataFileUnexpected
        if header.autoclear_features & c.DATA_FILE_RAW:
            raise RawNeedsDataFile
        return
    if node.flags.no_io:
        return
    if not given:
        if extensions.data_file is None:
            raise DataFileRequired
        child = {"driver": "file", "filename": extensions.data_file}
        await node.services.open_child(node, "data-file", Role.DATA, child)
    assert node.file is not None
    node.file.role &= ~Role.DATA


async def _backing_file(file: Edge, header: Header) -> str | None:
    if not header.backing_file_offset:
        return None
    length = header.backing_file_size
    if length > min(1023, header.cluster_size - header.backing_file_offset):
        raise errors.BackingNameTooLong
    data = await _read(file, header.backing_file_offset, length, "Could not read backing file name")
    return bytes(data).split(b"\0")[0].decode(errors="surrogateescape")


async def _bitmaps(file: Edge, image: Image) -> list[StoredBitmap]:
    ext = image.extensions.bitmaps
    if ext is None:
        return []
    check_directory_size(ext.directory_size)
    what = "Failed to read bitmap directory"
    data = await _read(file, ext.directory_offset, ext.directory_size, what)
    return parse_directory(data, ext.nb_bitmaps, image.length, image.geometry.cluster_size)


async def _snapshots(file: Edge, header: Header) -> tuple[list[Snapshot], int]:
    if not header.nb_snapshots:
        return [], 0
    size = FIRST_LOOK
    while True:
        what = "Failed to read snapshot table"
        data = await _read(file, header.snapshots_offset, size, what)
        try:
            return parse_snapshots(data, header.nb_snapshots, header.size)
        except NeedMoreSnapshots:
            if size > 2 * c.MAX_SNAPSHOT_BYTES:
                raise errors.SnapshotTableTooBig from None
            size *= 4
