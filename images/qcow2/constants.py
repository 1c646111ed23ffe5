"""Numbers of the qcow2 format."""

from typing import Final

MAGIC: Final = 0x514649FB
COPIED: Final = 1 << 63  # refcount is exactly one: may be written in place
COMPRESSED: Final = 1 << 62
READS_ZERO: Final = 1  # not with subclusters: there the bitmap tells
OFFSET: Final = 0x00FF_FFFF_FFFF_FE00  # of L1 and L2 entries
REFTABLE_OFFSET: Final = 0xFFFF_FFFF_FFFF_FE00
KIND: Final = COPIED | COMPRESSED | READS_ZERO

SUBCLUSTERS: Final = 32
ALL_ALLOCATED: Final = 0xFFFF_FFFF  # the bitmap of an extended L2 entry: low half allocated
ALL_ZERO: Final = 0xFFFF_FFFF_0000_0000  # high half: reads as zeroes

MIN_CLUSTER_BITS: Final = 9
MAX_CLUSTER_BITS: Final = 21
MAX_REFTABLE_BYTES: Final = 8 << 20
MAX_L1_BYTES: Final = 32 << 20
MAX_SNAPSHOTS: Final = 65536
MAX_SNAPSHOT_BYTES: Final = 1024 * MAX_SNAPSHOTS
MAX_SNAPSHOT_EXTRA: Final = 1024
MAX_BITMAPS: Final = 65535
MAX_BITMAP_DIRECTORY: Final = 1024 * MAX_BITMAPS
MAX_HOST_OFFSET: Final = (1 << 56) - 1

DIRTY: Final = 1 << 0  # incompatible features
CORRUPT: Final = 1 << 1
DATA_FILE: Final = 1 << 2
COMPRESSION: Final = 1 << 3
EXTENDED_L2: Final = 1 << 4
KNOWN_INCOMPATIBLE: Final = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
LAZY_REFCOUNTS: Final = 1 << 0  # compatible features
BITMAPS: Final = 1 << 0  # autoclear features
DATA_FILE_RAW: Final = 1 << 1
MAX_BACKING_NAME: Final = 1023  # bytes
KNOWN_AUTOCLEAR: Final = BITMAPS | DATA_FILE_RAW

CRYPT_NONE: Final = 0
CRYPT_AES: Final = 1
CRYPT_LUKS: Final = 2
ZLIB: Final = 0
ZSTD: Final = 1

FEATURE_NAMES: Final = (  # (kind of feature: incompatible, compatible, autoclear; bit; name)
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
)
