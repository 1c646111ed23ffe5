"""Internal snapshots of whatever node can have them (after block/snapshot.c).

A node without snapshots of its own has those of its primary child, if that is all it stands on.
"""

import errno
import os
from typing import Any

from blockemu.errors import HostError, QmpError
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Role
from blockemu.schema.images import SnapshotInfo

_STORAGE = Role.DATA | Role.METADATA | Role.FILTERED


class ListFailed(QmpError):
    """(why)."""

    template = "Failed to get a snapshot list: {}"


class ActiveBitmaps(HostError):
    """A bitmap would not tell what applying a snapshot changes."""

    template = "Device has active dirty bitmaps"


class LoadFailed(HostError):
    """(why): applying a snapshot went wrong."""

    template = "Failed to load snapshot: {}"


class NoSnapshots(HostError):
    """The format, or what it lies on, has no snapshots."""

    template = "Block driver does not support snapshots"


class NoDeletion(HostError):
    """(format, device): there is nothing to be deleted."""

    template = "Block format '{}' used by device '{}' does not support internal snapshot deletion"


class NotReadOnly(HostError):
    """A snapshot is shown on read-only disks only."""

    template = "Device is not readonly"


class NoShowing(HostError):
    """(format, device): snapshots cannot be shown."""

    template = (
        "Block format '{}' used by device '{}' does not support temporarily loading internal "
        "snapshots"
    )


def _fallback(node: Node[Any]) -> Node[Any] | None:
    """Return the child whose snapshots are the node's (bdrv_snapshot_fallback)."""
    edge = node.primary
    others = [e for e in node.children.values() if e is not edge and e.role & _STORAGE]
    return None if edge is None or others else edge.node


def keeper(node: Node[Any]) -> Node[Any] | None:
    """Return the node that has the snapshots of a node: itself or one below; None if none has."""
    at: Node[Any] | None = node
    while at is not None and type(at).snapshot_create is Node.snapshot_create:
        at = _fallback(at)
    return at


def can_snapshot(node: Node[Any]) -> bool:
    """Tell whether a snapshot could be taken (bdrv_can_snapshot)."""
    at: Node[Any] | None = node
    while at is not None and not (at.flags.read_only or at.flags.inactive):
        if type(at).snapshot_create is not Node.snapshot_create:
            return True
        at = _fallback(at)
    return False


def listed(node: Node[Any]) -> list[Snapshot]:
    """Return the snapshots, oldest first.

    Raises:
        OSError: ENOTSUP, there can be none.

    """
    at = keeper(node)
    if at is None:
        raise os_error(errno.ENOTSUP)
    return at.snapshot_list()


def find(node: Node[Any], ident: str | None, name: str | None) -> Snapshot | None:
    """Return the first snapshot with an id, a name, or both.

    Raises:
        ListFailed: the node has no snapshots.

    """
    try:
        table = listed(node)
    except OSError as e:
        raise ListFailed(os.strerror(e.errno or errno.EIO)) from e
    return next((s for s in table if ident in (None, s.id) and name in (None, s.name)), None)


async def create(node: Node[Any], wanted: Snapshot) -> Snapshot:
    """Take a snapshot of a drained node.

    Raises:
        OSError: that is not possible.

    """
    at = keeper(node)
    if at is None:
        raise os_error(errno.ENOTSUP)
    return await at.snapshot_create(wanted)


async def goto(node: Node[Any], ident: str) -> None:
    """Apply the snapshot with an id, or else a name, to a drained node.

    Raises:
        QmpError: in QEMU's words.

    """
    if node.bitmaps:
        raise ActiveBitmaps(errno=errno.EBUSY)
    at = keeper(node)
    if at is None:
        raise NoSnapshots(errno=errno.ENOTSUP)
    before = at.length
    try:
        await at.snapshot_goto(ident)
    except OSError as e:
        code = e.errno or errno.EIO
        raise LoadFailed(os.strerror(code), errno=code) from e
    finally:
        at.changed()
        if at.length != before:
            _resized(at)


def _resized(node: Node[Any]) -> None:
    """Tell those above of another size (after bdrv_parent_cb_resize)."""
    for heard in node.on_resize:
        heard(node.length)
    for edge in list(node.parents):
        edge.resized()


async def delete(node: Node[Any], ident: str | None, name: str | None, *, device: str = "") -> None:
    """Delete the first snapshot with an id, a name, or both, of a drained node.

    Raises:
        QmpError: in QEMU's words.

    """
    at = keeper(node)
    if at is None:
        raise NoDeletion(node.driver, device, errno=errno.ENOTSUP)
    await at.snapshot_delete(ident, name)


async def load_tmp(node: Node[Any], ident_or_name: str, *, device: str = "") -> None:
    """Let a read-only node read as the snapshot with an id, or else a name.

    Raises:
        QmpError: in QEMU's words.

    """
    if not node.flags.read_only:
        raise NotReadOnly(errno=errno.EINVAL)
    if type(node).snapshot_load_tmp is Node.snapshot_load_tmp:
        raise NoShowing(node.driver, device, errno=errno.ENOTSUP)
    try:
        await node.snapshot_load_tmp(ident_or_name, None)
    except HostError as e:
        if e.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        await node.snapshot_load_tmp(None, ident_or_name)


def info(snapshot: Snapshot) -> SnapshotInfo:
    """Return what queries tell of a snapshot."""
    return SnapshotInfo(
        id=snapshot.id,
        name=snapshot.name,
        vm_state_size=snapshot.vm_state_size,
        date_sec=snapshot.date_sec,
        date_nsec=snapshot.date_nsec,
        vm_clock_sec=snapshot.vm_clock_nsec // 1_000_000_000,
        vm_clock_nsec=snapshot.vm_clock_nsec % 1_000_000_000,
        icount=snapshot.icount,
    )
