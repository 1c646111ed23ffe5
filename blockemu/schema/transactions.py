"""Snapshots, and several commands at once (qapi/block-core.json, qapi/transaction.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import QEnum, Struct, Union
from blockemu.schema.backup import BlockdevBackup, DriveBackup, NewImageMode
from blockemu.schema.bitmaps import BlockDirtyBitmap, BlockDirtyBitmapAdd, BlockDirtyBitmapMerge

ACTION = Union("TransactionAction", "type")


class BlockdevSnapshotSync(Struct):
    """An external snapshot into an image that is opened, and if need be created, for it.

    @device: device whose disk goes on in the new image
    @node-name: node that goes on in the new image
    @snapshot-file: name of the new image
    @snapshot-node-name: node name of the new image
    @format: its format, qcow2 by default
    @mode: whether it is there already
    """

    device: str | None = None
    node_name: str | None = None
    snapshot_file: str
    snapshot_node_name: str | None = None
    format: str | None = None
    mode: NewImageMode | None = None


class BlockdevSnapshot(Struct):
    """An external snapshot into an image that is open.

    @node: node or device that goes on in ``overlay``
    @overlay: node that gets ``node`` as its backing child
    """

    node: str
    overlay: str


class BlockdevSnapshotInternal(Struct):
    """An internal snapshot.

    @device: node or device to take it of
    @name: its name
    """

    device: str
    name: str


class Abort(Struct):
    """Nothing."""


class ActionCompletionMode(QEnum):
    """Whether jobs of a transaction end together.

    @individual: each for itself
    @grouped: all well or none
    """

    INDIVIDUAL = "individual"
    GROUPED = "grouped"


class TransactionProperties(Struct):
    """How a transaction is carried out.

    @completion-mode: whether its jobs end together
    """

    completion_mode: ActionCompletionMode | None = None


class TransactionAction(Struct):
    """One command of a transaction, with its arguments in ``data``."""

    union = ACTION


class AbortWrapper(TransactionAction, tag="abort", since="1.6"):
    """Fail.

    @data: nothing
    """

    data: Abort


class BitmapAddWrapper(TransactionAction, tag="block-dirty-bitmap-add", since="2.5"):
    """Make a bitmap.

    @data: which
    """

    data: BlockDirtyBitmapAdd


class BitmapRemoveWrapper(TransactionAction, tag="block-dirty-bitmap-remove", since="4.2"):
    """Forget a bitmap.

    @data: which
    """

    data: BlockDirtyBitmap


class BitmapClearWrapper(TransactionAction, tag="block-dirty-bitmap-clear", since="2.5"):
    """Make a bitmap clean.

    @data: which
    """

    data: BlockDirtyBitmap


class BitmapEnableWrapper(TransactionAction, tag="block-dirty-bitmap-enable", since="4.0"):
    """Let a bitmap record.

    @data: which
    """

    data: BlockDirtyBitmap


class BitmapDisableWrapper(TransactionAction, tag="block-dirty-bitmap-disable", since="4.0"):
    """Let a bitmap record no more.

    @data: which
    """

    data: BlockDirtyBitmap


class BitmapMergeWrapper(TransactionAction, tag="block-dirty-bitmap-merge", since="4.0"):
    """Merge bitmaps.

    @data: which
    """

    data: BlockDirtyBitmapMerge


class BlockdevBackupWrapper(TransactionAction, tag="blockdev-backup", since="2.3"):
    """Begin a backup to a node.

    @data: its options
    """

    data: BlockdevBackup


class BlockdevSnapshotWrapper(TransactionAction, tag="blockdev-snapshot", since="2.5"):
    """Take an external snapshot into a node.

    @data: its options
    """

    data: BlockdevSnapshot


class BlockdevSnapshotInternalWrapper(
    TransactionAction, tag="blockdev-snapshot-internal-sync", since="1.7"
):
    """Take an internal snapshot.

    @data: its options
    """

    data: BlockdevSnapshotInternal


class BlockdevSnapshotSyncWrapper(TransactionAction, tag="blockdev-snapshot-sync", since="1.1"):
    """Take an external snapshot into a file.

    @data: its options
    """

    data: BlockdevSnapshotSync


class DriveBackupWrapper(TransactionAction, tag="drive-backup", since="1.6", deprecated="6.2"):
    """Begin a backup to a file.

    @data: its options
    """

    data: DriveBackup


AnyAction = Annotated[TransactionAction, ACTION]
