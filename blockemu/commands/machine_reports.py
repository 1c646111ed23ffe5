"""Reports about what a machine has little or nothing of: CPUs, networks, virtio."""

from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.machine.device import Device
from blockemu.qmp_server.dispatch import Command, command
from blockemu.schema.guest_stats import AnyFilter, StatsProvider, StatsResult, StatsSchema
from blockemu.schema.machine_reports import (
    COLOExitReason,
    COLOMode,
    COLOStatus,
    CpuDefinitionInfo,
    CpuModelExpansionInfo,
    CpuModelExpansionType,
    CpuModelInfo,
    HumanReadableText,
    VirtioInfo,
)


class UnknownCpu(QmpError):
    """There are no types of CPUs: (name)."""

    template = "CPU model '{}' not found"


class NoProfiler(QmpError):
    """There is nothing to profile."""

    template = "Internal profiler not compiled"


class NoTranslator(QmpError):
    """There is no code."""

    template = "JIT information is only available with accel=tcg"


class NoUsb(QmpError):
    """The machine has no such controller."""

    template = "USB support not enabled"


class NotPlaying(QmpError):
    """What happened was not recorded."""

    template = "setting the breakpoint is allowed only in play mode"


class NoBreakpoint(QmpError):
    """What happened was not recorded."""

    template = "replay breakpoints are allowed only in play mode"


class NoSeeking(QmpError):
    """What happened was not recorded."""

    template = "replay must be enabled to seek"


@command(since="1.2")
def query_cpu_definitions(context: Context) -> list[CpuDefinitionInfo]:
    """List the types of CPUs that a machine may have: none."""
    return []


@command(since="2.8")
def query_cpu_model_expansion(
    context: Context, *, type: CpuModelExpansionType, model: CpuModelInfo
) -> CpuModelExpansionInfo:
    """Describe a CPU; there are no types of CPUs.

    @type: how
    @model: the CPU
    """
    raise UnknownCpu(model.name)


@command(since="4.0")
def announce_self(
    context: Context,
    *,
    initial: int,
    max: int,
    rounds: int,
    step: int,
    interfaces: list[str] | None = None,
    id: str | None = None,
) -> None:
    """Tell the network where its cards are; nobody is on it.

    @initial: milliseconds before the second time
    @max: milliseconds between two times at most
    @rounds: how many times
    @step: milliseconds that are added each time
    @interfaces: the cards
    @id: a name for it
    """


@command(since="3.1")
def query_colo_status(context: Context) -> COLOStatus:
    """Tell whether another machine does the same: none does."""
    none = COLOMode.NONE
    return COLOStatus(mode=none, last_mode=none, reason=COLOExitReason.NONE)


@command(since="5.2")
def replay_break(context: Context, *, icount: int) -> None:
    """Stop at an instruction of what was recorded.

    @icount: its number
    """
    raise NotPlaying


@command(since="5.2")
def replay_delete_break(context: Context) -> None:
    """Do not stop at an instruction."""
    raise NoBreakpoint


@command(since="5.2")
def replay_seek(context: Context, *, icount: int) -> None:
    """Go to an instruction of what was recorded.

    @icount: its number
    """
    raise NoSeeking


@command(since="7.2", features=("unstable",))
def x_query_virtio(context: Context) -> list[VirtioInfo]:
    """List the virtio devices, the newest first."""
    buses = context.emu.devices.buses
    inner = [d.inner for bus in buses for d in bus.devices if d.inner is not None]
    return [
        VirtioInfo(path=each.path, name=each.model.name.removesuffix("-device"))
        for each in reversed(inner)
    ]


@command(since="7.1")
def query_stats(context: Context, options: AnyFilter) -> list[StatsResult]:
    """Return statistics of the guest: nobody keeps any."""
    return []


@command(since="7.1")
def query_stats_schemas(
    context: Context, *, provider: StatsProvider | None = None
) -> list[StatsSchema]:
    """Tell what statistics there are: none.

    @provider: who would keep them
    """
    return []


def _report(name: str, text: str, since: str = "6.2") -> Command:
    """Return a command that answers with a text for people."""

    def run(context: Context) -> HumanReadableText:
        """Tell of what the machine has nothing."""
        return HumanReadableText(human_readable_text=text)

    return command(name=name, since=since, features=("unstable",))(run)


x_query_irq = _report("x-query-irq", "")
x_query_numa = _report("x-query-numa", "0 nodes\n")
x_query_opcount = _report("x-query-opcount", "[TCG profiler not compiled]\n")
x_query_ramblock = _report(
    "x-query-ramblock",
    f"{'Block Name':>24} {'PSize':>8}  {'Offset':>18} {'Used':>18} {'Total':>18}\n",
)
x_query_rdma = _report("x-query-rdma", "")
x_query_roms = _report("x-query-roms", "")


@command(since="6.2", features=("unstable",))
def x_query_jit(context: Context) -> HumanReadableText:
    """Tell of the code that a guest's was turned into."""
    raise NoTranslator


@command(since="6.2", features=("unstable",))
def x_query_profile(context: Context) -> HumanReadableText:
    """Tell what the time was spent on."""
    raise NoProfiler


@command(since="6.2", features=("unstable",))
def x_query_usb(context: Context) -> HumanReadableText:
    """List the USB devices."""
    buses = [bus for bus in context.emu.devices.buses if bus.kind == "usb-bus"]
    if not buses:
        raise NoUsb
    rows = [_show_usb(device) for bus in buses for device in bus.devices if device.place]
    return HumanReadableText(human_readable_text="".join(rows))


def _show_usb(device: Device) -> str:
    """Return the line of a device, whose bus says most of that (info_usb, hw/usb/bus.c)."""
    place, _, name = device.tail.removesuffix(", attached").partition(", name ")
    address, port, speed = (each.split(" ")[1] for each in place.split(", "))
    id_ = f", ID: {device.id}" if device.id else ""
    return f"  Device {address}, Port {port}, Speed {speed} Mb/s, Product {name}{id_}\n"
