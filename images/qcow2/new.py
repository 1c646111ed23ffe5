"""The bytes of a fresh image; without numpy, since the demo is made before anything else runs."""

import struct

from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2.extensions import Extensions, pack_first_cluster
from blockemu.images.qcow2.header import Header


def new_image(
    size: int,
    *,
    cluster_bits: int = 16,
    version: int = 3,
    refcount_order: int = 4,
    extended_l2: bool = False,
    lazy_refcounts: bool = False,
    backing_file: str | None = None,
    backing_format: str | None = None,
    data_file: str | None = None,
    data_file_raw: bool = False,
) -> bytes:
    """Return an image of ``size`` bytes with nothing allocated.

    The header's cluster is followed by the refcount table, its blocks and the L1 table.  With a
    data file that must stay raw the L2 tables are missing: such an image reads as zeroes all the
    same, but QEMU would preallocate them.
    """
    header = Header(
        version=version,
        cluster_bits=cluster_bits,
        size=size,
        refcount_order=refcount_order,
        incompatible_features=(c.EXTENDED_L2 if extended_l2 else 0)
        | (c.DATA_FILE if data_file is not None else 0),
        compatible_features=c.LAZY_REFCOUNTS if lazy_refcounts else 0,
        autoclear_features=c.DATA_FILE_RAW if data_file_raw else 0,
    )
    geometry = header.geometry()
    cluster = geometry.cluster_size
    header.l1_size = geometry.l1_entries(size)
    l1_clusters = geometry.clusters(header.l1_size * 8)
    table_clusters, blocks = geometry.refcount_sizes(1 + l1_clusters)
    used = 1 + table_clusters + blocks + l1_clusters
    first_block = 1 + table_clusters
    header.refcount_table_offset = cluster
    header.refcount_table_clusters = table_clusters
    header.l1_table_offset = (first_block + blocks) * cluster if header.l1_size else 0
    found = Extensions(backing_format=backing_format, data_file=data_file)
    offsets = [(first_block + i) * cluster for i in range(blocks)]
    table = struct.pack(f">{blocks}Q", *offsets).ljust(table_clusters * cluster, b"\0")
    counts = _ones(used, refcount_order).ljust(blocks * cluster, b"\0")
    front = pack_first_cluster(header, b"", found, backing_file)
    return front + table + counts + bytes(l1_clusters * cluster)


def _ones(count: int, order: int) -> bytes:
    """Return ``count`` refcounts of one."""
    if order >= 3:
        return (1).to_bytes(1 << order - 3, "big") * count
    per = 8 >> order
    pattern = {0: 0xFF, 1: 0x55, 2: 0x11}[order]
    full, rest = divmod(count, per)
    tail = pattern & ((1 << (rest << order)) - 1)
    return bytes([pattern]) * full + (bytes([tail]) if rest else b"")
