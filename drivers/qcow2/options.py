"""Options of qcow2, and what QEMU checks about them once the header is known."""

from typing import Annotated, Any, Final

from blockemu.blockdev_options import BlockdevRef, BlockdevRefOrNull, NodeOptions
from blockemu.errors import QmpError
from blockemu.images.qcow2.constants import (
    CRYPT_AES,
    LAZY_REFCOUNTS,
    MIN_CLUSTER_BITS,
)
from blockemu.images.qcow2.errors import BadEncryption
from blockemu.images.qcow2.header import Header
from blockemu.node import Flags
from blockemu.perm import Role
from blockemu.qmp_server.qapi import ABSENT, Alternate, QEnum, Since, Struct, Union
from blockemu.records import record

DEFAULT_L2_CACHE: Final = 32 << 20
MIN_L2_ENTRIES: Final = 2
MIN_REFCOUNT_BLOCKS: Final = 4
DEFAULT_CLEAN_INTERVAL: Final = 600  # seconds
OVERLAP_MEMBERS: Final = {
    "main_header": "qcow2_header",
    "active_l1": "active L1 table",
    "active_l2": "active L2 table",
    "refcount_table": "refcount table",
    "refcount_block": "refcount block",
    "snapshot_table": "snapshot table",
    "inactive_l1": "inactive L1 table",
    "inactive_l2": "inactive L2 table",
    "bitmap_directory": "bitmap directory",
}
_INT_MAX, _UINT_MAX = (1 << 31) - 1, (1 << 32) - 1


SIZES = frozenset({"cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size"})
CHANGEABLE = SIZES | {  # by a reopen
    "lazy-refcounts",
    "pass-discard-request",
    "pass-discard-snapshot",
    "pass-discard-other",
    "overlap-check",
    "cache-clean-interval",
    "encrypt",
}


class Qcow2OverlapCheckMode(QEnum):
    """Which writes are checked against overwriting metadata."""

    NONE = "none"
    CONSTANT = "constant"
    CACHED = "cached"
    ALL = "all"


_CONSTANT: Final = frozenset(
    ("qcow2_header", "active L1 table", "refcount table", "snapshot table", "bitmap directory")
)
_CACHED: Final = _CONSTANT | {"active L2 table", "refcount block", "inactive L1 table"}
GUARDED: Final = {
    Qcow2OverlapCheckMode.NONE: frozenset[str](),
    Qcow2OverlapCheckMode.CONSTANT: _CONSTANT,
    Qcow2OverlapCheckMode.CACHED: _CACHED,
    Qcow2OverlapCheckMode.ALL: _CACHED | {"inactive L2 table"},
}


class Qcow2OverlapCheckFlags(Struct):
    """Which metadata is guarded.

    @template: what the rest defaults to
    @main-header: the header
    @active-l1: the active L1 table
    @active-l2: the active L2 tables
    @refcount-table: the refcount table
    @refcount-block: the refcount blocks
    @snapshot-table: the snapshot table
    @inactive-l1: the snapshots' L1 tables
    @inactive-l2: the snapshots' L2 tables
    @bitmap-directory: the directory of bitmaps
    """

    template: Qcow2OverlapCheckMode | None = None
    main_header: bool | None = None
    active_l1: bool | None = None
    active_l2: bool | None = None
    refcount_table: bool | None = None
    refcount_block: bool | None = None
    snapshot_table: bool | None = None
    inactive_l1: bool | None = None
    inactive_l2: bool | None = None
    bitmap_directory: Annotated[bool | None, Since("3.0")] = None


Qcow2OverlapChecks = Annotated[
    Qcow2OverlapCheckFlags | Qcow2OverlapCheckMode,
    Alternate("Qcow2OverlapChecks", (Qcow2OverlapCheckFlags, Qcow2OverlapCheckMode)),
]


class BlockdevQcow2EncryptionFormat(QEnum):
    """How a qcow2 image can be encrypted."""

    AES = "aes"
    LUKS = "luks"


ENCRYPTION = Union("BlockdevQcow2Encryption", "format")


class Qcow2Encryption(Struct):
    """How to decrypt the image."""

    union = ENCRYPTION


class Qcow2EncryptionAes(Qcow2Encryption, tag="aes"):
    """AES-CBC of old.

    @key-secret: the ID of the secret with the key
    """

    key_secret: str | None = None


class Qcow2EncryptionLuks(Qcow2Encryption, tag="luks"):
    """LUKS.

    @key-secret: the ID of the secret with the passphrase
    """

    key_secret: str | None = None


class Qcow2EncryptionTexts(Qcow2Encryption):
    """How texts say to decrypt the image: no case of QAPI's, the header may have the format.

    @format: whatever they call it; the header's if they do not
    @key-secret: the ID of the secret
    @unexpected: what does not belong there; nobody looks unless the image is encrypted
    """

    format: str | None = None
    key_secret: str | None = None
    unexpected: str | None = None

    @classmethod
    def of(cls, texts: dict[str, str]) -> "Qcow2EncryptionTexts":
        """Make one of options without their prefix."""
        odd = next((name for name in texts if name not in ("format", "key-secret")), None)
        return cls(format=texts.get("format"), key_secret=texts.get("key-secret"), unexpected=odd)


class Qcow2Options(NodeOptions, tag="qcow2"):
    """Options of qcow2.

    @file: the node that holds the image
    @backing: the node that unallocated clusters are read from
    @lazy-refcounts: whether refcounts may be left wrong until the image is closed
    @pass-discard-request: whether discards are passed to the file
    @pass-discard-snapshot: whether space freed with a snapshot is discarded in the file
    @pass-discard-other: whether space freed otherwise is discarded in the file
    @overlap-check: which writes are checked against overwriting metadata
    @cache-size: the most bytes of metadata to keep in memory
    @l2-cache-size: the most bytes of L2 tables to keep in memory
    @l2-cache-entry-size: the piece of an L2 table that is kept at a time
    @refcount-cache-size: the most bytes of refcount blocks to keep in memory
    @cache-clean-interval: seconds after which metadata not used is dropped
    @encrypt: how to decrypt the image
    @data-file: the node that holds the guest's data, if the image needs one
    """

    file: Annotated[BlockdevRef, Role.IMAGE]
    backing: Annotated[BlockdevRefOrNull, Role.COW] = ABSENT
    lazy_refcounts: bool | None = None
    pass_discard_request: bool | None = None
    pass_discard_snapshot: bool | None = None
    pass_discard_other: bool | None = None
    overlap_check: Annotated[Qcow2OverlapChecks | None, Since("2.2")] = None
    cache_size: Annotated[int | None, Since("2.2")] = None
    l2_cache_size: Annotated[int | None, Since("2.2")] = None
    l2_cache_entry_size: Annotated[int | None, Since("2.12")] = None
    refcount_cache_size: Annotated[int | None, Since("2.2")] = None
    cache_clean_interval: Annotated[int | None, Since("2.5")] = None
    encrypt: Annotated[Annotated[Qcow2Encryption, ENCRYPTION] | None, Since("2.10")] = None
    data_file: Annotated[BlockdevRef | None, Role.DATA, Since("4.0")] = None


class TooManyCacheSizes(QmpError):
    """All three sizes are given."""

    template = "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"


class CacheExceeds(QmpError):
    """A part is larger than the whole: the part's option."""

    template = "{} may not exceed cache-size"


class BadL2EntrySize(QmpError):
    """The size of a piece is no power of two, or out of range: the cluster size."""

    template = "L2 cache entry size must be a power of two between 512 and the cluster size ({})"


class NegativeSize(QmpError):
    """An option for a size below zero: its name."""

    template = "Parameter '{}' expects a non-negative number below 2^64"


class CacheTooBig(QmpError):
    """Which cache."""

    template = "{} cache size too big"


class CleanIntervalTooBig(QmpError):
    """The interval does not fit an unsigned int."""

    template = "Cache clean interval too big"


class LazyNeedsV3(QmpError):
    """Version 2 cannot say that it is dirty."""

    template = "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"


class NoEncryption(QmpError):
    """Options to decrypt what is not encrypted: the format in them."""

    template = "No encryption in image header, but options specified format '{}'"


class UnexpectedEncryption(QmpError):
    """An option to decrypt the image that there is not: its name."""

    template = "Parameter '{}' is unexpected"


class OtherEncryption(QmpError):
    """(header, options): the formats do not agree."""

    template = "Header reported '{}' encryption format but options specify '{}'"


@record(frozen=True)
class Settings:
    """What the options come to for an image.

    ``l2_tables``, ``refcount_blocks``: the most to keep in memory.
    """

    l2_tables: int
    refcount_blocks: int
    clean_interval: int
    lazy_refcounts: bool
    pass_request: bool
    pass_snapshot: bool
    pass_other: bool
    overlap_check: frozenset[str]  # what is guarded; names as in ``overlap.NAMES``


def strong(options: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options, nested, that a json: name must have: the secret's name."""
    encrypt = options.get("encrypt")
    given = encrypt.get("key-secret") if isinstance(encrypt, dict) else None
    return {} if given is None else {"encrypt.key-secret": given}


def settings(options: Qcow2Options, header: Header, flags: Flags) -> Settings:
    """Check the options against the header (after qcow2_update_options_prepare).

    Raises:
        QmpError: they do not fit, or each other.

    """
    for name in ("cache_size", "l2_cache_size", "l2_cache_entry_size", "refcount_cache_size"):
        if (getattr(options, name) or 0) < 0:
            raise NegativeSize(name.replace("_", "-"))
    l2_bytes, entry, refcount_bytes = cache_sizes(options, header)
    if max(l2_bytes // entry, MIN_L2_ENTRIES) > _INT_MAX:
        raise CacheTooBig("L2")
    blocks = max(refcount_bytes // header.cluster_size, MIN_REFCOUNT_BLOCKS)
    if blocks > _INT_MAX:
        raise CacheTooBig("Refcount")
    interval = options.cache_clean_interval
    interval = DEFAULT_CLEAN_INTERVAL if interval is None else interval
    if not 0 <= interval <= _UINT_MAX:
        raise CleanIntervalTooBig
    lazy = options.lazy_refcounts
    lazy = bool(header.compatible_features & LAZY_REFCOUNTS) if lazy is None else lazy
    if lazy and header.version < 3:
        raise LazyNeedsV3
    _check_encryption(options, header)
    request = options.pass_discard_request
    return Settings(
        l2_tables=max(l2_bytes >> header.cluster_bits, MIN_L2_ENTRIES),
        refcount_blocks=blocks,
        clean_interval=interval,
        lazy_refcounts=lazy,
        pass_request=flags.unmap if request is None else request,
        pass_snapshot=options.pass_discard_snapshot is not False,
        pass_other=bool(options.pass_discard_other),
        overlap_check=_overlap_check(options.overlap_check),
    )


def cache_sizes(options: Qcow2Options, header: Header) -> tuple[int, int, int]:
    """Return bytes for L2 tables, of one piece of them, and for refcount blocks.

    After read_cache_sizes, block/qcow2.c.

    Raises:
        QmpError: sizes contradict each other.

    """
    whole = options.cache_size
    cluster = header.cluster_size
    entry_bytes = header.geometry().entry_size
    most = -(-(-(-header.size // cluster) * entry_bytes) // cluster) * cluster
    l2_set = DEFAULT_L2_CACHE if options.l2_cache_size is None else options.l2_cache_size
    l2 = min(most, l2_set)
    refcounts = options.refcount_cache_size or 0
    entry = cluster if options.l2_cache_entry_size is None else options.l2_cache_entry_size
    if whole is not None:
        if options.l2_cache_size is not None and options.refcount_cache_size is not None:
            raise TooManyCacheSizes
        if options.l2_cache_size is not None and l2_set > whole:
            raise CacheExceeds("l2-cache-size")
        if refcounts > whole:
            raise CacheExceeds("refcount-cache-size")
        least = MIN_REFCOUNT_BLOCKS * cluster
        if options.l2_cache_size is not None:
            refcounts = whole - l2
        elif options.refcount_cache_size is not None:
            l2 = whole - refcounts
        elif whole >= most + least:
            l2, refcounts = most, whole - most
        else:
            refcounts = min(whole, least)
            l2 = whole - refcounts
    if l2 < most and options.l2_cache_entry_size is None:
        entry = min(cluster, 4096)
    if not 1 << MIN_CLUSTER_BITS <= entry <= cluster or entry & entry - 1:
        raise BadL2EntrySize(cluster)
    return l2, entry, refcounts


def _overlap_check(value: Any) -> frozenset[str]:
    """Return what is to be guarded: what the template has, and then what is set one by one."""
    flags = value if isinstance(value, Qcow2OverlapCheckFlags) else Qcow2OverlapCheckFlags()
    mode = flags.template if flags is value else value
    guarded = set(GUARDED[mode or Qcow2OverlapCheckMode.CACHED])
    for member, kind in OVERLAP_MEMBERS.items():
        wanted = getattr(flags, member)
        if wanted is not None:
            (guarded.add if wanted else guarded.discard)(kind)
    return frozenset(guarded)


def _check_encryption(options: Qcow2Options, header: Header) -> None:
    encrypt = options.encrypt
    texts = encrypt if isinstance(encrypt, Qcow2EncryptionTexts) else None
    wanted = texts.format if texts else encrypt and encrypt.tag
    match header.crypt_method:
        case 0:
            if wanted is not None:
                raise NoEncryption(wanted)
        case 1 | 2:
            has = "aes" if header.crypt_method == CRYPT_AES else "luks"
            if wanted is not None and wanted != has:
                raise OtherEncryption(has, wanted)
            if texts and texts.unexpected:
                raise UnexpectedEncryption(texts.unexpected)
        case _:
            method = header.crypt_method
            raise BadEncryption(method - (method >> 31 << 32))  # told as a signed number
