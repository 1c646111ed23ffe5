"""A machine's buses, and the devices that its drives get without being asked for."""

import errno
from collections.abc import Iterator, Mapping
from typing import Any, Final

from blockemu.errors import QmpError
from blockemu.machine.board import AS_MADE, BOARD
from blockemu.machine.defaults import BARE, Furniture
from blockemu.machine.devices import Devices
from blockemu.machine.drives import Drives
from blockemu.machine.fixtures import BusPlan, Fixture
from blockemu.machine.machine_options import MachineOptions
from blockemu.machine.models import Model
from blockemu.machine.preparing import Prepared, give_memory, prepare
from blockemu.machine.types import PFLASH
from blockemu.os_errors import os_error

_FLASH_SECTOR: Final = 4096
_CARDS: Final = {"VGA": "vga", "e1000": "net", "e1000e": "net"}  # and what they are counted as
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
    devices: Devices,
    drives: Drives,
    model: Model,
    furniture: Furniture = BARE,
    prepared: Prepared | None = None,
) -> None:
    """Give a machine its buses, then put IDE and floppy drives on them.

    Raises:
        QmpError: a drive has no place, or a CPU lacks what it was told.

    """
    prepared = prepared or prepare(MachineOptions(), model)
    devices.hardware = prepared.hardware
    devices.furnish(prepared.machine)
    devices.automatic |= {b for b, place in drives.places.items() if place.interface != "none"}
    give_memory(prepared, devices.qom)
    await _place_firmware(devices, drives, model.flashes, prepared.flashes)
    cpus = list(prepared.hardware.make_cpus(prepared.warn))
    if cpus:
        devices.add_cpu(cpus[0], 0)
    floppies = _of(drives, "floppy") if model.floppy else []
    disks = _of(drives, "ide") if model.first else []
    numbers = _numbers(model, furniture, len(floppies), len(disks))
    for fixture in (*model.fixtures, None):
        if fixture is None or fixture.type != "kvmvapic":  # which comes with the first CPU
            for cpu in cpus[1:]:
                devices.add_cpu(cpu, cpu.number + 1)
            del cpus[1:]
        if fixture is None:
            break
        for i, state in enumerate(_instances(fixture, furniture)):
            number = fixture.number + numbers[fixture.after] + i
            made = {**AS_MADE.get(fixture.type, {}), **dict(fixture.state), **state}
            devices.add_fixture(fixture, BOARD[fixture.type], number, **made)
        if fixture.type == "isa-fdc":
            for i, name in enumerate(floppies):
                await _connect(devices, drives, name, "floppy", model.floppy + numbers["cards"] + i)
        if fixture.buses and fixture.buses[-1] == last_ide(model):
            for i, name in enumerate(disks):
                driver = "ide-cd" if drives.places[drives.named(name)].cdrom else "ide-hd"
                await _connect(devices, drives, name, driver, model.first + numbers["nics"] + i)
    for backend, place in drives.places.items():
        taken = backend.device or backend in drives.optional
        if not taken and place.interface not in ("none", "virtio"):
            drives.homeless = backend.title
            raise InterfaceUnsupported(place.interface, place.bus, place.unit)


def last_ide(model: Model) -> BusPlan | None:
    """Return the last of a machine's IDE buses."""
    plans = [plan for fixture in model.fixtures for plan in fixture.buses if plan.kind == "IDE"]
    return plans[-1] if plans else None


_SERIAL: Final = ((1016, 4), (760, 3), (1000, 4), (744, 3))  # port, interrupt
_PARALLEL: Final = ((888, 7), (632, 7), (956, 7))


def _instances(fixture: Fixture, furniture: Furniture) -> Iterator[dict[str, Any]]:
    """Yield what is different in each of the devices that a fixture stands for."""
    if fixture.type in _CARDS:
        for i in range(furniture.shown(_CARDS[fixture.type])):
            yield {} if fixture.type == "VGA" else {"mac": f"52:54:00:12:34:{0x56 + i:02x}"}
    elif fixture.type in _PORTS:
        kind, ports = _PORTS[fixture.type]
        for i, (port, interrupt) in enumerate(ports[: furniture.counts[kind]]):
            chardev = {"chardev": f"{kind}{i}"} if kind == "parallel" else {}
            yield {"index": i, "iobase": port, "irq": interrupt} | chardev
    else:
        yield {}


_PORTS: Final = {"isa-serial": ("serial", _SERIAL), "isa-parallel": ("parallel", _PARALLEL)}


def _numbers(model: Model, furniture: Furniture, floppies: int, disks: int) -> dict[str, int]:
    """Return how many optional devices come before those that a machine always has."""
    counts = furniture.counts
    early = counts["cpu"] + (counts["vga"] if model.cards_first else 0)
    cards = furniture.before_floppies(model)
    nics = furniture.before_disks(model) + floppies
    return {
        "always": 0,
        "cpu": counts["cpu"],
        "early": early,
        "serial": early + counts["serial"],
        "cards": cards,
        "floppies": cards + floppies,
        "nics": nics,
        "disks": nics + disks,
        "cards and disks": nics + disks + counts["vga"],
    }


async def _place_firmware(
    devices: Devices, drives: Drives, chips: int, nodes: Mapping[int, str]
) -> None:
    """Put drives and nodes into flash chips (pc_system_flash_map, hw/i386/pc_sysfw.c)."""
    by_unit = {p.unit: b for b, p in drives.places.items() if p.interface == "pflash"}
    for unit, name in nodes.items():
        chip = await devices.add_fixed(PFLASH, f"system.flash{unit}", name)
        assert chip.backend is not None
        by_unit[unit] = chip.backend
    total, taken = 0, [unit for unit in range(chips) if unit in by_unit]
    for i, unit in enumerate(taken):
        if i != unit:
            raise FlashGap(unit, unit - 1)
    for unit in taken:
        backend = by_unit[unit]
        try:
            if backend.inserted is None:
                raise os_error(errno.ENOMEDIUM)
            size = backend.length
        except OSError as e:
            raise FlashUnknown(backend.title, e.strerror) from e
        if not size or size % _FLASH_SECTOR:
            hint = f"its size must be a non-zero multiple of 0x{_FLASH_SECTOR:x}"
            raise BadFlashSize(backend.title, size, hint=hint)
        total += size
        if total > _MOST_FIRMWARE:
            raise FirmwareTooBig(_MOST_FIRMWARE)
        if unit not in nodes:
            await devices.add_fixed(PFLASH, f"system.flash{unit}", backend.title)
        try:
            await backend.pread(0, bytearray(size))
        except OSError as e:
            raise FlashUnreadable(e.strerror) from e


def _of(drives: Drives, interface: str) -> list[str]:
    found = [(p.bus, p.unit, b.title) for b, p in drives.places.items() if p.interface == interface]
    return [title for _, _, title in sorted(found)]


async def _connect(devices: Devices, drives: Drives, name: str, driver: str, number: int) -> None:
    place = drives.places[drives.named(name)]
    options = {"driver": driver, "drive": name, "unit": str(place.unit)}
    if driver != "floppy":
        options["bus"] = f"ide.{place.bus}"
    await devices.add(options, folder=f"device[{number}]")


def virtio_drives(drives: Drives) -> Iterator[str]:
    """Yield the names of the drives that get a virtio disk of their own."""
    yield from [b.title for b, p in drives.places.items() if p.interface == "virtio"]
