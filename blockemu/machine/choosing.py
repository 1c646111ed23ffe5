"""Which machine it is to be, as the command line has it."""

from typing import TYPE_CHECKING, Final

from blockemu.errors import QmpError
from blockemu.machine.machine_options import TAKEN, MachineOptions, Warn
from blockemu.machine.models import DEFAULT, Model, model

if TYPE_CHECKING:
    from blockemu.machine.preparing import Prepared

_ACCELERATORS: Final = frozenset({"tcg", "kvm", "qtest", "hax", "hvf", "whpx", "xen", "nvmm"})
CHOOSING: Final = (*TAKEN, "cpu", "accel")


class BadAccelerator(QmpError):
    """No such accelerator."""

    template = "invalid accelerator {}"


class MachineChoice:
    """What the options say, one after another, and then together."""

    def __init__(self) -> None:
        self._options = MachineOptions()
        self._cpu: str | None = None
        self._accelerated = False  # whether the host's own CPU would run the guest
        self.stepped = False  # whether its clock moves only when a test says so
        self.name = DEFAULT
        self.model: Model = model(DEFAULT)

    def take(self, name: str, value: str, warn: Warn) -> None:
        """Take an option.

        Raises:
            QmpError: it says what cannot be.
            ProtocolError: it is no tree of options.

        """
        if name == "cpu":
            self._cpu = value
        elif name == "accel":
            self._take_accelerator(value)
        else:
            self._options.take(name, value, warn)

    def _take_accelerator(self, value: str) -> None:
        name = value.split(",")[0].removeprefix("accel=")
        if name not in _ACCELERATORS:
            raise BadAccelerator(name)
        self.stepped |= name == "qtest"
        self._accelerated |= name not in ("qtest", "tcg")

    def settle(self) -> None:
        """Choose the machine's type.

        Raises:
            QmpError: there is none of the name, or nothing to run it.

        """
        self._options.check()
        said = self._options.said
        self.name = str(said.get("type", self.name))
        self.model = model(self.name)
        for name in str(said["accel"]).split(":") if "accel" in said else ():
            self._take_accelerator(name)

    def prepare(self, warn: Warn) -> "Prepared":
        """Make the machine.

        Raises:
            QmpError: it cannot be as it is to be.
            ProtocolError: a value is not of its type.

        """
        from blockemu.machine.preparing import prepare  # start-up: after the greeting

        found = prepare(self._options, self.model, self._cpu, warn)
        found.hardware.accelerated = self._accelerated
        return found
