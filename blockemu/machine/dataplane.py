"""Devices whose requests may come from an I/O thread, and whose disks must allow that."""

from collections.abc import Sequence

from blockemu.machine.device import Bus, Device
from blockemu.machine.device_errors import NoIothreads
from blockemu.threads import IothreadFixed, roots_around


def thread_above(device: Device, buses: Sequence[Bus]) -> str | None:
    """Return the I/O thread of the controller that a device sits on, directly or not."""
    at: Device | None = device
    while at is not None:
        bus, every = at.bus, (each for bus in buses for each in bus.devices)
        at = next((each for each in every if bus in each.brought), None)
        if at is not None and (thread := at.owner.state.get("iothread")):
            return str(thread)
    return None


def check_threads(device: Device, buses: Sequence[Bus]) -> None:
    """Refuse a disk whose other users are in another thread (virtio_scsi_hotplug).

    A controller that listens to events may always be given a thread, in QEMU's opinion.

    Raises:
        QmpError: the disk is in use in a way that does not go with that.

    """
    backend, graph = device.backend, device.graph
    if backend is None or backend.inserted is None or graph is None:
        return
    controller, threads = device.bus.owner, graph.threads
    if controller is not None and controller.device.state.get("ioeventfd"):
        graph.check_unblocked(backend.inserted, "dataplane")
    if not threads.used:
        return
    rest = [edge for edge in roots_around(backend.inserted) if edge is not backend]
    if {threads.pinned(edge) for edge in rest} <= {thread_above(device, buses) or "", None}:
        return
    raise NoIothreads if device.bus.kind == "SCSI" and device.bus.plain else IothreadFixed
