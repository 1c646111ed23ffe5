"""The properties of devices, in the order in which QEMU declares them: kinds and defaults.

A level is what one class adds to the class that it derives from.
"""

from typing import Any, Final, NamedTuple

_TYPES: Final = {
    "bit": "bool",
    "drive": "str",
    "blocksize": "size",
    "devfn": "int32",
    "audiodev": "str",
    "chardev": "str",
    "macaddr": "str",
    "netdev": "str",
    "subsystem": "uint16",
    "subvendor": "uint16",
    "headerless": "uint8",
}
_DESCRIPTIONS: Final = {
    "bit": "on/off",
    "drive": "Node name or ID of a block device to use as a backend",
    "blocksize": "A power of two between 512 B and 2 MiB",
    "devfn": "Slot and optional function number, example: 06.0 or 06",
    "OnOffAuto": "on/off/auto",
    "BlockdevOnError": "Error handling policy, report/ignore/enospc/stop/auto",
    "audiodev": "ID of an audiodev to use as a backend",
    "chardev": "ID of a chardev to use as a backend",
    "macaddr": "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56",
    "netdev": "ID of a netdev to use as a backend",
    "subsystem": "PCI device Subsystem ID",
    "subvendor": "PCI device Subsystem Vendor ID",
    "headerless": "Do not use virtio headers, perform SW offloads emulation instead",
    "FdcDriveType": "FDC drive type, 144/288/120/none/auto",
    "BiosAtaTranslation": "Logical CHS translation algorithm, auto/none/lba/large/rechs",
}
_REFERENCES: Final = frozenset({"netdev", "chardev", "macaddr", "audiodev"})
UNSET: Final = 0xFFFFFFFF


class Spec(NamedTuple):
    """A property: its name, its kind, its value unless set (None: an empty string)."""

    name: str
    kind: str
    default: Any

    @property
    def type(self) -> str:
        """The name of its type."""
        return _TYPES.get(self.kind, self.kind)

    @property
    def refers(self) -> bool:
        """Whether its value names something that must be there, or must look like an address."""
        return self.kind in _REFERENCES or self.kind.startswith("link<")

    @property
    def description(self) -> str | None:
        """What is said of it."""
        return _DESCRIPTIONS.get(self.kind)


class Level(NamedTuple):
    """A class of devices: its name, whether there are instances, its own properties.

    ``told`` are properties that cannot be set on a command line.
    """

    name: str
    specs: tuple[Spec, ...] = ()
    abstract: bool = True
    told: tuple[Spec, ...] = ()


_WORDS: Final = {"-": None, "on": True, "off": False, "unset": UNSET, "max": 2**64 - 1}


def _value(kind: str, word: str) -> Any:
    if kind[0].isupper():
        return word
    return _WORDS[word] if word in _WORDS else int(word)


def specs(text: str) -> tuple[Spec, ...]:
    """Read ``name kind default`` lines, or several with semicolons between them."""
    rows = (row.split() for line in text.strip().splitlines() for row in line.split(";"))
    return tuple(Spec(name, kind, _value(kind, word)) for name, kind, word in rows)


_BLOCK: Final = specs(
    """
    drive drive -; backend_defaults OnOffAuto auto; logical_block_size blocksize 0
    physical_block_size blocksize 0; min_io_size size 0; opt_io_size size 0
    discard_granularity size unset; write-cache OnOffAuto auto; share-rw bool off
    account-invalid OnOffAuto auto; account-failed OnOffAuto auto
    """
)
_ERRORS: Final = specs("rerror BlockdevOnError auto; werror BlockdevOnError auto")
_GEOMETRY: Final = specs(
    "cyls uint32 0; heads uint32 0; secs uint32 0; lcyls uint32 0; lheads uint32 0; lsecs uint32 0"
)

PCI: Final = Level(
    "pci-device",
    specs(
        """
        addr devfn -1; romfile str -; romsize uint32 unset; rombar uint32 1
        multifunction bit off; x-pcie-lnksta-dllla bit on; x-pcie-extcap-init bit on
        failover_pair_id str -; acpi-index uint32 0
        """
    ),
)
VIRTIO_PCI: Final = Level(
    "virtio-pci",
    specs(
        """
        virtio-pci-bus-master-bug-migration bit off; migrate-extra bit on
        modern-pio-notify bit off; x-disable-pcie bit off; page-per-vq bit off
        x-ignore-backend-features bool off; ats bit off; x-ats-page-aligned bit on
        x-pcie-deverr-init bit on; x-pcie-lnkctl-init bit on; x-pcie-pm-init bit on
        x-pcie-flr-init bit on; aer bit off
        """
    ),
)
VIRTIO_GENERIC: Final = specs("disable-legacy OnOffAuto auto; disable-modern bool off")
VIRTIO_BLK_PCI: Final = specs("class uint32 0; ioeventfd bit on; vectors uint32 unset")
VIRTIO_SCSI_PCI: Final = specs("ioeventfd bit on; vectors uint32 unset")
VIRTIO: Final = Level(
    "virtio-device",
    specs(
        """
        indirect_desc bit on; event_idx bit on; notify_on_empty bit on; any_layout bit on
        iommu_platform bit off; packed bit off; queue_reset bit on; use-started bool on
        use-disabled-flag bool on; x-disable-legacy-check bool off
        """
    ),
)
VIRTIO_BLK: Final = (
    _BLOCK
    + _ERRORS
    + _GEOMETRY
    + specs(
        """
        serial str -; config-wce bit on; scsi bit off; request-merging bit on
        num-queues uint16 65535; queue-size uint16 256; seg-max-adjust bool on
        iothread link<iothread> -; discard bit on; report-discard-granularity bool on
        write-zeroes bit on; max-discard-sectors uint32 4194303
        max-write-zeroes-sectors uint32 4194303; x-enable-wce-if-config-wce bool on
        """
    )
)
VIRTIO_SCSI: Final = specs(
    """
    num_queues uint32 unset; virtqueue_size uint32 256; seg_max_adjust bool on
    max_sectors uint32 65535; cmd_per_lun uint32 128; hotplug bit on; param_change bit on
    iothread link<iothread> -
    """
)
PCI_BRIDGE: Final = specs(
    """
    chassis_nr uint8 0; msi OnOffAuto auto; shpc bit on; bus-reserve uint32 unset
    io-reserve size max; mem-reserve size max; pref32-reserve size max; pref64-reserve size max
    """
)
SCSI: Final = Level(
    "scsi-device", specs("channel uint32 0; scsi-id uint32 unset; lun uint32 unset")
)
_SCSI_DISK: Final = (
    _BLOCK
    + _ERRORS
    + specs("ver str -; serial str -; vendor str -; product str -; device_id str -")
)
_PORTS: Final = specs("wwn uint64 0; port_wwn uint64 0; port_index uint16 0")
SCSI_HD: Final = (
    _SCSI_DISK
    + specs("removable bit off; dpofua bit off")
    + _PORTS
    + specs(
        """
        max_unmap_size uint64 1073741824; max_io_size uint64 2147483647; rotation_rate uint16 0
        scsi_version int32 5; quirk_mode_page_vendor_specific_apple bit off
        """
    )
    + _GEOMETRY
)
SCSI_CD: Final = (
    _SCSI_DISK
    + _PORTS
    + specs(
        """
        max_io_size uint64 2147483647; scsi_version int32 5; quirk_mode_page_apple_vendor bit off
        quirk_mode_sense_rom_use_dbd bit off; quirk_mode_page_vendor_specific_apple bit off
        quirk_mode_page_truncated bit off
        """
    )
)
IDE: Final = Level("ide-device", specs("unit uint32 unset"))
IDE_CD: Final = _BLOCK + _ERRORS + specs("ver str -; wwn uint64 0; serial str -; model str -")
IDE_HD: Final = (
    IDE_CD + _GEOMETRY + specs("bios-chs-trans BiosAtaTranslation auto; rotation_rate uint16 0")
)
FLOPPY: Final = specs("unit uint32 unset") + _BLOCK + specs("drive-type FdcDriveType auto")
ISA_FDC: Final = specs(
    """
    iobase uint32 1008; irq uint32 6; dma uint32 2; fdtypeA FdcDriveType auto
    fdtypeB FdcDriveType auto; fallback FdcDriveType 288
    """
)
PCI_HOST: Final = Level(
    "pci-host-bridge",
    specs("x-config-reg-migration-enabled bool on; bypass-iommu bool off"),
)
