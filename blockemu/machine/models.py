"""Machines: their names, their buses, and what the default drives go to."""

import re
from typing import Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.machine.fixtures import ISAPC, PC, Q35, Fixture


class UnsupportedMachine(QmpError):
    """No such machine."""

    template = "unsupported machine type\nUse -machine help to list supported machines"


class Model(NamedTuple):
    """A machine.

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
    """A machine as lists of them have it: its names, and how many CPUs it might have."""

    name: str
    alias: str = ""
    default: bool = False
    cpus: int = 1


MACHINES: Final = (
    Machine("none"),
    Machine("pc-q35-7.2", "q35", cpus=288),
    Machine("pc-i440fx-7.2", "pc", default=True, cpus=255),
    Machine("isapc"),
    Machine("microvm", cpus=288),
)
HELP: Final = """\
Supported machines are:
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
none                 empty machine
"""
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
            return found
    raise UnsupportedMachine
