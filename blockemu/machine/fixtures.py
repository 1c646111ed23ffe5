"""The devices that each machine has of its own, in the order in which it makes them."""

from typing import Any, Final, NamedTuple


class BusPlan(NamedTuple):
    """A bus that a machine has from the start.  ``type`` is its class if not its kind."""

    name: str
    kind: str
    most: int = 0
    hotplug: bool = False
    units: int = 0
    type: str = ""


class Fixture(NamedTuple):
    """A device of the machine's own.

    ``number`` among the devices without a place of their own if there is nothing optional, and
    ``after`` which of those it comes (``Phase``).  ``role``: what it is called by the machine, or
    ``name@type`` by another device, if it has no number.  ``bus``: what it sits on.  ``state``:
    where it differs from its type.
    """

    type: str
    bus: str
    number: int = -1
    after: str = "always"
    address: str = ""
    buses: tuple[BusPlan, ...] = ()
    role: str = ""
    state: tuple[tuple[str, Any], ...] = ()


SYSTEM: Final = "main-system-bus"
_FLOPPIES: Final = BusPlan("floppy-bus.0", "floppy-bus", units=2)
_SHARED: Final = (("multifunction", True),)


def _system(type_: str, role: str, *buses: BusPlan, **state: Any) -> Fixture:
    return Fixture(type_, SYSTEM, role=role, buses=buses, state=_pairs(state))


def _isa(type_: str, number: int, after: str, **state: Any) -> Fixture:
    return Fixture(type_, "isa.0", number, after, state=_pairs(state))


def _pairs(state: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name.replace("_", "-") if name in _DASHED else name, v) for name, v in state.items()
    )


_DASHED: Final = ("page_base", "pageh_base", "hpet_intcap")


def _chips(number: int, after: str) -> tuple[Fixture, ...]:
    """Return the controllers of DMA and interrupts."""
    return (
        _isa("i8257", number, after),
        _isa("i8257", number + 1, after, base=192, page_base=136, dshift=1),
        _isa("isa-i8259", number + 2, after),
        _isa(
            "isa-i8259",
            number + 3,
            after,
            iobase=160,
            elcr_addr=1233,
            elcr_mask=222,
            master=False,
        ),
    )


def _clocks(number: int) -> tuple[Fixture, ...]:
    """Return the clocks, and the ports that follow them."""
    return (
        _isa("mc146818rtc", number, "early"),
        _isa("isa-pit", number + 1, "early"),
        _isa("isa-pcspk", number + 2, "early"),
        _isa("isa-serial", number + 3, "early"),
        _isa("isa-parallel", number + 3, "serial"),
    )


def _inputs(number: int) -> tuple[Fixture, ...]:
    """Return the keyboard and the mice."""
    return (
        _isa("i8042", number, "floppies"),
        _system("ps2-kbd", "ps2kbd@i8042"),
        _system("ps2-mouse", "ps2mouse@i8042"),
        _isa("vmport", number + 1, "floppies"),
        _isa("vmmouse", number + 2, "floppies"),
        _isa("port92", number + 3, "floppies"),
    )


def _roms(number: int) -> tuple[Fixture, ...]:
    """Return the chips that tell of memory modules."""
    return tuple(
        Fixture("smbus-eeprom", "i2c", number + n, "disks", state=(("address", 80 + n),))
        for n in range(8)
    )


def _network(card: str) -> tuple[tuple[str, Any], ...]:
    """Return what a card is told of its network, and its firmware's."""
    return ("netdev", "hub0port0"), ("romfile", f"efi-{card}.rom"), ("romsize", 1 << 18)


_VGA_ROM: Final = (("romfile", "vgabios-stdvga.bin"), ("romsize", 1 << 16))
_I2C: Final = BusPlan("i2c", "i2c-bus")
_VAPIC: Final = Fixture("kvmvapic", SYSTEM, 1)
PC: Final = (
    _VAPIC,
    _system("fw_cfg_io", "fw_cfg"),
    _system("i440FX-pcihost", "i440fx", BusPlan("pci.0", "PCI", hotplug=True)),
    Fixture("i440FX", "pci.0", 2, "cpu", address="0"),
    Fixture(
        "PIIX3",
        "pci.0",
        3,
        "cpu",
        "1",
        (BusPlan("isa.0", "ISA"),),
        state=_SHARED,
    ),
    _system("ioapic", "ioapic@i440FX-pcihost"),
    *_chips(4, "cpu"),
    Fixture("VGA", "pci.0", 8, "cpu", state=_VGA_ROM),
    Fixture("hpet", SYSTEM, 8, "early", state=(("hpet-intcap", 4),)),
    *_clocks(9),
    Fixture("isa-fdc", "isa.0", 12, "cards", buses=(_FLOPPIES,)),
    *_inputs(13),
    Fixture("e1000", "pci.0", 17, "floppies", state=_network("e1000")),
    Fixture(
        "piix3-ide",
        "pci.0",
        17,
        "nics",
        "1.1",
        tuple(BusPlan(f"ide.{n}", "IDE", 2, units=2) for n in range(2)),
    ),
    Fixture("PIIX4_PM", "pci.0", 18, "disks", "1.3", (_I2C,)),
    *_roms(19),
)
ISAPC: Final = (
    _system("fw_cfg_io", "fw_cfg"),
    Fixture("isabus-bridge", SYSTEM, 1, "cpu", buses=(BusPlan("isa.0", "ISA"),)),
    *_chips(2, "cpu"),
    *_clocks(6),
    Fixture("isa-fdc", "isa.0", 9, "cards", buses=(_FLOPPIES,)),
    *_inputs(10),
    Fixture("isa-ide", "isa.0", 14, "nics", buses=(BusPlan("ide.0", "IDE", 2, units=2),)),
    Fixture(
        "isa-ide",
        "isa.0",
        15,
        "nics",
        buses=(BusPlan("ide.1", "IDE", 2, units=2),),
        state=(("iobase", 0x170), ("iobase2", 0x376), ("irq", 15)),
    ),
)
Q35: Final = (
    _VAPIC,
    _system("fw_cfg_io", "fw_cfg"),
    _system("q35-pcihost", "q35", BusPlan("pcie.0", "PCI", type="PCIE")),
    Fixture("mch", "pcie.0", role="mch@q35-pcihost", address="0"),
    Fixture("ICH9-LPC", "pcie.0", 2, "cpu", "1f", (BusPlan("isa.0", "ISA"),), state=_SHARED),
    _system("ioapic", "ioapic@q35-pcihost"),
    *_chips(3, "cpu"),
    Fixture("hpet", SYSTEM, 7, "early", state=(("hpet-intcap", 16711940),)),
    *_clocks(8),
    *_inputs(11),
    Fixture(
        "ich9-ahci",
        "pcie.0",
        15,
        "nics",
        "1f.2",
        tuple(BusPlan(f"ide.{n}", "IDE", 2, units=1) for n in range(6)),
        state=_SHARED,
    ),
    Fixture("ICH9-SMB", "pcie.0", 16, "disks", "1f.3", (_I2C,), state=_SHARED),
    *_roms(17),
    Fixture("VGA", "pcie.0", 25, "disks", state=_VGA_ROM),
    Fixture("e1000e", "pcie.0", 25, "cards and disks", state=_network("e1000e")),
)
