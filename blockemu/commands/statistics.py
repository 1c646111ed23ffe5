"""Statistics of devices and nodes, histograms, write thresholds.  After block/qapi.c."""

from typing import Any

from blockemu.backend import Backend
from blockemu.commands.backends import backend_of_device
from blockemu.commands.context import Context
from blockemu.commands.query import skip_implicit, visible
from blockemu.edge import Edge
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.perm import Role
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import U64
from blockemu.schema.nodes import (
    BlockDeviceStats,
    BlockDeviceTimedStats,
    BlockLatencyHistogramInfo,
    BlockStats,
)
from blockemu.stats import Histogram, Interval, Kind


class BadBoundaries(QmpError):
    """They do not ascend: (device, kind of request)."""

    template = "Device '{}' set {} boundaries fail"


class NodeNotThere(QmpError):
    """The node does not exist; QEMU calls it a device and does not mean the class."""

    template = "Device '{}' not found"


@command(since="0.14")
def query_blockstats(context: Context, *, query_nodes: bool | None = None) -> list[BlockStats]:
    """Tell what devices, or all nodes, have done."""
    emu = context.emu
    if query_nodes:
        return [_node_stats(node, chain=False) for node in reversed(list(emu.graph))]
    return [_backend_stats(emu, backend) for backend in visible(emu)]


@command(since="4.0")
def block_latency_histogram_set(
    context: Context,
    *,
    id: str,
    boundaries: list[U64] | None = None,
    boundaries_read: list[U64] | None = None,
    boundaries_write: list[U64] | None = None,
    boundaries_flush: list[U64] | None = None,
) -> None:
    """Count a device's latencies, anew, between boundaries in nanoseconds; or no more.

    @id: path or id of the device
    @boundaries: for all kinds of requests that have none of their own
    @boundaries-read: for reads
    @boundaries-write: for writes
    @boundaries-flush: for flushes
    """
    stats = backend_of_device(context.emu, id).stats
    own = {Kind.READ: boundaries_read, Kind.WRITE: boundaries_write, Kind.FLUSH: boundaries_flush}
    wanted = {kind: boundaries if each is None else each for kind, each in own.items()}
    if all(each is None for each in wanted.values()):
        stats.clear_histograms()
    for kind, each in wanted.items():
        if each is not None:
            try:
                stats.set_histogram(kind, each)
            except ValueError:
                raise BadBoundaries(id, kind.value) from None


@command(since="2.3")
def block_set_write_threshold(context: Context, *, node_name: str, write_threshold: U64) -> None:
    """Have the first write reported that goes beyond an offset.

    @node-name: the node
    @write-threshold: the offset in bytes; 0 for none
    """
    node = context.emu.graph.nodes.get(node_name)
    if node is None:
        raise NodeNotThere(node_name)
    node.write_threshold = write_threshold
    node.changed()


def _backend_stats(emu: Emulator, backend: Backend) -> BlockStats:
    node = skip_implicit(backend.inserted)
    of_node = _node_stats(node, chain=True) if node is not None else None
    stats = backend.stats
    read, write, flush, unmap = (stats[kind] for kind in Kind)
    return BlockStats(
        device=backend.title,
        qdev=backend.device_id or None,
        node_name=node.name if node is not None else None,
        stats=_stats(
            rd_bytes=read.bytes,
            wr_bytes=write.bytes,
            unmap_bytes=unmap.bytes,
            rd_operations=read.operations,
            wr_operations=write.operations,
            flush_operations=flush.operations,
            unmap_operations=unmap.operations,
            rd_total_time_ns=read.total_time_ns,
            wr_total_time_ns=write.total_time_ns,
            flush_total_time_ns=flush.total_time_ns,
            unmap_total_time_ns=unmap.total_time_ns,
            wr_highest_offset=node.highest_written if node is not None else 0,
            rd_merged=read.merged,
            wr_merged=write.merged,
            unmap_merged=unmap.merged,
            idle_time_ns=stats.idle_time(emu.clocks),
            failed_rd_operations=read.failed,
            failed_wr_operations=write.failed,
            failed_flush_operations=flush.failed,
            failed_unmap_operations=unmap.failed,
            invalid_rd_operations=read.invalid,
            invalid_wr_operations=write.invalid,
            invalid_flush_operations=flush.invalid,
            invalid_unmap_operations=unmap.invalid,
            account_invalid=stats.account_invalid,
            account_failed=stats.account_failed,
            timed_stats=[_timed_stats(interval) for interval in stats.intervals],
            rd_latency_histogram=_histogram(read.histogram),
            wr_latency_histogram=_histogram(write.histogram),
            flush_latency_histogram=_histogram(flush.histogram),
        ),
        driver_specific=of_node.driver_specific if of_node is not None else None,
        parent=of_node.parent if of_node is not None else None,
        backing=of_node.backing if of_node is not None else None,
    )


def _timed_stats(interval: Interval) -> BlockDeviceTimedStats:
    read, write, flush = (interval.latency[k] for k in (Kind.READ, Kind.WRITE, Kind.FLUSH))
    values = {}
    for name, average in (("rd", read), ("wr", write), ("flush", flush)):
        for what, value in zip(("min", "max", "avg"), average.limits(), strict=True):
            values[f"{what}_{name}_latency_ns"] = value
    return BlockDeviceTimedStats(
        interval_length=interval.seconds,
        avg_rd_queue_depth=read.depth(),
        avg_wr_queue_depth=write.depth(),
        **values,
    )


def _histogram(histogram: Histogram | None) -> BlockLatencyHistogramInfo | None:
    if histogram is None:
        return None
    return BlockLatencyHistogramInfo(boundaries=histogram.boundaries, bins=list(histogram.bins))


_ZERO_STATS: dict[str, Any] = {
    name: False if name.startswith("account") else [] if name == "timed_stats" else 0
    for name, hint in BlockDeviceStats.__annotations__.items()
    if "None" not in str(hint)
}


def _stats(**values: Any) -> BlockDeviceStats:
    return BlockDeviceStats(**(_ZERO_STATS | values))


def _node_stats(node: Node[Any], *, chain: bool) -> BlockStats:
    """Describe what went through a node; ``chain``: with what is below (bdrv_query_bds_stats)."""
    if chain:
        node = skip_implicit(node) or node
    data = _data_child(node)
    below = node.below
    return BlockStats(
        node_name=node.name,
        stats=_stats(wr_highest_offset=node.highest_written),
        driver_specific=node.driver_stats(),
        parent=_node_stats(data.node, chain=chain) if data is not None else None,
        backing=_node_stats(below.node, chain=True) if chain and below is not None else None,
    )


def _data_child(node: Node[Any]) -> Edge | None:
    """Return the one child that stores the node's data, None if there are several or none."""
    primary = node.primary
    if primary is not None and primary.role & (Role.DATA | Role.FILTERED):
        return primary
    stores = [edge for edge in node.children.values() if edge.role & Role.DATA]
    return stores[0] if len(stores) == 1 else None
