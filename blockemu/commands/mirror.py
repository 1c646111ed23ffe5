"""blockdev-mirror and drive-mirror (after blockdev_mirror_common, blockdev.c)."""

from types import SimpleNamespace
from typing import Annotated, Any

from blockemu import filenames
from blockemu.chain import cow_child, skip_filters, skip_implicit
from blockemu.commands.context import Context
from blockemu.commands.external_snapshots import flags_of
from blockemu.creation import img_create
from blockemu.emulator import Emulator
from blockemu.errors import InvalidParameterValue, NoSuchNode, QmpError
from blockemu.image_info import virtual_size
from blockemu.jobs.mirror import MirrorSettings
from blockemu.jobs.mirror_start import start_mirror
from blockemu.node import Node
from blockemu.node_options import Options
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import U32, Since
from blockemu.records import replace
from blockemu.schema.backup import MirrorSyncMode, NewImageMode
from blockemu.schema.jobs import BlockdevOnError
from blockemu.schema.mirror import DriveMirror, MirrorCopyMode


class SyncNotSupported(QmpError):
    """Mirrors go by no bitmap of the user's."""

    template = "Sync mode '{}' not supported"


class CannotReplace(QmpError):
    """(what, source): the new image would show other data than what it takes the place of."""

    template = (
        "Cannot replace '{}' by a node mirrored from '{}', because it cannot be guaranteed that "
        "doing so would not lead to an abrupt change of visible data"
    )


class ReplacedDiffers(QmpError):
    """What is to be replaced is not as long as the source."""

    template = "cannot replace image with a mirror image of different size"


class NameForReplacement(QmpError):
    """A node that takes the place of a named one needs a name itself."""

    template = "a node-name must be provided when replacing a named node of the graph"


def _granularity(granularity: int | None) -> int:
    """Return the granularity that was asked for, 0 for the default."""
    if not granularity:
        return 0
    if not 512 <= granularity <= 64 << 20:
        raise InvalidParameterValue("granularity", "a value in range [512B, 64MB]")
    if granularity & (granularity - 1):
        raise InvalidParameterValue("granularity", "a power of 2")
    return granularity


def _replaced(emu: Emulator, source: Node[Any], wanted: str | None) -> str | None:
    """Return the node that the target shall take the place of, if that is not the source."""
    if wanted is None:
        plain = skip_implicit(source)
        wanted = plain.name if plain is not source else None
    if wanted is None:
        return None
    if wanted not in emu.graph.nodes:
        raise NoSuchNode(wanted)
    node = emu.graph.nodes[wanted]
    emu.graph.check_unblocked(node, "replace")
    if not source.can_replace(node):
        raise CannotReplace(wanted, source.name)
    if -(-node.length // 512) != -(-source.length // 512):
        raise ReplacedDiffers
    return wanted


async def _start(
    emu: Emulator,
    source: Node[Any],
    target: Node[Any],
    options: Any,
    sync: MirrorSyncMode,
    **more: Any,
) -> None:
    """Check what both commands have in common, and begin."""
    emu.graph.threads.follow(target, source)
    granularity = _granularity(options.granularity)
    emu.graph.check_unblocked(source, "mirror-source")
    emu.graph.check_unblocked(target, "mirror-target")
    base = cow_child(source)
    if sync is MirrorSyncMode.TOP and base is None:
        sync = MirrorSyncMode.FULL
    replaces = _replaced(emu, source, options.replaces)
    if sync in (MirrorSyncMode.INCREMENTAL, MirrorSyncMode.BITMAP):
        raise SyncNotSupported(sync.value)
    top = sync is MirrorSyncMode.TOP
    settings = MirrorSettings(
        job_id=options.job_id,
        replaces=replaces,
        speed=options.speed or 0,
        granularity=granularity,
        buffer=options.buf_size or 0,
        only_new=sync is MirrorSyncMode.NONE,
        base=skip_filters(base) if top and base is not None else None,
        base_overlay=skip_filters(source) if top else None,
        copy_mode=options.copy_mode or MirrorCopyMode.BACKGROUND,
        on_source_error=options.on_source_error or BlockdevOnError.REPORT,
        on_target_error=options.on_target_error or BlockdevOnError.REPORT,
        auto_finalize=options.auto_finalize is not False,
        auto_dismiss=options.auto_dismiss is not False,
        **more,
    )
    await start_mirror(emu, source, target, settings)


@command(since="2.6")
async def blockdev_mirror(
    context: Context,
    *,
    job_id: str | None = None,
    device: str,
    target: str,
    replaces: str | None = None,
    sync: MirrorSyncMode,
    speed: int | None = None,
    granularity: U32 | None = None,
    buf_size: int | None = None,
    on_source_error: BlockdevOnError | None = None,
    on_target_error: BlockdevOnError | None = None,
    filter_node_name: Annotated[str | None, Since("2.9")] = None,
    copy_mode: Annotated[MirrorCopyMode | None, Since("3.0")] = None,
    auto_finalize: Annotated[bool | None, Since("3.1")] = None,
    auto_dismiss: Annotated[bool | None, Since("3.1")] = None,
) -> None:
    """Keep a node the same as a disk, from now until told to leave."""
    emu = context.emu
    source = emu.graph.root_node(device)
    node = emu.graph.lookup(target)
    options = SimpleNamespace(
        job_id=job_id,
        replaces=replaces,
        speed=speed,
        granularity=granularity,
        buf_size=buf_size,
        on_source_error=on_source_error,
        on_target_error=on_target_error,
        copy_mode=copy_mode,
        auto_finalize=auto_finalize,
        auto_dismiss=auto_dismiss,
    )
    full = sync is MirrorSyncMode.FULL
    await _start(
        emu, source, node, options, sync, zero_target=full, filter_node_name=filter_node_name
    )


@command(since="1.3")
async def drive_mirror(context: Context, options: DriveMirror) -> None:
    """Keep a new image the same as a disk, from now until told to leave."""
    emu = context.emu
    source = emu.graph.root_node(options.device)
    emu.graph.check_unblocked(source, "mirror-source")
    base, sync = cow_child(source), options.sync
    if base is None and sync is MirrorSyncMode.TOP:
        sync = MirrorSyncMode.FULL
    if sync is MirrorSyncMode.NONE:
        base = source
    if options.replaces is not None and options.node_name is None:
        raise NameForReplacement
    target = await _open_target(emu, options, source, base if sync != "full" else None)
    target.holds += 1
    existing = options.mode is NewImageMode.EXISTING
    try:
        await _start(
            emu,
            source,
            target,
            options,
            sync,
            backing="open" if existing else "source",
            zero_target=sync is MirrorSyncMode.FULL and (existing or not target.has_zero_init),
            unmap=options.unmap is not False,
        )
    finally:
        target.holds -= 1
        await emu.graph.release(target)


async def _open_target(
    emu: Emulator, options: DriveMirror, source: Node[Any], base: Node[Any] | None
) -> Node[Any]:
    existing = options.mode is NewImageMode.EXISTING
    fmt = options.format
    if fmt is None and not existing:
        fmt = source.driver
    if not existing:
        assert fmt is not None
        if base is not None:
            base = skip_implicit(base)
            filenames.refresh(base)
        await img_create(
            emu.opener,
            options.target,
            fmt,
            base_filename=base.full_filename if base is not None else None,
            base_fmt=base.driver if base is not None else None,
            size=virtual_size(source),
            flags=replace(source.flags, no_backing=True),
            quiet=False,
        )
    opening: Options = {}
    if options.node_name is not None:
        opening["node-name"] = options.node_name
    if fmt is not None:
        opening["driver"] = fmt
    defaults = flags_of(source) | {"read-only": False, "backing": None}
    return await emu.opener.open(
        opening, filename=options.target, defaults=defaults, protocol=source.is_protocol
    )
