"""What a machine has without being asked: drives, and devices that take a number before theirs.

After default_list and qemu_disable_default_devices, softmmu/vl.c.
"""

from collections.abc import Iterable
from typing import Final

from blockemu.machine.drives import Drives
from blockemu.machine.models import Model
from blockemu.records import record

_REPLACES: Final = {  # a device of this type is instead of that default
    "isa-serial": "serial",
    "isa-parallel": "parallel",
    "isa-fdc": "floppy",
    "floppy": "floppy",
    "ide-cd": "cdrom",
    "ide-hd": "cdrom",
    "scsi-cd": "cdrom",
    "scsi-hd": "cdrom",
    "VGA": "vga",
    "isa-vga": "vga",
    "cirrus-vga": "vga",
    "isa-cirrus-vga": "vga",
    "vmware-svga": "vga",
    "qxl-vga": "vga",
    "virtio-vga": "vga",
    "ati-vga": "vga",
    "vhost-user-vga": "vga",
    "virtio-vga-gl": "vga",
}
_EVERYTHING: Final = ("serial", "parallel", "floppy", "cdrom", "sdcard", "vga", "net")
_NICS: Final = ("net", "nic")
_REPLACING_OPTIONS: Final = {
    "serial": "serial",
    "parallel": "parallel",
    "vga": "vga",
    "net": "net",
    "nic": "net",
    "netdev": "net",
}


@record
class Furniture:
    """The defaults that stay, and how many devices of each kind the machine gets."""

    defaults: set[str]
    counts: dict[str, int]
    unknown: frozenset[str] = frozenset()  # kinds of cards that were chosen by name

    def shown(self, card: str) -> int:
        """Tell how many cards of a kind there are that are the machine's usual ones."""
        return 0 if card in self.unknown else self.counts[card]

    def before_floppies(self, model: Model) -> int:
        """Tell how many devices come before the floppies beyond those of an empty machine."""
        early = ("cpu", "serial", "parallel") + (("vga",) if model.cards_first else ())
        return sum(self.counts[kind] for kind in early)

    def before_disks(self, model: Model) -> int:
        """Tell how many come before IDE disks, floppies left out."""
        return self.before_floppies(model) + (self.counts["net"] if model.cards_first else 0)


BARE: Final = Furniture(set(), dict.fromkeys(("cpu", "serial", "parallel", "vga", "net"), 0))


def furnish(options: Iterable[tuple[str, str]], model: Model, cpus: int = 1) -> Furniture:
    """Look through a command line: (option, value) each."""
    given = list(options)
    defaults = set(_EVERYTHING) - model.lacks
    counts = dict.fromkeys(("cpu", "serial", "parallel", "vga", "net"), 0)
    counts["cpu"] = cpus - 1
    unknown: set[str] = set()
    for name, value in given:
        head = value.split(",")[0]
        if name == "nodefaults":
            defaults.clear()
        if (name == "vga" and head not in ("std", "none")) or (name in _NICS and "model=" in value):
            unknown.add(_REPLACING_OPTIONS[name])
        if name in _REPLACING_OPTIONS:
            defaults.discard(_REPLACING_OPTIONS[name])
            counts[_REPLACING_OPTIONS[name]] += _makes_device(name, head)
        if name == "device":
            defaults.discard(_REPLACES.get(head.removeprefix("driver="), ""))
        if name == "global":
            defaults.discard(_REPLACES.get(head.partition(".")[0], ""))
    for kind in defaults & counts.keys():
        counts[kind] += 1
    return Furniture(defaults, counts, frozenset(unknown))


def _makes_device(name: str, value: str) -> bool:
    if name == "net":
        return value in ("nic", "nic,")
    return name != "netdev" and value != "none"


async def add_default_drives(drives: Drives, furniture: Furniture, model: Model) -> None:
    """Give the machine the empty drives that nobody has asked for, but for those that are taken.

    Raises:
        QmpError: a name is taken.

    """
    for kind, interface, index, media in (
        ("cdrom", model.interface, 2, "cdrom"),
        ("floppy", "floppy", 0, "disk"),
        ("sdcard", "sd", 0, "disk"),
    ):
        if kind in furniture.defaults and not drives.taken(interface, index):
            options = {"if": interface, "index": str(index), "media": media}
            drives.optional.add(await drives.add(options, interface))
