"""Which machine it is to be, as the command line has it."""

from typing import TYPE_CHECKING, Final

from blockemu.errors import QmpError
from blockemu.machine.device_errors import Expects
from blockemu.machine.machine_options import TAKEN, MachineOptions, Warn
from blockemu.machine.models import DEFAULT, Model, model
from blockemu.objects.qom import NoSuchProperty
from blockemu.optlist import parse_any

if TYPE_CHECKING:
    from blockemu.machine.preparing import Prepared

_ACCELERATORS: Final = frozenset({"tcg", "kvm", "qtest", "hax", "hvf", "whpx", "xen", "nvmm"})
CHOOSING: Final = (*TAKEN, "cpu", "accel")


class BadAccelerator(QmpError):
    """No such accelerator."""

    template = "invalid accelerator {}"


class BadThreads(QmpError):
    """(setting)."""

    template = "Invalid 'thread' setting {}"


_TCG: Final = {"thread": "string", "tb-size": "uint32", "split-wx": "bool"}


def _check_tcg(text: str) -> None:
    """Refuse what the accelerator that translates code would not take.  Raises QmpError."""
    from blockemu.machine.property_values import parse_value  # start-up: few say so much

    for name, value in parse_any(text, lambda _: None).items():
        if name not in _TCG:
            raise NoSuchProperty("tcg-accel", name)
        try:
            parse_value("tcg-accel", name, _TCG[name], value)
        except Expects as e:
            raise Expects(name, "uint64") from e
        if name == "thread" and value not in ("single", "multi"):
            raise BadThreads(value)


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
        head, _, more = value.partition(",")
        name = head.removeprefix("accel=")
        if name not in _ACCELERATORS:
            raise BadAccelerator(name)
        if name == "tcg" and more:
            _check_tcg(more)
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
