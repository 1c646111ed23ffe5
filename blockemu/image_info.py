"""What an image is, as queries and people are told (after block/qapi.c)."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from blockemu import filenames
from blockemu.chain import skip_implicit
from blockemu.node import Node
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import dump
from blockemu.schema.images import ImageInfo, SnapshotInfo

SNAPSHOT_TITLES = f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}"


def virtual_size(node: Node[Any]) -> int:
    """Return a node's size in bytes, whole sectors: the last one need not be whole in the file."""
    return -(-node.length // 512) * 512


def describe_chain(
    node: Node[Any], *, flat: bool, hide_implicit: bool = False
) -> tuple[ImageInfo, int]:
    """Describe an image and, unless ``flat``, those below it; return how many these are.

    ``hide_implicit``: pass over filters that QEMU put in by itself (bdrv_block_device_info).
    """
    if flat or node.below is None:
        return describe_image(node, None), 0
    below = skip_implicit(node.below.node) if hide_implicit else node.below.node
    image, depth = describe_chain(below, flat=False, hide_implicit=hide_implicit)
    return describe_image(node, image), depth + 1


def describe_image(node: Node[Any], below: ImageInfo | None = None) -> ImageInfo:
    """Describe one image (bdrv_query_image_info)."""
    filenames.refresh(node)
    more = node.image_info()
    size = node.cluster_size
    return ImageInfo(
        filename=node.full_filename,
        format=node.driver,
        virtual_size=virtual_size(node),
        actual_size=node.allocated_size(),
        encrypted=more.get("encrypted"),
        dirty_flag=bool(more.get("dirty-flag")) if size is not None else None,
        cluster_size=size or None,
        backing_filename=node.backing_file or None,
        full_backing_filename=_full_backing_filename(node),
        backing_filename_format=(node.backing_format or None) if node.backing_file else None,
        snapshots=_snapshots(node) or None,
        backing_image=below,
        format_specific=node.specific_info(),
    )


def _snapshots(node: Node[Any]) -> list[SnapshotInfo]:
    from blockemu.snapshots import info, listed  # start-up: tools but ``info`` only print outlines

    try:
        return [info(snapshot) for snapshot in listed(node)]
    except OSError:
        return []


def _full_backing_filename(node: Node[Any]) -> str | None:
    try:
        return filenames.full_backing_filename(node) or None
    except filenames.NoBaseDirectory:
        return None


def image_text(image: ImageInfo) -> str:
    """Describe one image for people (bdrv_image_info_dump)."""
    text = "".join(f"{key}: {value}\n" for key, value in _image_rows(image))
    if image.snapshots:
        text += snapshots_text(image.snapshots)
    if image.format_specific is not None:
        text += "Format specific information:\n" + outline(dump(image.format_specific)["data"])
    return text


def _image_rows(image: ImageInfo) -> Iterator[tuple[str, object]]:
    yield "image", image.filename
    yield "file format", image.format
    yield "virtual size", f"{size_text(image.virtual_size)} ({image.virtual_size} bytes)"
    size = image.actual_size
    yield "disk size", "unavailable" if size is None else size_text(size)
    if image.encrypted:
        yield "encrypted", "yes"
    if image.cluster_size:
        yield "cluster_size", image.cluster_size
    if image.dirty_flag:
        yield "cleanly shut down", "no"
    if image.backing_filename:
        yield "backing file", image.backing_filename + _actual_path(image)
        if image.backing_filename_format:
            yield "backing file format", image.backing_filename_format


def _actual_path(image: ImageInfo) -> str:
    full = image.full_backing_filename
    if full is None:
        return " (cannot determine actual path)"
    return f" (actual path: {full})" if full != image.backing_filename else ""


def snapshots_text(snapshots: Iterable[SnapshotInfo]) -> str:
    """List internal snapshots, with a headline."""
    rows = ["Snapshot list:", SNAPSHOT_TITLES, *map(snapshot_row, snapshots)]
    return "".join(f"{row}\n" for row in rows)


def snapshot_row(snapshot: SnapshotInfo, ident: str | None = None) -> str:
    """Describe a snapshot in one line (bdrv_snapshot_dump); ``ident``: instead of its id."""
    ident = snapshot.id if ident is None else ident
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.date_sec))
    seconds = snapshot.vm_clock_sec
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    clock += f".{snapshot.vm_clock_nsec // 1_000_000:03d}"
    count = "" if snapshot.icount is None else str(snapshot.icount)
    size = size_text(snapshot.vm_state_size)
    return f"{ident:<9} {snapshot.name:<16} {size:>8}{date:>20}{clock:>13}{count:>11}"


def size_text(size: int) -> str:
    """Return a size with three digits and a binary unit (size_to_str, util/cutils.c)."""
    step = min(max(math.frexp(size / (1000.0 / 1024.0))[1] - 1, 0) // 10, 6)
    return f"{size / (1 << step * 10):.3g} {' KMGTPE'[step].strip()}{'i' * bool(step)}B"


def outline(value: Any, depth: int = 1) -> str:
    """Show nested values for people to read, one a line (after dump_qdict, block/qapi.c)."""
    items: Iterable[tuple[str, Any]]
    if isinstance(value, dict):
        items = ((key.replace("-", " "), value[key]) for key in in_order(value))
    else:
        items = ((f"[{i}]", each) for i, each in enumerate(value))
    lines = []
    for name, each in items:
        lines.append(f"{'    ' * depth}{name}:")
        if isinstance(each, dict | list):
            lines.append("\n" + outline(each, depth + 1))
        else:
            lines.append(f" {str(each).lower() if isinstance(each, bool) else each}\n")
    return "".join(lines)
