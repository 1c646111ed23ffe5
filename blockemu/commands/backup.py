"""blockdev-backup and drive-backup."""

from typing import Any

from blockemu import filenames
from blockemu.backend import drained
from blockemu.chain import cow_child, skip_implicit
from blockemu.commands.actions import Action, run
from blockemu.commands.context import Context
from blockemu.commands.external_snapshots import flags_of
from blockemu.creation import img_create
from blockemu.dirty import ALLOW_READONLY, DirtyBitmap
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.graph import check_may_have_backing
from blockemu.image_info import virtual_size
from blockemu.jobs.backup import BackupJob, BackupSettings, create_backup
from blockemu.jobs.group import Group
from blockemu.node import Node
from blockemu.node_options import Options
from blockemu.perm import Role
from blockemu.qmp_server.dispatch import command
from blockemu.records import replace
from blockemu.schema.backup import (
    BackupCommon,
    BackupPerf,
    BitmapSyncMode,
    BlockdevBackup,
    DriveBackup,
    MirrorSyncMode,
    NewImageMode,
)
from blockemu.schema.jobs import BlockdevOnError
from blockemu.transaction import Transaction

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


class BackupAction(Action):
    """A backup that begins when all else is ready."""

    takes_time = True
    job: BackupJob | None = None

    async def commit(self) -> None:
        """Let it begin."""
        assert self.job is not None
        self.job.start()

    async def abort(self) -> None:
        """Do away with the job."""
        if self.job is not None:
            await self.job.cancel_sync()


class BackupToNode(BackupAction):
    """blockdev-backup."""

    kind = "blockdev-backup"

    def __init__(self, emu: Emulator, options: BlockdevBackup) -> None:
        super().__init__(emu)
        self.options = options

    async def prepare(self) -> None:
        """Make the job."""
        wanted = self.options
        source, target = self.graph.lookup(wanted.device), self.graph.lookup(wanted.target)
        await self.stack.enter_async_context(drained(source))
        source = self.graph.lookup(wanted.device)  # again: a job's filter may be gone by now
        self.job = await make_job(self.emu, wanted, wanted.sync, source, target, self.group)


class BackupToFile(BackupAction):
    """drive-backup (after drive_backup_prepare, blockdev.c)."""

    kind = "drive-backup"

    def __init__(self, emu: Emulator, options: DriveBackup) -> None:
        super().__init__(emu)
        self.options = options

    async def prepare(self) -> None:
        """Create and open the target, and make the job."""
        wanted, sync = self.options, self.options.sync
        source = self.graph.lookup(wanted.device)
        await self.stack.enter_async_context(drained(source))
        source = self.graph.lookup(wanted.device)  # again: a job's filter may be gone by now
        self.graph.check_unblocked(source, "backup-source")
        base = None
        if sync is MirrorSyncMode.TOP:
            base = cow_child(source)
            sync = sync if base is not None else MirrorSyncMode.FULL
        elif sync is MirrorSyncMode.NONE:
            base = source
        target = await self._open_target(source, base, sync)
        target.holds += 1
        try:
            if sync is MirrorSyncMode.NONE:
                check_may_have_backing(target)
                with Transaction() as transaction:
                    self.graph.add_child(target, "backing", Role.COW, source, transaction)
            self.job = await make_job(self.emu, wanted, sync, source, target, self.group)
        finally:
            target.holds -= 1
            await self.graph.release(target)

    async def _open_target(
        self, source: Node[Any], base: Node[Any] | None, sync: MirrorSyncMode
    ) -> Node[Any]:
        wanted = self.options
        create = wanted.mode is not NewImageMode.EXISTING
        fmt = wanted.format
        if create:
            fmt = source.driver if fmt is None else fmt
            if base is not None:
                base = skip_implicit(base)
                filenames.refresh(base)
            await img_create(
                self.emu.opener,
                wanted.target,
                fmt,
                base_filename=base.full_filename if base is not None else None,
                base_fmt=base.driver if base is not None else None,
                size=virtual_size(source),
                flags=replace(source.flags, no_backing=sync is MirrorSyncMode.NONE),
                quiet=False,
            )
        options: Options = {"discard": "unmap", "detect-zeroes": "unmap"}
        if fmt is not None:
            options["driver"] = fmt
        defaults = flags_of(source) | {"read-only": False}
        if sync is MirrorSyncMode.NONE:
            defaults["backing"] = None
        return await self.emu.opener.open(
            options, filename=wanted.target, defaults=defaults, protocol=source.is_protocol
        )


async def make_job(
    emu: Emulator,
    options: BackupCommon,
    sync: MirrorSyncMode,
    source: Node[Any],
    target: Node[Any],
    group: Group | None,
) -> BackupJob:
    """Check the options and make the job.

    After do_backup_common, blockdev.c; the order of the checks is QEMU's.
    """
    emu.graph.threads.follow(target, source)
    mode = options.bitmap_mode
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
    return await create_backup(emu, source, target, settings, group or Group())


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


@command(since="2.3")
async def blockdev_backup(context: Context, options: BlockdevBackup) -> None:
    """Copy a disk to another node as it is now."""
    await run(context.emu, [BackupToNode(context.emu, options)])


@command(since="1.6", deprecated="6.2")
async def drive_backup(context: Context, options: DriveBackup) -> None:
    """Copy a disk to a file as it is now."""
    await run(context.emu, [BackupToFile(context.emu, options)])
