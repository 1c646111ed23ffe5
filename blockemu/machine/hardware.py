"""The CPUs and the memory that a machine is said to have: objects that may be looked at.

No CPU runs, and nothing is in the memory.  After x86_cpus_init, hw/i386/x86.c, parse_cpu_option,
cpu.c, and x86_cpu_parse_featurestr, target/i386/cpu.c.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from blockemu.errors import QmpError
from blockemu.machine.device_errors import Expects
from blockemu.machine.globals import CannotApply
from blockemu.machine.models import Machine
from blockemu.machine.topology import Place, Topology
from blockemu.objects.qom import NoSuchProperty, Object, Property
from blockemu.objects.user_object import UserObject

if TYPE_CHECKING:
    from blockemu.objects.memory import MemoryBackend

_SUFFIX: Final = "-x86_64-cpu"
_ONE_THREAD: Final = ("qemu64", "max", "athlon", "phenom", "Opteron")  # AMD's, without topoext
_RANGES: Final = {"family": 0xFF + 0xF, "model": 0xFF, "stepping": 0xF}
_VENDOR: Final = 12  # letters
MOST_MEMORY: Final = 1 << 47  # that a program of the host's could have
_NUMBERS: Final = ("int", "int32", "uint8", "uint16", "uint32", "uint64")


class EmptyCpu(QmpError):
    """The option says nothing."""

    template = "-cpu option cannot be empty"


class UnknownCpu(QmpError):
    """(model)."""

    template = "unable to find CPU model '{}'"


class NeedsHost(QmpError):
    """(model)."""

    template = "CPU model '{}' requires KVM or HVF"


class BadNumber(QmpError):
    """(property, value, most)."""

    template = "Property .{} doesn't take value {} (minimum: 0, maximum: {})"


class BadVendor(QmpError):
    """(value)."""

    template = "Property '.vendor' doesn't take value '{}'"


class TooMuchMemory(QmpError):
    """(name of the memory): no program could have it."""

    template = "cannot set up guest memory '{}': Cannot allocate memory"


class NoApicNumber(QmpError):
    """A CPU in a machine that has no place for it."""

    template = "apic-id property was not initialized properly"


class MemoryMissing(QmpError):
    """(object)."""

    template = "Memory backend '{}' not found"


class Processor(Object):
    """A CPU; what it can do nobody can try, so most of its properties say no."""

    number = 0
    place = Place(0, 0, 0, 0)
    known: Mapping[str, Any] = {}

    @property
    def _properties(self) -> dict[str, Property]:
        from blockemu.machine.type_facts import rows_of  # few look at a CPU

        return {row.name: self._property(row.name, row.type) for row in rows_of(self.TYPE)}

    def _property(self, name: str, type_: str) -> Property:
        nothing = False if type_ == "bool" else 0 if type_ in _NUMBERS else ""
        value = self.known.get(name, nothing)
        return Property(name, type_, type(value), lambda cpu: value)

    def property(self, name: str) -> Property | None:
        """Return a property that is no child."""
        return self._properties.get(name)

    def list_properties(self) -> list[tuple[str, str]]:
        """Return (name, type) of all properties as ``qom-list`` orders them."""
        return [(each.name, each.type) for each in self._properties.values()]


class MachineMemory(UserObject):
    """The memory of a machine that was not given an object for it."""

    TYPE = "memory-backend-ram"
    users = 1

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    @cached_property
    def backend(self) -> "MemoryBackend":
        """What tells of it."""
        from blockemu.objects.memory import MemoryBackendRam  # few look at it

        made = MemoryBackendRam()
        made.size = self._size
        return made

    def property(self, name: str) -> Property | None:
        """Return a property that is no child."""
        found = self.backend.property(name)
        return found and found._replace(read=lambda memory: found.read(memory.backend), write=None)

    def list_properties(self) -> list[tuple[str, str]]:
        """Return (name, type) of all properties as ``qom-list`` orders them."""
        return self.backend.list_properties()


class Hardware:
    """What a machine has of both; nothing, until it is told."""

    def __init__(self) -> None:
        self.cpu_type = ""
        self.topology = Topology()
        self.memory = 0  # bytes
        self.nodes = 0  # of CPUs and memory that are near to each other
        self.accelerated = False  # whether the host's own CPU would run it
        self.plugs = False  # whether CPUs may come and go
        self.cpus: list[Processor] = []
        self.looked_at = 0  # the CPU that a human looks at
        self._features: dict[str, Any] = {}

    def choose(self, machine: Machine, option: str | None) -> None:
        """Take ``-cpu``, or what the machine has without it.

        Raises:
            QmpError: there is no such CPU.

        """
        self.cpu_type, self.plugs = machine.cpu, machine.plugs_cpus
        if option is None:
            return
        model, _, features = option.partition(",")
        if not option:
            raise EmptyCpu
        from blockemu.machine.type_facts import known_types  # few say which CPU they want

        found = known_types().get(f"{model}{_SUFFIX}")
        if found is None or found.abstract:
            raise UnknownCpu(model)
        self.cpu_type = found.name
        self._features = _parse_features(features)
        if machine.name == "none":
            self._check_features()
            raise NoApicNumber

    def make_cpus(self, warn: Callable[[str], None]) -> Iterator[Processor]:
        """Make the CPUs that are there from the start.

        Raises:
            QmpError: they lack what they were told, or cannot be here.

        """
        if not self.cpu_type:
            return
        if self._features:
            self._check_features()
        if self.cpu_type == f"host{_SUFFIX}" and not self.accelerated:
            raise NeedsHost("host")
        if self.topology.threads > 1 and self.cpu_type.startswith(_ONE_THREAD):
            warn(
                f"This family of AMD CPU doesn't support hyperthreading({self.topology.threads})\n"
                "Please configure -smp options properly or try enabling topoext feature."
            )
        kind = type("Processor", (Processor,), {"TYPE": self.cpu_type})
        for number, place in enumerate(self.topology.places()):
            if number == self.topology.cpus:
                return
            cpu = kind()
            cpu.number, cpu.place = number, place
            cpu.known = {**self._known(place), **self._features}
            self.cpus.append(cpu)
            yield cpu

    def _known(self, place: Place) -> dict[str, Any]:
        return {
            "type": self.cpu_type,
            "realized": True,
            "hotpluggable": self.plugs,
            "socket-id": place.socket,
            "die-id": place.die,
            "core-id": place.core,
            "thread-id": place.thread,
            "node-id": self.nodes - 1,
            "apic-id": self.topology.number(place),
        }

    def _check_features(self) -> None:
        from blockemu.machine.type_facts import rows_of  # few say what a CPU is to have

        types = {row.name: row.type for row in rows_of(self.cpu_type)}
        for name, value in self._features.items():
            missing = NoSuchProperty(self.cpu_type, name)
            if isinstance(value, bool):
                if name not in types:
                    raise missing
                continue
            if name not in types:
                raise CannotApply(self.cpu_type, name, value, missing)
            self._features[name] = self._feature(name, types[name], value)

    def _feature(self, name: str, type_: str, value: str) -> Any:
        from blockemu.machine.property_values import parse_value

        try:
            found = parse_value(self.cpu_type, name, "int64" if type_ == "int" else type_, value)
            if name in _RANGES and not 0 <= found <= _RANGES[name]:
                raise BadNumber(name, found, _RANGES[name])
        except Expects as e:
            wide = "int64" if type_.startswith("int") else "uint64"
            raise CannotApply(self.cpu_type, name, value, Expects(name, wide)) from e
        except QmpError as e:
            raise CannotApply(self.cpu_type, name, value, e) from e
        if name == "vendor" and len(found) != _VENDOR:
            raise CannotApply(self.cpu_type, name, value, BadVendor(value))
        return found


def _parse_features(text: str) -> dict[str, Any]:
    """Return what is to be there (True), or not (False), and values of others."""
    found: dict[str, Any] = {}
    switches: dict[str, Any] = {}
    for word in text.split(","):
        if word[:1] in ("+", "-"):
            switches[word[1:]] = word[0] == "+"
        elif word:
            name, equals, value = word.partition("=")
            found[name.replace("_", "-")] = value if equals else "on"
    return found | switches
