"""The types of devices, in the order in which ``-device help`` lists them."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from blockemu.machine.properties import (
    FLOPPY,
    IDE_CD,
    IDE_HD,
    LSI,
    PCI_BRIDGE,
    SCSI_CD,
    SCSI_HD,
    VIRTIO_BLK,
    VIRTIO_SCSI,
)


class Drive(Enum):
    """How a device treats its drive."""

    NONE = auto()
    DISK = auto()  # read-only if the node is
    WRITABLE = auto()  # always writes
    MEDIUM = auto()  # may be empty, never writes
    FLOPPY = auto()  # may be empty
    FLASH = auto()  # read once; shares everything


class DeviceType(NamedTuple):
    """A type of devices.

    ``bus`` is the kind it sits on, ``makes`` the kind it brings along, ``inner`` the type of the
    device behind a proxy, which has the drive.  ``no_drive``: the text if none is given.
    """

    name: str
    bus: str
    properties: Mapping[str, str]
    drive: Drive = Drive.NONE
    alias: str = ""
    description: str = ""
    makes: str = ""
    inner: str = ""
    no_drive: str = "drive property not set"

    @property
    def model(self) -> str:
        """The type that owns the drive."""
        return self.inner or self.name


_VIRTIO = ("", "-non-transitional", "-transitional")

_BLK: Final = tuple(
    DeviceType(
        f"virtio-blk-pci{variant}",
        "PCI",
        VIRTIO_BLK,
        Drive.DISK,
        alias="" if variant else "virtio-blk",
        inner="virtio-blk-device",
    )
    for variant in _VIRTIO
)
_SCSI: Final = tuple(
    DeviceType(
        f"virtio-scsi-pci{variant}",
        "PCI",
        VIRTIO_SCSI,
        alias="" if variant else "virtio-scsi",
        makes="SCSI",
        inner="virtio-scsi-device",
    )
    for variant in _VIRTIO
)
TYPES: Final[tuple[DeviceType, ...]] = (
    DeviceType("floppy", "floppy-bus", FLOPPY, Drive.FLOPPY, description="virtual floppy drive"),
    DeviceType("ide-cd", "IDE", IDE_CD, Drive.MEDIUM, description="virtual IDE CD-ROM"),
    DeviceType(
        "ide-hd",
        "IDE",
        IDE_HD,
        Drive.WRITABLE,
        description="virtual IDE disk",
        no_drive="No drive specified",
    ),
    DeviceType("lsi53c895a", "PCI", LSI, alias="lsi", makes="SCSI"),
    DeviceType("pci-bridge", "PCI", PCI_BRIDGE, description="Standard PCI Bridge", makes="PCI"),
    DeviceType("scsi-cd", "SCSI", SCSI_CD, Drive.MEDIUM, description="virtual SCSI CD-ROM"),
    DeviceType("scsi-hd", "SCSI", SCSI_HD, Drive.DISK, description="virtual SCSI disk"),
    *_BLK,
    *_SCSI,
)
PFLASH: Final = DeviceType("cfi.pflash01", "System", {"drive": "str"}, Drive.FLASH)
BY_NAME: Final[Mapping[str, DeviceType]] = {
    name: each for each in TYPES for name in (each.name, each.alias) if name
}
