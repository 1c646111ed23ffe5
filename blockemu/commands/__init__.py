"""The QMP commands, a module for each family, imported when one of its commands is first named.

Those of the human monitor are in ``hmp`` and its like, imported when it is given a line.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockemu.qmp_server.dispatch import Registry


def load(imported: Callable[[], None] = lambda: None) -> "Registry":
    """Return the commands of all families, and the events of ``blockemu.schema``.

    ``imported`` is called when a family has come.
    """
    from blockemu.commands.families import FAMILIES
    from blockemu.drivers import import_all
    from blockemu.qmp_server.dispatch import Registry

    family_of = {name: family for family, names in FAMILIES.items() for name in names.split()}

    def import_family(name: str) -> ModuleType | None:
        if (family := family_of.get(name)) is None:
            return None
        module = importlib.import_module(f"{__name__}.{family}")
        imported()
        return module

    registry = Registry(import_family=import_family, import_rest=_import_all)
    registry.complete = import_all  # drivers' options are arguments, each known when it is given
    return registry


def _import_all() -> Iterator[ModuleType]:
    """Import all that declares commands and events, in the order in which they are listed."""
    from blockemu import schema
    from blockemu.qmp_server import control

    yield control
    for package in (schema, importlib.import_module(__name__)):
        for module in _modules(package.__path__):
            yield importlib.import_module(f"{package.__name__}.{module}")


def _modules(folders: Iterable[str]) -> list[str]:
    """Return the names of the modules in a package, sorted (start-up: pkgutil imports inspect)."""
    files = (name for folder in folders for name in os.listdir(folder))  # noqa: PTH208
    return sorted(
        name[:-3]
        for name in files
        if name.endswith(".py") and name != "__init__.py" and not name.startswith("hmp")
    )
