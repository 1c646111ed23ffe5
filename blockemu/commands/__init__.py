"""The QMP commands, a module for each family; ``load`` finds them all.

Those of the human monitor are in ``hmp`` and its like, imported when it is given a line.
"""

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockemu.qmp_server.dispatch import Registry


def load() -> "Registry":
    """Import all families; return their commands, and the events of ``blockemu.schema``."""
    from blockemu import schema
    from blockemu.drivers import import_all
    from blockemu.qmp_server import control
    from blockemu.qmp_server.dispatch import Registry

    registry = Registry()
    registry.complete = import_all  # drivers' options are arguments, each known when it is given
    registry.collect(control)
    for package in (schema, importlib.import_module(__name__)):
        for module in _modules(package.__path__):
            registry.collect(importlib.import_module(f"{package.__name__}.{module}"))
    return registry


def _modules(folders: Iterable[str]) -> list[str]:
    """Return the names of the modules in a package, sorted (start-up: pkgutil imports inspect)."""
    files = (name for folder in folders for name in os.listdir(folder))  # noqa: PTH208
    return sorted(
        name[:-3]
        for name in files
        if name.endswith(".py") and name != "__init__.py" and not name.startswith("hmp")
    )
