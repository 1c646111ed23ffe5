"""The mirror job, and the commit of an active image, which is a mirror into its base.

After mirror_run and mirror_exit_common, block/mirror.c.
"""

import asyncio
import errno
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import Backend, drained
from blockemu.chain import cow_child, in_chain, skip_filters, unfreeze
from blockemu.dirty import DirtyBitmap
from blockemu.errors import QmpError
from blockemu.graph import block, unblock
from blockemu.jobs.block_job import BlockJob
from blockemu.jobs.job import CannotComplete, JobFailed
from blockemu.jobs.mirror_copy import MirrorCopy, mark_allocated, unmaps_zeroes
from blockemu.jobs.tops import MirrorTop
from blockemu.node import Blocker, Node
from blockemu.os_errors import os_error
from blockemu.permissions import refresh
from blockemu.records import record
from blockemu.reopen import set_read_only
from blockemu.schema.jobs import (
    BlockDeviceIoStatus,
    BlockdevOnError,
    BlockErrorAction,
    JobStatus,
    JobType,
)
from blockemu.schema.mirror import MirrorCopyMode
from blockemu.throttling.ratelimit import SLICE
from blockemu.transaction import Transaction
from blockemu.walk import allocated_above

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

REPLACING: Final = "block device is in use by block-job-complete"
DIFFERENT_SIZES: Final = "Source and target image have different sizes"


class NodeNameNotFound(QmpError):
    """The node to be replaced has gone."""

    template = "Node name '{}' not found"


class CannotReplaceAnyMore(QmpError):
    """What was to be replaced does not show the source's data any more."""

    template = (
        "Can no longer replace '{}' by '{}', because it can no longer be guaranteed that doing so "
        "would not lead to an abrupt change of visible data"
    )


@record(frozen=True, kw_only=True)
class MirrorSettings:
    """What a mirror is to do; sizes in bytes.

    ``base_overlay``: what this and the images above it have is copied.  ``backing``: what becomes
    of the target's backing file: left alone, the source's, or opened by its name.
    """

    job_id: str
    replaces: str | None = None
    speed: int = 0
    granularity: int = 0
    buffer: int = 0
    only_new: bool = False  # sync=none
    base: Node[Any] | None = None
    base_overlay: Node[Any] | None = None
    backing: str = "leave"
    zero_target: bool = False
    unmap: bool = True
    copy_mode: MirrorCopyMode = MirrorCopyMode.BACKGROUND
    on_source_error: BlockdevOnError = BlockdevOnError.REPORT
    on_target_error: BlockdevOnError = BlockdevOnError.REPORT
    auto_finalize: bool = True
    auto_dismiss: bool = True
    auto_complete: bool = False
    filter_node_name: str | None = None


class MirrorJob(BlockJob):
    """One mirror; made by ``blockemu.jobs.mirror_start``."""

    type = JobType.MIRROR
    completable = True

    def __init__(self, emu: "Emulator", settings: MirrorSettings, top: MirrorTop) -> None:
        super().__init__(
            emu.jobs,
            emu.graph,
            settings.job_id,
            auto_finalize=settings.auto_finalize,
            auto_dismiss=settings.auto_dismiss,
        )
        self.emu = emu
        self.settings = settings
        self.top = top
        self.target: Backend  # set while being made
        self.bitmap: DirtyBitmap
        self.copy: MirrorCopy
        self.should_complete = settings.auto_complete
        self.to_replace: Node[Any] | None = None
        self._drain = AsyncExitStack()
        self._left = False

    @property
    def source(self) -> Node[Any]:
        """The node below the filter."""
        assert self.top.backing is not None
        return self.top.backing.node

    @property
    def is_ready(self) -> bool:
        """Whether the target was once the same as the source."""
        return self.status in (JobStatus.READY, JobStatus.STANDBY)

    # The work

    async def run(self) -> None:
        """Copy until the target is the same, then keep it so until told to leave."""
        try:
            if not self.is_cancelled:
                await self._mirror()
        finally:
            await self.copy.idle()
            if not self.in_drain:
                await self._begin_drain()

    async def _mirror(self) -> None:
        await self._check_sizes()
        copy = self.copy
        if not copy.length:
            self.ready()
            while not self.cancelled and not self.should_complete:
                await self.idle_wait()
            return
        target = self.target.node
        if target.backing_file and cow_child(target) is None:
            copy.copy_on_write()
        if not self.settings.only_new and not await self._find_dirty():
            return
        while await self._step():
            pass
        if copy.error:
            raise os_error(copy.error)

    async def _check_sizes(self) -> None:
        length, other = self.source.length, self.target.fresh_length()
        if self.settings.base is self.target.node:
            if length > other:
                await self.target.truncate(length, exact=False)
        elif -(-length // 512) * 512 != other:
            raise JobFailed(DIFFERENT_SIZES)

    async def _throttle(self) -> bool:
        """Let others run, and stand still if that is asked; return whether to go on."""
        await self.sleep(0)
        return not self.is_cancelled

    async def _find_dirty(self) -> bool:
        """Mark what is to be copied at first (mirror_dirty_init); return whether to go on."""
        bits, copy = self.bitmap.bits, self.copy
        if self.settings.zero_target:
            if not unmaps_zeroes(self.target.node):
                bits.mark(0, bits.length)
                return True
            if not await copy.zero_all(self._throttle):
                return False
        assert self.top.backing is not None
        allocated = allocated_above(self.top.backing, 0, copy.length, self.settings.base_overlay)
        async with aclosing(allocated) as batches:
            async for batch in batches:
                mark_allocated(bits, batch)
                if not await self._throttle():
                    return False
        return True

    async def _step(self) -> bool:
        """Do one round of the loop; return whether there is another (mirror_run)."""
        copy, bits = self.copy, self.bitmap.bits
        if copy.error:
            return False
        await self.pause_point()
        if self.is_cancelled:
            return False
        dirty = bits.dirty_bytes
        self.progress.remaining = copy.bytes_in_flight + dirty + copy.active_bytes
        delay = 0
        if self.io_status is BlockDeviceIoStatus.OK:
            if copy.full or (not dirty and copy.in_flight):
                await copy.slot()
                return True
            if dirty:
                delay = self.limit.delay(await copy.iterate(self.pause_point))
        leaving = False
        if not copy.in_flight and not dirty:
            if not self.is_ready:
                if not await self._flush():
                    return True
                self.ready()
            leaving = self.should_complete or self.cancelled
            dirty = bits.dirty_bytes
        if leaving and not dirty:
            return not await self._in_sync()
        if self.is_ready and not leaving:
            delay = SLICE if not copy.in_flight and not dirty else 0
        await self.sleep(delay)
        return True

    async def _in_sync(self) -> bool:
        """Keep writers out and see whether nothing differs; if so, they stay out."""
        await self._begin_drain()
        if not self.bitmap.bits.dirty_bytes and await self._flush():
            return True
        await self._end_drain()
        return False

    async def _flush(self) -> bool:
        try:
            await self.target.flush()
        except OSError as e:
            if self.failed(False, e.errno or errno.EIO):
                self.copy.error = e.errno or errno.EIO
            return False
        return True

    def failed(self, is_read: bool, error: int) -> bool:
        """Tell the user of an error; return whether it is the end."""
        settings = self.settings
        policy = settings.on_source_error if is_read else settings.on_target_error
        return self.error_action(policy, is_read, error) is BlockErrorAction.REPORT

    async def _begin_drain(self) -> None:
        self.in_drain = True
        await asyncio.sleep(0)  # QEMU's goes back to the main loop for this, which can be seen
        await self._drain.enter_async_context(drained(self.source))

    async def _end_drain(self) -> None:
        await self._drain.aclose()
        self.in_drain = False

    # What others ask of it

    async def on_pause(self) -> None:
        """Let what is under way end."""
        await self.copy.idle()

    def on_cancel(self, force: bool) -> bool:
        """Leave at once unless the target is complete: then leave when it is again."""
        force = force or not self.is_ready
        if force and self.type is JobType.MIRROR:
            self.target.node.cancel_in_flight()
        return force

    def on_complete(self) -> None:
        """Leave, and let the target take the source's place (mirror_complete)."""
        if not self.is_ready:
            raise CannotComplete(self.id)
        if self.settings.replaces is not None:
            found = self.graph.nodes.get(self.settings.replaces)
            if found is None:
                raise NodeNameNotFound(self.settings.replaces)
            self.to_replace = found
            block(found, Blocker(REPLACING))
            found.holds += 1
        self.should_complete = True
        if not self.paused:
            self.enter()

    # The end

    async def prepare(self) -> None:
        """Let the target take the source's place, if asked."""
        await self._leave(well=True)

    async def abort(self) -> None:
        """Leave the source in its place."""
        with suppress(OSError):
            await self._leave(well=False)

    async def _leave(self, *, well: bool) -> None:
        """Take the filter out (mirror_exit_common); OSError: the last step failed."""
        if self._left:
            return
        self._left = True
        graph, top, source, target = self.graph, self.top, self.source, self.target.node
        if in_chain(source, target):
            unfreeze(top, target)
        self.bitmap.release()
        for node in (source, target):
            node.holds += 1
        await graph.remove(self.target)
        async with drained(top):
            top.stopped, top.active = True, None
            with Transaction() as transaction:
                refresh(top, transaction=transaction)
            error = 0
            if well:
                error = await self._settle_backing(source, target)
                if self.should_complete:
                    error = await self._replace(source, target) or error
            if self.to_replace is not None:
                unblock(self.to_replace, REPLACING)
                self.to_replace.holds -= 1
                await graph.release(self.to_replace)
            target.holds -= 1
            self.drop_nodes()
            top.holds += 1
            assert top.backing is not None
            graph.replace_node(top, top.backing.node)  # by now that may be the target
            await self._drain.aclose()
        self.in_drain = False
        for node in (top, source):
            node.holds -= 1
            await graph.release(node)
        await graph.release(target)
        if error:
            raise os_error(error)

    async def _settle_backing(self, source: Node[Any], target: Node[Any]) -> int:
        """Give the target the backing file that was promised; return an errno, 0 if all is well."""
        image = skip_filters(target)
        try:
            if self.settings.backing == "source":
                wanted = source if self.settings.only_new else self.settings.base
                if cow_child(image) is not wanted:
                    await self.graph.set_backing(image, wanted)
            elif self.settings.backing == "open":
                await self.emu.opener.open_backing(image)
        except QmpError as e:
            self.emu.warn(str(e))
            return errno.EPERM
        return 0

    async def _replace(self, source: Node[Any], target: Node[Any]) -> int:
        graph = self.graph
        old = self.to_replace or source
        if old.flags.read_only != target.flags.read_only:
            with suppress(QmpError, OSError):
                await set_read_only(graph, target, old.flags.read_only)
        async with drained(target):
            try:
                if not source.can_replace(old):
                    raise CannotReplaceAnyMore(old.name, target.name)
                graph.replace_node(old, target)
            except QmpError as e:
                self.emu.warn(str(e))
                return errno.EPERM
        return 0


class ActiveCommitJob(MirrorJob):
    """The commit of an image that is written to."""

    type = JobType.COMMIT
