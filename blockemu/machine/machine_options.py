"""What is said of the machine itself: ``-machine``, ``-smp``, ``-boot``, ``-m`` and shorthands.

All of it becomes one tree of options (qemu_init and parse_memory_options, softmmu/vl.c).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from blockemu.errors import QmpError
from blockemu.optlist import parse_options
from blockemu.qmp_server.keyval import parse_keyval

Warn = Callable[[str], None]
_MEMORY: Final = {"size": "size", "slots": "number", "maxmem": "size"}
_SHORT: Final = {
    "nographic": ("graphics", "off"),
    "usb": ("usb", "on"),
    "no-acpi": ("acpi", "off"),
    "no-hpet": ("hpet", "off"),
}
_TEXTS: Final = {
    "kernel": "kernel",
    "initrd": "initrd",
    "append": "append",
    "dtb": "dtb",
    "bios": "firmware",
}
TAKEN: Final = ("machine", "M", "smp", "boot", "m", *_SHORT, *_TEXTS)


class OnlyWithKernel(QmpError):
    """(option)."""

    template = "-{} only allowed with -kernel option"


class MachineOptions:
    """What the command line says."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self._memory: dict[str, str] = {}

    def take(self, name: str, value: str, warn: Warn) -> None:
        """Take an option.

        Raises:
            QmpError: it is no list of options.
            ProtocolError: it is no tree of options.

        """
        if name in _SHORT:
            key, text = _SHORT[name]
            self.said[key] = text
        elif name in _TEXTS:
            self.said[_TEXTS[name]] = value
        elif name == "m":
            self._memory |= parse_options(value, "size", _MEMORY, warn)
        elif name in ("smp", "boot"):
            tree, _ = parse_keyval(value, "cpus" if name == "smp" else "order", help_ok=True)
            merge(self.said, {name: tree})
        else:
            tree, _ = parse_keyval(value, "type", help_ok=True)
            merge(self.said, tree)

    def check(self) -> None:
        """Refuse what makes no sense without something else.  Raises OnlyWithKernel."""
        if "kernel" not in self.said:
            for name in ("append", "initrd"):
                if name in self.said:
                    raise OnlyWithKernel(name)

    def memory(self) -> dict[str, str]:
        """Return what is said of memory, as the machine takes it."""
        given = {}
        size = self._memory.get("size", "0")
        if size.strip("0"):
            given["size"] = f"{size}M" if size[-1].isdigit() else size
        for key, name in (("maxmem", "max-size"), ("slots", "slots")):
            if key in self._memory:
                given[name] = self._memory[key]
        return given


def merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    """Add options to those that there are; the last one of each name holds."""
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
