"""Machines: their names, their buses, and what the default drives go to."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.machine.fixtures import ISAPC, PC, Q35, Fixture


class UnsupportedMachine(QmpError):
    """No such machine."""

    template = "unsupported machine type\nUse -machine help to list supported machines"


class Model(NamedTuple):
    """A machine; ``name`` is the one that was asked for.

    ``interface``: that of a drive without ``if``.  ``first``, ``floppy``: the numbers that its
    first IDE drive and its first floppy have among the devices without a place of their own, if it
    has nothing else; ``cards_first``: whether display and network get theirs before.  ``units``:
    disks on an IDE bus.  ``flashes``: how many flash chips may hold its firmware.  ``lacks``: the
    defaults that it does not have.  ``sleeps``: whether its guest can be put to sleep.
    """

    fixtures: tuple[Fixture, ...] = ()
    interface: str = "none"
    first: int = 0
    floppy: int = 0
    flashes: int = 0
    cards_first: bool = True
    units: int = 2
    lacks: frozenset[str] = frozenset()
    sleeps: bool = False
    name: str = ""


_PC: Final = Model(PC, "ide", first=18, floppy=13, flashes=2, sleeps=True)
_ISAPC: Final = _PC._replace(fixtures=ISAPC, flashes=0, first=16, floppy=10, sleeps=False)
_Q35: Final = Model(
    Q35,
    "ide",
    first=16,
    flashes=2,
    cards_first=False,
    units=1,
    lacks=frozenset({"floppy"}),
    sleeps=True,
)
_NONE: Final = Model(lacks=frozenset({"floppy", "cdrom", "sdcard"}))
_MICROVM: Final = Model(lacks=frozenset({"floppy"}))
_MODELS: Final = (
    (r"pc|pc-i440fx-\d+\.\d+", _PC),
    (r"isapc", _ISAPC),
    (r"q35|pc-q35-\d+\.\d+(\.\d+)?", _Q35),
    (r"none|x-remote", _NONE),
    (r"microvm", _MICROVM),
)


class Machine(NamedTuple):
    """A machine as lists of them have it: its names, what it is, how many CPUs it might have.

    ``cpu``: the type of CPU that it has; ``memory``: what its memory is called.
    """

    name: str
    text: str
    alias: str = ""
    default: bool = False
    cpus: int = 1
    deprecated: bool = False
    cpu: str = ""
    memory: str = ""

    @property
    def plugs_cpus(self) -> bool:
        """Tell whether its CPUs may come and go."""
        return self.name.startswith(("pc-", "isapc"))

    @property
    def splits_memory(self) -> bool:
        """Tell whether a node may be told how much memory it has (-numa node,mem=...)."""
        found = re.search(r"-(\d+)\.(\d+)(?:\.\d+)?$", self.name)
        return found is not None and (int(found[1]), int(found[2])) < (5, 1)


_VERSIONS: Final = (
    *("7.2", "7.1", "7.0", "6.2", "6.1", "6.0", "5.2", "5.1", "5.0"),
    *("4.2", "4.1", "4.0.1", "4.0", "3.1", "3.0", "2.9", "2.8", "2.7", "2.6", "2.5", "2.4"),
    *("2.3", "2.2", "2.12", "2.11", "2.10", "2.1", "2.0", "1.7", "1.6", "1.5", "1.4"),
)
_Q35_LACKS: Final = frozenset(["2.3", "2.2", "2.1", "2.0", "1.7", "1.6", "1.5", "1.4"])
_FEWER_CPUS: Final = frozenset(["2.4", "2.5", "2.6", "2.7"])
_CPU: Final = "qemu64-x86_64-cpu"
_RAM: Final = "pc.ram"
_PC_TEXT: Final = "Standard PC (i440FX + PIIX, 1996)"
_Q35_TEXT: Final = "Standard PC (Q35 + ICH9, 2009)"


def _list() -> Iterator[Machine]:
    yield Machine("microvm", "microvm (i386)", cpus=288, cpu=_CPU, memory="microvm.ram")
    newest = _VERSIONS[0]
    for version in _VERSIONS:
        if version.count(".") == 1:
            new = version == newest
            yield Machine(
                f"pc-i440fx-{version}",
                _PC_TEXT,
                "pc" if new else "",
                default=new,
                cpus=255,
                deprecated=version.startswith("1."),
                cpu=_CPU,
                memory=_RAM,
            )
    for version in _VERSIONS:
        if version not in _Q35_LACKS:
            alias = "q35" if version == newest else ""
            cpus = 255 if version in _FEWER_CPUS else 288
            yield Machine(f"pc-q35-{version}", _Q35_TEXT, alias, cpus=cpus, cpu=_CPU, memory=_RAM)
    yield Machine("isapc", "ISA-only PC", cpu="486-x86_64-cpu", memory=_RAM)
    yield Machine("none", "empty machine", memory="ram")
    yield Machine("x-remote", "Experimental remote machine")


def machines() -> tuple[Machine, ...]:
    """Return all machines, in the order of ``-machine help``."""
    return tuple(_list())


def machine_called(name: str) -> Machine:
    """Return the machine of a name or an alias.

    Raises:
        UnsupportedMachine: there is none.

    """
    found = next((each for each in machines() if name in (each.name, each.alias)), None)
    if found is None or not name:
        raise UnsupportedMachine
    return found


def describe_machines() -> str:
    """Return what ``-machine help`` prints."""
    rows = ["Supported machines are:"]
    for each in machines():
        if each.alias:
            rows.append(f"{each.alias:<20} {each.text} (alias of {each.name})")
        more = " (default)" * each.default + " (deprecated)" * each.deprecated
        rows.append(f"{each.name:<20} {each.text}{more}")
    return "\n".join([*rows, ""])


DEFAULT: Final = "pc"


def stream_name(name: str, version: tuple[int, ...]) -> str:
    """Return what a migration's stream calls a machine of a version.

    The empty one has nothing but disks, and is what QEMU's is.  Others are marked: QEMU's have
    memory and devices, and could not be what comes from here.
    """
    if name == "none":
        return name
    current = f"{version[0]}.{version[1]}"
    long = {"pc": f"pc-i440fx-{current}", "q35": f"pc-q35-{current}"}.get(name, name)
    return f"blockemu-{long}"


def model(name: str) -> Model:
    """Return the machine of a name.

    Raises:
        UnsupportedMachine: there is none.

    """
    for pattern, found in _MODELS:
        if re.fullmatch(pattern, name):
            return found._replace(name=name)
    raise UnsupportedMachine
