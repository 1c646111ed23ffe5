"""host_device and host_cdrom: a device of the host."""

import os
import stat
from typing import Any, ClassVar

from blockemu.blockdev_options import NodeOptions
from blockemu.drivers.file import BlockdevOptionsFile, HostFile
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.host.hostspace import DeviceSpace
from blockemu.host.sysfile import is_cdrom
from blockemu.schema.stats import BlockStatsSpecific, BlockStatsSpecificHostDevice


class NotDevice(QmpError):
    """(driver, name)."""

    template = "'{}' driver requires '{}' to be either a character or block device"


class HostDeviceOptions(
    BlockdevOptionsFile, tag="host_device", features=("dynamic-auto-read-only",)
):
    """Options of the host_device driver."""


class HostCdromOptions(BlockdevOptionsFile, tag="host_cdrom", features=("dynamic-auto-read-only",)):
    """Options of the host_cdrom driver."""


class HostDevice(HostFile):
    """A block or character device."""

    Options: ClassVar[type[NodeOptions]] = HostDeviceOptions
    protocols: ClassVar[tuple[str, ...]] = ("host_device",)
    creates_by_opening = True
    has_holes = False

    @classmethod
    def probe_device(cls, filename: str) -> int:
        """Tell how sure it is that a file name needs this driver (hdev_probe_device)."""
        if filename.startswith("/dev/cdrom"):
            return 50
        try:
            mode = os.stat(filename).st_mode  # noqa: PTH116
        except (OSError, ValueError):
            return 0
        return 100 if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0

    def _check_type(self, mode: int) -> None:
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            raise NotDevice(self.driver, self.exact_filename)

    def _make_space(self) -> DeviceSpace:
        return DeviceSpace(self.fd, cached=not self._access.direct)

    def driver_stats(self) -> BlockStatsSpecific | None:
        """Return the counts of discards."""
        return self._stats(BlockStatsSpecificHostDevice)

    @property
    def length(self) -> int:
        """The size of the device."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    async def block_status(self, offset: int, length: int) -> Extents:
        """Call all of it data."""
        return Extents.one(offset, length, DATA | ALLOCATED, offset)


class HostCdrom(HostDevice):
    """A drive for optical discs, which can be open without a disc."""

    Options = HostCdromOptions
    protocols = ("host_cdrom",)
    extra_flags = os.O_NONBLOCK

    @classmethod
    def probe_device(cls, filename: str) -> int:
        """Ask the device whether it is one."""
        return 101 if is_cdrom(filename) else 0  # one more than any device: asked first in QEMU

    def image_info(self) -> dict[str, Any]:
        """Tell nothing."""
        return {}

    def driver_stats(self) -> BlockStatsSpecific | None:
        """Count nothing."""
        return None

    async def discard(self, offset: int, length: int) -> None:
        """Do nothing: a disc has no room to give back."""

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Leave it to writing."""
        raise NotImplementedError
