"""query-pci: the PCI devices of a machine whose firmware has not run (after hw/pci/pci.c)."""

from blockemu.commands.context import Context
from blockemu.machine.device import Bus, Device
from blockemu.machine.pci import FUNCTIONS, PciFacts, Region, class_name
from blockemu.qmp_server.dispatch import command
from blockemu.schema.pci import (
    PciBridgeInfo,
    PciBusInfo,
    PciDeviceClass,
    PciDeviceId,
    PciDeviceInfo,
    PciInfo,
    PciMemoryRange,
    PciMemoryRegion,
)

_BRIDGE = 0x0604


@command(since="0.14")
def query_pci(context: Context) -> list[PciInfo]:
    """List the PCI devices of the machine's root bus."""
    root = next((bus for bus in context.emu.devices.buses if bus.kind == "PCI"), None)
    return [PciInfo(bus=0, devices=list_devices(root))] if root is not None else []


def list_devices(bus: Bus) -> list[PciDeviceInfo]:
    """Describe what is on a bus, by slot and function."""
    found = sorted(bus.devices, key=lambda device: int(device.state["addr"]))
    return [_describe(each, facts) for each in found if (facts := each.pci) is not None]


def _describe(device: Device, facts: PciFacts) -> PciDeviceInfo:
    slot, function = divmod(device.state["addr"], FUNCTIONS)
    bridge = facts.device_class == _BRIDGE
    return PciDeviceInfo(
        bus=0,
        slot=slot,
        function=function,
        class_info=PciDeviceClass(desc=class_name(facts.device_class), class_=facts.device_class),
        id=PciDeviceId(
            device=facts.device,
            vendor=facts.vendor,
            subsystem=None if bridge else facts.subdevice,
            subsystem_vendor=None if bridge else facts.subvendor,
        ),
        irq=0 if facts.interrupts else None,
        irq_pin=facts.pin if facts.interrupts else 0,
        qdev_id=device.id,
        pci_bridge=_unknown_buses(facts.closed) if bridge else None,
        regions=[_describe_region(region) for region in facts.regions],
    )


def _unknown_buses(closed: bool) -> PciBridgeInfo:
    """Describe a bridge whose buses nobody has numbered yet."""
    nothing = PciMemoryRange(base=0xFFF00000 if closed else 0, limit=(1 << 20) - 1)
    return PciBridgeInfo(
        bus=PciBusInfo(
            number=0,
            secondary=0,
            subordinate=0,
            io_range=PciMemoryRange(base=0xF000 if closed else 0, limit=(1 << 12) - 1),
            memory_range=nothing,
            prefetchable_range=nothing,
        )
    )


def _describe_region(region: Region) -> PciMemoryRegion:
    memory = region.kind == "memory"
    return PciMemoryRegion(
        bar=region.bar,
        type=region.kind,
        address=-1,
        size=region.size,
        prefetch=region.prefetch if memory else None,
        mem_type_64=region.wide if memory else None,
    )
