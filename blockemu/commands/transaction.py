"""transaction: several commands at one moment, all or none."""

from collections.abc import Callable
from typing import Any, Final

from blockemu.commands.actions import Action, run
from blockemu.commands.backup import BackupToFile, BackupToNode
from blockemu.commands.bitmap_actions import (
    AddBitmap,
    ClearBitmap,
    DisableBitmap,
    EnableBitmap,
    MergeBitmap,
    RemoveBitmap,
)
from blockemu.commands.context import Context
from blockemu.commands.external_snapshots import SnapshotToFile, SnapshotToNode
from blockemu.commands.snapshots import InternalSnapshot
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.schema.transactions import (
    AbortWrapper,
    ActionCompletionMode,
    AnyAction,
    BitmapAddWrapper,
    BitmapClearWrapper,
    BitmapDisableWrapper,
    BitmapEnableWrapper,
    BitmapMergeWrapper,
    BitmapRemoveWrapper,
    BlockdevBackupWrapper,
    BlockdevSnapshotInternalWrapper,
    BlockdevSnapshotSyncWrapper,
    BlockdevSnapshotWrapper,
    DriveBackupWrapper,
    TransactionAction,
    TransactionProperties,
)


class Aborted(QmpError):
    """Somebody asked for it."""

    template = "Transaction aborted using Abort action"


class AbortAction(Action):
    """abort: for tests."""

    kind = "abort"
    takes_time = True  # it has no job, yet fits any mode

    def __init__(self, emu: Emulator, _: object) -> None:
        super().__init__(emu)

    async def prepare(self) -> None:
        """Fail."""
        raise Aborted


_ACTIONS: Final[dict[type[TransactionAction], Callable[[Emulator, Any], Action]]] = {
    AbortWrapper: AbortAction,
    BitmapAddWrapper: AddBitmap,
    BitmapRemoveWrapper: RemoveBitmap,
    BitmapClearWrapper: ClearBitmap,
    BitmapEnableWrapper: EnableBitmap,
    BitmapDisableWrapper: DisableBitmap,
    BitmapMergeWrapper: MergeBitmap,
    BlockdevBackupWrapper: BackupToNode,
    BlockdevSnapshotWrapper: SnapshotToNode,
    BlockdevSnapshotInternalWrapper: InternalSnapshot,
    BlockdevSnapshotSyncWrapper: SnapshotToFile,
    DriveBackupWrapper: BackupToFile,
}


@command(since="1.1")
async def transaction(
    context: Context,
    *,
    actions: list[AnyAction],
    properties: TransactionProperties | None = None,
) -> None:
    """Carry out several commands as at one moment, all of them or none."""
    emu = context.emu
    mode = properties.completion_mode if properties is not None else None
    made = [_ACTIONS[type(each)](emu, each.data) for each in actions]  # type: ignore[attr-defined]
    await run(emu, made, mode or ActionCompletionMode.INDIVIDUAL)
