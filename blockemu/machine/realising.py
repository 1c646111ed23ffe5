"""How a device comes to life: its place, its drive, what it wants of it (hw/block/block.c)."""

from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.machine.device import Device
from blockemu.machine.device_errors import NeedsMedium, NoChassis
from blockemu.machine.error_policies import apply_policies
from blockemu.machine.settling import (
    check_index,
    check_modes,
    name_disk,
    settle_controller,
    settle_disk,
    take_place,
)
from blockemu.machine.types import Drive
from blockemu.optlist import is_on
from blockemu.perm import Perm
from blockemu.permissions import want


async def realise(device: Device) -> None:
    """Find its place, check the drive and take the permissions.

    Raises:
        QmpError: something is wrong with it; the device is to be thrown away.

    """
    if device.model.does_nothing:
        from blockemu.machine.bystander_places import settle  # few machines have one

        settle(device)
    check_index(device)
    check_modes(device)
    take_place(device)
    settle_controller(device)
    kind, backend = device.model.drive, device.backend
    if not device.state.get("chassis_nr", True):
        raise NoChassis
    if kind is Drive.NONE:
        return
    has_tray = kind is Drive.MEDIUM or is_on(device.values.get("removable"))
    may_be_empty = has_tray or kind is Drive.FLOPPY
    if backend is None and not may_be_empty:
        raise QmpError(device.model.no_drive)
    if backend is None:
        backend = device.backend = Backend()
        assert device.graph is not None
        device.graph.backends[device.owner.path] = backend
        backend.device = backend.device_id = device.called
    if backend.inserted is None and not may_be_empty:
        raise NeedsMedium
    if kind is not Drive.FLASH:
        await settle_disk(device, backend)
    _take_permissions(device, backend)
    cache = device.values.get("write-cache", "auto")
    if cache != "auto":
        backend.write_cache = cache == "on"
    apply_policies(backend, device.values)
    backend.removable = may_be_empty
    backend.tray = has_tray
    backend.reports_errors = kind not in (Drive.FLOPPY, Drive.FLASH)
    backend.reset_io_status()
    if kind is not Drive.FLASH:
        name_disk(device, backend)
    if kind is Drive.FLOPPY:
        backend.media_hooks.append(lambda loaded: _floppy_changed(device, loaded))


def _floppy_changed(device: Device, loaded: bool) -> None:
    """Want of the disk what it gives; of none, nothing (fd_change_cb, hw/block/fdc.c)."""
    assert device.backend is not None
    if loaded:
        _take_permissions(device, device.backend)
    else:
        device.backend.perm, device.backend.shared = Perm.NONE, Perm.ALL


def _take_permissions(device: Device, backend: Backend) -> None:
    kind, node, graph = device.model.drive, backend.inserted, device.graph
    assert graph is not None
    read_only = kind is Drive.MEDIUM or (
        kind is not Drive.WRITABLE and (node is None or node.flags.read_only)
    )
    perm = Perm.CONSISTENT_READ if read_only else Perm.CONSISTENT_READ | Perm.WRITE
    shared = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
    if kind in (Drive.DISK, Drive.WRITABLE):
        shared |= Perm.RESIZE
    if is_on(device.values.get("share-rw")):
        shared |= Perm.WRITE
    if kind is Drive.FLASH:
        shared = Perm.ALL
    if graph.incoming and backend.suspended is None:
        backend.suspended = backend.perm, backend.shared
    want(backend, perm, shared)
