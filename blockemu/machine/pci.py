"""What PCI devices show of themselves, and the slots that they sit in (after hw/pci/pci.c)."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_CLASSES: Final = {
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0104: "RAID controller",
    0x0106: "SATA controller",
    0x0200: "Ethernet controller",
    0x0280: "Network controller",
    0x0300: "VGA controller",
    0x0380: "Display controller",
    0x0401: "Audio controller",
    0x0403: "Audio controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0680: "Bridge",
    0x0700: "Serial port",
    0x0900: "Keyboard",
    0x0902: "Mouse",
    0x0C03: "USB controller",
    0x0C05: "SMBus",
}
VIRTIO_NEW: Final = 0x1040  # devices of virtio's new kind are numbered from there
_QUMRANET: Final = 0x1100
_ROM: Final = 6  # the region of a device's firmware
SLOTS: Final = 32
FUNCTIONS: Final = 8


class Region(NamedTuple):
    """A base address register: its number, ``io`` or ``memory``, bytes."""

    bar: int
    kind: str
    size: int
    wide: bool = False  # 64 bits
    prefetch: bool = False


class PciFacts(NamedTuple):
    """A device's class and numbers, whether it interrupts, and its regions.

    Nobody has given the regions addresses: that is what firmware does.
    """

    device_class: int
    vendor: int
    device: int
    subvendor: int = 0
    subdevice: int = 0
    interrupts: bool = True
    regions: tuple[Region, ...] = ()
    pin: int = 1  # by which it interrupts
    closed: bool = False  # a bridge whose windows are shut until firmware opens them


def seen(facts: PciFacts, state: Mapping[str, Any]) -> PciFacts:
    """Return what is seen of a device whose properties are set so.

    One of virtio's new kind alone has another number, and no registers of the old kind; one without
    firmware of its own has no room for it.
    """
    if state.get("disable-legacy") == "on" and facts.device < VIRTIO_NEW:
        facts = facts._replace(
            device=VIRTIO_NEW + facts.subdevice,
            subvendor=facts.vendor,
            subdevice=_QUMRANET,
            regions=tuple(each for each in facts.regions if each.bar),
        )
    if not state.get("romfile") or not state.get("rombar"):
        return facts._replace(regions=tuple(r for r in facts.regions if r.bar != _ROM))
    return facts


def class_name(number: int) -> str | None:
    """Return what a class of devices is called, if it is known."""
    return _CLASSES.get(number)


def parse_address(text: str) -> int | None:
    """Return the number of a ``slot`` or ``slot.function`` in hexadecimal; None: it is neither."""
    slot, dot, function = text.partition(".")
    try:
        numbers = int(slot, 16), int(function, 16) if dot else 0
    except ValueError:
        return None
    if not (0 <= numbers[0] < SLOTS and 0 <= numbers[1] < FUNCTIONS):
        return None
    return numbers[0] * FUNCTIONS + numbers[1]


def show_address(number: int) -> str:
    """Return the address of a number, ``slot.function``."""
    return f"{number // FUNCTIONS:02x}.{number % FUNCTIONS:x}"
