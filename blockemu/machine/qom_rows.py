"""The types of devices as the object tree has them, with the classes that they derive from."""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any, TypeGuard

from blockemu.machine.board import ABSTRACT, KNOWN
from blockemu.machine.device import specimen
from blockemu.machine.machine_types import machine_types
from blockemu.qom import Object
from blockemu.qom_types import TYPES, Type


@cache
def all_types() -> Mapping[str, Type]:
    """Return the types that a machine has: objects, devices, buses and machines themselves."""
    rows = {**TYPES, **machine_types()}
    for model in KNOWN.values():
        line = [each for each in type(specimen(model)).__mro__ if _has_properties(each)]
        for each, above in pairwise(line):
            abstract = each.TYPE in ABSTRACT
            rows.setdefault(each.TYPE, Type(each.TYPE, each, above.TYPE, abstract=abstract))
    return rows


def _has_properties(cls: type[Any]) -> TypeGuard[type[Object]]:
    return "PROPERTIES" in vars(cls)
