"""Creating an image (after qcow2_co_create): an empty one first, which then gets its size."""

import errno
import struct
from contextlib import AsyncExitStack
from typing import Any, Final

from blockemu.create_options import Creator, PreallocMode, Texts
from blockemu.drivers.qcow2 import refusals
from blockemu.drivers.qcow2.new_options import (
    CREATE_TEXTS,
    BlockdevCreateOptionsQcow2,
    BlockdevQcow2Version,
    Qcow2CompressionType,
)
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2.header import Header
from blockemu.images.qcow2.refcount import empty_counts, pack_counts
from blockemu.node import Node
from blockemu.qmp_server.qapi import InvalidInput, replace, visit

SECTOR: Final = 512
DEFAULT_CLUSTER: Final = 65536


def checked_header(options: BlockdevCreateOptionsQcow2) -> Header:
    """Check the options, but for the data file's, and return the header of an empty image.

    Raises:
        QmpError: they do not fit each other, or QEMU.

    """
    if options.size % SECTOR:
        raise refusals.UnalignedSize
    version = 2 if options.version is BlockdevQcow2Version.V2 else 3
    cluster = DEFAULT_CLUSTER if options.cluster_size is None else options.cluster_size
    extended = bool(options.extended_l2)
    if extended and version < 3:
        raise refusals.NeedsVersion3("Extended L2 entries are")
    check_cluster_size(cluster, extended=extended)
    preallocates = options.preallocation not in (None, PreallocMode.OFF)
    if options.backing_file is not None and preallocates and not extended:
        raise refusals.BackingAndPreallocation
    if options.backing_fmt is not None and options.backing_file is None:
        raise refusals.FormatOfNothing
    if version < 3 and options.lazy_refcounts:
        raise refusals.LazyNeedsVersion3
    bits = 16 if options.refcount_bits is None else options.refcount_bits
    if bits % (1 << 64) > 64 or bits <= 0 or bits & bits - 1:
        raise refusals.BadRefcountWidth
    if version < 3 and bits != 16:
        raise refusals.WidthNeedsVersion3
    if options.data_file_raw and options.data_file is None:
        raise refusals.RawNeedsDataFile
    if options.data_file_raw and options.backing_file is not None:
        raise refusals.RawAndBacking
    return Header(
        version=version,
        cluster_bits=cluster.bit_length() - 1,
        refcount_order=bits.bit_length() - 1,
        header_length=Header.CODEC.size,
        refcount_table_offset=cluster,
        refcount_table_clusters=1,
        compatible_features=c.LAZY_REFCOUNTS if options.lazy_refcounts else 0,
        autoclear_features=c.DATA_FILE_RAW if options.data_file_raw else 0,
        incompatible_features=(c.EXTENDED_L2 if extended else 0)
        | (c.DATA_FILE if options.data_file is not None else 0),
    )


def check_cluster_size(size: int, *, extended: bool) -> None:
    """Raise QmpError for a cluster size that cannot be (validate_cluster_size)."""
    if not 1 << c.MIN_CLUSTER_BITS <= size <= 1 << c.MAX_CLUSTER_BITS or size & size - 1:
        raise refusals.BadClusterSize(1 << c.MIN_CLUSTER_BITS, 1 << c.MAX_CLUSTER_BITS - 10)
    least = c.SUBCLUSTERS << c.MIN_CLUSTER_BITS
    if extended and size < least:
        raise refusals.ClusterTooSmall(least)


async def create(options: BlockdevCreateOptionsQcow2, creator: Creator) -> None:
    """Create an image.

    Raises:
        QmpError: in QEMU's words.

    """
    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(creator.node(options.file))
        header = checked_header(options)
        data = None
        if options.data_file is not None:
            if header.version < 3:
                raise refusals.NeedsVersion3("External data files are")
            data = await stack.enter_async_context(creator.node(options.data_file))
        if options.compression_type is Qcow2CompressionType.ZSTD:
            if header.version < 3:
                raise refusals.NeedsVersion3("Non-zlib compression type is")
            header.compression_type = c.ZSTD
            header.incompatible_features |= c.COMPRESSION
        async with creator.root(file) as root:
            await _write_empty(root, header)
        plain = {"driver": "qcow2", "file": file.name, "cache": {"no-flush": True}}
        if data is not None:
            plain["data-file"] = data.name
        async with creator.image(plain) as image:
            await _complete(image, options, data)
        async with creator.root(file) as root:
            await root.flush()


async def _write_empty(root: Edge, header: Header) -> None:
    """Write an image of no size: header, refcount table, and a block that counts these three."""
    cluster, order = header.cluster_size, header.refcount_order
    counts = empty_counts(order, header.geometry().counts_per_block)
    counts[:3] = 1
    with refusals.telling(refusals.HeaderNotWritten):
        await root.pwrite(0, header.pack().ljust(cluster, b"\0"))
    table = struct.pack(">Q", 2 * cluster).ljust(cluster, b"\0")
    with refusals.telling(refusals.TableNotWritten):
        await root.pwrite(cluster, table + pack_counts(counts, order))


async def _complete(
    image: Edge, options: BlockdevCreateOptionsQcow2, data: Node[Any] | None
) -> None:
    """Give an empty image its whole header, its size and its backing file."""
    from blockemu.drivers.qcow2 import Qcow2  # late: it creates by this module

    node = image.node
    assert isinstance(node, Qcow2)
    if data is not None:
        node.image.extensions.data_file = data.full_filename
    with refusals.telling(refusals.HeaderNotUpdated):
        await node.image.write_header()
    mode = (options.preallocation or PreallocMode.OFF).value
    with refusals.telling(refusals.NotResized):
        if options.size >> 63:
            raise refusals.NegativeSize(errno=errno.EINVAL)
        await image.truncate(options.size, exact=False, prealloc=mode)
    if options.backing_file is not None:
        fmt = options.backing_fmt.value if options.backing_fmt is not None else None
        with refusals.telling(refusals.BackingNotSet, options.backing_file, fmt or "(null)"):
            await node.change_backing_file(options.backing_file, fmt)
    if options.encrypt is not None:
        from blockemu.drivers.qcow2.encryption import set_up_encryption  # late: seldom needed

        await set_up_encryption(node.image, options.encrypt)


# By ``-o`` options


_LEVELS: Final = {"0.10": "v2", "1.1": "v3"}
_NAMES: Final = {"compat": "version"}


async def create_by_text(filename: str, texts: Texts, creator: Creator) -> None:
    """Create the file, the data file, and the image in them (qcow2_co_create_opts).

    Raises:
        QmpError: in QEMU's words; files that were made are gone then.

    """
    mine = {option.name for option in CREATE_TEXTS}
    own = {name: value for name, value in texts.items() if name in mine}
    rest = {name: value for name, value in texts.items() if name not in mine}
    if own.pop("encryption", "off") in ("on", "yes", "y", "true"):
        own["encrypt.format"] = "qcow"
    if own.get("encrypt.format") == "aes":
        own["encrypt.format"] = "qcow"
    secret = {k: own.pop(k) for k in list(own) if k.startswith("encrypt.")}
    if "compat" in own:
        own["compat"] = _LEVELS.get(own["compat"], own["compat"])
    data_name = own.pop("data_file", None)
    plain: dict[str, Any] = {
        _NAMES.get(name, name.replace("_", "-")): value for name, value in own.items()
    }
    if secret:
        plain["encrypt"] = {k.removeprefix("encrypt."): value for k, value in secret.items()}
    made: list[Node[Any]] = []
    async with AsyncExitStack() as stack:
        try:
            for member, name in (("file", filename), ("data-file", data_name)):
                if name is not None:
                    await creator.create_file(name, rest)
                    made.append(await stack.enter_async_context(creator.protocol(name)))
                    plain[member] = made[-1].name
            await create(_typed(plain), creator)
        except BaseException:
            for node in made:
                await node.delete_file()
            raise


def _typed(plain: dict[str, Any]) -> BlockdevCreateOptionsQcow2:
    try:
        typed = visit(BlockdevCreateOptionsQcow2, plain, keyval=True, drop="driver")
    except InvalidInput as e:
        raise QmpError(str(e)) from e
    assert isinstance(typed, BlockdevCreateOptionsQcow2)
    return replace(typed, size=-(-typed.size // SECTOR) * SECTOR)
