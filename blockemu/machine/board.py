"""The devices that a machine has of its own, as far as its buses, or lists of PCI devices, need."""

from typing import Final

from blockemu.machine import properties as p
from blockemu.machine.pci import PciFacts, Region
from blockemu.machine.properties import Level, Spec, specs
from blockemu.machine.types import BLK_INNER, ISA_FDC, SCSI_INNER, TYPES, DeviceType

_INTEL: Final = 0x8086
_QEMU: Final = 0x1234
_SUBSYSTEM: Final = (0x1AF4, 0x1100)


def _pci(
    name: str,
    facts: tuple[int, int, int],
    own: tuple[Spec, ...] = (),
    *above: Level,
    interrupts: bool = False,
    wires: tuple[str, ...] = (),
    regions: tuple[Region, ...] = (),
    subsystem: tuple[int, int] = _SUBSYSTEM,
) -> DeviceType:
    """Return a type of PCI devices: class, vendor and device."""
    return DeviceType(
        name,
        "PCI",
        (Level(name, own, abstract=False), *above, p.PCI),
        pci=PciFacts(*facts, *subsystem, interrupts=interrupts, regions=regions),
        wires=wires,
    )


def _plain(
    name: str,
    bus: str,
    own: tuple[Spec, ...] = (),
    *above: Level,
    wires: tuple[str, ...] = (),
    window: str = "",
) -> DeviceType:
    levels = (Level(name, own, abstract=False), *above)
    return DeviceType(name, bus, levels, wires=wires, window=window)


def _isa(name: str, own: str = "", *wires: str) -> DeviceType:
    return _plain(name, "ISA", specs(own) if own else (), Level("isa-device"), wires=wires)


def _gpio(*lines: str) -> tuple[str, ...]:
    """Return what is said of interrupts: ``in``/``out``, a name, how many."""
    rows = (line.split() for line in lines)
    return tuple(f'gpio-{way} "{name.strip("-")}" {count}' for way, name, count in rows)


_HOST: Final = (p.PCI_HOST, Level("sys-bus-device"))
_SMM: Final = "smm-compat bool off"
_TYPES: Final = (
    _plain(
        "i440FX-pcihost",
        "System",
        specs("pci-hole64-size size 2147483648; short_root_bus uint32 0; x-pci-hole64-fix bool on"),
        *_HOST,
    ),
    _plain(
        "q35-pcihost",
        "System",
        specs(
            """
            MCFG uint64 max; pci-hole64-size size 34359738368; short_root_bus uint32 0
            below-4g-mem-size size 0; above-4g-mem-size size 0; x-pci-hole64-fix bool on
            """
        ),
        Level("pcie-host-bridge"),
        *_HOST,
    ),
    _plain("isabus-bridge", "System", (), Level("sys-bus-device")),
    _isa("isa-ide", "iobase uint32 496; iobase2 uint32 1014; irq uint32 14"),
    ISA_FDC,
    _isa("i8257", "base int32 0; page-base int32 128; pageh-base int32 -1; dshift int32 0"),
    _isa(
        "isa-i8259",
        "iobase uint32 32; elcr_addr uint32 1232; elcr_mask uint8 248; master bit on",
        *_gpio("in - 8", "out - 1"),
    ),
    _isa(
        "mc146818rtc",
        """
        base_year int32 0; iobase uint16 112; irq uint8 8; lost_tick_policy LostTickPolicy discard
        """,
        *_gpio("out - 1"),
    ),
    _isa("isa-pit", "iobase uint32 64", *_gpio("in - 1", "out - 1")),
    _isa("isa-pcspk", "audiodev str -; iobase uint32 97; migrate bool on"),
    _isa("isa-serial", "index uint32 0; iobase uint32 0; irq uint32 0"),
    _isa("isa-parallel", "index uint32 0; iobase uint32 0; irq uint32 7; chardev str -"),
    _isa(
        "i8042",
        "extended-state bool on; kbd-throttle bool off; kbd-irq uint8 1; mouse-irq uint8 12",
        *_gpio("in ps2-mouse-input-irq 1", "in ps2-kbd-input-irq 1", "out - 2", "out a20 1"),
    ),
    _isa(
        "vmport",
        """
        x-read-set-eax bit on; x-signal-unsupported-cmd bit on; x-report-vmx-type bit on
        x-cmds-v2 bit on; vmware-vmx-version uint8 6; vmware-vmx-type uint8 2
        """,
    ),
    _isa("vmmouse"),
    _isa("port92", "", *_gpio("out a20 1")),
    _plain("kvmvapic", "System"),
    _plain(
        "fw_cfg_io",
        "System",
        specs("dma_enabled bool on; x-file-slots uint16 32; acpi-mr-restore bool on"),
    ),
    _plain(
        "ioapic",
        "System",
        specs("version uint8 32"),
        wires=_gpio("in - 24"),
        window="00000000fec00000/0000000000001000",
    ),
    _plain(
        "hpet",
        "System",
        specs("timers uint8 3; msi bit off; hpet-intcap uint32 4; hpet-offset-saved bool on"),
        wires=_gpio("in - 2", "out - 1", "out sysbus-irq 32"),
        window="00000000fed00000/0000000000000400",
    ),
    _plain("ps2-kbd", "System", wires=_gpio("out - 1")),
    _plain("ps2-mouse", "System", wires=_gpio("out - 1")),
    _plain("smbus-eeprom", "i2c-bus", specs("address uint8 0")),
    _pci("i440FX", (0x0600, _INTEL, 0x1237)),
    _pci("PIIX3", (0x0601, _INTEL, 0x7000), (), Level("pci-piix3")),
    _pci(
        "piix3-ide", (0x0101, _INTEL, 0x7010), (), Level("pci-ide"), regions=(Region(4, "io", 16),)
    ),
    _pci(
        "PIIX4_PM",
        (0x0680, _INTEL, 0x7113),
        specs(
            f"""
            smb_io_base uint32 45312; disable_s3 uint8 0; disable_s4 uint8 0; s4_val uint8 2
            acpi-pci-hotplug-with-bridge-support bool on; acpi-root-pci-hotplug bool on
            memory-hotplug-support bool on; {_SMM}; smm-enabled bool on
            x-not-migrate-acpi-index bool off
            """
        ),
        interrupts=True,
        wires=_gpio("out smi-irq 1", "out - 1"),
    ),
    _pci(
        "mch",
        (0x0600, _INTEL, 0x29C0),
        specs("extended-tseg-mbytes uint16 16; smbase-smram bool on"),
    ),
    _pci(
        "ICH9-LPC",
        (0x0601, _INTEL, 0x2918),
        specs(
            f"""
            noreboot bool on; {_SMM}; x-smi-broadcast bit on; x-smi-cpu-hotplug bit on
            x-smi-cpu-hotunplug bit on
            """
        ),
        wires=_gpio("out gsi 24"),
    ),
    _pci(
        "ich9-ahci",
        (0x0106, _INTEL, 0x2922),
        interrupts=True,
        regions=(Region(4, "io", 32), Region(5, "memory", 4096)),
    ),
    _pci("ICH9-SMB", (0x0C05, _INTEL, 0x2930), interrupts=True, regions=(Region(4, "io", 64),)),
    _pci(
        "VGA",
        (0x0300, _QEMU, 0x1111),
        specs(
            """
            vgamem_mb uint32 16; mmio bit on; qemu-extended-regs bit on; edid bit on
            xres uint32 1280; yres uint32 800; xmax uint32 0; ymax uint32 0
            refresh_rate uint32 0; global-vmstate bool off
            """
        ),
        Level("pci-vga"),
        regions=(
            Region(0, "memory", 16 << 20, prefetch=True),
            Region(2, "memory", 4096),
            Region(6, "memory", 65536),
        ),
    ),
    _pci(
        "e1000",
        (0x0200, _INTEL, 0x100E),
        specs(
            """
            mac str -; netdev str -; autonegotiation bit on; mitigation bit on
            extra_mac_registers bit on; migrate_tso_props bit on; init-vet bit on
            """
        ),
        Level("e1000-base"),
        interrupts=True,
        regions=(Region(0, "memory", 1 << 17), Region(1, "io", 64), Region(6, "memory", 1 << 18)),
    ),
    _pci(
        "e1000e",
        (0x0200, _INTEL, 0x10D3),
        specs(
            """
            mac str -; netdev str -; disable_vnet_hdr uint8 0; subsys_ven uint16 32902
            subsys uint16 0; init-vet bool on
            """
        ),
        interrupts=True,
        regions=(
            Region(0, "memory", 1 << 17),
            Region(1, "memory", 1 << 17),
            Region(2, "io", 32),
            Region(3, "memory", 16384),
            Region(6, "memory", 1 << 18),
        ),
        subsystem=(_INTEL, 0),
    ),
)
BOARD: Final = {each.name: each for each in _TYPES}
_WHOLE: Final = ("PIIX3", "piix3-ide", "i440FX", "mch", "ICH9-SMB", "isa-ide", "isabus-bridge")
# Types all of whose properties are known, and classes that have no devices of their own.
KNOWN: Final = {each.name: each for each in (*TYPES, BLK_INNER, SCSI_INNER)} | {
    name: BOARD[name] for name in _WHOLE
}
ABSTRACT: Final = frozenset(
    level.name for each in KNOWN.values() for level in each.levels if level.abstract
) | {"device"}
