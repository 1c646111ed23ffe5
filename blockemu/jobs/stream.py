"""The stream job: copies from the backing chain into the image on top.  After block/stream.c."""

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import Backend, drained
from blockemu.chain import (
    cow_child,
    find_overlay,
    freeze,
    is_plain,
    next_below,
    skip_filters,
    unfreeze,
)
from blockemu.drivers.copy_on_read import CopyOnRead
from blockemu.errors import QmpError
from blockemu.jobs.block_job import MAIN_NODE, BlockJob
from blockemu.jobs.chain_settings import AHEAD, STEP, ChainSettings
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.reopen import set_read_only, subtree
from blockemu.schema.jobs import BlockErrorAction, JobType
from blockemu.walk import is_allocated_above

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

LONG: Final = 16 << 20  # bytes fetched in one go where QEMU's steps cannot be seen
_SHARED: Final = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED


class NotInChain(QmpError):
    """The base does not back the image."""

    template = "'{}' is not in the backing chain of '{}'"


class StreamJob(BlockJob):
    """One stream; made by ``start_stream``."""

    type = JobType.STREAM

    def __init__(
        self,
        emu: "Emulator",
        job_id: str,
        settings: ChainSettings,
        target: Node[Any],
        above_base: Node[Any],
        base_overlay: Node[Any],
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
        self.target = target
        self.above_base = above_base
        self.base_overlay = base_overlay
        self.was_read_only = False
        self.careful = False  # whether to go by the steps that QEMU takes
        self.known_end = 0  # up to where there is something to be fetched from where the job is
        self.filter: CopyOnRead | None = None
        self.backend: Backend | None = None

    async def run(self) -> None:
        """Fetch what is above the base and not in the image."""
        image = skip_filters(self.target)
        if image is self.base_overlay:
            return
        assert self.backend is not None
        length = self.target.length
        length = -(-length // 512) * 512
        assert self.filter is not None
        self.careful = not is_plain(self.filter.file, next_below(self.base_overlay))
        self.progress.remaining = length
        offset, delay, error = 0, 0, 0
        while offset < length:
            await self.sleep(delay)
            if self.is_cancelled:
                break
            delay, copy, size = 0, False, STEP
            try:
                copy, size = await self._look(image, offset, length)
                if copy:
                    assert self.filter is not None
                    await self.filter.prefetch(offset, size)
            except OSError as e:
                if size > STEP:
                    self.careful = True  # where exactly it fails can be seen from outside
                    continue
                number = e.errno or errno.EIO
                action = self.error_action(self.settings.on_error, True, number)
                if action is BlockErrorAction.STOP:
                    continue
                error = error or number
                if action is BlockErrorAction.REPORT:
                    break
            self.progress.done(size)
            self.progress.remaining = max(length - offset - size, 0)
            delay = self.limit.delay(size) if copy else 0
            offset += size
        if error:
            raise os_error(error)

    async def _look(self, image: Node[Any], offset: int, length: int) -> tuple[bool, int]:
        """Return whether anything is to be fetched there, and how much is alike."""
        assert self.filter is not None
        limited = self.limit.limited or self.careful
        if not limited and offset < self.known_end:  # what a guest wrote since is not fetched
            return True, min(self.known_end - offset, LONG)
        most = min(STEP if limited else AHEAD, length - offset)
        edge = self.filter.file
        while edge.node is not image and edge.node.filtered is not None:
            edge = edge.node.filtered
        mine, size = await is_allocated_above(edge, offset, most, image, one_run=limited)
        if mine:
            return False, size
        found, size = await is_allocated_above(
            edge, offset, size, self.base_overlay, one_run=limited
        )
        if not found:
            return False, size
        self.known_end = offset + size
        return True, min(size, STEP if limited else LONG)

    # The end

    async def prepare(self) -> None:
        """Let the image stand on the base, and its header say so."""
        image = skip_filters(self.target)
        await self._drop_filter()
        above = self.above_base
        async with drained(*subtree(above)):
            base = next_below(above)
            if base is not None:
                base.holds += 1
            try:
                if image.backing is not None:
                    await self._relink(image, base)
            finally:
                if base is not None:
                    base.holds -= 1
                    await self.graph.release(base)

    async def _relink(self, image: Node[Any], base: Node[Any] | None) -> None:
        name = fmt = None
        if base is not None:
            unfiltered = skip_filters(base)
            name = self.settings.backing_file or unfiltered.full_filename
            fmt = unfiltered.driver
        failed: QmpError | None = None
        try:
            await self.graph.set_backing(image, base)
        except QmpError as e:
            failed = e
        try:
            await image.change_backing_file(name, fmt)
        except NotImplementedError:
            raise os_error(errno.ENOTSUP) from None
        finally:
            if failed is not None:
                self.emu.warn(str(failed))
        if failed is not None:
            raise os_error(errno.EPERM)

    async def clean(self) -> None:
        """Let go but of the nodes; make the image read-only again if it was."""
        await self._drop_filter()
        if self.backend is not None:
            await self.graph.remove(self.backend)
            self.backend = None
        if self.was_read_only:
            with suppress(QmpError, OSError):
                await set_read_only(self.graph, self.target, True)

    async def _drop_filter(self) -> None:
        if self.filter is not None:
            await drop_cor_filter(self.emu, self.filter)
            self.filter = None


async def drop_cor_filter(emu: "Emulator", node: CopyOnRead) -> None:
    """Take a copy-on-read filter out of the graph (bdrv_cor_filter_drop)."""
    node.thaw()
    node.holds -= 1
    await emu.graph.drop_filter(node)


def _above(overlay: Node[Any], base: Node[Any] | None) -> Node[Any]:
    """Return the node directly above the base: the overlay, or a filter below it."""
    at, below = overlay, cow_child(overlay)
    while below is not None and below is not base:
        at, below = below, next_below(below)
    return at


async def start_stream(
    emu: "Emulator",
    target: Node[Any],
    base: Node[Any] | None,
    bottom: Node[Any] | None,
    settings: ChainSettings,
) -> None:
    """Begin to fetch what lies above ``base``, or down to ``bottom``, into ``target``.

    Raises:
        QmpError: in the words of stream_start; nothing is left changed.

    """
    graph = emu.graph
    if bottom is not None:
        overlay = above = bottom
    else:
        found = find_overlay(target, base)
        if found is None:
            raise NotInChain(base.name if base is not None else "", target.name)
        overlay, above = found, _above(found, base)
    was_read_only = target.flags.read_only
    if was_read_only:
        freeze(target, above)
        try:
            await set_read_only(graph, target, False)
        finally:
            unfreeze(target, above)
    job: StreamJob | None = None
    node: CopyOnRead | None = None
    try:
        node = await _insert_filter(emu, target, overlay, settings.filter_node_name)
        job = _make(emu, settings, node, target, above, overlay)
        job.was_read_only = was_read_only
    except BaseException:
        if node is not None:
            await drop_cor_filter(emu, node)
        if was_read_only:
            with suppress(QmpError, OSError):
                await set_read_only(graph, target, True)
        raise
    job.start()


async def _insert_filter(
    emu: "Emulator", target: Node[Any], overlay: Node[Any], name: str | None
) -> CopyOnRead:
    options: dict[str, Any] = {"driver": "copy-on-read"}
    if name is not None:
        options["node-name"] = name
    node = await emu.opener.open_filter(options | {"bottom": overlay.name}, target)
    assert isinstance(node, CopyOnRead)
    node.holds += 1
    try:
        await emu.graph.insert_above(node, target)
    except BaseException:
        node.thaw()
        node.holds -= 1
        await emu.graph.release(node)
        raise
    node.implicit = name is None
    return node


def _make(
    emu: "Emulator",
    settings: ChainSettings,
    node: CopyOnRead,
    target: Node[Any],
    above: Node[Any],
    overlay: Node[Any],
) -> StreamJob:
    graph = emu.graph
    job_id = settings.job_id if settings.job_id is not None else graph.device_name(node)
    emu.jobs.check_id(job_id)
    job = StreamJob(emu, job_id, settings, target, above, overlay)
    emu.jobs.add(job)
    try:
        job.add_node(MAIN_NODE, node, Perm.NONE, Perm.ALL)
        if settings.speed:
            job.set_speed(settings.speed)
        job.backend = Backend(perm=Perm.CONSISTENT_READ, shared=_SHARED | Perm.WRITE)
        job.backend.queues = False
        graph.insert(job.backend, node)
        job.add_node("active node", target, Perm.NONE, _SHARED | Perm.WRITE)
        base = next_below(above)
        at = next_below(target)
        while at is not None and at is not base:
            job.add_node("intermediate node", at, Perm.NONE, _SHARED)
            at = next_below(at)
    except BaseException:
        if job.backend is not None and job.backend.inserted is not None:
            graph.drop_root(job.backend)
        job.early_fail()
        raise
    job.filter = node
    return job
