"""The types of the devices that a machine has of its own.

They do nothing, but buses hang on them, and tools look for them and for what they have.
"""

from collections.abc import Mapping
from typing import Any, Final

from blockemu.machine import properties as p
from blockemu.machine.pci import PciFacts, Region
from blockemu.machine.properties import Level, Spec, specs
from blockemu.machine.types import ISA_FDC, DeviceType

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
    told: tuple[Spec, ...] = (),
) -> DeviceType:
    """Return a type of PCI devices: class, vendor and device."""
    return DeviceType(
        name,
        "PCI",
        (Level(name, own, abstract=False, told=told), *above, p.PCI),
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
    told: tuple[Spec, ...] = (),
) -> DeviceType:
    levels = (Level(name, own, abstract=False, told=told), *above)
    return DeviceType(name, bus, levels, wires=wires, window=window)


def _isa(name: str, own: str = "", *wires: str, common: str = "") -> DeviceType:
    """Return a type of ISA devices; ``common`` is the class between, with all its properties."""
    found = specs(own) if own else ()
    base = Level("isa-device")
    if common:
        return _plain(name, "ISA", (), Level(common, found), base, wires=wires)
    return _plain(name, "ISA", found, base, wires=wires)


def _gpio(*lines: str) -> tuple[str, ...]:
    """Return what is said of interrupts: ``in``/``out``, a name, how many."""
    rows = (line.split() for line in lines)
    return tuple(f'gpio-{way} "{name.strip("-")}" {count}' for way, name, count in rows)


_SYSTEM: Final = Level("sys-bus-device")
_HOST: Final = (p.PCI_HOST, _SYSTEM)
_HOLES: Final = """
pci-hole-start uint32 -; pci-hole-end uint32 -; pci-hole64-start uint64 -; pci-hole64-end uint64 -
"""
_SMM: Final = "smm-compat bool off"
_TYPES: Final = (
    _plain(
        "i440FX-pcihost",
        "System",
        specs("pci-hole64-size size 2147483648; short_root_bus uint32 0; x-pci-hole64-fix bool on"),
        *_HOST,
        told=specs(_HOLES),
    ),
    _plain(
        "q35-pcihost",
        "System",
        specs(
            """
            MCFG uint64 2952790016; pci-hole64-size size 34359738368; short_root_bus uint32 0
            below-4g-mem-size size 0; above-4g-mem-size size 0; x-pci-hole64-fix bool on
            """
        ),
        Level("pcie-host-bridge"),
        *_HOST,
    ),
    _plain("isabus-bridge", "System", (), Level("sys-bus-device")),
    _isa("isa-ide", "iobase uint32 496; iobase2 uint32 1014; irq uint32 14"),
    ISA_FDC,
    _isa("i8257", "base int32 0; page-base int32 128; pageh-base int32 1152; dshift int32 0"),
    _isa(
        "isa-i8259",
        "iobase uint32 unset; elcr_addr uint32 unset; elcr_mask uint8 255; master bit off",
        *_gpio("in - 8", "out - 1"),
        common="pic-common",
    ),
    _isa(
        "mc146818rtc",
        """
        base_year int32 1980; iobase uint16 112; irq uint8 8
        lost_tick_policy LostTickPolicy discard
        """,
        *_gpio("out - 1"),
    ),
    _plain(
        "isa-pit",
        "ISA",
        specs("iobase uint32 unset"),
        Level("pit-common"),
        Level("isa-device"),
        wires=_gpio("in - 1", "out - 1"),
    ),
    _isa("isa-pcspk", "audiodev audiodev -; iobase uint32 97; migrate bool on"),
    _isa("isa-serial", "index uint32 unset; iobase uint32 unset; irq uint32 unset"),
    _isa(
        "isa-parallel", "index uint32 unset; iobase uint32 unset; irq uint32 7; chardev chardev -"
    ),
    _isa(
        "i8042",
        "extended-state bool on; kbd-throttle bool off; kbd-irq uint8 1; mouse-irq uint8 12",
        *_gpio("in ps2-mouse-input-irq 1", "in ps2-kbd-input-irq 1", "out - 2", "out a20 1"),
    ),
    _isa(
        "vmport",
        """
        x-read-set-eax bit on; x-signal-unsupported-cmd bit on; x-report-vmx-type bit on
        x-cmds-v2 bit on; vmware-vmx-version uint32 6; vmware-vmx-type uint8 2
        """,
    ),
    _isa("vmmouse", "i8042 link<i8042> -"),
    _isa("port92", "", *_gpio("out a20 1")),
    _plain("kvmvapic", "System", (), _SYSTEM),
    _plain(
        "fw_cfg_io",
        "System",
        specs("dma_enabled bool on; x-file-slots uint16 32"),
        Level("fw_cfg", specs("acpi-mr-restore bool on")),
        _SYSTEM,
    ),
    _plain(
        "ioapic",
        "System",
        specs("version uint8 32"),
        Level("ioapic-common"),
        _SYSTEM,
        wires=_gpio("in - 24"),
        window="00000000fec00000/0000000000001000",
    ),
    _plain(
        "hpet",
        "System",
        specs("timers uint8 3; msi bit off; hpet-intcap uint32 0; hpet-offset-saved bool on"),
        _SYSTEM,
        wires=_gpio("in - 2", "out - 1", "out sysbus-irq 32"),
        window="00000000fed00000/0000000000000400",
    ),
    _plain("ps2-kbd", "System", (), Level("ps2-device"), _SYSTEM, wires=_gpio("out - 1")),
    _plain("ps2-mouse", "System", (), Level("ps2-device"), _SYSTEM, wires=_gpio("out - 1")),
    _plain(
        "smbus-eeprom",
        "i2c-bus",
        (),
        Level("smbus-device"),
        Level("i2c-slave", specs("address uint8 0")),
    ),
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
            smb_io_base uint32 0; disable_s3 uint8 0; disable_s4 uint8 0; s4_val uint8 2
            acpi-pci-hotplug-with-bridge-support bool on; acpi-root-pci-hotplug bool on
            memory-hotplug-support bool on; {_SMM}; smm-enabled bool off
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
            xres uint32 0; yres uint32 0; xmax uint32 0; ymax uint32 0
            refresh_rate uint32 0; global-vmstate bool off
            """
        ),
        Level("pci-vga"),
        regions=(
            Region(0, "memory", 16 << 20, prefetch=True),
            Region(2, "memory", 4096),
            Region(6, "memory", 65536),
        ),
        told=specs("big-endian-framebuffer bool -"),
    ),
    _pci(
        "e1000",
        (0x0200, _INTEL, 0x100E),
        specs(
            """
            mac macaddr -; netdev netdev -; autonegotiation bit on; mitigation bit on
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
            mac macaddr -; netdev netdev -; disable_vnet_hdr headerless 0
            subsys_ven subvendor 32902; subsys subsystem 0; init-vet bool on
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
# What its parts and wires are, in the order in which a device gets them.
_TOLD: Final = {
    "i440FX-pcihost": """
        pci-conf-idx[0] child<memory-region> -; pci-conf-data[0] child<memory-region> -
    """,
    "q35-pcihost": f"""
        pcie-mmcfg-mmio[0] child<memory-region> -
        pci-conf-idx[0] child<memory-region> -; pci-conf-data[0] child<memory-region> -
        mch child<mch> -
        {_HOLES.strip()}
        mcfg_size uint64 -
        ram-mem link<memory-region> -; pci-mem link<memory-region> -
        system-mem link<memory-region> -; io-mem link<memory-region> -
    """,
    "isa-pcspk": "pcspk[0] child<memory-region> -; pit link<pit-common> -",
    "isa-serial": """
        serial child<serial> -; chardev chardev -; baudbase uint32 115200; wakeup bool off
    """,
    "i8042": """
        i8042-data[0] child<memory-region> -; i8042-cmd[0] child<memory-region> -
        ps2kbd child<ps2-kbd> -; ps2mouse child<ps2-mouse> -; a20[0] link<irq> -
        unnamed-gpio-out[0] link<irq> -; unnamed-gpio-out[1] link<irq> -
        ps2-kbd-input-irq[0] child<irq> -; ps2-mouse-input-irq[0] child<irq> -
    """,
    "port92": "port92[0] child<memory-region> -; a20[0] link<irq> -",
    "hpet": "hpet[0] child<memory-region> -",
    "ps2-kbd": "unnamed-gpio-out[0] link<irq> -",
    "ps2-mouse": "unnamed-gpio-out[0] link<irq> -",
    "PIIX4_PM": "unnamed-gpio-out[0] link<irq> -; smi-irq[0] link<irq> -",
    "ICH9-LPC": """
        sci_int uint8 -; acpi_enable_cmd uint8 -; acpi_disable_cmd uint8 -
        x-smi-negotiated-features uint64 -; pm_io_base uint32 -; gpe0_blk uint32 -
        gpe0_blk_len uint32 -; memory-hotplug-support bool -; cpu-hotplug-legacy bool -
        disable_s3 uint8 -; disable_s4 uint8 -; s4_val uint8 -; enable_tco bool -
        acpi-pci-hotplug-with-bridge-support bool -; x-keep-pci-slot-hpc bool -
    """,
    "ich9-ahci": "ahci[0] child<memory-region> -; ahci-idp[0] child<memory-region> -",
    "e1000": "bootindex int32 -",
    "e1000e": "bootindex int32 -",
}
# What a machine sets in its own devices of a type.
AS_MADE: Final[Mapping[str, Mapping[str, Any]]] = {
    "q35-pcihost": {"MCFG": 2**64 - 1},
    "i8257": {"pageh-base": -1},
    "isa-i8259": {"iobase": 32, "elcr_addr": 1232, "elcr_mask": 248, "master": True},
    "mc146818rtc": {"base_year": 0},
    "isa-pit": {"iobase": 64},
    "PIIX4_PM": {"smb_io_base": 45312, "smm-enabled": True},
    "VGA": {"xres": 1280, "yres": 800},
}
BOARD: Final = {
    each.name: each._replace(told=specs(_TOLD[each.name])) if each.name in _TOLD else each
    for each in _TYPES
}
