"""The block drivers, one module or package each; ``load_drivers`` finds them all.

A driver of another distribution announces its module by an entry point of the group
``blockemu.drivers``; importing the module makes its classes known, as it does for those here.
"""

import os
import sys
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from blockemu.blockdev_options import BLOCKDEV
from blockemu.node import Node
from blockemu.probing import Drivers

if __name__ != "blockemu.drivers":
    raise ImportError(f"import blockemu.drivers, not {__name__}")

ENTRY_POINTS = "blockemu.drivers"


@cache
def load_drivers() -> Drivers:
    """Import all drivers and return them by their names in ``BlockdevOptions``."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return {tag: node for module in (*modules, *_foreign()) for tag, node in drivers_of(module)}


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
        names = os.listdir(folder)  # noqa: PTH208 (pathlib takes longer to import than this)
    except OSError:
        return False
    return any(mark in _read(folder, name) for name in names if name.endswith("-info"))


def _read(folder: str, distribution: str) -> bytes:
    """Return what a distribution announces, nothing if it announces nothing."""
    try:
        with open(f"{folder}/{distribution}/entry_points.txt", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""
