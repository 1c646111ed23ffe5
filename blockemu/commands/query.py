"""What there is: nodes, devices, the graph.  After block/qapi.c."""

from collections.abc import Iterator
from typing import Any

from blockemu import filenames
from blockemu.backend import Backend
from blockemu.blockdev_options import BlockdevDetectZeroesOptions
from blockemu.commands.bitmaps import block_dirty_info
from blockemu.commands.context import Context
from blockemu.edge import Edge
from blockemu.emulator import Emulator
from blockemu.image_info import describe_chain
from blockemu.jobs.block_job import BlockJob
from blockemu.node import Node
from blockemu.perm import Perm, api_perm_names
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.scalars import c_int
from blockemu.schema.bitmaps import BlockDirtyInfo
from blockemu.schema.jobs import BlockDeviceIoStatus
from blockemu.schema.nodes import (
    BlockdevCacheInfo,
    BlockDeviceInfo,
    BlockInfo,
    BlockPermission,
    XDbgBlockGraph,
    XDbgBlockGraphEdge,
    XDbgBlockGraphNode,
    XDbgBlockGraphNodeType,
)
from blockemu.throttling.limits import ThrottleConfig


@command(since="2.0")
async def query_named_block_nodes(
    context: Context, *, flat: bool | None = None
) -> list[BlockDeviceInfo]:
    """Describe all nodes, the newest first; ``flat``: without the images below each."""
    await _materialise(context.emu)
    return [describe_node(node, flat=bool(flat)) for node in context.emu.graph]


@command(since="0.14")
async def query_block(context: Context) -> list[BlockInfo]:
    """Describe the devices."""
    await _materialise(context.emu)
    return [_describe_backend(backend) for backend in visible(context.emu)]


@command(name="x-debug-query-block-graph", since="4.0", features=("unstable",))
def x_debug_query_block_graph(context: Context) -> XDbgBlockGraph:
    """Draw the graph; numbers count from 1 in order of first mention."""
    drawing = _Drawing()
    for backend in context.emu.graph.all_backends():
        name = backend.title or backend.device
        drawing.node(backend, XDbgBlockGraphNodeType.BLOCK_BACKEND, name)
        if backend.inserted is not None:
            drawing.edge(backend, backend)
    for job in context.emu.jobs:
        if isinstance(job, BlockJob):
            drawing.node(job, XDbgBlockGraphNodeType.BLOCK_JOB, job.id)
            for claim in job.nodes:
                drawing.edge(job, claim)
    for node in reversed(list(context.emu.graph)):
        drawing.node(node, XDbgBlockGraphNodeType.BLOCK_DRIVER, node.name)
        for edge in reversed(node.children.values()):
            drawing.edge(node, edge)
    return drawing.finished()


async def _materialise(emu: Emulator) -> None:
    for node in list(emu.graph):
        await node.materialise()


def visible(emu: Emulator) -> Iterator[Backend]:
    """Yield the backends that queries show: those with a name or a device."""
    return (b for b in emu.graph.backends.values() if b.title or b.device)


def describe_node(
    node: Node[Any], *, flat: bool, backend: Backend | None = None
) -> BlockDeviceInfo:
    """Describe a node (bdrv_block_device_info)."""
    filenames.refresh(node)
    flags = node.flags
    image, depth = describe_chain(node, flat=flat, hide_implicit=backend is not None)
    backing = node.backing if not node.is_filter else None
    throttle = backend.throttle if backend is not None else None
    limits = throttle.group.config if throttle is not None else ThrottleConfig()
    return BlockDeviceInfo(
        file=node.full_filename,
        node_name=node.name,
        ro=flags.read_only,
        drv=node.driver,
        backing_file=backing.node.full_filename if backing is not None else None,
        backing_file_depth=depth,
        encrypted=bool(image.encrypted),
        encryption_key_missing=False,
        detect_zeroes=BlockdevDetectZeroesOptions(flags.detect_zeroes),
        **limits.described(),
        group=throttle.group.name if throttle is not None else None,
        image=image,
        cache=BlockdevCacheInfo(
            writeback=backend is None or backend.write_cache,
            direct=flags.direct,
            no_flush=flags.no_flush,
        ),
        write_threshold=c_int(node.write_threshold, 64),
        dirty_bitmaps=describe_bitmaps(node),
    )


def describe_bitmaps(node: Node[Any]) -> list[BlockDirtyInfo] | None:
    """Describe a node's bitmaps, None if it has none."""
    if node.bitmap_set is None or not len(node.bitmap_set):
        return None
    return [block_dirty_info(info) for info in node.bitmap_set.info()]


def _describe_backend(backend: Backend) -> BlockInfo:
    node = skip_implicit(backend.inserted)
    inserted = describe_node(node, flat=False, backend=backend) if node is not None else None
    return BlockInfo(
        device=backend.title,
        qdev=backend.device_id or None,
        type="unknown",
        removable=backend.removable,
        locked=False,
        inserted=inserted,
        io_status=BlockDeviceIoStatus(backend.io_status) if backend.has_io_status else None,
        tray_open=backend.tray_open if backend.tray else None,
        dirty_bitmaps=inserted.dirty_bitmaps if inserted is not None else None,
    )


def skip_implicit(node: Node[Any] | None) -> Node[Any] | None:
    """Return the first node from here down that no filter of QEMU's own hides."""
    while node is not None and node.implicit and node.filtered is not None:
        node = node.filtered.node
    return node


class _Drawing:
    """Numbers points as they are first mentioned; lists are in reverse, as QEMU prepends."""

    def __init__(self) -> None:
        self._ids: dict[object, int] = {}
        self._nodes: list[XDbgBlockGraphNode] = []
        self._edges: list[XDbgBlockGraphEdge] = []

    def _id(self, what: object) -> int:
        return self._ids.setdefault(what, len(self._ids) + 1)

    def node(self, what: object, kind: XDbgBlockGraphNodeType, name: str) -> None:
        self._nodes.append(XDbgBlockGraphNode(id=self._id(what), type=kind, name=name))

    def edge(self, parent: object, edge: Edge) -> None:
        self._edges.append(
            XDbgBlockGraphEdge(
                parent=self._id(parent),
                child=self._id(edge.node),
                name=edge.name,
                perm=_perms(edge.perm),
                shared_perm=_perms(edge.shared),
            )
        )

    def finished(self) -> XDbgBlockGraph:
        return XDbgBlockGraph(nodes=self._nodes[::-1], edges=self._edges[::-1])


def _perms(perm: Perm) -> list[BlockPermission]:
    return [BlockPermission(name) for name in reversed(api_perm_names(perm))]
