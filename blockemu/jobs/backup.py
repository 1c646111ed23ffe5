"""The backup job: copies a disk as it was at one moment while it goes on changing.

A copy-before-write filter above the source saves what the guest overwrites; this job copies the
rest in the background.  Both take their work from one bitmap.  After block/backup.c.
"""

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from blockemu.copying.block_copy import BlockCopy
from blockemu.copying.copy_calls import Call
from blockemu.dirty import DirtyBitmap
from blockemu.drivers.copy_before_write import CopyBeforeWrite
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.jobs.block_job import MAIN_NODE, BlockJob
from blockemu.jobs.group import Group
from blockemu.node import Node, Write
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.records import record
from blockemu.schema.backup import BitmapSyncMode, MirrorSyncMode
from blockemu.schema.jobs import BlockdevOnError, BlockErrorAction, JobType

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

INT_MAX = 2**31 - 1


class SameNode(QmpError):
    """A disk cannot be backed up to itself."""

    template = "Source and target cannot be the same"


class NoCompression(QmpError):
    """The target's format cannot compress."""

    template = "Compression is not supported for this drive {}"


class BadWorkers(QmpError):
    """The number of workers is out of range."""

    template = f"max-workers must be between 1 and {INT_MAX}"


class BadChunk(QmpError):
    """A negative chunk."""

    template = "max-chunk must be zero (which means no limit) or positive"


class SmallChunk(QmpError):
    """A chunk smaller than what is copied together."""

    template = "Required max-chunk ({}) is less than backup cluster size ({})"


class DifferentSizes(QmpError):
    """The target is not as long as the source."""

    template = "Source and target image have different sizes"


@record(frozen=True, kw_only=True)
class BackupSettings:
    """What a backup is to do; ``sync`` is never INCREMENTAL here, that is BITMAP, on-success."""

    job_id: str
    sync: MirrorSyncMode
    bitmap: DirtyBitmap | None
    bitmap_mode: BitmapSyncMode
    speed: int
    compress: bool
    filter_node_name: str | None
    use_copy_range: bool
    max_workers: int
    max_chunk: int
    on_source_error: BlockdevOnError
    on_target_error: BlockdevOnError
    auto_finalize: bool
    auto_dismiss: bool


class BackupJob(BlockJob):
    """One backup; made by ``create_backup``."""

    type = JobType.BACKUP

    def __init__(
        self, emu: "Emulator", settings: BackupSettings, filter_node: CopyBeforeWrite, group: Group
    ) -> None:
        super().__init__(
            emu.jobs,
            emu.graph,
            settings.job_id,
            auto_finalize=settings.auto_finalize,
            auto_dismiss=settings.auto_dismiss,
            group=group,
        )
        self.settings = settings
        self.filter = filter_node
        self.copier: BlockCopy = filter_node.copier
        self._call: Call | None = None

    async def run(self) -> None:
        """Copy; for ``sync=none`` only stand by until cancelled."""
        copier = self.copier
        if self.settings.sync is MirrorSyncMode.BITMAP:
            copier.bitmap.clear()
            assert self.settings.bitmap is not None
            copier.bitmap.merge(self.settings.bitmap.bits)
        elif self.settings.sync is MirrorSyncMode.TOP:
            copier.skip_unallocated = True
        copier.progress = self.progress
        copier.tell()
        if self.settings.sync is MirrorSyncMode.TOP:
            await self._skip_unallocated()
        if self.settings.sync is MirrorSyncMode.NONE:
            while not self.is_cancelled:
                await self.idle_wait()
        else:
            await self._copy_all()

    def on_cancel(self, force: bool) -> bool:
        """Do not wait for what a target that is gone will never answer (backup_cancel)."""
        self.filter.children["target"].node.cancel_in_flight()
        return True

    async def _skip_unallocated(self) -> None:
        offset = 0
        while offset < self.copier.length:
            await self.pause_point()
            if self.is_cancelled:
                raise os_error(errno.ECANCELED)
            offset = await self.copier.reset_unallocated(offset)
        self.copier.skip_unallocated = False

    async def _copy_all(self) -> None:
        """Copy until done or cancelled; after a pause, or an error that is ignored, anew."""
        size = self.copier.cluster_size
        length = -(-self.copier.length // size) * size
        while True:
            call = self._begin(length)
            while not call.finished and not self.is_cancelled:
                await self.idle_wait()
            await self._rest()
            self._call = None
            if self.is_cancelled or not (call.error or call.cancelled):
                return
            if call.error and not call.cancelled and await self._give_up(call):
                raise os_error(call.error)

    def _begin(self, length: int) -> Call:
        settings = self.settings
        call = Call(
            max_workers=settings.max_workers, max_chunk=settings.max_chunk, ended=self.enter
        )
        self._call = call
        self.copier.start(0, length, call)
        return call

    async def _rest(self) -> None:
        """Call the copying off and wait until nothing of it is under way."""
        if self._call is not None and not self._call.finished:
            self._call.cancel()
            await self._call.wait()

    async def _give_up(self, call: Call) -> bool:
        settings = self.settings
        policy = settings.on_source_error if call.error_is_read else settings.on_target_error
        action = self.error_action(policy, call.error_is_read, call.error)
        if action is BlockErrorAction.STOP:
            await self.pause_point()
        elif action is BlockErrorAction.IGNORE:
            await asyncio.sleep(0)  # an error that comes at once, again and again, blocks nobody
        return action is BlockErrorAction.REPORT

    async def on_pause(self) -> None:
        """Let what is being copied come to its end before the job counts as paused."""
        await self._rest()

    def on_speed(self, speed: int) -> None:
        """Copy no faster."""
        self.copier.set_speed(speed)
        if self._call is not None:
            self._call.kick()

    async def commit(self) -> None:
        """Bring the bitmap to what was copied."""
        self._finish_bitmap(good=True)

    async def abort(self) -> None:
        """Bring the bitmap to what was not copied."""
        self._finish_bitmap(good=False)

    def _finish_bitmap(self, *, good: bool) -> None:
        """Decide between the bitmap and its successor (backup_cleanup_sync_bitmap)."""
        bitmap, mode = self.settings.bitmap, self.settings.bitmap_mode
        if bitmap is None:
            return
        if mode is not BitmapSyncMode.NEVER and (good or mode is BitmapSyncMode.ALWAYS):
            kept = bitmap.abdicate()
        else:
            kept = bitmap.reclaim()
        if not good and mode is BitmapSyncMode.ALWAYS:
            kept.bits.merge(self.copier.bitmap)
            for area in self.copier.under_way():  # QEMU forgets what a guest is copying just now
                kept.bits.mark(*area)

    async def clean(self) -> None:
        """Take the filter away again."""
        for node in self.drop_nodes():
            await self.graph.release(node)
        await _drop_filter(self.graph, self.filter)


async def create_backup(
    emu: "Emulator", source: Node[Any], target: Node[Any], settings: BackupSettings, group: Group
) -> BackupJob:
    """Make a backup job and its filter; the source is drained, and the job not started yet.

    Raises:
        QmpError: in the words of backup_job_create, block/backup.c; nothing is left changed.

    """
    graph = emu.graph
    _check(emu, source, target, settings)
    bitmap = settings.bitmap
    if bitmap is not None:
        if settings.bitmap_mode is not BitmapSyncMode.NEVER:
            bitmap.check()
        bitmap.create_successor()
    filter_node: CopyBeforeWrite | None = None
    try:
        if _sectors(source) != _sectors(target):
            raise DifferentSizes
        filter_node = await _insert_filter(emu, source, target, settings.filter_node_name)
        size = filter_node.copier.cluster_size
        if settings.max_chunk and settings.max_chunk < size:
            raise SmallChunk(settings.max_chunk, size)
        return _make_job(emu, settings, filter_node, target, group)
    except BaseException:
        if bitmap is not None:
            bitmap.reclaim()
        if filter_node is not None:
            await _drop_filter(graph, filter_node)
        raise


def _check(emu: "Emulator", source: Node[Any], target: Node[Any], settings: BackupSettings) -> None:
    graph = emu.graph
    if source is target:
        raise SameNode
    if settings.compress and not target.can_compress:
        raise NoCompression(graph.device_name(target))
    graph.check_unblocked(source, "backup-source")
    graph.check_unblocked(target, "backup-target")
    if not 1 <= settings.max_workers <= INT_MAX:
        raise BadWorkers
    if settings.max_chunk < 0:
        raise BadChunk


def _sectors(node: Node[Any]) -> int:
    return -(-node.length // 512)


async def _insert_filter(
    emu: "Emulator", source: Node[Any], target: Node[Any], name: str | None
) -> CopyBeforeWrite:
    options: dict[str, Any] = {"driver": "copy-before-write"}
    if name is not None:
        options["node-name"] = name
    node = await emu.opener.open_filter(options | {"target": target.name}, source)
    assert isinstance(node, CopyBeforeWrite)
    node.holds += 1  # until the job drops it
    try:
        await emu.graph.insert_above(node, source)
    except BaseException:
        node.holds -= 1
        await emu.graph.release(node)
        raise
    return node


async def _drop_filter(graph: Graph, filter_node: CopyBeforeWrite) -> None:
    filter_node.holds -= 1
    await graph.drop_filter(filter_node)


def _make_job(
    emu: "Emulator",
    settings: BackupSettings,
    filter_node: CopyBeforeWrite,
    target: Node[Any],
    group: Group,
) -> BackupJob:
    emu.jobs.check_id(settings.job_id)
    job = BackupJob(emu, settings, filter_node, group)
    emu.jobs.add(job)
    try:
        job.add_node(MAIN_NODE, filter_node, Perm.NONE, Perm.ALL)
        filter_node.copier.copy_range = settings.use_copy_range
        filter_node.copier.write_flags |= Write.COMPRESSED if settings.compress else 0
        job.set_speed(settings.speed)
        job.add_node("target", target, Perm.NONE, Perm.ALL)
    except BaseException:
        job.early_fail()
        raise
    return job
