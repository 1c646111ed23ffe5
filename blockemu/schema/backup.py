"""Backup and mirror: what to copy, and what becomes of a bitmap (qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import Features, QEnum, Since, Struct
from blockemu.schema.jobs import BlockdevOnError


class MirrorSyncMode(QEnum):
    """What parts of a disk are copied."""

    TOP = "top"
    FULL = "full"
    NONE = "none"
    INCREMENTAL = "incremental"
    BITMAP = "bitmap"


class BitmapSyncMode(QEnum):
    """When a bitmap is brought up to date with what was copied."""

    ON_SUCCESS = "on-success"
    NEVER = "never"
    ALWAYS = "always"


class BackupPerf(Struct):
    """Tuning of a backup.

    @use-copy-range: let the kernel copy
    @max-workers: pieces copied at the same time
    @max-chunk: bytes of a piece at the most, 0 for no limit
    """

    use_copy_range: bool | None = None
    max_workers: int | None = None
    max_chunk: int | None = None


class BackupCommon(Struct):
    """A backup.

    @job-id: name of the job; the device's name if omitted
    @device: node or device to copy
    @sync: which parts to copy
    @speed: bytes a second, 0 for no limit
    @bitmap: dirty bitmap to go by, or to bring up to date
    @bitmap-mode: what becomes of the bitmap
    @compress: compress the data
    @on-source-error: what to do when reading fails
    @on-target-error: what to do when writing fails
    @auto-finalize: conclude without being told
    @auto-dismiss: go away without being told
    @filter-node-name: name of the filter above the source
    @x-perf: tuning
    """

    job_id: str | None = None
    device: str
    sync: MirrorSyncMode
    speed: int | None = None
    bitmap: str | None = None
    bitmap_mode: Annotated[BitmapSyncMode | None, Since("4.2")] = None
    compress: bool | None = None
    on_source_error: BlockdevOnError | None = None
    on_target_error: BlockdevOnError | None = None
    auto_finalize: bool | None = None
    auto_dismiss: bool | None = None
    filter_node_name: Annotated[str | None, Since("4.2")] = None
    x_perf: Annotated[BackupPerf | None, Since("6.0"), Features("unstable")] = None


class BlockdevBackup(BackupCommon):
    """A backup to an existing node.

    @target: node or device to copy to
    """

    target: str


class NewImageMode(QEnum):
    """Whether an image that a command writes to is there already.

    @existing: it is
    @absolute-paths: it is to be created, with absolute names in it
    """

    EXISTING = "existing"
    ABSOLUTE_PATHS = "absolute-paths"


class DriveBackup(BackupCommon):
    """A backup to a file.

    @target: name of the new image
    @format: its format; that of the source by default, or what is found in an existing image
    @mode: whether it is there already
    """

    target: str
    format: str | None = None
    mode: NewImageMode | None = None
