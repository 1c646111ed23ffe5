"""blockdev-snapshot-internal-sync and blockdev-snapshot-delete-internal-sync."""

import os
import sys
import time
from typing import Any

from blockemu import snapshots
from blockemu.backend import drained
from blockemu.commands.actions import Action, run
from blockemu.commands.context import Context
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Node
from blockemu.qmp_server.dispatch import command
from blockemu.schema.images import SnapshotInfo
from blockemu.schema.transactions import BlockdevSnapshotInternal

MAX_NAME = 255  # bytes; the rest is cut off
NSEC = 1_000_000_000


class NameOrId(QmpError):
    """Neither says which snapshot."""

    template = "Name or id must be provided"


class NoSuchSnapshot(QmpError):
    """(id, name, device)."""

    template = "Snapshot with id '{}' and name '{}' does not exist on device '{}'"


class ReadOnlyDevice(QmpError):
    """A snapshot changes the image."""

    template = "Device '{}' is read only"


class NoSnapshots(QmpError):
    """(format, device)."""

    template = "Block format '{}' used by device '{}' does not support internal snapshots"


class EmptyName(QmpError):
    """A snapshot must have a name."""

    template = "Name is empty"


class NameTaken(QmpError):
    """(name, device)."""

    template = "Snapshot with name '{}' already exists on device '{}'"


class CreateFailed(QmpError):
    """(name, device, why)."""

    template = "Failed to create snapshot '{}' on device '{}': {}"


class InternalSnapshot(Action):
    """Taking a snapshot (internal_snapshot_prepare, blockdev.c)."""

    kind = "blockdev-snapshot-internal-sync"

    def __init__(self, emu: Emulator, wanted: BlockdevSnapshotInternal) -> None:
        super().__init__(emu)
        self.wanted = wanted
        self._node: Node[Any] | None = None
        self._taken: Snapshot | None = None

    async def prepare(self) -> None:
        """Take the snapshot."""
        device, name = self.wanted.device, self.wanted.name
        node = self._node = self.graph.root_node(device)
        await self.stack.enter_async_context(drained(node))
        self.emu.graph.check_unblocked(node, "internal-snapshot")
        if node.flags.read_only:
            raise ReadOnlyDevice(device)
        if not snapshots.can_snapshot(node):
            raise NoSnapshots(node.driver, device)
        if not name:
            raise EmptyName
        if snapshots.find(node, None, name) is not None:
            raise NameTaken(name, device)
        now = time.time_ns() // 1000 * 1000
        wanted = Snapshot(
            id="", name=_cut(name), l1_table_offset=0, l1_size=0, disk_size=0, vm_state_size=0,
            date_sec=now // NSEC, date_nsec=now % NSEC, icount=None,
            vm_clock_nsec=self.emu.guest_time(),
        )  # fmt: skip
        try:
            self._taken = await snapshots.create(node, wanted)
        except OSError as e:
            raise CreateFailed(name, device, os.strerror(e.errno or 0)) from e

    async def abort(self) -> None:
        """Delete the snapshot again."""
        node, taken = self._node, self._taken
        if node is None or taken is None:
            return
        try:
            await snapshots.delete(node, taken.id, taken.name)
        except (QmpError, OSError) as e:
            device = self.emu.graph.device_name(node)
            sys.stderr.write(
                f"Failed to delete snapshot with id '{taken.id}' and name '{taken.name}' "
                f"on device '{device}' in abort: {e}\n"
            )


def _cut(name: str) -> str:
    return name.encode()[:MAX_NAME].decode(errors="ignore")


@command(since="1.7")
async def blockdev_snapshot_internal_sync(
    context: Context, options: BlockdevSnapshotInternal
) -> None:
    """Take an internal snapshot."""
    await run(context.emu, [InternalSnapshot(context.emu, options)])


@command(since="1.7")
async def blockdev_snapshot_delete_internal_sync(
    context: Context, *, device: str, id: str | None = None, name: str | None = None
) -> SnapshotInfo:
    """Delete an internal snapshot, told by name or id or both."""
    node = context.emu.graph.root_node(device)
    if id is None and name is None:
        raise NameOrId
    context.emu.graph.check_unblocked(node, "internal-snapshot-delete")
    found = snapshots.find(node, id, name)
    if found is None:
        null = "null"
        raise NoSuchSnapshot(null if id is None else id, null if name is None else name, device)
    async with drained(node):
        await snapshots.delete(node, id, name, device=device)
    return snapshots.info(found)
