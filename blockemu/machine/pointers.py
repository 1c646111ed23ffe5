"""Who hears of keys and of the mouse (after ui/input.c)."""

from collections.abc import Iterator
from typing import Any, Final

from blockemu.errors import QmpError
from blockemu.records import field, record

_NAMES: Final = {  # and whether it is a mouse, and tells where it is
    "ps2-kbd": ("QEMU PS/2 Keyboard", False, False),
    "ps2-mouse": ("QEMU PS/2 Mouse", True, False),
    "usb-kbd": ("QEMU HID Keyboard", False, False),
    "usb-mouse": ("QEMU HID Mouse", True, False),
    "usb-tablet": ("QEMU HID Tablet", True, True),
    "virtio-keyboard-pci": ("QEMU Virtio Keyboard", False, False),
    "virtio-mouse-pci": ("QEMU Virtio Mouse", True, False),
    "virtio-tablet-pci": ("QEMU Virtio Tablet", True, True),
}


class NoMouse(QmpError):
    """(number)."""

    template = "Mouse at index '{}' not found"


class NotAMouse(QmpError):
    """(name)."""

    template = "Input device '{}' is not a mouse"


@record
class Listener:
    """A device that hears of something."""

    number: int
    name: str
    mouse: bool
    absolute: bool
    device: Any


@record
class Listeners:
    """All of them, the one that is asked first at the start."""

    rows: list[Listener] = field(default_factory=list)
    _made: int = 0

    def seat(self, type_: str, device: Any) -> None:
        """Take note of a device, if it is one that listens."""
        if type_ in _NAMES:
            self._made += 1
            self.rows.append(Listener(self._made, *_NAMES[type_], device))

    def unseat(self, device: Any) -> None:
        """Forget a device."""
        self.rows = [row for row in self.rows if row.device is not device]

    def mice(self) -> Iterator[tuple[Listener, bool]]:
        """Yield the mice, and whether it is the one that is moved."""
        for i, row in enumerate(row for row in self.rows if row.mouse):
            yield row, i == 0

    def choose(self, number: int) -> None:
        """Have a mouse be the one that is moved.

        Raises:
            QmpError: there is none of the number.

        """
        found = next((row for row in self.rows if row.number == number), None)
        if found is None:
            raise NoMouse(number)
        if not found.mouse:
            raise NotAMouse(found.name)
        self.rows = [found, *(row for row in self.rows if row is not found)]
