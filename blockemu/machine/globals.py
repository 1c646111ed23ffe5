"""``-global``: values that all devices of a type begin with.

After qdev_prop_set_globals, hw/core/qdev-properties.c.
"""

import re
from collections.abc import Callable
from typing import Final

from blockemu.errors import QmpError
from blockemu.machine.device import Device
from blockemu.machine.device_errors import NoSuchProperty
from blockemu.machine.types import DeviceType
from blockemu.optlist import parse_options
from blockemu.records import field, record


class CannotApply(QmpError):
    """(type, property, value, why)."""

    template = "can't apply global {}.{}={}: {}"


class Conflict(QmpError):
    """(type, property, value)."""

    template = "-global {}.{}=... conflicts with {}={}"


class NoOverride(QmpError):
    """(property, value)."""

    template = "{}={} conflicts, and override is not implemented"


class Incomplete(QmpError):
    """Too little was said."""

    template = "options 'driver', 'property', and 'value' are required"


@record
class Global:
    """A value: the type, the property, the text."""

    driver: str
    name: str
    value: str


@record
class Globals:
    """All of them, in the order in which they were given."""

    rows: list[Global] = field(default_factory=list)

    def of(self, model: DeviceType) -> list[Global]:
        """Return those of a type, and of the types that it derives from."""
        names = {level.name for level in model.levels} | {"device", "object"}
        return [row for row in self.rows if row.driver in names]

    def apply(self, device: Device, put: Callable[[Device, str, str], None]) -> None:
        """Give a device, and before it the one behind it, their values.

        Raises:
            CannotApply: it does not take one; one that is plugged in later goes on without it.

        """
        inner = device.model.inner
        for row in [*(self.of(inner) if inner else ()), *self.of(device.model)]:
            try:
                put(device, row.name, row.value)
            except NoSuchProperty as e:
                if row.name not in {
                    spec.name for spec in device.model.told
                }:  # else it would do nothing
                    raise CannotApply(row.driver, row.name, row.value, e) from e
            except QmpError as e:
                if not device.hotplugged:
                    raise CannotApply(row.driver, row.name, row.value, e) from e

    def check_conflict(self, device: Device, name: str, value: str) -> None:
        """Refuse a value in the place of one that a global gave.

        Raises:
            QmpError: in QEMU's words.

        """
        row = next((each for each in self.of(device.model) if each.name == name), None)
        if row is not None:
            raise Conflict(row.driver, name, name, value)
        raise NoOverride(name, value)


_PARTS: Final = frozenset({"driver", "property", "value"})


def parse_global(text: str, warn: Callable[[str], None]) -> Global:
    """Read ``type.property=value``, or the three as options (qemu_global_option).

    Raises:
        QmpError: one of the three is missing.

    """
    found = re.match(r"([^.=]{1,63})\.([^=]{1,63})=(.*)", text, re.DOTALL)
    if found is not None:
        return Global(found[1], found[2], found[3])
    options = parse_options(text, "", dict.fromkeys(_PARTS, "string"), warn)
    if not options.keys() >= _PARTS:
        raise Incomplete
    return Global(options["driver"], options["property"], options["value"])
