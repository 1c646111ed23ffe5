"""Migration: a machine's state moves to another program (qapi/migration.json)."""

from typing import Annotated

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import (
    ABSENT,
    U8,
    U32,
    U64,
    Features,
    QEnum,
    Since,
    Size,
    Struct,
    values,
)
from blockemu.schema.alternates import StrOrNull
from blockemu.schema.sockets import AnySocketAddress


@values(
    since={
        "postcopy-active": "2.5",
        "postcopy-paused": "3.0",
        "postcopy-recover": "3.0",
        "colo": "2.8",
        "pre-switchover": "2.11",
        "device": "2.11",
        "wait-unplug": "4.2",
    }
)
class MigrationStatus(QEnum):
    """How far a migration is."""

    NONE = "none"
    SETUP = "setup"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ACTIVE = "active"
    POSTCOPY_ACTIVE = "postcopy-active"
    POSTCOPY_PAUSED = "postcopy-paused"
    POSTCOPY_RECOVER = "postcopy-recover"
    COMPLETED = "completed"
    FAILED = "failed"
    COLO = "colo"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    WAIT_UNPLUG = "wait-unplug"


class MigrationStats(Struct):
    """What was sent of a machine's memory, or of its disks.

    @transferred: bytes sent
    @remaining: bytes still to be sent
    @total: bytes in all
    @duplicate: pages that were all zeroes
    @skipped: 0
    @normal: pages sent as they are
    @normal-bytes: the same in bytes
    @dirty-pages-rate: pages that the guest writes in a second
    @mbps: megabits sent in a second
    @dirty-sync-count: how often it was looked which pages the guest has written
    @postcopy-requests: pages that the other side asked for
    @page-size: bytes of a page
    @multifd-bytes: bytes sent by other channels
    @pages-per-second: pages sent in a second
    @precopy-bytes: bytes sent while the machine ran here
    @downtime-bytes: bytes sent while it ran nowhere
    @postcopy-bytes: bytes sent while it ran there
    @dirty-sync-missed-zero-copy: how often pages were copied though they should not have been
    """

    transferred: int
    remaining: int
    total: int
    duplicate: int
    skipped: int
    normal: int
    normal_bytes: int
    dirty_pages_rate: int
    mbps: float
    dirty_sync_count: int
    postcopy_requests: Annotated[int, Since("2.7")]
    page_size: Annotated[int, Since("2.10")]
    multifd_bytes: Annotated[U64, Since("3.0")]
    pages_per_second: Annotated[U64, Since("4.0")]
    precopy_bytes: Annotated[U64, Since("7.0")]
    downtime_bytes: Annotated[U64, Since("7.0")]
    postcopy_bytes: Annotated[U64, Since("7.0")]
    dirty_sync_missed_zero_copy: Annotated[U64, Since("7.1")]


class XBZRLECacheStats(Struct):
    """How well pages were compressed by what differs from before; there are no pages here.

    @cache-size: bytes of the cache
    @bytes: bytes sent
    @pages: pages sent
    @cache-miss: pages that were not in the cache
    @cache-miss-rate: their part
    @encoding-rate: how much smaller they became
    @overflow: pages that became larger
    """

    cache_size: Size
    bytes: int
    pages: int
    cache_miss: int
    cache_miss_rate: float
    encoding_rate: Annotated[float, Since("5.1")]
    overflow: int


class CompressionStats(Struct):
    """How well pages were compressed; there are no pages here.

    @pages: pages sent
    @busy: how often no thread was free
    @busy-rate: its part
    @compressed-size: bytes sent
    @compression-rate: how much smaller they became
    """

    pages: int
    busy: int
    busy_rate: float
    compressed_size: int
    compression_rate: float


class VfioStats(Struct):
    """What was sent of assigned devices; there are none here.

    @transferred: bytes sent
    """

    transferred: int


class MigrationInfo(Struct):
    """How far a migration is; empty if there was none.

    @status: how far
    @ram: what was sent of the machine's memory
    @disk: what was sent of its disks
    @vfio: what was sent of assigned devices
    @xbzrle-cache: how well pages were compressed
    @total-time: milliseconds since its begin, or that it took
    @expected-downtime: milliseconds that the machine will stand still
    @downtime: milliseconds that it stood still
    @setup-time: milliseconds that the preparation took
    @cpu-throttle-percentage: how much the guest is slowed down
    @error-desc: why it failed
    @blocked-reasons: why none can be begun
    @postcopy-blocktime: milliseconds that all of the guest's CPUs waited for pages
    @postcopy-vcpu-blocktime: the same for each
    @compression: how well pages were compressed by threads
    @socket-address: where the other side may connect to
    """

    status: MigrationStatus | None = None
    ram: MigrationStats | None = None
    disk: MigrationStats | None = None
    vfio: Annotated[VfioStats | None, Since("5.2")] = None
    xbzrle_cache: XBZRLECacheStats | None = None
    total_time: int | None = None
    expected_downtime: int | None = None
    downtime: int | None = None
    setup_time: int | None = None
    cpu_throttle_percentage: int | None = None
    error_desc: str | None = None
    blocked_reasons: Annotated[list[str] | None, Since("6.0")] = None
    postcopy_blocktime: Annotated[U32 | None, Since("3.0")] = None
    postcopy_vcpu_blocktime: Annotated[list[U32] | None, Since("3.0")] = None
    compression: Annotated[CompressionStats | None, Since("3.1")] = None
    socket_address: Annotated[list[AnySocketAddress] | None, Since("4.0")] = None


@values(
    since={
        "postcopy-ram": "2.6",
        "x-colo": "2.8",
        "release-ram": "2.9",
        "block": "2.10",
        "return-path": "2.10",
        "pause-before-switchover": "2.11",
        "multifd": "4.0",
        "dirty-bitmaps": "2.12",
        "postcopy-blocktime": "3.0",
        "late-block-activate": "3.0",
        "x-ignore-shared": "4.0",
        "validate-uuid": "4.2",
        "background-snapshot": "6.0",
        "zero-copy-send": "7.1",
        "postcopy-preempt": "7.1",
    },
    features={"x-colo": ("unstable",), "x-ignore-shared": ("unstable",)},
)
class MigrationCapability(QEnum):
    """What a migration may do."""

    XBZRLE = "xbzrle"
    RDMA_PIN_ALL = "rdma-pin-all"
    AUTO_CONVERGE = "auto-converge"
    ZERO_BLOCKS = "zero-blocks"
    COMPRESS = "compress"
    EVENTS = "events"
    POSTCOPY_RAM = "postcopy-ram"
    X_COLO = "x-colo"
    RELEASE_RAM = "release-ram"
    BLOCK = "block"
    RETURN_PATH = "return-path"
    PAUSE_BEFORE_SWITCHOVER = "pause-before-switchover"
    MULTIFD = "multifd"
    DIRTY_BITMAPS = "dirty-bitmaps"
    POSTCOPY_BLOCKTIME = "postcopy-blocktime"
    LATE_BLOCK_ACTIVATE = "late-block-activate"
    X_IGNORE_SHARED = "x-ignore-shared"
    VALIDATE_UUID = "validate-uuid"
    BACKGROUND_SNAPSHOT = "background-snapshot"
    ZERO_COPY_SEND = "zero-copy-send"
    POSTCOPY_PREEMPT = "postcopy-preempt"


class MigrationCapabilityStatus(Struct):
    """Whether a migration may do something.

    @capability: what
    @state: whether it may
    """

    capability: MigrationCapability
    state: bool


class MultiFDCompression(QEnum):
    """How pages that go by other channels are compressed."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"


class BitmapMigrationBitmapAliasTransform(Struct):
    """What is different of a bitmap on the other side.

    @persistent: whether it is kept in the image
    """

    persistent: bool | None = None


class BitmapMigrationBitmapAlias(Struct):
    """The name by which a bitmap is sent.

    @name: its name here
    @alias: its name in the stream
    @transform: what is different of it on the other side
    """

    name: str
    alias: str
    transform: Annotated[BitmapMigrationBitmapAliasTransform | None, Since("6.0")] = None


class BitmapMigrationNodeAlias(Struct):
    """The name by which a node with bitmaps is known to both sides.

    @node-name: its name here
    @alias: its name in the stream
    @bitmaps: its bitmaps that are to be sent or received
    """

    node_name: str
    alias: str
    bitmaps: list[BitmapMigrationBitmapAlias]


class _Parameters(Struct):
    """What both ways to see the parameters share: all but those of TLS.

    @announce-initial: milliseconds before the first announcement
    @announce-max: milliseconds between announcements at the most
    @announce-rounds: how often the machine announces itself
    @announce-step: milliseconds by which the time between announcements grows
    @compress-level: how hard to compress, 0 to 9
    @compress-threads: how many threads compress
    @compress-wait-thread: whether to wait for one that is free
    @decompress-threads: how many threads decompress
    @throttle-trigger-threshold: from what part of what was sent on the guest is slowed down
    @cpu-throttle-initial: by how much at first, in per cent
    @cpu-throttle-increment: by how much more each time
    @cpu-throttle-tailslow: whether to go carefully at the end
    @max-bandwidth: bytes to send in a second at the most
    @downtime-limit: milliseconds that the machine may stand still
    @x-checkpoint-delay: milliseconds between checkpoints
    @block-incremental: whether only the topmost image of each disk is sent
    @multifd-channels: how many channels there are for pages
    @xbzrle-cache-size: bytes of the cache of pages
    @max-postcopy-bandwidth: bytes to send in a second once the machine runs there, 0: no limit
    @max-cpu-throttle: by how much the guest may be slowed down, in per cent
    @multifd-compression: how pages are compressed
    @multifd-zlib-level: how hard zlib compresses
    @multifd-zstd-level: how hard zstd compresses
    @block-bitmap-mapping: names of nodes and bitmaps in the stream; without it their own
    """

    announce_initial: Annotated[Size | None, Since("4.0")] = None
    announce_max: Annotated[Size | None, Since("4.0")] = None
    announce_rounds: Annotated[Size | None, Since("4.0")] = None
    announce_step: Annotated[Size | None, Since("4.0")] = None
    compress_level: U8 | None = None
    compress_threads: U8 | None = None
    compress_wait_thread: Annotated[bool | None, Since("3.1")] = None
    decompress_threads: U8 | None = None
    throttle_trigger_threshold: Annotated[U8 | None, Since("5.0")] = None
    cpu_throttle_initial: U8 | None = None
    cpu_throttle_increment: U8 | None = None
    cpu_throttle_tailslow: Annotated[bool | None, Since("5.1")] = None
    max_bandwidth: Size | None = None
    downtime_limit: U64 | None = None
    x_checkpoint_delay: Annotated[U32 | None, Features("unstable")] = None
    block_incremental: bool | None = None
    multifd_channels: Annotated[U8 | None, Since("4.0")] = None
    xbzrle_cache_size: Size | None = None
    max_postcopy_bandwidth: Annotated[Size | None, Since("3.0")] = None
    max_cpu_throttle: Annotated[U8 | None, Since("3.1")] = None
    multifd_compression: Annotated[MultiFDCompression | None, Since("5.0")] = None
    multifd_zlib_level: Annotated[U8 | None, Since("5.0")] = None
    multifd_zstd_level: Annotated[U8 | None, Since("5.0")] = None
    block_bitmap_mapping: Annotated[list[BitmapMigrationNodeAlias] | None, Since("5.2")] = None


class MigrateSetParameters(_Parameters):
    """Parameters to be changed.

    @tls-creds: object with credentials; empty: no encryption
    @tls-hostname: host that the other side's certificate must name
    @tls-authz: object that says who may connect
    """

    tls_creds: StrOrNull = ABSENT
    tls_hostname: StrOrNull = ABSENT
    tls_authz: Annotated[StrOrNull, Since("4.0")] = ABSENT


class MigrationParameters(_Parameters):
    """The parameters.

    @tls-creds: object with credentials; empty: no encryption
    @tls-hostname: host that the other side's certificate must name
    @tls-authz: object that says who may connect
    """

    tls_creds: str | None = None
    tls_hostname: str | None = None
    tls_authz: Annotated[str | None, Since("4.0")] = None


class Migration(Event, event="MIGRATION"):
    """A migration is at another status; told if the capability ``events`` is on.

    @status: the status
    """

    status: MigrationStatus


class MigrationPass(Event, event="MIGRATION_PASS"):
    """Memory is looked at once more for what the guest has written.

    @pass: the how manieth time
    """

    pass_: int
