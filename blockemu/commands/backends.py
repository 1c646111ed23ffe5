"""Backends as commands name them: by a drive's name, or by its device."""

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.errors import DeviceNotFound, QmpError


class DeviceOrId(QmpError):
    """Both of them, or neither."""

    template = "Need exactly one of 'device' and 'id'"


def find_backend(emu: Emulator, device: str | None, id: str | None) -> Backend:
    """Find a drive by its name or a device's by the id (qmp_get_blk)."""
    if (device is None) == (id is None):
        raise DeviceOrId
    if id is not None:
        return backend_of_device(emu, id)
    backend = emu.graph.named(device)
    if backend is None:
        raise DeviceNotFound(device)
    return backend


def backend_of_device(emu: Emulator, device_id: str) -> Backend:
    """Find the backend that a device uses.

    Raises:
        DeviceNotFound: there is no such device.

    """
    backends = [edge for node in emu.graph for edge in node.parents if isinstance(edge, Backend)]
    for backend in [*emu.graph.backends.values(), *backends]:
        if device_id and backend.device_id == device_id:
            return backend
    return emu.devices.backend(device_id)
