"""The commit job for images that nobody writes to: merges them into their base.

The image that is written to is committed by a mirror (``blockemu.jobs.mirror``).  After
block/commit.c.
"""

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu import filenames
from blockemu.backend import Backend, drained
from blockemu.buffers import new_buffer
from blockemu.chain import (
    cow_child,
    find_overlay,
    freeze,
    in_chain,
    is_plain,
    next_below,
    skip_filters,
    skip_implicit,
    unfreeze,
)
from blockemu.copying.copy_calls import ReadFailed
from blockemu.copying.offload import CannotOffload, offload
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.graph import inherits_from
from blockemu.host.pool import Pool
from blockemu.jobs.block_job import MAIN_NODE, BlockJob
from blockemu.jobs.chain_settings import AHEAD, STEP, ChainSettings
from blockemu.jobs.tops import CommitTop, new_top
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role
from blockemu.reopen import set_read_only, subtree
from blockemu.schema.jobs import BlockErrorAction, JobType
from blockemu.waiting import breathe
from blockemu.walk import is_allocated_above

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

LONG: Final = 16 << 20  # what the kernel copies in one go, otherwise
_WRITERS: Final = Perm.WRITE | Perm.WRITE_UNCHANGED


class TopIsBase(QmpError):
    """There is nothing to merge."""

    template = "Invalid files for merge: top and base are the same"


class CannotUpdateBackingLink(QmpError):
    """The image above the base keeps its old backing file's name."""

    template = "Could not update backing file link"


class CommitJob(BlockJob):
    """One commit; made by ``start_commit``."""

    type = JobType.COMMIT

    def __init__(
        self, emu: "Emulator", job_id: str, settings: ChainSettings, base: Node[Any]
    ) -> None:
        super().__init__(
            emu.jobs,
            emu.graph,
            job_id,
            auto_finalize=settings.auto_finalize,
            auto_dismiss=settings.auto_dismiss,
        )
        self.emu = emu
        self.settings = settings
        self.base_node = base
        self.base_was_read_only = base.flags.read_only
        self.base_overlay: Node[Any] | None = None
        self.filter: CommitTop | None = None
        self.top: Backend | None = None
        self.base: Backend | None = None
        self.frozen = False
        self.careful = False

    async def run(self) -> None:
        """Copy what the images above the base have."""
        assert self.top is not None
        assert self.base is not None
        length = self.top.length
        plain = is_plain(self.top, self.base_node) and self.base.route.writable_in_files
        self.careful = not plain
        self.progress.remaining = length
        if self.base.length < length:
            await self.base.truncate(length, exact=False)
        offset, delay = 0, 0
        while offset < length:
            await self.sleep(delay)
            if self.is_cancelled:
                return
            delay = 0
            reading, size = True, 0
            try:
                copy, size = await self._look(offset, length)
                if copy:
                    reading = False
                    pool = None if self._in_steps else self.emu.pool.background
                    await copy_range(self.top, self.base, offset, size, pool)
            except OSError as e:
                if size > STEP:
                    self.careful = True  # where exactly it fails can be seen from outside
                    continue
                reading = reading or isinstance(e, ReadFailed)
                if self._gives_up(reading, e.errno or errno.EIO):
                    raise
                continue
            self.progress.done(size)
            self.progress.remaining = length - offset - size
            delay = self.limit.delay(size) if copy else 0
            offset += size

    async def _look(self, offset: int, length: int) -> tuple[bool, int]:
        """Return whether anything is to be copied there, and how much is alike."""
        assert self.top is not None
        most = STEP if self._in_steps else AHEAD
        copy, size = await is_allocated_above(
            self.top,
            offset,
            min(most, length - offset),
            self.base_overlay,
            one_run=self._in_steps,
        )
        return copy, min(size, STEP if self._in_steps else LONG) if copy else size

    @property
    def _in_steps(self) -> bool:
        """Whether to copy as much in one go as QEMU does."""
        return self.careful or self.limit.limited

    def _gives_up(self, is_read: bool, error: int) -> bool:
        action = self.error_action(self.settings.on_error, is_read, error)
        return action is BlockErrorAction.REPORT

    # The end

    async def prepare(self) -> None:
        """Take the images out of the chain."""
        assert self.filter is not None
        self._thaw()
        await self._drop_base()
        await drop_intermediate(self.emu, self.filter, self.base_node, self.settings.backing_file)

    async def abort(self) -> None:
        """Take only the filter out."""
        self._thaw()
        await self._drop_base()
        self.drop_nodes()
        if self.filter is not None and self.filter.backing is not None:
            self.graph.replace_node(self.filter, self.filter.backing.node)

    async def clean(self) -> None:
        """Let go but of the nodes above; make the base read-only again if it was."""
        if self.base_was_read_only:
            with suppress(QmpError, OSError):
                await set_read_only(self.graph, self.base_node, True)
        if self.top is not None:
            await self.graph.remove(self.top)
        if self.filter is not None:
            self.filter.holds -= 1
            await self.graph.release(self.filter)
        self.base_node.holds -= 1
        await self.graph.release(self.base_node)

    def _thaw(self) -> None:
        if self.frozen and self.filter is not None:
            unfreeze(self.filter, self.base_node)
        self.frozen = False

    async def _drop_base(self) -> None:
        if self.base is not None:
            await self.graph.remove(self.base)
            self.base = None


async def copy_range(source: Edge, target: Edge, offset: int, size: int, pool: Pool | None) -> None:
    """Copy ``size`` bytes; with a ``pool``, the kernel may do it.

    Raises:
        ReadFailed: the source cannot be read.
        OSError: the target cannot be written.

    """
    if pool is not None:
        with suppress(CannotOffload, OSError):
            if await offload(source, target, [(offset, size)], pool):
                return
    buf = new_buffer(min(size, 1 << 20))
    for at in range(offset, offset + size, len(buf)):
        await breathe(at - offset)
        part = buf[: offset + size - at]
        try:
            await source.pread(at, part)
        except OSError as e:
            raise ReadFailed(e.errno or errno.EIO, os.strerror(e.errno or errno.EIO)) from e
        await target.pwrite(at, part)


async def drop_intermediate(
    emu: "Emulator", top: Node[Any], base: Node[Any], backing_file: str | None
) -> None:
    """Let what stands on ``top`` stand on ``base`` (bdrv_drop_intermediate).

    The images' headers are changed along; ``backing_file`` is what they shall say, by default the
    base's own name.  Raises OSError; what is wrong has been told on standard error then.
    """
    graph = emu.graph
    if not in_chain(top, base):
        raise os_error(errno.EIO)
    top.holds += 1
    async with drained(*subtree(top)):
        explicit = skip_implicit(top)
        inherits = inherits_from(base, explicit)
        if backing_file is None:
            filenames.refresh(base)
            backing_file = base.full_filename
        parents = [edge.parent for edge in top.parents if edge.role & Role.COW]
        try:
            graph.replace_node(top, base)
            for parent in parents:
                if parent is not None:
                    await _change_link(emu, parent, backing_file, base.driver)
        except QmpError as e:
            emu.warn(str(e))
            raise os_error(errno.EIO) from e
        if inherits:
            base.inherits_from = explicit.inherits_from
    top.holds -= 1


async def _change_link(emu: "Emulator", node: Node[Any], name: str, fmt: str) -> None:
    """Write another backing file into an image's header (bdrv_child_cb_update_filename)."""
    read_only = node.flags.read_only
    if read_only:
        await set_read_only(emu.graph, node, False)
    try:
        await node.change_backing_file(name, fmt)
    except (NotImplementedError, OSError) as e:
        raise CannotUpdateBackingLink from e
    finally:
        if read_only:
            with suppress(QmpError, OSError):
                await set_read_only(emu.graph, node, True)


async def start_commit(
    emu: "Emulator", device: Node[Any], base: Node[Any], top: Node[Any], settings: ChainSettings
) -> None:
    """Begin to merge the images from ``top`` down into ``base`` (commit_start).

    Raises:
        QmpError: in QEMU's words; nothing is left changed.

    """
    if skip_filters(top) is skip_filters(base):
        raise TopIsBase
    graph = emu.graph
    job_id = settings.job_id if settings.job_id is not None else graph.device_name(device)
    emu.jobs.check_id(job_id)
    job = CommitJob(emu, job_id, settings, base)
    emu.jobs.add(job)
    base.holds += 1
    try:
        job.add_node(MAIN_NODE, device, Perm.NONE, Perm.ALL)
        if settings.speed:
            job.set_speed(settings.speed)
        perm = Perm.CONSISTENT_READ | Perm.WRITE
        if base.length < top.length:
            perm |= Perm.RESIZE
        if job.base_was_read_only:
            await set_read_only(graph, base, False)
        job.filter = new_top(emu, CommitTop, settings.filter_node_name, read_only=True)
        graph.append(job.filter, top)
        _claim(job, top, base)
        job.base = Backend(perm=perm, shared=Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED)
        job.top = Backend(perm=Perm.NONE, shared=Perm.ALL)
        job.base.queues = job.top.queues = False
        graph.insert(job.base, base)
        graph.insert(job.top, top)
    except BaseException:
        await _give_up(job)
        raise
    job.start()


def _claim(job: CommitJob, top: Node[Any], base: Node[Any]) -> None:
    """Claim what will be gone when the commit is done, and the base."""
    assert job.filter is not None
    job.base_overlay = overlay = find_overlay(top, base)
    filtered = cow_child(overlay) if overlay is not None else None
    shared = _WRITERS
    at: Node[Any] | None = top
    while at is not None and at is not base:
        if at is filtered:  # from here on, all nodes are filters on the base
            shared |= Perm.CONSISTENT_READ
        job.add_node("intermediate node", at, Perm.NONE, shared)
        at = next_below(at)
    freeze(job.filter, base)
    job.frozen = True
    job.add_node("base", base, Perm.NONE, Perm.ALL)


async def _give_up(job: CommitJob) -> None:
    graph, top = job.graph, job.filter
    if job.frozen and top is not None:
        unfreeze(top, job.base_node)
    for backend in (job.base, job.top):
        if backend is not None and backend.inserted is not None:
            await graph.remove(backend)
    if job.base_was_read_only:
        with suppress(QmpError, OSError):
            await set_read_only(graph, job.base_node, True)
    job.early_fail()
    if top is not None:
        if top.backing is not None:
            graph.replace_node(top, top.backing.node)
        top.holds -= 1
        await graph.release(top)
    job.base_node.holds -= 1
    await graph.release(job.base_node)
