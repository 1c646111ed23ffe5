"""A device and the bus that it sits on."""

from typing import Final

from blockemu.backend import Backend
from blockemu.graph import Graph
from blockemu.machine.types import DeviceType, Drive
from blockemu.qom import Object, Property


class Bus:
    """A bus: its name, its kind, and what sits on it."""

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        most: int = 0,
        hotplug: bool = True,
        plain: bool = False,
        standard: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.most = most  # devices it takes; 0: any number
        self.hotplug = hotplug
        self.standard = standard  # behind a bridge whose own controller plugs devices (SHPC)
        self.plain = plain  # its controller knows nothing of I/O threads
        self.devices: list[Device] = []

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return bool(self.most) and len(self.devices) >= self.most


class Device(Object):
    """A device; ``backend`` is what it reads and writes by."""

    def __init__(self, model: DeviceType, bus: Bus, id_: str) -> None:
        super().__init__()
        self.model = model
        self.bus = bus
        self.id = id_
        self.values: dict[str, str] = {}
        self.backend: Backend | None = None
        self.graph: Graph | None = None  # where the nodes are that it may be put on
        self.child_bus: Bus | None = None
        self.leaving = False
        self.stays = False  # whoever asks it to leave

    @property
    def owner(self) -> Object:
        """What has the drive: the device behind a proxy, or else this one."""
        return self.child("virtio-backend") or self

    @property
    def called(self) -> str:
        """What queries call the owner of the drive: its id, or else its path."""
        return self.id if self.id and self.owner is self else self.owner.path

    @property
    def drive(self) -> str:
        """The name of the drive, or else of the node that the device is on (get_drive)."""
        if self.backend is None:
            return ""
        if self.backend.title or self.backend.inserted is None:
            return self.backend.title
        return self.backend.node.name

    async def change_drive(self, name: str) -> None:
        """Put the device's backend on another node (set_drive_helper).  Raises QmpError."""
        assert self.graph is not None
        node = self.graph.lookup_either(None, name)
        assert self.backend is not None
        await self.graph.move(self.backend, node)


def _device_of(part: Object) -> Device:
    """Return the device that a proxy's inner device belongs to, or the device itself."""
    found = part if isinstance(part, Device) else part.parent
    assert isinstance(found, Device)
    return found


_DRIVE: Final = Property(
    "drive",
    "str",
    str,
    lambda part: _device_of(part).drive,
    lambda part, name: _device_of(part).change_drive(name),
)
_classes: dict[str, type[Device]] = {}


def _own(model: DeviceType) -> tuple[Property, ...]:
    return (_DRIVE,) if model.drive is not Drive.NONE else ()


def class_of(model: DeviceType) -> type[Device]:
    """Return the class of a type, which states its name to the object tree."""
    if model.name not in _classes:
        members = {"TYPE": model.name, "PROPERTIES": _own(model)}
        _classes[model.name] = type("Device", (Device,), members)
    return _classes[model.name]


def inner_of(model: DeviceType) -> Object:
    """Return the device behind a proxy, which has the drive."""
    made: Object = type("Inner", (Object,), {"TYPE": model.inner, "PROPERTIES": _own(model)})()
    return made
