"""What PCI devices show of themselves, and the slots that they sit in (after hw/pci/pci.c)."""

from typing import Final, NamedTuple

CLASSES: Final = {
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0106: "SATA controller",
    0x0200: "Ethernet controller",
    0x0300: "VGA controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0680: "Bridge",
    0x0C05: "SMBus",
}
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
