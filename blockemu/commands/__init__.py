"""The QMP commands, a module for each family; ``load`` finds them all."""

import importlib
import pkgutil
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
        for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
            registry.collect(importlib.import_module(f"{package.__name__}.{module}"))
    return registry
