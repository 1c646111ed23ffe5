"""What the command line says of the machine itself: its name, and what becomes of its end."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from blockemu.errors import QmpError
from blockemu.optlist import parse_options
from blockemu.records import record

if TYPE_CHECKING:
    from blockemu.machine.models import Model
    from blockemu.runstate import Machine

_WATCHDOG: Final = ("reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi")
_ACTIONS: Final = {
    "reboot": ("reset", "shutdown"),
    "shutdown": ("poweroff", "pause"),
    "panic": ("pause", "shutdown", "exit-failure", "none"),
    "watchdog": _WATCHDOG,
}
_NAME: Final = {"guest": "string", "process": "string", "debug-threads": "bool"}
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
IDENTIFYING: Final = ("name", "uuid", "action", "watchdog-action", "no-reboot", "no-shutdown")
Warn = Callable[[str], None]


class BadUuid(QmpError):
    """Not 8-4-4-4-12 hexadecimal digits."""

    template = "failed to parse UUID string: wrong format"


class BadAction(QmpError):
    """(event, action)."""

    template = "Parameter '{}' does not accept value '{}'"


@record
class Identity:
    """What the options say; ``on_reset`` and ``on_end`` are actions' names."""

    title: str | None = None
    uuid: str = ""
    on_reset: str = "reset"
    on_end: str = "poweroff"

    def take(self, name: str, value: str, warn: Warn) -> None:
        """Take an option.

        Raises:
            QmpError: it says what cannot be.

        """
        if name == "name":
            self.title = parse_options(value, "guest", _NAME, warn).get("guest", self.title)
        elif name == "uuid":
            if not _UUID.fullmatch(value):
                raise BadUuid
            self.uuid = value.lower()
        elif name == "no-reboot":
            self.on_reset = "shutdown"
        elif name == "no-shutdown":
            self.on_end = "pause"
        else:
            self._take_actions(f"watchdog={value}" if name == "watchdog-action" else value, warn)

    def _take_actions(self, value: str, warn: Warn) -> None:
        given = parse_options(value, "", dict.fromkeys(_ACTIONS, "string"), warn)
        for event, action in given.items():
            if action not in _ACTIONS[event]:
                raise BadAction(event, action)
        self.on_reset = given.get("reboot", self.on_reset)
        self.on_end = given.get("shutdown", self.on_end)

    def give_to(self, machine: "Machine", model: "Model") -> None:
        """Make a machine that one."""
        from blockemu.schema.run_state import RebootAction, ShutdownAction  # start-up

        machine.title = self.title
        machine.uuid = self.uuid or machine.uuid
        machine.can_sleep = model.sleeps
        machine.on_reset = RebootAction(self.on_reset)
        machine.on_end = ShutdownAction(self.on_end)
