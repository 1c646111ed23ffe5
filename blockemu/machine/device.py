"""A device and the bus that it sits on."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from blockemu.backend import Backend
from blockemu.graph import Graph
from blockemu.machine.pci import PciFacts, seen, show_address
from blockemu.machine.properties import Level, Spec
from blockemu.machine.refusals import BootIndexTaken, NotReadable, RealisedAlready
from blockemu.machine.types import DeviceType
from blockemu.objects.qom import Object, Property


class Bus(Object):
    """A bus: its name, its kind, and what sits on it."""

    def __init__(
        self,
        title: str,
        kind: str,
        *,
        most: int = 0,
        units: int = 0,
        hotplug: bool = True,
        plain: bool = False,
        standard: bool = False,
        type_: str = "",
    ) -> None:
        super().__init__()
        self.title = title
        self.kind = kind
        self.type = type_ or kind
        self.most = most  # devices it takes; 0: any number
        self.units = units  # as a guest counts them
        self.hotplug = hotplug
        self.standard = standard  # behind a bridge whose own controller plugs devices (SHPC)
        self.plain = plain  # its controller knows nothing of I/O threads
        self.devices: list[Device] = []
        self.owner: Part | None = None  # what it belongs to
        self.number = 0  # among those of its kind
        self._links = 0  # to devices, ever

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return bool(self.most) and len(self.devices) >= self.most

    @property
    def express(self) -> bool:
        """Whether it is PCI express behind a port, not a root."""
        return self.type == "PCIE" and self.owner is not None and self.owner.model.bus == "PCI"

    def attach(self, device: "Device") -> None:
        """Take a device, which gets a link of its own."""
        self.devices.append(device)
        self.add_link(device)

    def add_link(self, part: "Part") -> None:
        """Show what sits on the bus."""
        part.link = f"child[{self._links}]"
        self._links += 1
        kind = f"link<{part.model.name}>"
        self.add_property(Property(part.link, kind, str, lambda bus: part.path))

    def detach(self, device: "Device") -> None:
        """Let a device go, if it is there."""
        if device in self.devices:
            self.devices = [each for each in self.devices if each is not device]
            self.remove_property(device.link)


class Part(Object):
    """What has a device's properties: the device, or the one behind it that is a proxy."""

    def __init__(self, model: DeviceType) -> None:
        super().__init__()
        self.model = model
        self.state: dict[str, Any] = {spec.name: spec.default for spec in model.specs}
        self.realised = False
        self.link = ""  # on its bus
        self.child_buses: list[Bus] = []
        for name in model.boots:
            self.state[name] = -1
            self.add_property(_boot_property(name))
        for spec in model.extra:
            self.state[spec.name] = spec.default
            self.add_property(_plain(spec))

    @property
    def pci(self) -> PciFacts | None:
        """What it shows of itself on a PCI bus, if it is on one."""
        return None

    @property
    def tail(self) -> str:
        """What its bus has to say of it, in ``info qtree``."""
        return ""

    @property
    def device(self) -> "Device":
        """The device that it is, or that it is a part of."""
        found = self if isinstance(self, Device) else self.parent
        assert isinstance(found, Device)
        return found

    @property
    def bus_path(self) -> str:
        """The path of the bus that it sits on."""
        return ""

    def add_bus(self, bus: Bus) -> None:
        """Bring a bus along."""
        bus.owner = self
        self.child_buses.append(bus)
        self.add_child(bus.title, bus)


class Inner(Part):
    """The device behind a proxy, on a bus of their own."""

    @property
    def bus_path(self) -> str:
        """The path of that bus."""
        return f"{self.device.path}/virtio-bus"


class Device(Part):
    """A device; ``backend`` is what it reads and writes by."""

    def __init__(self, model: DeviceType, bus: Bus, id_: str) -> None:
        super().__init__(model)
        self.bus = bus
        self.id = id_
        self.values: dict[str, str] = {}  # as they were given
        self.backend: Backend | None = None
        self.graph: Graph | None = None  # where the nodes are that it may be put on
        self.leaving = False
        self.stays = False  # whoever asks it to leave
        self.hotplugged = False
        self.fixed = False  # the machine's own
        self.boot_order: Callable[[], set[int]] = set  # the places that are taken
        self.place: dict[str, Any] = {}  # on a bus that knows ports
        self.inner: Inner | None = None
        if model.inner:
            self.inner = _class_of(Inner, model.inner)(model.inner)
            self.add_child("virtio-backend", self.inner)
            self.inner_bus = bus_class("virtio-pci-bus")("virtio-bus", "virtio-bus")
            self.inner_bus.add_link(self.inner)
            for spec in model.inner.specs:
                self.add_property(_alias(_property(spec)))
            for spec in model.inner.extra:
                self.add_property(_alias(_plain(spec)))
            for name in model.inner.boots:
                self.add_property(_alias(_boot_property(name)))

    @property
    def bus_path(self) -> str:
        """The path of the bus that it sits on."""
        return self.bus.path if self.bus.parent is not None else ""

    @property
    def brought(self) -> list[Bus]:
        """The buses that other devices may sit on."""
        return self.owner.child_buses or self.child_buses

    @property
    def pci(self) -> PciFacts | None:
        """What it shows of itself, as its properties and its place have it."""
        return None if self.model.pci is None else seen(self.model.pci, self.state)

    @property
    def tail(self) -> str:
        """What its bus has to say of it, in ``info qtree``."""
        return self.model.tail.format(**self.state, **self.place)

    @property
    def owner(self) -> Part:
        """What has the drive: the device behind a proxy, or else this one."""
        return self.inner or self

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

    def keep(self, name: str, value: Any) -> None:
        """Keep a value where it belongs."""
        part = self if name in self.state or self.inner is None else self.inner
        part.state[name] = value

    async def change_drive(self, name: str) -> None:
        """Put the device's backend on another node (set_drive_helper).  Raises QmpError."""
        assert self.graph is not None
        node = self.graph.lookup_either(None, name)
        assert self.backend is not None
        await self.graph.move(self.backend, node)

    def come_to_life(self) -> None:
        """Be what properties tell from now on."""
        for part in self.list_devices():
            part.realised = True
        if self.inner is not None:
            self.add_child("virtio-bus", self.inner_bus)

    def list_devices(self) -> Iterator[Part]:
        """Yield the device, and what is behind it."""
        yield self
        if self.inner is not None:
            yield self.inner


# Properties


def read_spec(part: Part, spec: Spec) -> Any:
    """Return the value of a property as ``qom-get`` has it."""
    if spec.kind == "drive":
        return part.device.drive if part.realised else ""
    value = part.state[spec.name]
    if spec.type.startswith("link<"):
        return f"/objects/{value}" if value else ""
    return "" if value is None else value


def _refuse(part: Part, name: str) -> None:
    """Refuse a change (qdev_prop_set_after_realize, hw/core/qdev-properties.c)."""
    id_ = part.device.id
    whose = f"device '{id_}'" if id_ and part is part.device else "anonymous device"
    raise RealisedAlready(name, whose, part.model.name)


def _property(spec: Spec) -> Property:
    if spec.kind == "drive":
        return Property(
            spec.name,
            spec.type,
            str,
            lambda part: read_spec(part, spec),
            lambda part, name: part.device.change_drive(name),
            spec.description,
        )
    return Property(
        spec.name,
        spec.type,
        Any,
        lambda part: read_spec(part, spec),
        lambda part, value: _refuse(part, spec.name),
        spec.description,
        *(() if spec.default is None else (spec.default,)),
    )


def _plain(spec: Spec) -> Property:
    """Return a property that may be set at any time, and means nothing."""

    def write(part: Part, value: Any) -> None:
        part.state[spec.name] = value

    hint = type(spec.default)
    simple = hint in (int, str, bool)
    return Property(
        spec.name, spec.type, hint, lambda part: read_spec(part, spec), write if simple else None
    )


def _legacy(spec: Spec) -> Property | None:
    """Return the property that tells another's value as text, or that is not even readable."""
    if spec.kind == "devfn":
        return Property(
            f"legacy-{spec.name}", "str", str, lambda part: show_address(part.state[spec.name])
        )
    if spec.type.startswith("link<"):
        name = f"legacy-{spec.name}"
        return Property(name, "str", str, lambda part: _unreadable(part, name))
    return None


def _unreadable(part: Part, name: str) -> Any:
    raise NotReadable(part.model.name, name)


def _alias(inner: Property) -> Property:
    """Return the proxy's property that is one of the device behind it."""
    write = inner.write
    return inner._replace(
        read=lambda part: inner.read(part.inner),
        write=None if write is None else lambda part, value: write(part.inner, value),
    )


def _boot_property(name: str) -> Property:
    return Property(
        name,
        "int32",
        int,
        lambda part: part.state[name],
        lambda part, value: _change_bootindex(part, name, value),
    )


def _change_bootindex(part: Part, name: str, value: int) -> None:
    """Change the place among what may be booted from (device_set_bootindex)."""
    taken = part.device.boot_order()
    if value >= 0 and value in taken:
        raise BootIndexTaken(value)
    part.state[name] = value


def _stay_realised(part: Part, value: bool) -> None:
    """Take what is so already; nothing is taken apart by this."""
    if not value:
        _refuse(part, "realized")


_DEVICE: Final = (
    Property("realized", "bool", bool, lambda part: part.realised, _stay_realised),
    Property("hotpluggable", "bool", bool, lambda part: _hotpluggable(part)),
    Property("hotplugged", "bool", bool, lambda part: part.device.hotplugged),
    Property("parent_bus", "link<bus>", str, lambda part: part.bus_path),
)


def _hotpluggable(part: Part) -> bool:
    return isinstance(part, Device) and part.bus.hotplug and not part.fixed


_classes: dict[str, type[Any]] = {}


def _properties_of(level: Level) -> tuple[Property, ...]:
    pairs = ((_legacy(spec), _property(spec)) for spec in level.specs)
    own = tuple(each for pair in pairs for each in pair if each is not None)
    return own + tuple(_told(spec) for spec in level.told)


def _told(spec: Spec) -> Property:
    """Return a property that is there to be seen."""
    nothing = {"bool": False, "str": ""}.get(spec.type, 0 if "int" in spec.type else "")
    default = () if spec.default is None else (spec.default,)
    return Property(
        spec.name, spec.type, Any, lambda part: nothing, None, spec.description, *default
    )


def _class_of(base: type[Part], model: DeviceType) -> type[Any]:
    """Return the class of a type, which states its name and properties to the object tree."""
    if model.name not in _classes:
        found = type(base.__name__, (base,), {"TYPE": "device", "PROPERTIES": _DEVICE})
        for level in reversed(model.levels):
            members = {"TYPE": level.name, "PROPERTIES": _properties_of(level)}
            found = type(base.__name__, (found,), members)
        _classes[model.name] = found
    return _classes[model.name]


def class_of(model: DeviceType) -> type[Device]:
    """Return the class of a type of devices."""
    found: type[Device] = _class_of(Device, model)
    return found


def bus_class(type_: str) -> type[Bus]:
    """Return the class of buses of a type."""
    name = f"bus {type_}"
    if name not in _classes:
        _classes[name] = type("Bus", (Bus,), {"TYPE": type_, "PROPERTIES": _BUS})
    found: type[Bus] = _classes[name]
    return found


_BUS: Final = (Property("realized", "bool", bool, lambda bus: True),)
