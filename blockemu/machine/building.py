"""A machine's buses, and the devices that its drives get without being asked for."""

import errno
import os
from collections.abc import Iterator
from typing import Final

from blockemu.errors import QmpError
from blockemu.machine.defaults import BARE, Furniture
from blockemu.machine.device import Bus
from blockemu.machine.devices import Devices
from blockemu.machine.drives import Drives
from blockemu.machine.models import Model
from blockemu.machine.types import PFLASH

_FLASH_SECTOR: Final = 4096
_MOST_FIRMWARE: Final = 8 << 20  # bytes, all chips together


class InterfaceUnsupported(QmpError):
    """The machine has nowhere to put the drive: (interface, bus, unit)."""

    template = "machine type does not support if={},bus={},unit={}"


class FlashGap(QmpError):
    """A second chip without a first one."""

    template = "pflash{} requires pflash{}"


class FlashUnknown(QmpError):
    """(drive, strerror)."""

    template = "can't get size of block device {}: {}"


class BadFlashSize(QmpError):
    """(drive, bytes); the hint says what would be right."""

    template = "system firmware block device {} has invalid size {}"


class FirmwareTooBig(QmpError):
    """(the most bytes)."""

    template = "combined size of system firmware exceeds {} bytes"


class FlashUnreadable(QmpError):
    """(strerror)."""

    template = "can't read block backend: {}"


async def build(
    devices: Devices, drives: Drives, model: Model, furniture: Furniture = BARE
) -> None:
    """Give a machine its buses, then put IDE and floppy drives on them.

    Raises:
        QmpError: a drive has no place.

    """
    devices.furnish(
        [Bus(plan.name, plan.kind, most=plan.most, hotplug=plan.hotplug) for plan in model.buses]
    )
    devices.automatic |= {b for b, place in drives.places.items() if place.interface != "none"}
    await _place_firmware(devices, drives, model.flashes)
    floppies = _of(drives, "floppy") if model.floppy else []
    first = model.floppy + furniture.before_floppies(model)
    for i, name in enumerate(floppies):
        await _connect(devices, name, "floppy", f"device[{first + i}]")
    first = model.first + furniture.before_disks(model) + len(floppies)
    for i, name in enumerate(_of(drives, "ide") if model.first else []):
        place = drives.places[drives.named(name)]
        driver = "ide-cd" if place.cdrom else "ide-hd"
        folder = f"device[{first + i}]"
        await _connect(devices, name, driver, folder, f"ide.{place.bus}")
    for backend, place in drives.places.items():
        taken = backend.device or backend in drives.optional
        if not taken and place.interface not in ("none", "virtio"):
            drives.homeless = backend.title
            raise InterfaceUnsupported(place.interface, place.bus, place.unit)


async def _place_firmware(devices: Devices, drives: Drives, chips: int) -> None:
    """Put drives into flash chips (pc_system_flash_map, hw/i386/pc_sysfw.c)."""
    by_unit = {p.unit: b for b, p in drives.places.items() if p.interface == "pflash"}
    total, taken = 0, [unit for unit in range(chips) if unit in by_unit]
    for i, unit in enumerate(taken):
        if i != unit:
            raise FlashGap(unit, unit - 1)
    for unit in taken:
        backend = by_unit[unit]
        try:
            if backend.inserted is None:
                raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))
            size = backend.length
        except OSError as e:
            raise FlashUnknown(backend.title, e.strerror) from e
        if not size or size % _FLASH_SECTOR:
            hint = f"its size must be a non-zero multiple of 0x{_FLASH_SECTOR:x}"
            raise BadFlashSize(backend.title, size, hint=hint)
        total += size
        if total > _MOST_FIRMWARE:
            raise FirmwareTooBig(_MOST_FIRMWARE)
        await devices.add_fixed(PFLASH, f"system.flash{unit}", backend.title)
        try:
            await backend.pread(0, bytearray(size))
        except OSError as e:
            raise FlashUnreadable(e.strerror) from e


def _of(drives: Drives, interface: str) -> list[str]:
    found = [(p.bus, p.unit, b.title) for b, p in drives.places.items() if p.interface == interface]
    return [title for _, _, title in sorted(found)]


async def _connect(devices: Devices, name: str, driver: str, folder: str, bus: str = "") -> None:
    options = {"driver": driver, "drive": name} | ({"bus": bus} if bus else {})
    await devices.add(options, folder=folder)


def virtio_drives(drives: Drives) -> Iterator[str]:
    """Yield the names of the drives that get a virtio disk of their own."""
    yield from [b.title for b, p in drives.places.items() if p.interface == "virtio"]
