"""A machine's buses, and the devices that its drives get without being asked for."""

from collections.abc import Iterator

from blockemu.errors import QmpError
from blockemu.machine.devices import Bus, Devices
from blockemu.machine.drives import Drives
from blockemu.machine.models import Model


class InterfaceUnsupported(QmpError):
    """The machine has nowhere to put the drive: (interface, bus, unit)."""

    template = "machine type does not support if={},bus={},unit={}"


async def build(devices: Devices, drives: Drives, model: Model) -> None:
    """Give a machine its buses, then put IDE and floppy drives on them.

    Raises:
        QmpError: a drive has no place.

    """
    devices.furnish(
        [Bus(plan.name, plan.kind, most=plan.most, hotplug=plan.hotplug) for plan in model.buses]
    )
    devices.automatic |= {b for b, place in drives.places.items() if place.interface != "none"}
    floppies = _of(drives, "floppy") if model.floppy else []
    for i, name in enumerate(floppies):
        await _connect(devices, name, "floppy", f"device[{model.floppy + i}]")
    for i, name in enumerate(_of(drives, "ide") if model.first else []):
        place = drives.places[drives.named(name)]
        driver = "ide-cd" if place.cdrom else "ide-hd"
        folder = f"device[{model.first + len(floppies) + i}]"
        await _connect(devices, name, driver, folder, f"ide.{place.bus}")
    for backend, place in drives.places.items():
        if not backend.device and place.interface not in ("none", "virtio"):
            drives.homeless = backend.title
            raise InterfaceUnsupported(place.interface, place.bus, place.unit)


def _of(drives: Drives, interface: str) -> list[str]:
    found = [(p.bus, p.unit, b.title) for b, p in drives.places.items() if p.interface == interface]
    return [title for _, _, title in sorted(found)]


async def _connect(devices: Devices, name: str, driver: str, folder: str, bus: str = "") -> None:
    options = {"driver": driver, "drive": name} | ({"bus": bus} if bus else {})
    await devices.add(options, folder=folder)


def virtio_drives(drives: Drives) -> Iterator[str]:
    """Yield the names of the drives that get a virtio disk of their own."""
    yield from [b.title for b, p in drives.places.items() if p.interface == "virtio"]
