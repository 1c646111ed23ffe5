"""The qcow2 header: reading it with all of QEMU's checks, in QEMU's order."""

from typing import Annotated, Final

from blockemu.images.layout import U8, U32, U64, Layout
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2 import errors
from blockemu.images.qcow2.geometry import Geometry

LENGTH_V2: Final = 72
LENGTH_V3: Final = 104
L1_SIZE_AT: Final = 36  # fields that are written alone
L1_OFFSET_AT: Final = 40
REFTABLE_AT: Final = 48
SIZE_AT: Final = 24
SNAPSHOTS_AT: Final = 60  # their number and the table's offset
INCOMPATIBLE_AT: Final = 72
_MASK64: Final = (1 << 64) - 1


class Header(Layout):
    """The header as of version 3; version 2 ends before ``incompatible_features``."""

    magic: U32 = c.MAGIC
    version: U32 = 3
    backing_file_offset: U64 = 0
    backing_file_size: U32 = 0
    cluster_bits: U32 = 16
    size: U64 = 0
    crypt_method: U32 = 0
    l1_size: U32 = 0
    l1_table_offset: U64 = 0
    refcount_table_offset: U64 = 0
    refcount_table_clusters: U32 = 0
    nb_snapshots: U32 = 0
    snapshots_offset: U64 = 0
    incompatible_features: U64 = 0
    compatible_features: U64 = 0
    autoclear_features: U64 = 0
    refcount_order: U32 = 4
    header_length: U32 = 112
    compression_type: U8 = 0
    padding: Annotated[bytes, "7s"] = bytes(7)

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def extensions_end(self) -> int:
        """Where the room for extensions ends: at the backing file's name, or with the cluster."""
        return self.backing_file_offset or self.cluster_size

    @property
    def extended_l2(self) -> bool:
        """Whether L2 entries have subclusters."""
        return bool(self.incompatible_features & c.EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """Whether guest data lies in another file."""
        return bool(self.incompatible_features & c.DATA_FILE)

    def geometry(self) -> Geometry:
        """Return the sizes of the image's parts."""
        return Geometry(
            self.version,
            self.cluster_bits,
            self.refcount_order,
            self.extended_l2,
            self.has_data_file,
        )


def parse_header(data: bytes | memoryview) -> Header:
    """Read the fixed part of the header, of 112 bytes.

    Raises:
        FormatError: it is not qcow2, or of an unknown version or shape.

    """
    header = Header.unpack(data)
    if header.magic != c.MAGIC:
        raise errors.NotQcow2
    if not 2 <= header.version <= 3:
        raise errors.BadVersion(header.version)
    if not c.MIN_CLUSTER_BITS <= header.cluster_bits <= c.MAX_CLUSTER_BITS:
        raise errors.BadClusterSize(header.cluster_bits)
    if header.version == 2:
        header.incompatible_features = header.compatible_features = header.autoclear_features = 0
        header.refcount_order, header.header_length = 4, LENGTH_V2
    elif header.header_length < LENGTH_V3:
        raise errors.HeaderTooShort
    if header.header_length > header.cluster_size:
        raise errors.HeaderTooLong
    if header.header_length <= LENGTH_V3:
        header.compression_type = c.ZLIB
    return header


def check_header(header: Header) -> None:
    """Check what comes before the features.

    Raises:
        FormatError: the backing file's name or the compression type cannot be.

    """
    if header.backing_file_offset > header.cluster_size:
        raise errors.BadBackingOffset
    if header.compression_type not in (c.ZLIB, c.ZSTD):
        raise errors.BadCompression(header.compression_type)
    marked = bool(header.incompatible_features & c.COMPRESSION)
    if marked != (header.compression_type != c.ZLIB):
        raise errors.CompressionBit("must not" if marked else "must")


def check_features(header: Header, names: bytes) -> None:
    """Check that all incompatible features are known; ``names`` is the feature name table.

    Raises:
        UnsupportedFeatures: some are not.

    """
    unknown = header.incompatible_features & ~c.KNOWN_INCOMPATIBLE
    if not unknown:
        return
    found = []
    names += bytes(2 * 48)  # the last entry may be cut short
    for at in range(0, len(names) - 47, 48):
        kind, bit, name = names[at], names[at + 1], names[at + 2 : at + 48]
        if not name[0]:
            break
        mask = 1 << (bit & 63)
        if kind == 0 and unknown & mask:
            found.append(name.split(b"\0")[0].decode(errors="replace"))
            unknown &= ~mask
    if unknown:
        found.append(f"Unknown incompatible feature: {unknown:x}")
    raise errors.UnsupportedFeatures(", ".join(found))


def check_tables(header: Header, *, check: bool = False) -> None:
    """Check sizes and places of what the header points to.

    ``check``: the image is to be checked, which may repair some of it.

    Raises:
        FormatError: a table is too large, too small, or nowhere.

    """
    subcluster = header.cluster_size // (c.SUBCLUSTERS if header.extended_l2 else 1)
    if subcluster < 1 << c.MIN_CLUSTER_BITS:
        raise errors.BadSubclusterSize(subcluster)
    if header.refcount_order > 6:
        raise errors.BadRefcountOrder
    if not header.refcount_table_clusters and not check:
        raise errors.NoRefcountTable
    clusters, size = header.refcount_table_clusters, header.cluster_size
    check_table(
        header, header.refcount_table_offset, clusters, size, c.MAX_REFTABLE_BYTES,
        "Reference count table",
    )  # fmt: skip
    if not check:
        check_table(
            header, header.snapshots_offset, header.nb_snapshots, 40, 40 * c.MAX_SNAPSHOTS,
            "Snapshot table",
        )  # fmt: skip
    check_table(
        header, header.l1_table_offset, header.l1_size, 8, c.MAX_L1_BYTES, "Active L1 table"
    )
    shift = header.geometry().table_bits
    needed = (header.size + (1 << shift) - 1 & _MASK64) >> shift
    if needed > 0x7FFF_FFFF:
        raise errors.ImageTooBig
    if header.l1_size < needed:
        raise errors.L1TooSmall


def check_table(
    sizes: Header | Geometry,
    offset: int,
    entries: int,
    entry_size: int,
    most: int,
    name: str,
) -> None:
    """Check one table's size and place (after qcow2_validate_table).

    Raises:
        TableTooLarge: it has more than ``most`` bytes.
        BadTableOffset: it is not at a cluster, or beyond what can be addressed.

    """
    if entries > most // entry_size:
        raise errors.TableTooLarge(name)
    if (1 << 63) - 1 - entries * entry_size < offset or offset & sizes.cluster_size - 1:
        raise errors.BadTableOffset(name)
