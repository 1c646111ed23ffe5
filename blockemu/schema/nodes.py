"""What queries tell of nodes and devices (qapi/block-core.json)."""

from typing import Annotated

from blockemu.blockdev_options import BlockdevDetectZeroesOptions
from blockemu.qmp_server.qapi import U64, Deprecated, QEnum, Removed, Since, Struct, Wire, values
from blockemu.schema.bitmaps import BlockDirtyInfo
from blockemu.schema.images import ImageInfo
from blockemu.schema.jobs import BlockDeviceIoStatus
from blockemu.schema.stats import BLOCK_STATS_SPECIFIC, BlockStatsSpecific


class BlockdevCacheInfo(Struct):
    """Cache mode.

    @writeback: whether writes complete before they are durable
    @direct: whether the host's page cache is bypassed
    @no-flush: whether flushes are ignored
    """

    writeback: bool
    direct: bool
    no_flush: bool


class BlockDeviceInfo(Struct):
    """A node.

    @file: file name
    @node-name: name of the node
    @ro: whether it is read-only
    @drv: driver
    @backing_file: name of the backing image
    @backing_file_depth: number of images below
    @encrypted: whether it is encrypted
    @encryption_key_missing: always false
    @detect_zeroes: whether zeroes in writes are looked for
    @bps: total bytes a second
    @bps_rd: bytes read a second
    @bps_wr: bytes written a second
    @iops: total requests a second
    @iops_rd: reads a second
    @iops_wr: writes a second
    @image: the image
    @bps_max: total bytes a second in bursts
    @bps_rd_max: bytes read a second in bursts
    @bps_wr_max: bytes written a second in bursts
    @iops_max: total requests a second in bursts
    @iops_rd_max: reads a second in bursts
    @iops_wr_max: writes a second in bursts
    @bps_max_length: seconds of such a burst
    @bps_rd_max_length: seconds of such a burst
    @bps_wr_max_length: seconds of such a burst
    @iops_max_length: seconds of such a burst
    @iops_rd_max_length: seconds of such a burst
    @iops_wr_max_length: seconds of such a burst
    @iops_size: bytes that count as one request
    @group: throttle group
    @cache: cache mode
    @write_threshold: offset beyond which a write is reported, 0 for none
    @dirty-bitmaps: dirty bitmaps
    """

    file: str
    node_name: str | None = None
    ro: bool
    drv: str
    backing_file: Annotated[str | None, Wire("backing_file")] = None
    backing_file_depth: Annotated[int, Wire("backing_file_depth")]
    encrypted: bool
    encryption_key_missing: Annotated[
        bool, Wire("encryption_key_missing"), Deprecated("2.10"), Removed("6.0")
    ]
    detect_zeroes: Annotated[BlockdevDetectZeroesOptions, Wire("detect_zeroes")]
    bps: int
    bps_rd: Annotated[int, Wire("bps_rd")]
    bps_wr: Annotated[int, Wire("bps_wr")]
    iops: int
    iops_rd: Annotated[int, Wire("iops_rd")]
    iops_wr: Annotated[int, Wire("iops_wr")]
    image: ImageInfo
    bps_max: Annotated[int | None, Wire("bps_max")] = None
    bps_rd_max: Annotated[int | None, Wire("bps_rd_max")] = None
    bps_wr_max: Annotated[int | None, Wire("bps_wr_max")] = None
    iops_max: Annotated[int | None, Wire("iops_max")] = None
    iops_rd_max: Annotated[int | None, Wire("iops_rd_max")] = None
    iops_wr_max: Annotated[int | None, Wire("iops_wr_max")] = None
    bps_max_length: Annotated[int | None, Wire("bps_max_length")] = None
    bps_rd_max_length: Annotated[int | None, Wire("bps_rd_max_length")] = None
    bps_wr_max_length: Annotated[int | None, Wire("bps_wr_max_length")] = None
    iops_max_length: Annotated[int | None, Wire("iops_max_length")] = None
    iops_rd_max_length: Annotated[int | None, Wire("iops_rd_max_length")] = None
    iops_wr_max_length: Annotated[int | None, Wire("iops_wr_max_length")] = None
    iops_size: Annotated[int | None, Wire("iops_size")] = None
    group: str | None = None
    cache: BlockdevCacheInfo
    write_threshold: Annotated[int, Wire("write_threshold")]
    dirty_bitmaps: Annotated[list[BlockDirtyInfo] | None, Since("4.2")] = None


class BlockInfo(Struct):
    """A device.

    @device: its name
    @qdev: path of the guest device
    @type: always unknown
    @removable: whether the medium can be changed
    @locked: whether the guest locked the medium
    @inserted: the medium
    @tray_open: whether the tray is open
    @io-status: whether it met an error
    @dirty-bitmaps: dirty bitmaps, also in ``inserted``
    """

    device: str
    qdev: str | None = None
    type: str
    removable: bool
    locked: bool
    inserted: BlockDeviceInfo | None = None
    tray_open: Annotated[bool | None, Wire("tray_open")] = None
    io_status: BlockDeviceIoStatus | None = None
    dirty_bitmaps: Annotated[list[BlockDirtyInfo] | None, Deprecated("4.2"), Removed("6.0")] = None


class BlockDeviceTimedStats(Struct):
    """Statistics over an interval.

    @interval_length: seconds
    @min_rd_latency_ns: shortest read
    @max_rd_latency_ns: longest read
    @avg_rd_latency_ns: average read
    @min_wr_latency_ns: shortest write
    @max_wr_latency_ns: longest write
    @avg_wr_latency_ns: average write
    @min_flush_latency_ns: shortest flush
    @max_flush_latency_ns: longest flush
    @avg_flush_latency_ns: average flush
    @avg_rd_queue_depth: average number of reads under way
    @avg_wr_queue_depth: average number of writes under way
    """

    interval_length: Annotated[int, Wire("interval_length")]
    min_rd_latency_ns: Annotated[int, Wire("min_rd_latency_ns")]
    max_rd_latency_ns: Annotated[int, Wire("max_rd_latency_ns")]
    avg_rd_latency_ns: Annotated[int, Wire("avg_rd_latency_ns")]
    min_wr_latency_ns: Annotated[int, Wire("min_wr_latency_ns")]
    max_wr_latency_ns: Annotated[int, Wire("max_wr_latency_ns")]
    avg_wr_latency_ns: Annotated[int, Wire("avg_wr_latency_ns")]
    min_flush_latency_ns: Annotated[int, Wire("min_flush_latency_ns")]
    max_flush_latency_ns: Annotated[int, Wire("max_flush_latency_ns")]
    avg_flush_latency_ns: Annotated[int, Wire("avg_flush_latency_ns")]
    avg_rd_queue_depth: Annotated[float, Wire("avg_rd_queue_depth")]
    avg_wr_queue_depth: Annotated[float, Wire("avg_wr_queue_depth")]


class BlockLatencyHistogramInfo(Struct):
    """A latency histogram.

    @boundaries: of the intervals, in nanoseconds
    @bins: requests in each interval
    """

    boundaries: list[U64]
    bins: list[U64]


class BlockDeviceStats(Struct):
    """What a device has done: requests, bytes, and nanoseconds, by kind of request.

    @rd_bytes: bytes read
    @wr_bytes: bytes written
    @unmap_bytes: bytes discarded
    @rd_operations: reads
    @wr_operations: writes
    @flush_operations: flushes
    @unmap_operations: discards
    @rd_total_time_ns: time spent on reads
    @wr_total_time_ns: time spent on writes
    @flush_total_time_ns: time spent on flushes
    @unmap_total_time_ns: time spent on discards
    @wr_highest_offset: end of the last byte ever written
    @rd_merged: reads merged
    @wr_merged: writes merged
    @unmap_merged: discards merged
    @idle_time_ns: since the last request
    @failed_rd_operations: reads that failed
    @failed_wr_operations: writes that failed
    @failed_flush_operations: flushes that failed
    @failed_unmap_operations: discards that failed
    @invalid_rd_operations: invalid reads
    @invalid_wr_operations: invalid writes
    @invalid_flush_operations: invalid flushes
    @invalid_unmap_operations: invalid discards
    @account_invalid: whether invalid requests count
    @account_failed: whether failed requests count
    @timed_stats: statistics over intervals
    @rd_latency_histogram: latencies of reads
    @wr_latency_histogram: latencies of writes
    @flush_latency_histogram: latencies of flushes
    """

    rd_bytes: Annotated[int, Wire("rd_bytes")]
    wr_bytes: Annotated[int, Wire("wr_bytes")]
    unmap_bytes: Annotated[int, Wire("unmap_bytes")]
    rd_operations: Annotated[int, Wire("rd_operations")]
    wr_operations: Annotated[int, Wire("wr_operations")]
    flush_operations: Annotated[int, Wire("flush_operations")]
    unmap_operations: Annotated[int, Wire("unmap_operations")]
    rd_total_time_ns: Annotated[int, Wire("rd_total_time_ns")]
    wr_total_time_ns: Annotated[int, Wire("wr_total_time_ns")]
    flush_total_time_ns: Annotated[int, Wire("flush_total_time_ns")]
    unmap_total_time_ns: Annotated[int, Wire("unmap_total_time_ns")]
    wr_highest_offset: Annotated[int, Wire("wr_highest_offset")]
    rd_merged: Annotated[int, Wire("rd_merged")]
    wr_merged: Annotated[int, Wire("wr_merged")]
    unmap_merged: Annotated[int, Wire("unmap_merged")]
    idle_time_ns: Annotated[int | None, Wire("idle_time_ns")] = None
    failed_rd_operations: Annotated[int, Wire("failed_rd_operations")]
    failed_wr_operations: Annotated[int, Wire("failed_wr_operations")]
    failed_flush_operations: Annotated[int, Wire("failed_flush_operations")]
    failed_unmap_operations: Annotated[int, Wire("failed_unmap_operations")]
    invalid_rd_operations: Annotated[int, Wire("invalid_rd_operations")]
    invalid_wr_operations: Annotated[int, Wire("invalid_wr_operations")]
    invalid_flush_operations: Annotated[int, Wire("invalid_flush_operations")]
    invalid_unmap_operations: Annotated[int, Wire("invalid_unmap_operations")]
    account_invalid: Annotated[bool, Wire("account_invalid")]
    account_failed: Annotated[bool, Wire("account_failed")]
    timed_stats: Annotated[list[BlockDeviceTimedStats], Wire("timed_stats")]
    rd_latency_histogram: Annotated[
        BlockLatencyHistogramInfo | None, Wire("rd_latency_histogram"), Since("4.0")
    ] = None
    wr_latency_histogram: Annotated[
        BlockLatencyHistogramInfo | None, Wire("wr_latency_histogram"), Since("4.0")
    ] = None
    flush_latency_histogram: Annotated[
        BlockLatencyHistogramInfo | None, Wire("flush_latency_histogram"), Since("4.0")
    ] = None


class BlockStats(Struct):
    """Statistics of a device or node.

    @device: name of the device
    @qdev: path of the guest device
    @node-name: name of the node
    @stats: the device's requests
    @driver-specific: what the driver counts
    @parent: of the node that holds the data
    @backing: of the image below
    """

    device: str | None = None
    qdev: Annotated[str | None, Since("3.0")] = None
    node_name: str | None = None
    stats: BlockDeviceStats
    driver_specific: Annotated[
        Annotated[BlockStatsSpecific, BLOCK_STATS_SPECIFIC] | None, Since("4.2")
    ] = None
    parent: "BlockStats | None" = None
    backing: "BlockStats | None" = None


class XDbgBlockGraphNodeType(QEnum):
    """What a point of the graph is."""

    BLOCK_BACKEND = "block-backend"
    BLOCK_JOB = "block-job"
    BLOCK_DRIVER = "block-driver"


@values(removed={"graph-mod": "7.0"})
class BlockPermission(QEnum):
    """A permission."""

    CONSISTENT_READ = "consistent-read"
    WRITE = "write"
    WRITE_UNCHANGED = "write-unchanged"
    RESIZE = "resize"
    GRAPH_MOD = "graph-mod"


class XDbgBlockGraphNode(Struct):
    """A point of the graph.

    @id: its number
    @type: what it is
    @name: its name
    """

    id: U64
    type: XDbgBlockGraphNodeType
    name: str


class XDbgBlockGraphEdge(Struct):
    """A line of the graph.

    @parent: number of the parent
    @child: number of the child
    @name: the child's name
    @perm: what the parent may do
    @shared-perm: what it lets others do
    """

    parent: U64
    child: U64
    name: str
    perm: list[BlockPermission]
    shared_perm: list[BlockPermission]


class XDbgBlockGraph(Struct):
    """The graph.

    @nodes: its points
    @edges: its lines
    """

    nodes: list[XDbgBlockGraphNode]
    edges: list[XDbgBlockGraphEdge]
