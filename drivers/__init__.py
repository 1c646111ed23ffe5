"""The block drivers, one module or package each; ``load_drivers`` finds them all.

A driver of another distribution announces its module by an entry point of the group
``blockemu.drivers``; importing the module makes its classes known, as it does for those here.

``LATE`` lets a driver of this folder wait until somebody uses it: a tool that opens one image needs
two of them, and importing all took a fifth of its start.  What is not listed is imported at once.
"""

import os
import sys
from functools import cache
from importlib import import_module
from typing import Any, Final

from blockemu.blockdev_options import BLOCKDEV
from blockemu.create_options import CREATE
from blockemu.node import Node
from blockemu.probing import Catalog, Late

if __name__ != "blockemu.drivers":
    raise ImportError(f"import blockemu.drivers, not {__name__}")

ENTRY_POINTS = "blockemu.drivers"
UNBUILT = "unbuilt"  # options only
LATE: Final[dict[str, Late]] = {
    "blkdebug": Late("blkdebug", protocols=("blkdebug",)),
    "blklogwrites": Late("blklogwrites"),
    "blkverify": Late("blkverify", protocols=("blkverify",)),
    "bochs": Late("bochs", magic=(0, b"Bochs Virtual HD Image"), probes=("probe",)),
    "compress": Late("compress"),
    "copy-before-write": Late("copy_before_write"),
    "copy-on-read": Late("copy_on_read"),
    "file": Late("file", protocols=("file",)),
    "host_device": Late("host_device", protocols=("host_device",), probes=("probe_device",)),
    "host_cdrom": Late("host_device", protocols=("host_cdrom",), probes=("probe_device",)),
    "luks": Late("luks", magic=(0, b"LUKS\xba\xbe"), probes=("probe",)),
    "nbd": Late("nbd", protocols=("nbd", "nbd+tcp", "nbd+unix")),
    "null-co": Late("null", protocols=("null-co",)),
    "null-aio": Late("null", protocols=("null-aio",)),
    "preallocate": Late("preallocate"),
    "qcow2": Late("qcow2", magic=(0, b"QFI\xfb"), probes=("probe",)),
    "quorum": Late("quorum"),
    "raw": Late("raw", probes=("probe",)),
    "snapshot-access": Late("snapshot_access"),
    "throttle": Late("throttle"),
    "vdi": Late("vdi", magic=(64, b"\x7f\x10\xda\xbe"), probes=("probe",)),
}


@cache
def load_drivers() -> Catalog:
    """Return all drivers by their names in ``BlockdevOptions``; those here are imported late."""
    late = {UNBUILT} | {entry.module for entry in LATE.values()}
    modules = (_module(name) for name in module_names() if name not in late)
    there = {tag: node for module in (*modules, *_foreign()) for tag, node in drivers_of(module)}
    return Catalog(LATE, _load, there)


@cache
def import_all() -> Catalog:
    """Import all drivers and all options: what introspection shows, and QMP's clients may use."""
    for name in module_names():
        _module(name)
    return load_drivers()


def module_names() -> list[str]:
    """Return the names of the modules in this folder, sorted."""
    names = {name.removesuffix(".py") for path in __path__ for name in _listed(path)}
    return sorted(name for name in names if name.isidentifier() and not name.startswith("__"))


def _import_options(tag: str) -> None:
    """Import where the options of a driver are, if it is one of ours."""
    _module(LATE[tag].module if tag in LATE else UNBUILT)


BLOCKDEV.late = CREATE.late = _import_options


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


def _load(tag: str) -> type[Node[Any]]:
    return dict(drivers_of(_module(LATE[tag].module)))[tag]


def drivers_of(module: object) -> list[tuple[str, type[Node[Any]]]]:
    """Return the drivers among a module's names: nodes with an options class of their own."""
    tags = {options: tag for tag, options in BLOCKDEV.cases.items()}
    return [
        (tags[node.Options], node)
        for node in vars(module).values()
        if isinstance(node, type) and issubclass(node, Node) and _options(node) in tags
    ]


def _options(node: type[Node[Any]]) -> Any:
    """Return the options class that a driver declares itself, None for a base class."""
    return vars(node).get("Options")


def _foreign() -> list[Any]:
    if not any(_announces_drivers(folder) for folder in sys.path):
        return []
    from importlib.metadata import entry_points  # late: to import it takes longer than to look

    return [import_module(entry.module) for entry in entry_points(group=ENTRY_POINTS)]


def _announces_drivers(folder: str) -> bool:
    """Tell whether a distribution installed in ``folder`` may have entry points for us."""
    mark = f"[{ENTRY_POINTS}]".encode()
    try:
        names = _listed(folder)
    except OSError:
        return False
    return any(mark in _read(folder, name) for name in names if name.endswith("-info"))


def _listed(folder: str) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208 (pathlib takes longer to import than this)


def _read(folder: str, distribution: str) -> bytes:
    """Return what a distribution announces, nothing if it announces nothing."""
    try:
        with open(f"{folder}/{distribution}/entry_points.txt", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""
