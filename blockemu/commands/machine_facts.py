"""What tools ask of a machine besides its disks: what it was told of CPUs, memory and mice."""

import threading
from typing import Any

from blockemu.commands.context import Context
from blockemu.commands.machine import NoBalloon
from blockemu.errors import QmpError
from blockemu.machine.hardware import Hardware
from blockemu.machine.models import machines
from blockemu.machine.topology import Place
from blockemu.objects.object_add import IoThread
from blockemu.qmp_server.dispatch import command
from blockemu.schema.machine_facts import (
    CPU,
    ACPIOSTInfo,
    AnyCpu,
    BalloonInfo,
    CpuInstanceProperties,
    CurrentMachineParams,
    GuidInfo,
    HotpluggableCPU,
    IOThreadInfo,
    KvmInfo,
    MachineInfo,
    MemoryInfo,
    MouseInfo,
    PRManagerInfo,
    ReplayInfo,
    ReplayMode,
    SpiceInfo,
    SpiceQueryMouseMode,
    SysEmuTarget,
    TargetInfo,
    TPMInfo,
    TpmModel,
    TpmType,
    VncInfo,
)


class FeatureDisabled(QmpError):
    """The machine cannot do this."""

    template = "The feature '{}' is not enabled"


class NoAcpi(QmpError):
    """There is no such device."""

    template = "command is not supported, missing ACPI device"


class NoGeneration(QmpError):
    """There is no such device."""

    template = "VM Generation ID device not found"


@command(since="1.5")
def query_tpm(context: Context) -> list[TPMInfo]:
    """List the TPMs: none."""
    return []


@command(since="1.5")
def query_tpm_models(context: Context) -> list[TpmModel]:
    """List the devices that TPMs may be reached by: none."""
    return []


@command(since="1.5")
def query_tpm_types(context: Context) -> list[TpmType]:
    """List what may be behind a TPM: nothing."""
    return []


@command(since="1.2")
def query_machines(context: Context) -> list[MachineInfo]:
    """List the types of machines, as QEMU's table of types has them."""
    from blockemu.machine.type_facts import known_types  # few ask

    places = {name.removesuffix("-machine"): i for i, name in enumerate(known_types())}
    return [
        MachineInfo(
            name=each.name,
            alias=each.alias or None,
            is_default=each.default or None,
            cpu_max=each.cpus,
            hotpluggable_cpus=each.plugs_cpus,
            numa_mem_supported=each.splits_memory,
            deprecated=each.deprecated,
            default_cpu_type=each.cpu or None,
            default_ram_id=each.memory or None,
        )
        for each in sorted(machines(), key=lambda one: -places[one.name])
    ]


@command(since="4.0")
def query_current_machine(context: Context) -> CurrentMachineParams:
    """Tell what depends on the machine's type."""
    return CurrentMachineParams(wakeup_suspend_support=context.emu.machine.can_sleep)


@command(since="0.14")
def query_kvm(context: Context) -> KvmInfo:
    """Tell whether KVM runs the CPUs: there are none."""
    return KvmInfo(enabled=False, present=False)


@command(since="1.2")
def query_target(context: Context) -> TargetInfo:
    """Tell the architecture that the devices are of."""
    return TargetInfo(arch=SysEmuTarget.X86_64)


@command(since="2.12")
def query_cpus_fast(context: Context) -> list[AnyCpu]:
    """List the CPUs, which one thread has to stand for."""
    hardware = context.emu.devices.hardware
    kind: Any = CPU.find("x86_64")
    return [
        kind(
            cpu_index=cpu.number,
            qom_path=cpu.path,
            thread_id=threading.get_native_id(),
            props=_where(hardware, cpu.place),
        )
        for cpu in hardware.cpus
    ]


def _where(hardware: Hardware, place: Place) -> CpuInstanceProperties:
    return CpuInstanceProperties(
        node_id=0 if hardware.nodes else None,
        socket_id=place.socket,
        die_id=place.die if hardware.topology.dies > 1 else None,
        core_id=place.core,
        thread_id=place.thread,
    )


@command(since="2.7", allow_preconfig=True)
def query_hotpluggable_cpus(context: Context) -> list[HotpluggableCPU]:
    """List the places for CPUs, the last one first."""
    hardware = context.emu.devices.hardware
    if not hardware.plugs:
        raise FeatureDisabled("query-hotpluggable-cpus")
    paths = [cpu.path for cpu in hardware.cpus]
    places = list(hardware.topology.places())
    return [
        HotpluggableCPU(
            type=hardware.cpu_type,
            vcpus_count=1,
            props=_where(hardware, place),
            qom_path=paths[number] if number < len(paths) else None,
        )
        for number, place in reversed(list(enumerate(places)))
    ]


@command(since="2.11")
def query_memory_size_summary(context: Context) -> MemoryInfo:
    """Tell how much memory there is."""
    return MemoryInfo(base_memory=context.emu.devices.hardware.memory, plugged_memory=0)


@command(since="2.1")
def query_acpi_ospm_status(context: Context) -> list[ACPIOSTInfo]:
    """Tell what the guest said of slots: there are none."""
    raise NoAcpi


@command(since="0.14")
def query_vnc(context: Context) -> VncInfo:
    """Tell about the VNC server: there is none."""
    return VncInfo(enabled=False)


@command(since="0.14")
def query_spice(context: Context) -> SpiceInfo:
    """Tell about the SPICE server: there is none."""
    return SpiceInfo(enabled=False, migrated=False, mouse_mode=SpiceQueryMouseMode.CLIENT)


@command(since="0.14")
def query_mice(context: Context) -> list[MouseInfo]:
    """List the mice, the last one first."""
    found = list(context.emu.devices.listeners.mice())
    return [
        MouseInfo(name=each.name, index=each.number, current=current, absolute=each.absolute)
        for each, current in reversed(found)
    ]


@command(since="0.14")
def query_balloon(context: Context) -> BalloonInfo:
    """Tell what the balloon leaves: there is none."""
    raise NoBalloon


@command(since="2.9")
def query_vm_generation_id(context: Context) -> GuidInfo:
    """Tell the machine's generation: nobody keeps it."""
    raise NoGeneration


@command(since="2.0", allow_preconfig=True)
def query_iothreads(context: Context) -> list[IOThreadInfo]:
    """List the I/O threads; ours all do their work in the one there is."""
    found = [o for o in context.emu.qom.container("objects").children if isinstance(o, IoThread)]
    return [
        IOThreadInfo(
            id=each.name,
            thread_id=threading.get_native_id(),
            poll_max_ns=each.poll_max_ns,
            poll_grow=each.poll_grow,
            poll_shrink=each.poll_shrink,
            aio_max_batch=each.aio_max_batch,
        )
        for each in found
    ]


@command(since="3.0")
def query_pr_managers(context: Context) -> list[PRManagerInfo]:
    """List the helpers for persistent reservations: none."""
    return []


@command(since="5.2")
def query_replay(context: Context) -> ReplayInfo:
    """Tell whether what happens is recorded: it is not."""
    return ReplayInfo(mode=ReplayMode.NONE, icount=0)
