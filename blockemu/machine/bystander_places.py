"""Where devices that do nothing sit, and what they make of what they were told.

Ports of USB buses and of serial ones, numbers of codecs, slots of PCI express; after hw/usb/bus.c,
hw/char/virtio-serial-bus.c, hw/audio/intel-hda.c, hw/pci/pcie_port.c, hw/net/virtio-net.c.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from blockemu.errors import QmpError
from blockemu.machine.device import Bus, Device
from blockemu.machine.properties import UNSET

_HIGH_SPEED: Final = 480  # Mb/s
_FULL_SPEED: Final = 12
_SLOW: Final = ("uhci", "ohci")  # controllers that are of full speed at most


class Refused(QmpError):
    """What a device says itself."""

    template = "{}"


def settle(device: Device) -> None:
    """Take a place, and make what it needs of what it was not told.

    Raises:
        QmpError: it will not have it, in QEMU's words.

    """
    if device.model.refusal:
        first, _, more = device.model.refusal.partition("\n")
        raise Refused(first, hint=more)
    place = _PLACES.get(device.bus.kind)
    if place is not None:
        place(device)
    for part in device.list_devices():
        _check(part.model.name, part.state)
        begun = {spec.name: spec.default for spec in part.model.specs}
        for name, value in part.model.settled.items():
            untouched = name not in device.values and part.state[name] == begun[name]
            if untouched and not (name == "romsize" and "romfile" in device.values):
                part.state[name] = value
    if "chassis" in device.state and "slot" in device.state:
        _check_slot(device)


# USB


def ports(bus: Bus) -> Iterator[str]:
    """Yield the ports of a bus, those of its hubs at last."""
    owner = bus.owner
    assert owner is not None
    yield from (str(n) for n in range(1, _controller_ports(owner.model.name, owner.state) + 1))
    for each in bus.devices:
        if each.model.name == "usb-hub":
            yield from (f"{each.place['where']}.{n}" for n in range(1, each.state["ports"] + 1))


def _controller_ports(name: str, state: Mapping[str, Any]) -> int:
    if "p2" in state:
        return int(max(state["p2"], state["p3"]))
    if "num-ports" in state:
        return int(state["num-ports"])
    return 6 if "ehci" in name else _UHCI_PORTS if "uhci" in name else _XHCI_PORTS


_UHCI_PORTS: Final = 2
_XHCI_PORTS: Final = 4


def _take_port(device: Device) -> None:
    bus, wanted = device.bus, device.state.get("port")
    taken = {each.place["where"] for each in bus.devices}
    free = [port for port in ports(bus) if port not in taken]
    if wanted and wanted not in free:
        raise Refused(f"usb port {wanted} (bus {bus.title}) not found (in use?)")
    if not free:
        name = device.model.name
        raise Refused(f"tried to attach usb device {name} to a bus with no free ports")
    assert bus.owner is not None
    slow = any(word in bus.owner.model.name for word in _SLOW)
    device.place = {
        "where": wanted or free[0],
        "bus": bus.number,
        "high": _FULL_SPEED if slow else _HIGH_SPEED,
    }


# Serial ports


def _take_number(device: Device) -> None:
    taken = {each.state["nr"] for each in device.bus.devices}
    assert device.bus.owner is not None
    most = device.bus.owner.state["max_ports"]
    number = device.state["nr"]
    if number == UNSET:
        console = device.model.name == "virtconsole" and 0 not in taken
        number = 0 if console else next(n for n in range(1, most + 1) if n not in taken)
        if number >= most:
            raise Refused("virtio-serial-bus: Maximum port limit for this device reached")
    elif number in taken:
        raise Refused(f"virtio-serial-bus: A port already exists at id {number}")
    elif number >= most:
        raise Refused(
            f"virtio-serial-bus: Out-of-range port id specified, max. allowed: {most - 1}"
        )
    device.state["nr"] = number


def _take_codec(device: Device) -> None:
    if device.state["cad"] == UNSET:
        device.state["cad"] = len(device.bus.devices)


_PLACES: Final[Mapping[str, Callable[[Device], None]]] = {
    "usb-bus": _take_port,
    "virtio-serial-bus": _take_number,
    "HDA": _take_codec,
}


def _check_slot(device: Device) -> None:
    """Refuse a slot that a port has already, on all buses alike."""
    mine = device.state["chassis"], device.state["slot"]
    for each in device.bus.devices:
        if (each.state.get("chassis"), each.state.get("slot")) == mine:
            raise Refused("Can't add chassis slot, error -16")


# Values


def _is_power(value: int) -> bool:
    return not value & (value - 1)


_QUEUE: Final = "Invalid {} (= {}), must be a power of 2 between 256 and 1024."
_CHECKS: Final[Mapping[str, tuple[tuple[str, Callable[[Any], bool], str], ...]]] = {
    "virtio-net-device": (
        (
            "duplex",
            lambda v: not v or v in ("half", "full"),
            "'duplex' must be 'half' or 'full'",
        ),
        ("speed", lambda v: -1 <= v < 1 << 31, "'speed' must be between 0 and INT_MAX"),
        ("rx_queue_size", lambda v: 256 <= v <= 1024 and _is_power(v), _QUEUE),
        ("tx_queue_size", lambda v: 256 <= v <= 1024 and _is_power(v), _QUEUE),
    ),
    "virtio-rng-device": (
        ("period", bool, "'period' parameter expects a positive integer"),
        (
            "max-bytes",
            lambda v: v < 1 << 63,
            "'max-bytes' parameter must be non-negative, and less than 2^63",
        ),
    ),
    "virtio-serial-device": (("max_ports", lambda v: v <= 511, "maximum ports supported: 511"),),
    **dict.fromkeys(
        ("usb-tablet", "usb-mouse", "usb-kbd"),
        (("usb_version", lambda v: v in (1, 2), "Invalid usb version {1} for usb hid device"),),
    ),
}


def _check(name: str, state: Mapping[str, Any]) -> None:
    for key, fits, text in _CHECKS.get(name, ()):
        if not fits(state[key]):
            raise Refused(text.format(key, state[key]))
