"""blockdev-backup."""

from typing import Any

from blockemu.backend import drain, drained
from blockemu.commands.context import Context
from blockemu.dirty import ALLOW_READONLY, DirtyBitmap
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.jobs.backup import BackupJob, BackupSettings, create_backup
from blockemu.jobs.group import Group
from blockemu.node import Node
from blockemu.qmp_server.dispatch import command
from blockemu.schema.backup import (
    BackupCommon,
    BackupPerf,
    BitmapSyncMode,
    BlockdevBackup,
    MirrorSyncMode,
)
from blockemu.schema.jobs import BlockdevOnError

_BY_BITMAP = frozenset({MirrorSyncMode.BITMAP, MirrorSyncMode.INCREMENTAL})


class BitmapNameNeeded(QmpError):
    """The sync mode goes by a bitmap."""

    template = "must provide a valid bitmap name for '{}' sync mode"


class FixedBitmapMode(QmpError):
    """The sync mode implies what becomes of the bitmap."""

    template = "Bitmap sync mode must be '{}' when using sync mode '{}'"


class NoSuchBitmap(QmpError):
    """The source has no such bitmap."""

    template = "Bitmap '{}' could not be found"


class BitmapModeNeeded(QmpError):
    """Nothing says what becomes of the bitmap."""

    template = "Bitmap sync mode must be given when providing a bitmap"


class NoBitmapOutput(QmpError):
    """The bitmap would mean nothing afterwards."""

    template = "sync mode '{}' does not produce meaningful bitmap outputs"


class UselessBitmap(QmpError):
    """The bitmap would be neither read nor written."""

    template = "Bitmap sync mode '{}' has no meaningful effect when combined with sync mode '{}'"


class ModeWithoutBitmap(QmpError):
    """A mode for no bitmap."""

    template = "Cannot specify bitmap sync mode without a bitmap"


@command(since="2.3")
async def blockdev_backup(context: Context, options: BlockdevBackup) -> None:
    """Copy a disk to another node as it is now."""
    emu = context.emu
    await drain(emu.graph.nodes.values())
    source = emu.graph.lookup(options.device)
    target = emu.graph.lookup(options.target)
    async with drained(source):
        job = await prepare_backup(emu, options, source, target, Group())
        job.start()


async def prepare_backup(
    emu: Emulator, options: BackupCommon, source: Node[Any], target: Node[Any], group: Group
) -> BackupJob:
    """Check the options and make the job, for this command and for transactions.

    After do_backup_common, blockdev.c; the order of the checks is QEMU's.
    """
    sync, mode = options.sync, options.bitmap_mode
    if sync in _BY_BITMAP and options.bitmap is None:
        raise BitmapNameNeeded(sync.value)
    if sync is MirrorSyncMode.INCREMENTAL:
        if mode not in (None, BitmapSyncMode.ON_SUCCESS):
            raise FixedBitmapMode(BitmapSyncMode.ON_SUCCESS.value, sync.value)
        sync, mode = MirrorSyncMode.BITMAP, BitmapSyncMode.ON_SUCCESS
    bitmap = None
    if options.bitmap is not None:
        bitmap = _bitmap(source, options.bitmap, sync, mode)
    elif mode is not None:
        raise ModeWithoutBitmap
    perf = options.x_perf or BackupPerf()
    settings = BackupSettings(
        job_id=options.job_id if options.job_id is not None else emu.graph.device_name(source),
        sync=sync,
        bitmap=bitmap,
        bitmap_mode=mode or BitmapSyncMode.ON_SUCCESS,
        speed=options.speed or 0,
        compress=bool(options.compress),
        filter_node_name=options.filter_node_name,
        use_copy_range=bool(perf.use_copy_range),
        max_workers=perf.max_workers if perf.max_workers is not None else 64,
        max_chunk=perf.max_chunk or 0,
        on_source_error=options.on_source_error or BlockdevOnError.REPORT,
        on_target_error=options.on_target_error or BlockdevOnError.REPORT,
        auto_finalize=options.auto_finalize is not False,
        auto_dismiss=options.auto_dismiss is not False,
    )
    return await create_backup(emu, source, target, settings, group)


def _bitmap(
    source: Node[Any], name: str, sync: MirrorSyncMode, mode: BitmapSyncMode | None
) -> DirtyBitmap:
    found = source.bitmap_set.find(name) if source.bitmap_set is not None else None
    if found is None:
        raise NoSuchBitmap(name)
    if mode is None:
        raise BitmapModeNeeded
    found.check(ALLOW_READONLY)
    if sync is MirrorSyncMode.NONE:
        raise NoBitmapOutput(sync.value)
    if mode is BitmapSyncMode.NEVER and sync is not MirrorSyncMode.BITMAP:
        raise UselessBitmap(mode.value, sync.value)
    return found
