"""The human monitor's views of devices: the tree of buses, PCI devices, objects."""

from blockemu.commands.context import Context
from blockemu.commands.hmp_line import HmpCommand, Values, Write
from blockemu.commands.pci import query_pci
from blockemu.machine.listing import describe_devices
from blockemu.machine.tree_text import show_bus
from blockemu.schema.pci import PciDeviceInfo, PciMemoryRegion

_ADDRESS = 2**64 - 1


async def info_qtree(context: Context, write: Write, values: Values) -> None:
    """Show the buses, and the devices on them."""
    buses = context.emu.devices.buses
    if buses:
        write("".join(f"{line}\n" for line in show_bus(buses[0])))


async def info_pci(context: Context, write: Write, values: Values) -> None:
    """Show the PCI devices (hmp_info_pci_device, monitor/hmp-cmds.c)."""
    for bus in query_pci(context):
        for device in bus.devices:
            _show_device(write, device)


def _show_device(write: Write, device: PciDeviceInfo) -> None:
    id_ = device.id
    write(f"  Bus {device.bus:2}, device {device.slot:3}, function {device.function}:\n")
    kind = device.class_info.desc or f"Class {device.class_info.class_:04}"
    write(f"    {kind}: PCI device {id_.vendor:04x}:{id_.device:04x}\n")
    if id_.subsystem is not None and id_.subsystem_vendor is not None:
        write(f"      PCI subsystem {id_.subsystem_vendor:04x}:{id_.subsystem:04x}\n")
    if device.irq is not None:
        write(f"      IRQ {device.irq}, pin {'ABCD'[device.irq_pin - 1]}\n")
    if device.pci_bridge is not None:
        bus = device.pci_bridge.bus
        write(f"      BUS {bus.number}.\n      secondary bus {bus.secondary}.\n")
        write(f"      subordinate bus {bus.subordinate}.\n")
        write(f"      IO range [{bus.io_range.base:#06x}, {bus.io_range.limit:#06x}]\n")
        for what, span in (
            ("memory range", bus.memory_range),
            ("prefetchable memory range", bus.prefetchable_range),
        ):
            write(f"      {what} [{span.base:#010x}, {span.limit:#010x}]\n")
    for region in device.regions:
        _show_region(write, region)
    write(f'      id "{device.qdev_id}"\n')


def _show_region(write: Write, region: PciMemoryRegion) -> None:
    start = region.address & _ADDRESS
    end = (start + region.size - 1) & _ADDRESS
    if region.type == "io":
        write(f"      BAR{region.bar}: I/O at {start:#06x} [{end:#06x}].\n")
        return
    bits = 64 if region.mem_type_64 else 32
    kind = " prefetchable" * bool(region.prefetch)
    write(f"      BAR{region.bar}: {bits} bit{kind} memory at {start:#010x} [{end:#010x}].\n")


async def info_types(context: Context, write: Write, values: Values) -> None:
    """List the types of devices."""
    write(describe_devices("help"))


INFO = (
    HmpCommand("qdm", (), "", "show qdev device model list", info_types),
    HmpCommand("qtree", (), "", "show device tree", info_qtree),
    HmpCommand("pci", (), "", "show PCI info", info_pci),
)
