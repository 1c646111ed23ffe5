"""Snapshots of the machine: of all its disks, and with one of them what the machine was doing.

The state is a stream as a migration's, of a machine that is marked as ours, in the area that qcow2
has for it.  After save_snapshot and load_snapshot, migration/savevm.c, and block/snapshot.c's
functions for all disks.
"""

import errno
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from blockemu import snapshots
from blockemu.activation import tops
from blockemu.backend import Backend, drained
from blockemu.errors import QmpError, Wrapped
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.migration import wire
from blockemu.migration.load import Load, Settings
from blockemu.migration.outgoing import Leaving
from blockemu.migration.sections import snapshot
from blockemu.migration.status import RUNNING
from blockemu.migration.wire import Input
from blockemu.node import Node
from blockemu.records import replace
from blockemu.schema.devices import Reset
from blockemu.schema.migration import MigrationStatus as S
from blockemu.schema.run_state import RunState, ShutdownCause

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

Devices = Sequence[str] | None  # node names; None: all disks
_NSEC: Final = 1_000_000_000
_LONGEST: Final = 255  # bytes of a name; the rest is cut off


class NoDevices(QmpError):
    """A list of none."""

    template = "At least one device is required for snapshot"


class NoSuchDevice(QmpError):
    """(name)."""

    template = "No block device node '{}'"


class NoSnapshots(QmpError):
    """(device): it would not go back with the others."""

    template = "Device '{}' is writable but does not support snapshots"


class Exists(QmpError):
    """(name)."""

    template = "Snapshot '{}' already exists in one or more devices"


class Lacks(QmpError):
    """(name)."""

    template = "Snapshot '{}' does not exist in one or more devices"


class NoPlaceFor(QmpError):
    """(name): it cannot have the machine's state."""

    template = "vmstate block device '{}' does not support snapshots"


class NoPlaceCalled(QmpError):
    """(name): it is none of the devices."""

    template = "vmstate block device '{}' does not exist"


class NoPlace(QmpError):
    """Nothing can have the machine's state."""

    template = "no block device can store vmstate for snapshot"


class NotChecked(QmpError):
    """(name, device, why)."""

    template = "Could not check snapshot '{}' on '{}': {}"


class NotCreated(QmpError):
    """(name, device)."""

    template = "Could not create snapshot '{}' on '{}'"


class DiskOnly(QmpError):
    """There is no state in it."""

    template = "This is a disk-only snapshot. Revert to it  offline using qemu-img"


class NotOpened(QmpError):
    """The state cannot be read or written."""

    template = "Could not open VM state file"


class NotLoaded(QmpError):
    """(errno): what the snapshot has is no state of this machine."""

    template = "Error {} while loading VM state"


class InProgress(QmpError):
    """The machine leaves just now."""

    template = "There's a migration process in progress"


class MachineSnapshots:
    """The snapshots of one machine."""

    def __init__(self, emu: "Emulator") -> None:
        self._emu = emu
        self._graph = emu.graph

    # Which disks

    def _nodes(self, devices: Devices) -> list[Node[Any]]:
        if devices is None:
            return tops(self._graph)
        if not devices:
            raise NoDevices
        for name in devices:
            if name not in self._graph.nodes:
                raise NoSuchDevice(name)
        return [self._graph.nodes[name] for name in devices]

    def _included(self, devices: Devices) -> list[Node[Any]]:
        """Return the disks that a snapshot is of."""
        nodes = self._nodes(devices)
        return nodes if devices is not None else [n for n in nodes if _is_disk(n)]

    def _check(self, devices: Devices) -> list[Node[Any]]:
        included = self._included(devices)
        for node in included:
            if not snapshots.can_snapshot(node):
                raise NoSnapshots(self._name(node))
        return included

    def _name(self, node: Node[Any]) -> str:
        return self._graph.display_name(node)

    def place(self, wanted: str | None = None, devices: Devices = None) -> Node[Any]:
        """Return the disk that the machine's state goes to (bdrv_all_find_vmstate_bs).

        Raises:
            QmpError: there is none.

        """
        included = set(self._included(devices))
        for node in self._nodes(devices):
            fits = node in included and snapshots.can_snapshot(node)
            if wanted is not None and node.name == wanted:
                if not fits:
                    raise NoPlaceFor(wanted)
                return node
            if wanted is None and fits:
                return node
        raise NoPlaceCalled(wanted) if wanted is not None else NoPlace

    def everywhere(self, name: str, devices: Devices = None) -> bool:
        """Tell whether all disks have a snapshot of this name."""
        return all(self._has(node, name) for node in self._included(devices))

    def _has(self, node: Node[Any], name: str) -> bool:
        try:
            return any(s.name == name for s in snapshots.listed(node))
        except OSError as e:
            why = os.strerror(e.errno or errno.EIO)
            raise NotChecked(name, self._name(node), why) from e

    # Saving

    async def save(
        self,
        name: str | None,
        *,
        overwrite: bool = False,
        place: str | None = None,
        devices: Devices = None,
    ) -> None:
        """Take a snapshot of all disks and of the machine.

        Raises:
            QmpError: it cannot be taken.

        """
        blockers = self._emu.migration.blockers()
        if blockers:
            raise blockers[-1]
        included = self._check(devices)
        if name and overwrite:
            await self._delete(name, included)
        elif name and self.everywhere(name, devices):
            raise Exists(name)
        node = self.place(place, devices)
        machine = self._emu.machine
        doing, ran = machine.state, machine.running
        await self._emu.stop_machine(RunState.SAVE_VM)
        try:
            async with drained(*self._graph):
                await self._save(name, node, included, doing)
        finally:
            if ran:
                machine.resume()

    async def _save(
        self, name: str | None, node: Node[Any], included: list[Node[Any]], doing: RunState
    ) -> None:
        now = time.time_ns() // 1000 * 1000
        if not name:
            name = time.strftime("vm-%Y%m%d%H%M%S", time.localtime(now // _NSEC))
        name = name.encode()[:_LONGEST].decode(errors="ignore")
        clock = self._emu.guest_time()
        size = await self._write_state(node, doing)
        wanted = Snapshot(
            id="", name=name, l1_table_offset=0, l1_size=0, disk_size=0, vm_state_size=0,
            date_sec=now // _NSEC, date_nsec=now % _NSEC, icount=None, vm_clock_nsec=clock,
        )  # fmt: skip
        for each in included:
            try:
                await snapshots.create(
                    each, replace(wanted, vm_state_size=size if each is node else 0)
                )
            except OSError as e:
                await self._delete(name, included, quiet=True)
                raise NotCreated(name, self._name(each)) from e

    async def _write_state(self, node: Node[Any], doing: RunState) -> int:
        """Write the machine's state; return how many bytes that are."""
        migration = self._emu.migration
        if migration.leaving.status in RUNNING:
            raise InProgress
        leaving = migration.leaving = Leaving(migration)
        leaving.over.set_result(None)
        leaving.begin()
        leaving.look()
        leaving.look()
        clock = self._emu.clocks.virtual.now()
        data = snapshot(self._emu.machine.type, clock, doing.value)
        try:
            await _keeper(node).save_vmstate(0, memoryview(data))
        except (OSError, NotImplementedError) as e:
            leaving.move(S.SETUP, S.FAILED)
            raise NotOpened from e
        leaving.move(S.SETUP, S.COMPLETED)
        return len(data)

    # Loading

    async def load(self, name: str, *, place: str | None = None, devices: Devices = None) -> None:
        """Go back to a snapshot; the machine stands still.

        Raises:
            QmpError: that is not possible; some disks may have gone back.

        """
        included = self._check(devices)
        if not self.everywhere(name, devices):
            raise Lacks(name)
        node = self.place(place, devices)
        found = next(s for s in snapshots.listed(node) if s.name == name)
        if not found.vm_state_size:
            raise DiskOnly
        async with drained(*self._graph):
            for each in included:
                try:
                    await snapshots.goto(each, name)
                except QmpError as e:
                    where = f"Could not load snapshot '{name}' on '{self._name(each)}'"
                    raise Wrapped(where, e) from e
            self._emu.emit(Reset(guest=False, reason=ShutdownCause.SNAPSHOT_LOAD))
            await self._read_state(node, found.vm_state_size)
            self._emu.machine.run_time = found.vm_clock_nsec

    async def _read_state(self, node: Node[Any], size: int) -> None:
        data = bytearray(size)
        try:
            await _keeper(node).load_vmstate(0, memoryview(data))
        except (OSError, NotImplementedError) as e:
            raise NotOpened from e
        status = reading_status(self._emu, bytes(data))
        if status < 0:
            raise NotLoaded(status)

    # Deleting

    async def delete(self, name: str, *, devices: Devices = None) -> None:
        """Delete a snapshot from all disks that have it.

        Raises:
            QmpError: it cannot be deleted from one.

        """
        await self._delete(name, self._check(devices))

    async def _delete(self, name: str, included: list[Node[Any]], *, quiet: bool = False) -> None:
        for node in included:
            found = next((s for s in snapshots.listed(node) if s.name == name), None)
            if found is None:
                continue
            device = self._graph.device_name(node)
            try:
                async with drained(node):
                    await snapshots.delete(node, found.id, found.name, device=device)
            except (QmpError, OSError) as e:
                if not quiet:
                    where = f"Could not delete snapshot '{name}' on '{self._name(node)}'"
                    raise Wrapped(where, e) from e


def reading_status(emu: "Emulator", data: bytes) -> int:
    """Read a machine's state; return a negative errno if that is none."""
    settings = Settings(emu.machine.type, postcopy_ram=False, validate_uuid=False)
    load = Load(Input(data, ended=True), settings, _NoBitmaps(), emu.migration.report)
    reading = load.read()
    while True:
        try:
            step = next(reading)
        except StopIteration as e:
            status: int = e.value
            return status
        if step is not None:
            return -errno.EINVAL


class _NoBitmaps:
    """Snapshots have their bitmaps by themselves."""

    def load(self, source: Input, version: int) -> wire.Pull[int]:
        """Refuse one section."""
        yield from source.peek(0)
        return -errno.EINVAL

    def cancel(self) -> None:
        """Have nothing to drop."""


def _is_disk(node: Node[Any]) -> bool:
    """Tell whether a node counts (bdrv_all_snapshots_includes_bs)."""
    if node.flags.read_only:
        return False
    return not node.parents or any(isinstance(edge, Backend) for edge in node.parents)


def _keeper(node: Node[Any]) -> Node[Any]:
    """Return the node that has a place for a machine's state."""
    at = node
    while type(at).save_vmstate is Node.save_vmstate and at.primary is not None:
        at = at.primary.node
    return at
