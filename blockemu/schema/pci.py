"""PCI devices, as ``query-pci`` tells them (qapi/pci.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import Struct, Wire


class PciMemoryRange(Struct):
    """Addresses.

    @base: the first
    @limit: the last
    """

    base: int
    limit: int


class PciMemoryRegion(Struct):
    """What a base address register is for.

    @bar: its number
    @type: ``io`` or ``memory``
    @address: where it is; -1: nowhere yet
    @size: bytes
    @prefetch: whether it may be read ahead
    @mem_type_64: whether it has 64 bits
    """

    bar: int
    type: str
    address: int
    size: int
    prefetch: bool | None = None
    mem_type_64: Annotated[bool | None, Wire("mem_type_64")] = None


class PciBusInfo(Struct):
    """The buses behind a bridge, and what it passes on to them.

    @number: the bus that it is on
    @secondary: the bus behind it
    @subordinate: the last bus behind it
    @io_range: ports
    @memory_range: memory
    @prefetchable_range: memory that may be read ahead
    """

    number: int
    secondary: int
    subordinate: int
    io_range: Annotated[PciMemoryRange, Wire("io_range")]
    memory_range: Annotated[PciMemoryRange, Wire("memory_range")]
    prefetchable_range: Annotated[PciMemoryRange, Wire("prefetchable_range")]


class PciBridgeInfo(Struct):
    """A bridge.

    @bus: its buses
    @devices: what is on the bus behind it
    """

    bus: PciBusInfo
    devices: list["PciDeviceInfo"] | None = None


class PciDeviceClass(Struct):
    """What kind of device it is.

    @desc: for people
    @class: the number
    """

    desc: str | None = None
    class_: Annotated[int, Wire("class")]


class PciDeviceId(Struct):
    """Whose device it is.

    @device: the device
    @vendor: its maker
    @subsystem: what it is part of
    @subsystem-vendor: the maker of that
    """

    device: int
    vendor: int
    subsystem: int | None = None
    subsystem_vendor: int | None = None


class PciDeviceInfo(Struct):
    """A device.

    @bus: its bus's number
    @slot: its slot
    @function: its function there
    @class_info: what it is
    @id: whose it is
    @irq: the interrupt that firmware gave it
    @irq_pin: the pin it interrupts by
    @qdev_id: its id
    @pci_bridge: if it is a bridge
    @regions: its base address registers
    """

    bus: int
    slot: int
    function: int
    class_info: Annotated[PciDeviceClass, Wire("class_info")]
    id: PciDeviceId
    irq: int | None = None
    irq_pin: Annotated[int, Wire("irq_pin")]
    qdev_id: Annotated[str, Wire("qdev_id")]
    pci_bridge: Annotated[PciBridgeInfo | None, Wire("pci_bridge")] = None
    regions: list[PciMemoryRegion]


class PciInfo(Struct):
    """A bus.

    @bus: its number
    @devices: what is on it
    """

    bus: int
    devices: list[PciDeviceInfo]
