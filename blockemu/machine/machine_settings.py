"""The options of a machine become its properties, and some of them hardware.

After qemu_apply_machine_options, softmmu/vl.c, hw/core/machine.c and hw/i386/pc.c.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from blockemu.errors import DeviceNotFound, QmpError
from blockemu.machine.machine_options import MachineOptions, Warn, merge
from blockemu.machine.machine_types import READ_ONLY, Typed
from blockemu.machine.models import Machine
from blockemu.machine.topology import Topology, arrange
from blockemu.objects.qom import NoSuchProperty, NotWritable
from blockemu.qmp_server.dump import dump
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import Size, visit
from blockemu.schema.machine_options import (
    BootConfiguration,
    MemorySizeConfiguration,
    OnOffAuto,
    SmbiosEntryPointType,
    SMPConfiguration,
)

_ACCELERATORS_OWN: Final = ("igd-passthru", "kvm-shadow-mem", "kernel-irqchip")
_DEFAULT_MEMORY: Final = 128 << 20
_PAGES: Final = 8192
_MOST_SLOTS: Final = 256
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


class SlotsAlone(QmpError):
    """There is nothing that could come into them."""

    template = "slots specified but no max-size"


class TooManySlots(QmpError):
    """(slots)."""

    template = "unsupported amount of memory slots: {}"


class LessThanAtFirst(QmpError):
    """(most memory, memory, in hexadecimal)."""

    template = (
        "invalid value of maxmem: maximum memory size ({}) "
        "must be at least the initial memory size ({})"
    )


class NothingToCome(QmpError):
    """(most memory, memory, in hexadecimal)."""

    template = (
        "invalid value of maxmem: memory slots were specified but maximum memory size ({}) "
        "is equal to the initial memory size ({})"
    )


class BadBootLetter(QmpError):
    """(letter)."""

    template = "Invalid boot device '{}'"


class LetterTwice(QmpError):
    """(letter)."""

    template = "Boot device '{}' was given twice"


class OutOfRange(QmpError):
    """(property, least, most)."""

    template = "{} is invalid,it should be a value between {} and {}"


class AboveFourGib(QmpError):
    """(bytes)."""

    template = "Machine option 'max-ram-below-4g={}' expects size less than or equal to 4G"


class FirmwareRoom(QmpError):
    """(bytes)."""

    template = (
        "User specified max allowed firmware size {} is greater than 16MiB. If combined firwmare "
        "size exceeds 16MiB the system may not boot, or experience intermittentstability issues."
    )


class LongName(QmpError):
    """(property, bytes)."""

    template = "User specified {} value is bigger than {} bytes in size"


class BadPersistence(QmpError):
    """(value)."""

    template = "-machine nvdimm-persistence={}: unsupported option"


class NoEncryption(QmpError):
    """(name)."""

    template = "No such memory encryption object '{}'"


class MachineSettings:
    """What came of the options."""

    def __init__(self) -> None:
        self.topology = Topology()
        self.memory = 0  # bytes
        self.slots = 0  # for memory that may come later
        self.sized = False  # whether it was said how much memory there is
        self.backend = ""  # the object that is the memory, if one was named
        self.flashes: dict[int, str] = {}  # what is in which flash chip

    def apply(
        self, options: MachineOptions, made: Typed, machine: Machine, flashes: int, warn: Warn
    ) -> None:
        """Set the machine's properties; ``flashes``: how many flash chips it has.

        Raises:
            QmpError: it lacks one, or will not have it.
            ProtocolError: the value is not of the type.

        """
        said = {key.replace("_", "-"): value for key, value in options.said.items()}
        for name in ("type", "accel", *_ACCELERATORS_OWN):
            said.pop(name, None)
        self.backend = said.pop("memory-backend", "")
        for unit in range(flashes):
            if f"pflash{unit}" in said:
                self.flashes[unit] = said.pop(f"pflash{unit}")
        merge(said, {"memory": options.memory()})
        for name in in_order(said):
            found = made.property(name)
            if found is None:
                raise NoSuchProperty(made.TYPE, name)
            if name in READ_ONLY:
                raise NotWritable(made.TYPE, name)
            if found.type not in _LISTS:
                hint = _HINTS.get(name) or _HINTS.get(found.type, str)
                value = visit(hint, said[name], name, keyval=True)
                made.values[name] = self._set(name, value, machine, warn)
        self.topology.check_numbers()
        if self.slots > _MOST_SLOTS:
            raise TooManySlots(self.slots)

    def _set(self, name: str, value: Any, machine: Machine, warn: Warn) -> Any:
        if name == "smp":
            self.topology = arrange(value, machine, warn)
            return self.topology._asdict()
        if name == "memory":
            return self._size_memory(value, machine)
        if name == "boot":
            _check_boot(value, has_firmware=machine.name not in ("none", "x-remote"))
            return {"order": _usual_order(machine)} | dump(value)
        check = _CHECKS.get(name)
        if check is not None:
            check(value, warn)
        return getattr(value, "value", value)

    def _size_memory(self, given: MemorySizeConfiguration, machine: Machine) -> dict[str, int]:
        usual = 0 if machine.name in ("none", "x-remote") else _DEFAULT_MEMORY
        self.sized = given.size is not None
        size = usual if given.size is None else given.size
        size = -(-size // _PAGES) * _PAGES
        shown = hex(given.max_size or 0), hex(size)
        found = {"size": size}
        if given.max_size is None and given.slots is not None:
            raise SlotsAlone
        if given.max_size is not None:
            if given.max_size < size:
                raise LessThanAtFirst(*shown)
            if given.slots and given.max_size == size:
                raise NothingToCome(*shown)
        self.memory, self.slots = size, given.slots or 0
        if self.slots:
            found |= {"max-size": given.max_size or size, "slots": self.slots}
        return found


def _usual_order(machine: Machine) -> str:
    """Return what a machine is booted from if nobody says."""
    return "" if machine.name in ("none", "microvm", "x-remote") else "cad"


# Checks


def _check_boot(given: BootConfiguration, *, has_firmware: bool) -> None:
    for order in (given.order or "", given.once or ""):
        for i, letter in enumerate(order):
            if not "a" <= letter <= "p":
                raise BadBootLetter(letter)
            if letter in order[:i]:
                raise LetterTwice(letter)
    if not has_firmware:
        return
    for name, value, least in (
        ("splash-time", given.splash_time, 0),
        ("reboot timeout", given.reboot_timeout, -1),
    ):
        if value is not None and not least <= value <= 0xFFFF:
            raise OutOfRange(name, least, 0xFFFF)


def _check_low_memory(value: int, warn: Warn) -> None:
    if value > 4 * _GIB:
        raise AboveFourGib(value)
    if value < _MIB:
        warn(
            f"Only {value} bytes of RAM below the 4GiB boundary,BIOS may not work with less "
            "than 1MiB"
        )


def _check_firmware(value: int, warn: Warn) -> None:
    if value > 16 * _MIB:
        raise FirmwareRoom(value)


def _name_of(name: str, most: int) -> Callable[[str, Warn], None]:
    def check(value: str, warn: Warn) -> None:
        if len(value.encode()) > most:
            raise LongName(name, most)

    return check


def _find_encryption(value: str, warn: Warn) -> None:
    raise NoEncryption(value)  # nothing here is of such a type


def _find_support(value: str, warn: Warn) -> None:
    raise DeviceNotFound(value)


def _check_persistence(value: str, warn: Warn) -> None:
    if value not in ("cpu", "mem-ctrl"):
        raise BadPersistence(value)


_CHECKS: Final[Mapping[str, Callable[[Any, Warn], None]]] = {
    "max-ram-below-4g": _check_low_memory,
    "max-fw-size": _check_firmware,
    "x-oem-id": _name_of("x-oem-id", 6),
    "x-oem-table-id": _name_of("x-oem-table-id", 8),
    "nvdimm-persistence": _check_persistence,
    "memory-encryption": _find_encryption,
    "confidential-guest-support": _find_support,
}
_LISTS: Final = ("SgxEPC", "CXLFixedMemoryWindow")  # of what there is none of
_HINTS: Final[Mapping[str, Any]] = {
    "bool": bool,
    "int": int,
    "uint64_t": int,
    "size": Size,
    "OnOffAuto": OnOffAuto,
    "SMPConfiguration": SMPConfiguration,
    "MemorySizeConfiguration": MemorySizeConfiguration,
    "BootConfiguration": BootConfiguration,
    "smbios-entry-point-type": SmbiosEntryPointType,
}
