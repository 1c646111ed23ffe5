"""block-commit and block-stream (after qmp_block_commit and qmp_block_stream, blockdev.c)."""

from typing import Annotated, Any

from blockemu import filenames
from blockemu.chain import chain, find_base, find_overlay, in_chain, next_below, skip_filters
from blockemu.commands.context import Context
from blockemu.emulator import Emulator
from blockemu.errors import DeviceNotFound, QmpError
from blockemu.jobs.chain_settings import ChainSettings
from blockemu.jobs.commit import start_commit
from blockemu.jobs.mirror import MirrorSettings
from blockemu.jobs.mirror_start import start_active_commit
from blockemu.jobs.stream import start_stream
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Deprecated, Since
from blockemu.schema.jobs import BlockdevOnError


class BothGiven(QmpError):
    """Two options for one thing."""

    template = "'{}' and '{}' are mutually exclusive"


class NotBoth(QmpError):
    """The same, in the other command's words."""

    template = "'{}' and '{}' cannot be specified at the same time"


class OtherChain(QmpError):
    """The node does not belong to the device."""

    template = "'{}' is not in this backing file chain"


class TopNotFound(QmpError):
    """No image of the chain has this name."""

    template = "Top image file {} not found"


class BaseNotFound(QmpError):
    """No image of the chain has this name."""

    template = "Can't find '{}' in the backing chain"


class NoBase(QmpError):
    """There is no backing file at all."""

    template = "There is no backimg image"


class IntoItself(QmpError):
    """Top and base are one."""

    template = "cannot commit an image into itself"


class BackingFileOfActive(QmpError):
    """Nothing stands on the image whose header could say it."""

    template = "'backing-file' specified, but 'top' is the active layer"


class BackingFileOfWritten(QmpError):
    """The same for an image that somebody writes to."""

    template = "'backing-file' specified, but 'top' has a writer on it"


class NotBacking(QmpError):
    """The node does not back the device's image."""

    template = "Node '{}' is not a backing image of '{}'"


class BottomIsFilter(QmpError):
    """Filters hold no data."""

    template = "Node '{}' is a filter, use a non-filter node as 'bottom'"


class BottomElsewhere(QmpError):
    """The bottom does not belong to the device."""

    template = "Node '{}' is not in a chain starting from '{}'"


class BackingFileOfNothing(QmpError):
    """After streaming the whole chain there is no backing file."""

    template = "backing file specified, but streaming the entire chain"


@command(since="1.3")
async def block_commit(
    context: Context,
    *,
    job_id: str | None = None,
    device: str,
    base_node: Annotated[str | None, Since("3.1")] = None,
    base: Annotated[str | None, Deprecated("3.1")] = None,
    top_node: Annotated[str | None, Since("3.1")] = None,
    top: Annotated[str | None, Deprecated("3.1")] = None,
    backing_file: str | None = None,
    speed: int | None = None,
    on_error: Annotated[BlockdevOnError | None, Since("5.0")] = None,
    filter_node_name: Annotated[str | None, Since("2.9")] = None,
    auto_finalize: Annotated[bool | None, Since("3.1")] = None,
    auto_dismiss: Annotated[bool | None, Since("3.1")] = None,
) -> None:
    """Merge images into one below them."""
    emu = context.emu
    active = _device(emu, device)
    emu.graph.check_unblocked(active, "commit-source")
    upper = _find_top(emu, active, top_node, top)
    lower = _find_base(emu, upper, base_node, base)
    for node in chain(upper):
        emu.graph.check_unblocked(node, "commit-target")
        if node is lower:
            break
    if upper is lower:
        raise IntoItself
    common: dict[str, Any] = {
        "speed": speed or 0,
        "filter_node_name": filter_node_name,
        "auto_finalize": auto_finalize is not False,
        "auto_dismiss": auto_dismiss is not False,
    }
    policy = on_error or BlockdevOnError.REPORT
    is_top = skip_filters(upper) is skip_filters(active)
    if is_top or upper.cumulative_perm()[0] & Perm.WRITE:
        if backing_file is not None:
            raise BackingFileOfActive if is_top else BackingFileOfWritten
        job_id = job_id if job_id is not None else emu.graph.device_name(active)
        settings = MirrorSettings(
            job_id=job_id, on_source_error=policy, on_target_error=policy, **common
        )
        await start_active_commit(emu, upper, lower, settings)
        return
    overlay = find_overlay(active, upper)
    if overlay is not None:
        emu.graph.check_unblocked(overlay, "commit-target")
    await start_commit(
        emu,
        active,
        lower,
        upper,
        ChainSettings(job_id=job_id, on_error=policy, backing_file=backing_file, **common),
    )


def _device(emu: Emulator, name: str) -> Node[Any]:
    try:
        emu.graph.lookup(name)
    except QmpError:
        raise DeviceNotFound(name) from None
    return emu.graph.root_node(name)


def _find_top(
    emu: Emulator, active: Node[Any], node_name: str | None, filename: str | None
) -> Node[Any]:
    if node_name is not None and filename is not None:
        raise BothGiven("top-node", "top")
    if node_name is not None:
        node = emu.graph.lookup_either(None, node_name)
        if not in_chain(active, node):
            raise OtherChain(node_name)
        return node
    if filename is None or active.full_filename == filename:
        return active
    found = filenames.find_backing_image(active, filename)
    if found is None:
        raise TopNotFound(filename)
    return found


def _find_base(
    emu: Emulator, top: Node[Any], node_name: str | None, filename: str | None
) -> Node[Any]:
    if node_name is not None and filename is not None:
        raise BothGiven("base-node", "base")
    if node_name is not None:
        node = emu.graph.lookup_either(None, node_name)
        if not in_chain(top, node):
            raise OtherChain(node_name)
        return node
    if filename is not None:
        found = filenames.find_backing_image(top, filename)
        if found is None:
            raise BaseNotFound(filename)
        return found
    return find_base(top)


@command(since="1.1")
async def block_stream(
    context: Context,
    *,
    job_id: str | None = None,
    device: str,
    base: str | None = None,
    base_node: Annotated[str | None, Since("2.8")] = None,
    backing_file: str | None = None,
    bottom: Annotated[str | None, Since("6.0")] = None,
    speed: int | None = None,
    on_error: BlockdevOnError | None = None,
    filter_node_name: Annotated[str | None, Since("6.0")] = None,
    auto_finalize: Annotated[bool | None, Since("3.1")] = None,
    auto_dismiss: Annotated[bool | None, Since("3.1")] = None,
) -> None:
    """Copy from the images below into the one on top."""
    emu = context.emu
    for one, other in (("base", "base-node"), ("base", "bottom"), ("bottom", "base-node")):
        given = {"base": base, "base-node": base_node, "bottom": bottom}
        if given[one] is not None and given[other] is not None:
            raise NotBoth(one, other)
    top = emu.graph.lookup(device)
    lower = _stream_base(emu, top, device, base, base_node)
    lowest = _stream_bottom(emu, top, device, bottom)
    end = next_below(lowest) if lowest is not None else lower
    for node in chain(top):
        if node is end:
            break
        emu.graph.check_unblocked(node, "stream")
    if lower is None and backing_file is not None:
        raise BackingFileOfNothing
    settings = ChainSettings(
        job_id=job_id,
        speed=speed or 0,
        on_error=on_error or BlockdevOnError.REPORT,
        backing_file=backing_file,
        filter_node_name=filter_node_name,
        auto_finalize=auto_finalize is not False,
        auto_dismiss=auto_dismiss is not False,
    )
    await start_stream(emu, top, lower, lowest, settings)


def _stream_base(
    emu: Emulator, top: Node[Any], device: str, filename: str | None, node_name: str | None
) -> Node[Any] | None:
    if filename is not None:
        found = filenames.find_backing_image(top, filename)
        if found is None:
            raise BaseNotFound(filename)
        return found
    if node_name is None:
        return None
    node = emu.graph.lookup_either(None, node_name)
    if node is top or not in_chain(top, node):
        raise NotBacking(node_name, device)
    filenames.refresh(node)
    return node


def _stream_bottom(
    emu: Emulator, top: Node[Any], device: str, node_name: str | None
) -> Node[Any] | None:
    if node_name is None:
        return None
    node = emu.graph.lookup_either(None, node_name)
    if node.is_filter:
        raise BottomIsFilter(node_name)
    if not in_chain(top, node):
        raise BottomElsewhere(node_name, device)
    return node
