"""``info qtree``: buses, what is on them, and what they are set to (softmmu/qdev-monitor.c).

Interrupts and memory are told of a machine's own devices as QEMU tells them, though there are none.
"""

from collections.abc import Iterator
from typing import Any, Final

from blockemu.machine.device import Bus, Device, Part, read_spec
from blockemu.machine.pci import FUNCTIONS, PciFacts, class_name, show_address
from blockemu.machine.properties import Spec

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_NOWHERE: Final = 2**64 - 1


def show_bus(bus: Bus, indent: int = 0) -> Iterator[str]:
    """Yield the lines about a bus and all that hangs on it."""
    yield f"{'':{indent}}bus: {bus.title}"
    yield f"{'':{indent + 2}}type {bus.type}"
    for device in reversed(bus.devices):
        yield from _show_part(device, indent + 2)


def _show_part(part: Part, indent: int) -> Iterator[str]:
    id_ = part.id if isinstance(part, Device) else ""
    yield f'{"":{indent}}dev: {part.model.name}, id "{id_}"'
    indent += 2
    yield from (f"{'':{indent}}{line}" for line in part.model.wires)
    for spec in part.model.specs:
        if not spec.type.startswith("link<"):
            yield f"{'':{indent}}{spec.name} = {_show_value(part, spec)}"
    if isinstance(part, Device) and (facts := part.pci) is not None:
        yield from (f"{'':{indent}}{line}" for line in _show_pci(part, facts))
    if tail := part.tail:
        yield f"{'':{indent}}{tail}"
    if part.model.window:
        yield f"{'':{indent}}mmio {part.model.window}"
    if isinstance(part, Device) and part.inner is not None:
        yield f"{'':{indent}}bus: virtio-bus"
        yield f"{'':{indent + 2}}type virtio-pci-bus"
        yield from _show_part(part.inner, indent + 2)
    for bus in reversed(part.child_buses):
        yield from show_bus(bus, indent)


def _show_value(part: Part, spec: Spec) -> str:
    value: Any = read_spec(part, spec)
    if spec.kind == "devfn":
        return show_address(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if spec.type == "size":
        return f"{value} ({show_size(value)})"
    bits = value & _NOWHERE
    return f"{bits - (bits >> 63 << 64)} ({bits:#x})"


def show_size(value: int) -> str:
    """Return a size for people (string_output_visitor's print_type_size)."""
    unit = 0
    while unit + 1 < len(_UNITS) and value >= 1000 << 10 * unit:
        unit += 1
    return f"{value / (1 << 10 * unit):.3g} {_UNITS[unit]}"


def _show_pci(device: Device, facts: PciFacts) -> Iterator[str]:
    """Yield what a PCI device shows of itself (pcibus_dev_print); firmware has not run."""
    slot, function = divmod(device.state["addr"], FUNCTIONS)
    kind = class_name(facts.device_class) or f"Class {facts.device_class:04x}"
    yield (
        f"class {kind}, addr {0:02x}:{slot:02x}.{function:x}, "
        f"pci id {facts.vendor:04x}:{facts.device:04x} "
        f"(sub {facts.subvendor:04x}:{facts.subdevice:04x})"
    )
    for region in facts.regions:
        kind = "i/o" if region.kind == "io" else "mem"
        end = (_NOWHERE + region.size - 1) & _NOWHERE
        yield f"bar {region.bar}: {kind} at {_NOWHERE:#018x} [{end:#x}]"
