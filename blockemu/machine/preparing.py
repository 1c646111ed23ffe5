"""A machine before it has any devices: its own object, its CPUs, its memory."""

from collections.abc import Callable

from blockemu.machine.hardware import (
    MOST_MEMORY,
    Hardware,
    MachineMemory,
    MemoryMissing,
    TooMuchMemory,
)
from blockemu.machine.machine_options import MachineOptions
from blockemu.machine.machine_settings import MachineSettings
from blockemu.machine.machine_types import Typed, make_machine
from blockemu.machine.models import Model, machine_called
from blockemu.objects.qom import Tree
from blockemu.objects.user_object import UserObject
from blockemu.records import field, record


def _silent(text: str) -> None:
    """Drop a warning that nobody would read."""


@record
class Prepared:
    """What there is: the machine, its hardware, and what is in its flash chips."""

    machine: Typed | None = None
    hardware: Hardware = field(default_factory=Hardware)
    flashes: dict[int, str] = field(default_factory=dict)
    sized: bool = False  # whether it was said how much memory there is
    memory: str = ""  # the object that is its memory, if one was named
    warn: Callable[[str], None] = _silent


def prepare(
    options: MachineOptions,
    model: Model,
    cpu: str | None = None,
    warn: Callable[[str], None] = _silent,
) -> Prepared:
    """Apply what was said of a machine.

    Raises:
        QmpError: it cannot be so.
        ProtocolError: a value is not of the type.

    """
    if not model.name:
        return Prepared()
    found, kind = Prepared(make_machine(model.name), warn=warn), machine_called(model.name)
    assert found.machine is not None
    settings = MachineSettings()
    settings.apply(options, found.machine, kind, model.flashes, warn)
    found.sized = settings.sized
    found.flashes, found.memory = settings.flashes, settings.backend
    hardware = found.hardware
    hardware.topology = settings.topology
    hardware.nodes = int(kind.plugs_cpus and bool(settings.slots or settings.backend))
    hardware.memory = settings.memory
    hardware.choose(kind, cpu)
    return found


def give_memory(found: Prepared, qom: Tree) -> None:
    """Make the object that is the machine's memory, or find it.

    Raises:
        QmpError: there is none of the name, or there can be none.

    """
    machine, objects = found.machine, qom.container("objects")
    if machine is None:
        return
    if found.memory:
        backend = objects.child(found.memory.removeprefix("/objects/"))
        if not isinstance(backend, UserObject) or "memory-backend" not in backend.TYPE:
            raise MemoryMissing(found.memory)
        backend.users += 1
        if not found.sized:
            found.hardware.memory = backend.get("size")
            machine.values["memory"] = {"size": found.hardware.memory}
        machine.values["memory-backend"] = backend.path
        return
    name = machine_called(machine.TYPE.removesuffix("-machine")).memory
    if found.hardware.memory >= MOST_MEMORY:
        raise TooMuchMemory(name)
    if name and found.hardware.memory and objects.child(name) is None:
        memory = MachineMemory(found.hardware.memory)
        objects.add_child(name, memory)
        machine.values["memory-backend"] = memory.path
