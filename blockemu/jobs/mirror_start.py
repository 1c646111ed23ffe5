"""Making mirror jobs: the checks, the filter and the claims (mirror_start_job, block/mirror.c)."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import Backend, drained
from blockemu.chain import cow_child, find_overlay, freeze, in_chain, next_below, skip_filters
from blockemu.dirty import bitmaps_of, default_granularity
from blockemu.errors import QmpError
from blockemu.jobs.block_job import MAIN_NODE
from blockemu.jobs.mirror import ActiveCommitJob, MirrorJob, MirrorSettings
from blockemu.jobs.mirror_copy import MAX_IN_FLIGHT, MAX_REQUEST, MirrorCopy
from blockemu.jobs.tops import MirrorTop, new_top
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.permissions import refresh
from blockemu.records import replace
from blockemu.reopen import set_read_only
from blockemu.schema.mirror import MirrorCopyMode
from blockemu.transaction import Transaction

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

DEFAULT_BUFFER: Final = MAX_IN_FLIGHT * MAX_REQUEST
_WRITERS: Final = Perm.WRITE | Perm.WRITE_UNCHANGED
_USERS: Final = _WRITERS | Perm.CONSISTENT_READ


class BadBuffer(QmpError):
    """A negative buffer."""

    template = "Invalid parameter 'buf-size'"


class IntoItself(QmpError):
    """Source and target are one image."""

    template = "Can't mirror node into itself"


class FilterAboveBacking(QmpError):
    """The target stands on something the source stands on, too."""

    template = "Cannot mirror to a filter on top of a node in the source's backing chain"


async def start_active_commit(
    emu: "Emulator", source: Node[Any], base: Node[Any], settings: MirrorSettings
) -> MirrorJob:
    """Begin to merge ``source`` into ``base`` while it is written to (commit_active_start)."""
    read_only = base.flags.read_only
    if read_only:
        await set_read_only(emu.graph, base, False)
    settings = replace(settings, base=base, base_overlay=find_overlay(source, base))
    try:
        return await start_mirror(emu, source, base, settings, ActiveCommitJob)
    except BaseException:
        if read_only:
            with suppress(QmpError):
                await set_read_only(emu.graph, base, True)
        raise


async def start_mirror(
    emu: "Emulator",
    source: Node[Any],
    target: Node[Any],
    settings: MirrorSettings,
    kind: type[MirrorJob] = MirrorJob,
) -> MirrorJob:
    """Make a mirror job and begin it.

    Raises:
        QmpError: in QEMU's words; nothing is left changed.

    """
    if settings.buffer < 0:
        raise BadBuffer
    if skip_filters(source) is skip_filters(target):
        raise IntoItself
    granularity = settings.granularity or default_granularity(target.cluster_size)
    buffer = -(-(settings.buffer or DEFAULT_BUFFER) // granularity) * granularity
    settings = replace(settings, granularity=granularity, buffer=buffer)
    top = new_top(emu, MirrorTop, settings.filter_node_name, read_only=False)
    top.is_commit = in_chain(source, target)
    try:
        async with drained(source):
            emu.graph.append(top, source)
    except BaseException:
        top.holds -= 1
        await emu.graph.release(top)
        raise
    job: MirrorJob | None = None
    try:
        job = _make(emu, settings, kind, top)
        _claim(job, source, target)
    except BaseException:
        await _give_up(emu, job, top)
        raise
    top.holds -= 1
    job.start()
    return job


def _make(
    emu: "Emulator", settings: MirrorSettings, kind: type[MirrorJob], top: MirrorTop
) -> MirrorJob:
    job_id = settings.job_id or emu.graph.device_name(top)
    emu.jobs.check_id(job_id)
    job = kind(emu, replace(settings, job_id=job_id), top)
    emu.jobs.add(job)
    return job


def _claim(job: MirrorJob, source: Node[Any], target: Node[Any]) -> None:
    """Take the target and the nodes that must not be used otherwise meanwhile."""
    settings, graph, top = job.settings, job.graph, job.top
    job.add_node(MAIN_NODE, top, Perm.CONSISTENT_READ, _USERS)
    if settings.speed:
        job.set_speed(settings.speed)
    perm, shared = Perm.WRITE, Perm.WRITE_UNCHANGED
    if top.is_commit:
        if target.length < source.length:
            perm |= Perm.RESIZE
        shared |= Perm.CONSISTENT_READ | Perm.WRITE
    elif in_chain(source, skip_filters(target)):
        raise FilterAboveBacking
    job.target = Backend(perm=perm, shared=shared)
    job.target.queues = False
    job.target.allow_inactivate = not top.is_commit
    graph.insert(job.target, target)
    blocking = settings.copy_mode is MirrorCopyMode.WRITE_BLOCKING
    job.bitmap = bitmaps_of(source).add(None, settings.granularity, enabled=not blocking)
    assert top.backing is not None
    job.copy = MirrorCopy(
        top.backing,
        job.target,
        job.bitmap.bits,
        job.emu.pool,
        job.progress,
        buffer=settings.buffer,
        unmap=settings.unmap,
        failed=job.failed,
    )
    job.copy.limited = lambda: job.limit.limited
    if blocking:
        top.active = job.copy
        top.changed()
    job.add_node("source", source, Perm.NONE, _USERS)
    job.add_node("target", target, Perm.NONE, Perm.ALL)
    if top.is_commit:
        _claim_between(job, source, target)


def _claim_between(job: MirrorJob, source: Node[Any], target: Node[Any]) -> None:
    """Claim what will be gone when a commit is done."""
    overlay = find_overlay(source, target)
    filtered = cow_child(overlay) if overlay is not None else None
    shared = _WRITERS
    at = next_below(source)
    while at is not None and at is not target:
        if at is filtered:  # from here on, all nodes are filters on the base
            shared |= Perm.CONSISTENT_READ
        job.add_node("intermediate node", at, Perm.NONE, shared)
        at = next_below(at)
    freeze(job.top, target)


async def _give_up(emu: "Emulator", job: MirrorJob | None, top: MirrorTop) -> None:
    graph = emu.graph
    if job is not None:
        if "target" in vars(job):
            await graph.remove(job.target)
        if "bitmap" in vars(job):
            job.bitmap.release()
        job.early_fail()
    top.stopped, top.active = True, None
    assert top.backing is not None
    with Transaction() as transaction:
        refresh(top, transaction=transaction)
    graph.replace_node(top, top.backing.node)
    top.holds -= 1
    await graph.release(top)
