"""The machines as objects, in the order in which QEMU's hash tables come to list properties.

What can be set of a machine the command
line sets (``machine_options``); hardly anything of it does more than be there.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from blockemu.machine.models import machine_called, machines, model
from blockemu.objects.qom import Object, Property

_DRIVE: Final = "Node name or ID of a block device to use as a backend"
_TABLE: Final = (
    "Override the default value of field {} in ACPI table header."
    "The string may be up to {} bytes in size"
)
_SWITCH: Final = "Set on/off to enable/disable {}"


class Row(NamedTuple):
    """A property: its name, its type, what is said of it, whether it can be set, its value."""

    name: str
    type: str
    description: str | None = None
    settable: bool = True
    value: Any = None  # None: what says nothing in its type


_ONE_CPU: Final = dict.fromkeys(
    ("cpus", "sockets", "dies", "clusters", "cores", "threads", "maxcpus"), 1
)
_NOTHING: Final = {"bool": False, "OnOffAuto": "auto", "int": 0, "size": 0, "uint64_t": 0}
_MACHINE: Final = (
    Row("dtb", "string", "Linux kernel device tree file"),
    Row("memory", "MemorySizeConfiguration", "Memory size configuration", value={"size": 0}),
    Row("phandle-start", "int", "The first phandle ID we may generate dynamically"),
    Row("dumpdtb", "string", "Dump current dtb to a file and quit"),
    Row("graphics", "bool", _SWITCH.format("graphics emulation"), value=True),
    Row("initrd", "string", "Linux initial ramdisk file"),
    Row("usb", "bool", _SWITCH.format("usb")),
    Row("smp", "SMPConfiguration", "CPU topology", value=_ONE_CPU),
    Row("kernel", "string", "Linux kernel image file"),
    Row("suppress-vmdesc", "bool", "Set on to disable self-describing migration"),
    Row("dump-guest-core", "bool", "Include guest memory in a core dump", value=True),
    Row("append", "string", "Linux kernel command line"),
    Row(
        "confidential-guest-support",
        "link<confidential-guest-support>",
        "Set confidential guest scheme to support",
    ),
    Row("dt-compatible", "string", 'Overrides the "compatible" property of the dt root node'),
    Row("memory-encryption", "string", "Set memory encryption object to use"),
    Row("mem-merge", "bool", "Enable/disable memory merge support", value=True),
    Row("boot", "BootConfiguration", "Boot configuration", value={"order": "cad"}),
    Row(
        "memory-backend",
        "link<memory-backend>",
        "Set RAM backendValid value is ID of hostmem based backend",
    ),
    Row("firmware", "string", "Firmware image"),
)
_X86: Final = (
    Row("x-oem-id", "string", _TABLE.format("OEMID", 6), value="BOCHS "),
    Row("pit", "OnOffAuto", "Enable i8254 PIT"),
    Row("x-oem-table-id", "string", _TABLE.format("OEM Table ID", 8), value="BXPC    "),
    Row("acpi", "OnOffAuto", "Enable ACPI"),
    Row("pic", "OnOffAuto", "Enable i8259 PIC"),
    Row("bus-lock-ratelimit", "uint64_t", "Set the ratelimit for the bus locks acquired in VMs"),
    Row("sgx-epc", "SgxEPC", "SGX EPC device", value=[]),
    Row("smm", "OnOffAuto", "Enable SMM"),
)
_PC: Final = (
    Row("device-memory-region-size", "int", settable=False),
    Row("sata", "bool", "Enable/disable Serial ATA bus", value=True),
    Row("max-ram-below-4g", "size", "Maximum ram below the 4G boundary (32bit boundary)"),
    Row("smbus", "bool", "Enable/disable system management bus", value=True),
    Row("hpet", "bool", "Enable/disable high precision event timer emulation", value=True),
    Row("vmport", "OnOffAuto", "Enable vmport (pc & q35)", value="on"),
    Row("max-fw-size", "size", "Maximum combined firmware size", value=8388608),
    Row("default-bus-bypass-iommu", "bool"),
    Row("smbios-entry-point-type", "str", "SMBIOS Entry Point type [32, 64]", value="32"),
    Row("i8042", "bool", value=True),
)
_MICROVM: Final = (
    Row("rtc", "OnOffAuto", "Enable MC146818 RTC"),
    Row("pcie", "OnOffAuto", "Enable PCIe"),
    Row("ioapic2", "OnOffAuto", "Enable second IO-APIC"),
    Row("isa-serial", "bool", "Set off to disable the instantiation an ISA serial port"),
    Row("x-option-roms", "bool", "Set off to disable loading option ROMs"),
    Row(
        "auto-kernel-cmdline",
        "bool",
        "Set off to disable adding virtio-mmio devices to the kernel cmdline",
    ),
)
_ANY: Final = (Row("peripheral-anon", "child<container>"), Row("peripheral", "child<container>"))
_REMOTE: Final = (
    _ANY[0],
    Row("vfio-user", "bool"),
    _ANY[1],
    Row("auto-shutdown", "bool"),
)
_NUMA: Final = "ACPI Heterogeneous Memory Attribute Table (HMAT)"
_OF_PC: Final = {
    "hmat": Row("hmat", "bool", _SWITCH.format(_NUMA)),
    "nvdimm": Row("nvdimm", "bool", _SWITCH.format("NVDIMM instantiation")),
    "nvdimm-persistence": Row(
        "nvdimm-persistence", "string", "Set NVDIMM persistenceValid values are cpu, mem-ctrl"
    ),
    "cxl": Row("cxl", "bool", _SWITCH.format("CXL instantiation")),
    "cxl-fmw": Row("cxl-fmw", "CXLFixedMemoryWindow", "CXL Fixed Memory Windows (array)", value=[]),
    "pcspk-audiodev": Row("pcspk-audiodev", "str", "ID of an audiodev to use as a backend"),
    "pflash0": Row("pflash0", "str", _DRIVE),
    "pflash1": Row("pflash1", "str", _DRIVE),
    "system.flash0": Row("system.flash0", "child<cfi.pflash01>"),
    "system.flash1": Row("system.flash1", "child<cfi.pflash01>"),
    **{row.name: row for row in _ANY},
}
READ_ONLY: Final = frozenset(
    ["rtc-time", *(row.name for rows in (_MACHINE, _X86, _PC) for row in rows if not row.settable)]
)
_FLASHED: Final = """
hmat nvdimm pflash1 peripheral-anon nvdimm-persistence system.flash0 cxl peripheral cxl-fmw
pcspk-audiodev system.flash1 pflash0
"""
_PLAIN: Final = """
peripheral peripheral-anon hmat nvdimm-persistence pcspk-audiodev cxl-fmw nvdimm cxl
"""
_CLASSES: Final = {"machine": _MACHINE, "x86-machine": _X86, "generic-pc-machine": _PC}
_ABOVE: Final = {
    "machine": "object",
    "x86-machine": "machine",
    "generic-pc-machine": "x86-machine",
}


class Typed(Object):
    """A machine: ``values`` are those that were set, or that differ in this one."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}


def _property(row: Row) -> Property:
    value = _NOTHING.get(row.type, "") if row.value is None else row.value

    def read(owner: Typed) -> Any:
        return owner.values.get(row.name, value)

    def write(owner: Typed, given: Any) -> None:
        owner.values[row.name] = given

    plain = type(value) in (bool, int, str) and row.settable and not row.type.startswith("link<")
    return Property(
        row.name, row.type, type(value), read, write if plain else None, row.description
    )


def _parent(name: str) -> str:
    if name in ("none", "x-remote"):
        return "machine"
    return "x86-machine" if name == "microvm" else "generic-pc-machine"


def _above(name: str) -> str:
    return _ABOVE.get(name) or _parent(name.removesuffix("-machine"))


@cache
def _class(name: str) -> type[Typed]:
    """Return the class of a type, which is made when it is first asked for."""
    if name == "object":
        return Typed
    rows = _MICROVM if name == "microvm-machine" else _CLASSES.get(name, ())
    properties = tuple(_property(row) for row in rows)
    return type("Typed", (_class(_above(name)),), {"TYPE": name, "PROPERTIES": properties})


def make_machine(name: str) -> Typed:
    """Return the machine of a name, with the properties that it has once it is made."""
    full = machine_called(name).name
    made = _class(f"{full}-machine")()
    made.values = dict(_DIFFERENT.get(full, {}))
    for row in _told(made.TYPE):
        if not row.type.startswith("child<") and not row.name.startswith("pflash"):
            made.add_property(_property(row))
    if _parent(full) == "generic-pc-machine":
        made.add_property(Property("rtc-time", "struct tm", dict, lambda each: _clock()))
    return made


def _clock() -> dict[str, int]:
    """Return the time that a machine's clock shows, which is the host's (struct tm, UTC)."""
    now = time.gmtime()
    return {
        "tm_year": now.tm_year - 1900,
        "tm_mon": now.tm_mon - 1,
        "tm_mday": now.tm_mday,
        "tm_hour": now.tm_hour,
        "tm_min": now.tm_min,
        "tm_sec": now.tm_sec,
    }


_DIFFERENT: Final[Mapping[str, Mapping[str, Any]]] = {
    **{name: {"boot": {"order": ""}} for name in ("none", "microvm", "x-remote")},
    "isapc": {"hpet": False},
}


def _told(name: str) -> tuple[Row, ...]:
    """Return what each of a type has besides the properties of its class."""
    kind = name.removesuffix("-machine")
    if kind in ("none", "x-remote"):
        return _ANY if kind == "none" else _REMOTE
    if kind == "microvm":
        return ()
    order = _FLASHED if model(kind).flashes else _PLAIN
    return tuple(_OF_PC[each] for each in order.split())


def describe_machine(name: str) -> str:
    """Return what ``-machine NAME,help`` prints."""
    full = next(each.name for each in machines() if name in (each.name, each.alias))
    at, rows = _parent(full), list(_MICROVM) if full == "microvm" else []
    while at in _CLASSES:
        rows += [row for row in _CLASSES[at] if row.settable]
        at = _ABOVE[at]
    lines = (_line(row) for row in rows)
    return "\n".join([f"{full}-machine options:", *sorted(lines), ""])


def _line(row: Row) -> str:
    line = f"  {row.name}=<{row.type}>"
    return f"{line:<24} - {row.description}" if row.description else line
