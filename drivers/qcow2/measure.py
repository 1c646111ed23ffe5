"""How large a qcow2 file would be (after qcow2_measure, block/qcow2.c)."""

import errno
import os
from typing import Any

import numpy as np

from blockemu.chain_map import Mapped, map_chain
from blockemu.create_options import PreallocMode, Texts, UnknownValue
from blockemu.drivers.qcow2 import refusals
from blockemu.drivers.qcow2.create import DEFAULT_CLUSTER, check_cluster_size
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED, DATA, ZERO
from blockemu.images.qcow2.constants import MAX_L1_BYTES
from blockemu.measuring import Measured
from blockemu.node import Node
from blockemu.optlist import is_on, number, size
from blockemu.qmp_server.qapi import InvalidInput, visit
from blockemu.schema.crypto import QCryptoBlockCreateOptionsLUKS

_VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_ENTRY = 8  # bytes of an entry of a table
_DIRECTORY_ENTRY = 24  # bytes, without the bitmap's name


class UnknownLevel(QmpError):
    """(as given)."""

    template = "Invalid compatibility level: '{}'"


class WidthNeedsVersion3(QmpError):
    """Version 2 has refcounts of 16 bits; creating says this in other words."""

    template = (
        "Different refcount widths than 16 bits require compatibility level 1.1 or above "
        "(use compat=1.1 or greater)"
    )


class TooLarge(QmpError):
    """The L1 table would be."""

    template = "The image size is too large (try using a larger cluster size)"


class StatusUnknown(QmpError):
    """(why)."""

    template = "Unable to get block status: {}"


async def measure(texts: Texts, source: Edge | None) -> Measured:
    """Work out the size of an image made with some options, and with what is in a source.

    Raises:
        QmpError: there can be no such image, or the source cannot be read.

    """
    extended = is_on(texts.get("extended_l2"))
    cluster = size(texts.get("cluster_size", "")) or DEFAULT_CLUSTER
    check_cluster_size(cluster, extended=extended)
    level = texts.get("compat", "v3")
    if level not in _VERSIONS:
        raise UnknownLevel(level)
    version = _VERSIONS[level]
    bits = _refcount_bits(texts, version)
    prealloc = texts.get("preallocation", "off")
    if prealloc not in {mode.value for mode in PreallocMode}:
        raise UnknownValue(prealloc)
    header = _up(_crypto_header(texts), cluster)
    virtual = _up(size(texts.get("size", "0")) or 0, cluster)
    entry = _ENTRY * (1 + extended)
    if -(-(virtual // cluster) // (cluster // entry)) * _ENTRY > MAX_L1_BYTES:
        raise TooLarge
    required = 0
    if source is not None:
        virtual = _up(source.length, cluster)
        required = virtual if "backing_file" in texts else await _data(source, cluster)
    if prealloc in ("falloc", "full"):
        required = virtual
    full = _whole(virtual, cluster, entry, bits) + header
    bitmaps = None
    if version >= 3 and source is not None and source.node.supports_bitmaps:
        bitmaps = _bitmaps(source.node, cluster)
    return Measured(full - virtual + required, full, bitmaps)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _crypto_header(texts: Texts) -> int:
    """Return the bytes of a LUKS header, 0 if there shall be none."""
    if texts.get("encrypt.format") != "luks":
        return 0
    from blockemu.encryption import header_bytes  # late: seldom needed

    wanted = {
        name.removeprefix("encrypt."): text
        for name, text in texts.items()
        if name.startswith("encrypt.") and name != "encrypt.format"
    }
    try:
        options = visit(QCryptoBlockCreateOptionsLUKS, wanted, keyval=True)
    except InvalidInput as e:
        raise QmpError(str(e)) from e
    assert isinstance(options, QCryptoBlockCreateOptionsLUKS)
    return header_bytes(options, prefix="encrypt.")


def _refcount_bits(texts: Texts, version: int) -> int:
    bits = number(texts.get("refcount_bits", "16")) or 0
    if not 0 < bits <= 64 or bits & bits - 1:
        raise refusals.BadRefcountWidth
    if version < 3 and bits != 16:
        raise WidthNeedsVersion3
    return bits


async def _data(source: Edge, cluster: int) -> int:
    """Return the bytes of clusters with data."""
    try:
        parts = [part async for part in map_chain(source, 0, source.length)]
    except OSError as e:
        raise StatusUnknown(os.strerror(e.errno or errno.EIO)) from e
    if not parts:
        return 0
    runs = Mapped.concat(parts)
    data = runs.status & (DATA | ALLOCATED | ZERO) == DATA | ALLOCATED
    first = runs.start[data] // cluster
    last = -(-(runs.start + runs.length)[data] // cluster)
    if not len(first):
        return 0
    first[1:] = np.maximum(first[1:], np.maximum.accumulate(last)[:-1])  # each counts once
    return int(np.maximum(last - first, 0).sum()) * cluster


def _whole(virtual: int, cluster: int, entry: int, refcount_bits: int) -> int:
    """Return the size of a file with all clusters in use (qcow2_calc_prealloc_size)."""
    entries = _up(virtual // cluster, cluster // entry)
    tables = _up(entries * entry // cluster, cluster // _ENTRY)
    metadata = cluster + entries * entry + tables * _ENTRY
    clusters = (metadata + virtual) // cluster
    per_block = cluster * 8 // refcount_bits
    blocks = table = 0
    before = -1
    while before != blocks + table:
        before = blocks + table
        blocks = -(-(clusters + table + blocks) // per_block)
        table = -(-blocks // (cluster // _ENTRY))
    return metadata + (blocks + table) * cluster + virtual


def _bitmaps(node: Node[Any], cluster: int) -> int:
    """Return the room that copies of a node's bitmaps would take, all of their bits stored."""
    total = directory = 0
    for bitmap in node.bitmap_set or ():
        if not bitmap.persistent or bitmap.inconsistent:
            continue
        bits = -(-node.length // bitmap.granularity)
        clusters = _up(bits, cluster * 8) // (cluster * 8)
        total += clusters * cluster + _up(clusters * _ENTRY, cluster)
        name = os.fsencode(bitmap.name or "")
        directory += _up(_DIRECTORY_ENTRY + len(name), 8)
    return total + _up(directory, cluster)
