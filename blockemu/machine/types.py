"""The types of devices, in the order in which ``-device help`` lists them."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from blockemu.machine import properties as p
from blockemu.machine.pci import PciFacts, Region
from blockemu.machine.properties import Level, Spec


class Drive(Enum):
    """How a device treats its drive."""

    NONE = auto()
    DISK = auto()  # read-only if the node is
    WRITABLE = auto()  # always writes
    MEDIUM = auto()  # may be empty, never writes
    FLOPPY = auto()  # may be empty
    FLASH = auto()  # read once; shares everything


_BOOTS: Final = ("bootindex",)


class DeviceType(NamedTuple):
    """A type of devices.

    ``bus`` is the kind it sits on, ``makes`` the kind it brings along; ``levels`` its class and
    those above it, as far as devices go; ``inner`` the device behind a proxy, which has the drive
    and whose properties the proxy has too.  ``no_drive``: the text if none is given.  ``boots``:
    its properties that say when it is booted from.  ``wires`` and ``window`` are what ``info
    qtree`` says of a device's interrupts and of its place in memory.  ``told``: what lists of
    properties have besides: parts and wires of a device, none of which does anything.

    Of devices that have nothing to do with disks (``does_nothing``): ``extra`` are properties that
    no class has; ``buses`` what they bring, the end of the name and the type; ``settled`` what
    they make of properties that nobody set; ``tail`` what ``info qtree`` says at last; ``refusal``
    why there can be none here; ``hotplug`` whether one may come and go while the machine is on.
    """

    name: str
    bus: str
    levels: tuple[Level, ...]
    drive: Drive = Drive.NONE
    alias: str = ""
    description: str = ""
    makes: str = ""
    inner: "DeviceType | None" = None
    no_drive: str = "drive property not set"
    pci: PciFacts | None = None
    wires: tuple[str, ...] = ()
    window: str = ""
    boots: tuple[str, ...] = ()
    told: tuple[Spec, ...] = ()
    extra: tuple[Spec, ...] = ()
    buses: tuple[tuple[str, ...], ...] = ()
    settled: Mapping[str, Any] = {}
    tail: str = ""
    refusal: str = ""
    hotplug: bool = True
    does_nothing: bool = False

    @property
    def model(self) -> str:
        """The type that owns the drive."""
        return self.inner.name if self.inner else self.name

    @property
    def specs(self) -> tuple[Spec, ...]:
        """Its classes' properties, without those of a device behind it."""
        return tuple(spec for level in self.levels for spec in level.specs)

    def spec(self, name: str) -> Spec | None:
        """Return a property that it takes itself."""
        return next((s for s in (*self.specs, *self.extra) if s.name == name), None)

    @property
    def properties(self) -> Mapping[str, str]:
        """The properties that it takes, with their types."""
        own = {spec.name: spec.type for spec in (*self.specs, *self.extra)}
        own |= dict.fromkeys(self.boots, "int32")
        return own | dict(self.inner.properties) if self.inner else own


def _chain(name: str, specs: tuple[Spec, ...], *above: Level) -> tuple[Level, ...]:
    return (Level(name, specs, abstract=False), *above)


_VIRTIO: Final = 0x1AF4
_QUMRANET: Final = 0x1100
_SCSI_CLASS: Final = 0x0100
_LEGACY: Final = (Region(1, "memory", 4096), Region(4, "memory", 16384, wide=True, prefetch=True))


def _virtio_facts(variant: str, number: int, kind: int, legacy_bytes: int) -> PciFacts:
    """Return what a virtio device shows: ``number`` since 1.0, ``kind`` as before."""
    if variant == "-non-transitional":
        return PciFacts(_SCSI_CLASS, _VIRTIO, 0x1040 + kind, _VIRTIO, _QUMRANET, regions=_LEGACY)
    regions = (Region(0, "io", legacy_bytes), *_LEGACY)
    return PciFacts(_SCSI_CLASS, _VIRTIO, number, _VIRTIO, kind, regions=regions)


def _virtio(
    kind: str, specs: tuple[Spec, ...], inner: DeviceType, facts: tuple[int, int, int]
) -> tuple[DeviceType, ...]:
    """Return the proxies that a virtio device may sit behind."""
    base = f"{kind}-pci"
    above = (Level(f"{base}-base", specs), p.VIRTIO_PCI, p.PCI)
    return tuple(
        DeviceType(
            f"{base}{variant}",
            "PCI",
            _chain(f"{base}{variant}", () if variant else p.VIRTIO_GENERIC, *above),
            inner.drive,
            alias="" if variant else kind,
            makes=inner.makes,
            inner=inner,
            pci=_virtio_facts(variant, *facts),
        )
        for variant in ("", "-non-transitional", "-transitional")
    )


BLK_INNER: Final = DeviceType(
    "virtio-blk-device",
    "virtio-bus",
    _chain("virtio-blk-device", p.VIRTIO_BLK, p.VIRTIO),
    Drive.DISK,
    boots=_BOOTS,
)
SCSI_INNER: Final = DeviceType(
    "virtio-scsi-device",
    "virtio-bus",
    _chain("virtio-scsi-device", p.VIRTIO_SCSI, Level("virtio-scsi-common"), p.VIRTIO),
    makes="SCSI",
)
_SCSI: Final = (Level("scsi-disk-base"), p.SCSI)
ISA_FDC: Final = DeviceType(
    "isa-fdc",
    "ISA",
    _chain("isa-fdc", p.ISA_FDC, Level("isa-device")),
    description="virtual floppy controller",
    makes="floppy-bus",
    boots=("bootindexA", "bootindexB"),
)
TYPES: Final[tuple[DeviceType, ...]] = (
    DeviceType(
        "floppy",
        "floppy-bus",
        _chain("floppy", p.FLOPPY),
        Drive.FLOPPY,
        description="virtual floppy drive",
    ),
    DeviceType(
        "ide-cd",
        "IDE",
        _chain("ide-cd", p.IDE_CD, p.IDE),
        Drive.MEDIUM,
        description="virtual IDE CD-ROM",
        boots=_BOOTS,
    ),
    DeviceType(
        "ide-hd",
        "IDE",
        _chain("ide-hd", p.IDE_HD, p.IDE),
        Drive.WRITABLE,
        description="virtual IDE disk",
        no_drive="No drive specified",
        boots=_BOOTS,
    ),
    ISA_FDC,
    DeviceType(
        "lsi53c895a",
        "PCI",
        _chain("lsi53c895a", (), p.PCI),
        alias="lsi",
        makes="SCSI",
        wires=('gpio-out "" 1',),
        pci=PciFacts(
            _SCSI_CLASS,
            0x1000,
            0x0012,
            0x0000,
            0x1000,
            regions=(Region(0, "io", 256), Region(1, "memory", 1024), Region(2, "memory", 8192)),
        ),
    ),
    DeviceType(
        "pci-bridge",
        "PCI",
        _chain("pci-bridge", p.PCI_BRIDGE, Level("base-pci-bridge"), p.PCI),
        description="Standard PCI Bridge",
        makes="PCI",
        pci=PciFacts(0x0604, 0x1B36, 0x0001, regions=(Region(0, "memory", 256, wide=True),)),
    ),
    DeviceType(
        "scsi-cd",
        "SCSI",
        _chain("scsi-cd", p.SCSI_CD, *_SCSI),
        Drive.MEDIUM,
        description="virtual SCSI CD-ROM",
        boots=_BOOTS,
    ),
    DeviceType(
        "scsi-hd",
        "SCSI",
        _chain("scsi-hd", p.SCSI_HD, *_SCSI),
        Drive.DISK,
        description="virtual SCSI disk",
        boots=_BOOTS,
    ),
    *_virtio("virtio-blk", p.VIRTIO_BLK_PCI, BLK_INNER, (0x1001, 2, 128)),
    *_virtio("virtio-scsi", p.VIRTIO_SCSI_PCI, SCSI_INNER, (0x1004, 8, 64)),
)
PFLASH: Final = DeviceType(
    "cfi.pflash01", "System", _chain("cfi.pflash01", (Spec("drive", "drive", None),)), Drive.FLASH
)
BY_NAME: Final[Mapping[str, DeviceType]] = {
    name: each for each in TYPES for name in (each.name, each.alias) if name
}
