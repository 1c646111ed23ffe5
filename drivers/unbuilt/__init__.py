"""Drivers that QEMU's interface names and this program is built without, as QEMU itself may be.

Clients can describe such nodes and images; opening one is refused as by a QEMU that was built
without the driver: ``Unknown driver 'nvme'``.  A driver that is written takes its options from here
to its own module.
"""

from blockemu.drivers.unbuilt import creation, formats, information, storage

__all__ = ["creation", "formats", "information", "storage"]
