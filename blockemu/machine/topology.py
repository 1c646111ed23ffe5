"""How many CPUs a machine would have, and how they lie (after hw/core/machine-smp.c)."""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.machine.models import Machine
from blockemu.schema.machine_options import SMPConfiguration

_LEVELS: Final = ("sockets", "dies", "clusters", "cores", "threads")
_32_BITS: Final = (1 << 32) - 1
_LAST_XAPIC: Final = 255  # the largest number of a CPU without further extensions
_NOT_POSITIVE: Final = (
    "Deprecated CPU topology (considered invalid): "
    "CPU topology parameters must be greater than zero"
)


class Unsupported(QmpError):
    """(level): there is one at most."""

    template = "{} not supported by this machine's CPU topology"


class NoProduct(QmpError):
    """(levels, CPUs)."""

    template = (
        "Invalid CPU topology: product of the hierarchy must match maxcpus: {} != maxcpus ({})"
    )


class TooFew(QmpError):
    """(levels, most CPUs, CPUs)."""

    template = (
        "Invalid CPU topology: maxcpus must be equal to or greater than smp: "
        "{} == maxcpus ({}) < smp_cpus ({})"
    )


class TooMany(QmpError):
    """(CPUs, machine, most CPUs)."""

    template = "Invalid SMP CPUs {}. The max CPUs supported by machine '{}' is {}"


class NeedsX2apic(QmpError):
    """There would be CPUs with numbers of more than eight bits."""

    template = "current -smp configuration requires kernel irqchip and X2APIC API support."


class Place(NamedTuple):
    """Where a CPU is."""

    socket: int
    die: int
    core: int
    thread: int


class Topology(NamedTuple):
    """How many there are: CPUs, CPUs at most, and of each level within the one above."""

    cpus: int = 1
    maxcpus: int = 1
    sockets: int = 1
    dies: int = 1
    clusters: int = 1
    cores: int = 1
    threads: int = 1

    def places(self) -> Iterator[Place]:
        """Yield the places for CPUs, in order."""
        for number in range(self.maxcpus):
            core, thread = divmod(number, self.threads)
            die, core = divmod(core, self.cores)
            socket, die = divmod(die, self.dies)
            yield Place(socket, die, core, thread)

    def number(self, place: Place) -> int:
        """Return the number that a CPU's interrupt controller has, each level in bits."""
        found = place.socket
        for part, size in (
            (place.die, self.dies),
            (place.core, self.cores),
            (place.thread, self.threads),
        ):
            found = found << (size - 1).bit_length() | part
        return found

    def check_numbers(self) -> None:
        """Refuse what has more CPUs than can be told apart.  Raises NeedsX2apic."""
        if self.number(list(self.places())[-1]) >= _LAST_XAPIC:
            raise NeedsX2apic


def arrange(given: SMPConfiguration, machine: Machine, warn: Callable[[str], None]) -> Topology:
    """Return what is said of CPUs, with all that was not said.

    Raises:
        QmpError: it cannot be, or the machine has no room for it.

    """
    said = {name: getattr(given, name) for name in ("cpus", "maxcpus", *_LEVELS)}
    if 0 in said.values():
        warn(_NOT_POSITIVE)
    said = {name: (value or 0) & _32_BITS for name, value in said.items()}
    if machine.name.endswith("microvm") or machine.name in ("none", "x-remote"):
        _refuse_level(said, "dies")
    _refuse_level(said, "clusters")
    found = _complete(said, prefers_sockets=_prefers_sockets(machine.name))
    _check(found, machine)
    return found


def _refuse_level(said: dict[str, int], name: str) -> None:
    if said[name] > 1:
        raise Unsupported(name)


def _prefers_sockets(name: str) -> bool:
    """Tell whether CPUs are sockets rather than cores, as in machines before 6.2."""
    version = re.search(r"-(\d+)\.(\d+)(?:\.\d+)?$", name)
    return version is not None and (int(version[1]), int(version[2])) < (6, 2)


def _complete(said: dict[str, int], *, prefers_sockets: bool) -> Topology:
    cpus, most = said["cpus"], said["maxcpus"]
    sockets, cores, threads = said["sockets"], said["cores"], said["threads"]
    dies, clusters = said["dies"] or 1, said["clusters"] or 1
    if not cpus and not most:
        sockets, cores, threads = sockets or 1, cores or 1, threads or 1
    else:
        most = most or cpus
        if prefers_sockets and not sockets:
            cores, threads = cores or 1, threads or 1
            sockets = most // (dies * clusters * cores * threads)
        elif not cores:
            sockets, threads = sockets or 1, threads or 1
            cores = most // (sockets * dies * clusters * threads)
        elif not sockets:
            threads = threads or 1
            sockets = most // (dies * clusters * cores * threads)
        threads = threads or most // (sockets * dies * clusters * cores)
    most = most or sockets * dies * clusters * cores * threads
    return Topology(cpus or most, most, sockets, dies, clusters, cores, threads)


def _check(found: Topology, machine: Machine) -> None:
    most, cpus = found.maxcpus, found.cpus
    shown = [name for name in _LEVELS if name != "clusters"]
    if machine.name in ("none", "microvm", "x-remote"):
        shown.remove("dies")
    text = " * ".join(f"{name} ({getattr(found, name)})" for name in shown)
    if found.sockets * found.dies * found.clusters * found.cores * found.threads != most:
        raise NoProduct(text, most)
    if most < cpus:
        raise TooFew(text, most, cpus)
    if most > machine.cpus:
        raise TooMany(most - (most >> 31 << 32), machine.name, machine.cpus)
