"""What devices refer to by name: networks, chardevs, objects; and the addresses of cards.

After hw/core/qdev-properties-system.c and net/net.c.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from blockemu.chardevs import Chardev
from blockemu.errors import DeviceNotFound, QmpError
from blockemu.machine.device import Device, Part
from blockemu.machine.properties import Spec
from blockemu.machine.refusals import BadPropertyValue
from blockemu.machine.type_facts import is_a
from blockemu.objects.qom import Object, Tree
from blockemu.qmp_server.keyval import parse_json

if TYPE_CHECKING:
    from blockemu.machine.networks import Networks

_BALLOON: Final = "virtio-balloon-device"
_UART: Final = "serial"  # has the chardev of a card with serial ports
_FIRST: Final = 0x56  # the end of the first card's address
_OURS: Final = "52:54:00:12:34:"
_ADDRESS: Final = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


class NotFound(QmpError):
    """(type, property, value)."""

    template = "Property '{}.{}' can't find value '{}'"


class InUse(QmpError):
    """(type, property, value)."""

    template = "Property '{}.{}' can't take value '{}', it's in use"


class ChardevInUse(QmpError):
    """(type, property, value, value)."""

    template = "Property '{}.{}' can't take value '{}': Device '{}' is in use"


class WrongObject(QmpError):
    """(property, type)."""

    template = "Invalid parameter type for '{}', expected: {}"


class SecondBalloon(QmpError):
    """There is one already."""

    template = "Only one balloon device is supported"


class Claims:
    """Who has which network and which chardev."""

    def __init__(self, qom: Tree, networks: "Callable[[], Networks]") -> None:
        self._qom = qom
        self._networks = networks
        self.audiodevs: set[str] = set()  # that the command line named
        self._chardevs: dict[Device, list[Chardev]] = {}

    def unconnected(self) -> list[str]:
        """Return the names of cards that are on no network."""
        return [card.name for card in self._networks().cards.values() if card.peer is None]

    def add_audio(self, text: str) -> None:
        """Take note of what ``-audiodev`` says, which may be JSON."""
        if text.startswith("{"):
            self.audiodevs.add(str(parse_json(text).get("id", "")))
        elif (found := re.search(r"(?:^|,)id=([^,]+)", text)) is not None:
            self.audiodevs.add(found[1])

    def take(self, part: Part, device: Device, spec: Spec, value: str) -> None:
        """Look at what a property names, and take it if it is for one alone.

        Raises:
            QmpError: there is none of the name, or it is taken.

        """
        owner = part.model.name if spec not in part.model.extra else _UART
        if spec.kind == "macaddr" and not _ADDRESS.fullmatch(value):
            raise BadPropertyValue(owner, spec.name, value)
        if spec.kind == "netdev":
            self._take_network(owner, device, spec.name, value)
        elif spec.kind == "audiodev" and value not in self.audiodevs:
            raise NotFound(owner, spec.name, value)
        elif spec.kind == "chardev":
            self._take_chardev(owner, device, spec.name, value)
        elif spec.type.startswith("link<") and value:
            self._find(spec, value)

    def _find(self, spec: Spec, value: str) -> None:
        found: Object | None = self._qom.container("objects").child(value)
        if found is None:
            raise DeviceNotFound(value)
        wanted = spec.type[5:-1]
        if wanted != found.TYPE and not is_a(found.TYPE, wanted):
            raise WrongObject(spec.name, wanted)

    def _take_network(self, owner: str, device: Device, name: str, value: str) -> None:
        network = self._networks().known.get(value)
        if network is None:
            raise NotFound(owner, name, value)
        if network.card is not None:
            raise InUse(owner, name, value)
        network.card = device

    def _take_chardev(self, owner: str, device: Device, name: str, value: str) -> None:
        found = self._qom.container("chardevs").child(value)
        if not isinstance(found, Chardev):
            raise NotFound(owner, name, value)
        if found.taken:
            raise ChardevInUse(owner, name, value, value)
        found.taken = True
        self._chardevs.setdefault(device, []).append(found)

    def release(self, device: Device) -> None:
        """Let go of what a device had."""
        for chardev in self._chardevs.pop(device, ()):
            chardev.taken = False
        self._networks().unseat(device)

    def finish(self, device: Device, others: Iterable[Device]) -> None:
        """Give a card an address if it was told none, else write it in the usual way.

        Raises:
            SecondBalloon: a machine has one.

        """
        state, others = device.owner.state, [each for each in others if each is not device]
        if state.get("mac"):
            state["mac"] = state["mac"].replace("-", ":").lower()
        elif "mac" in state:
            taken = {str(each.owner.state.get("mac")) for each in others}
            ends = (f"{_OURS}{n & 255:02x}" for n in range(_FIRST, _FIRST + 256))
            state["mac"] = next(each for each in ends if each not in taken)
        if device.owner.model.name == _BALLOON and any(
            d.owner.model.name == _BALLOON for d in others
        ):
            raise SecondBalloon
        if "mac" in state:
            self._networks().seat(device, device.id, device.model.name, state["mac"])
