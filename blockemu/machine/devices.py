"""Devices on buses, and the backends they use (after softmmu/qdev-monitor.c, hw/block/block.c)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from blockemu.backend import Backend, drained
from blockemu.errors import (
    DeviceNotFound,
    InvalidParameterValue,
    MissingParameter,
    NodeNotFound,
)
from blockemu.graph import Graph
from blockemu.jobs.registry import Jobs
from blockemu.machine.dataplane import check_threads, thread_above
from blockemu.machine.device import Bus, Device, Part, bus_class, class_of
from blockemu.machine.device_errors import (
    BadSlot,
    BusFull,
    BusNotFound,
    DriveAutomatic,
    DriveNotFound,
    DriveTaken,
    DuplicateDevice,
    NoBackend,
    NoBus,
    NoDeviceHotplug,
    NoHotplug,
    NoSuchProperty,
    NotADevice,
    UnplugPending,
    WrongBus,
)
from blockemu.machine.fixtures import SYSTEM, BusPlan, Fixture
from blockemu.machine.globals import Globals
from blockemu.machine.hardware import Hardware, Processor
from blockemu.machine.pci import FUNCTIONS, parse_address
from blockemu.machine.pointers import Listeners
from blockemu.machine.property_values import check_block_size, parse_value
from blockemu.machine.realising import realise
from blockemu.machine.settling import take_place
from blockemu.machine.types import BY_NAME, DeviceType
from blockemu.objects.qom import Container, NoSuchObject, Object, Tree
from blockemu.optlist import IDENTIFIER_HINT, is_identifier
from blockemu.perm import Perm
from blockemu.permissions import want
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import Struct
from blockemu.schema.devices import DeviceDeleted

if TYPE_CHECKING:
    from blockemu.machine.claims import Claims
    from blockemu.machine.networks import Networks

_SPECIAL = ("driver", "id", "bus")
_COLD = ("floppy-bus", "IDE", "HDA")  # kinds of buses that take devices at the start only


class Devices:
    """The devices of a machine.  It has none, and no buses, until ``furnish`` gives it some."""

    def __init__(
        self,
        graph: Graph,
        jobs: Jobs,
        qom: Tree,
        emit: Callable[[Struct], None],
        networks: "Callable[[], Networks]",
    ) -> None:
        self._graph = graph
        self._jobs = jobs
        self.qom = qom
        self._emit = emit
        self._networks = networks
        self.buses: list[Bus] = []
        self.globals = Globals()
        self.hardware = Hardware()
        self.listeners = Listeners()
        self.started = False  # from then on devices are plugged in while the machine is on
        self.automatic: set[Backend] = set()  # drives that the machine connects by itself
        self._anonymous = 0
        self._numbered: Counter[str] = Counter()  # buses without an id, by kind
        self._removing = asyncio.Lock()  # one leaves after another
        self.reset_hooks: list[Callable[[Device | None], None]] = []  # None: all are reset

    def furnish(self, machine: Object | None = None) -> None:
        """Give the machine the bus that its own devices are on, and devices their folders."""
        if machine is not None:
            self.qom.root.add_child("machine", machine)
        for name in ("unattached", "peripheral", "peripheral-anon"):
            _folder(self.qom.container("machine"), name)
        root = self._grow(BusPlan(SYSTEM, "System"), None)
        _folder(self.qom.container("machine"), "unattached").add_child("sysbus", root)

    def _grow(self, plan: BusPlan, owner: Part | None) -> Bus:
        bus = bus_class(plan.type or plan.kind)(
            plan.name,
            plan.kind,
            most=plan.most,
            units=plan.units,
            hotplug=plan.hotplug,
            type_=plan.type,
        )
        if owner is not None:
            owner.add_bus(bus)
        bus.number = sum(each.kind == bus.kind for each in self.buses)
        self.buses.append(bus)
        return bus

    def add_fixture(self, fixture: Fixture, model: DeviceType, number: int, **state: Any) -> None:
        """Make a device of the machine's own, and the buses that it brings."""
        bus = next(bus for bus in self.buses if bus.title == fixture.bus)
        device = class_of(model)(model, bus, "")
        machine: Object = self.qom.container("machine")
        if fixture.role:
            name, _, holder = fixture.role.partition("@")
            (self._latest(holder) if holder else machine).add_child(name, device)
        else:
            _folder(machine, "unattached").add_child(f"device[{number}]", device)
        if fixture.address:
            device.state["addr"] = parse_address(fixture.address)
        device.state |= dict(fixture.state) | dict(state)
        device.fixed = device.realised = True
        self.globals.apply(device, self._set_property)
        take_place(device)
        bus.attach(device)
        self.listeners.seat(model.name, device)
        for plan in fixture.buses:
            self._grow(plan, device)
            self._numbered[plan.kind] += plan.name == f"{plan.kind.lower()}.0"

    def add_cpu(self, cpu: Processor, number: int) -> None:
        """Give a CPU its place among the machine's own devices."""
        unattached = _folder(self.qom.container("machine"), "unattached")
        unattached.add_child(f"device[{number}]", cpu)

    def _latest(self, type_: str) -> Device:
        found = (d for bus in self.buses for d in reversed(bus.devices) if d.model.name == type_)
        return next(found)

    @cached_property
    def claims(self) -> "Claims":
        """Who has what is for one device alone."""
        from blockemu.machine.claims import Claims  # few machines have such devices

        return Claims(self.qom, self._networks)

    def begin(self) -> list[str]:
        """Be on from now on; return the network cards that lead nowhere."""
        self.started = True
        return self.claims.unconnected() if "claims" in vars(self) else []

    def _all(self) -> Iterator[Device]:
        return (each for bus in self.buses for each in bus.devices)

    # Looking up

    def find(self, name: str) -> Device:
        """Find a device by its id or its path.

        Raises:
            DeviceNotFound: there is none.
            NotADevice: the path is something else's.

        """
        try:
            found = self.qom.resolve(
                name if name.startswith("/") else f"/machine/peripheral/{name}"
            )
        except NoSuchObject:
            raise DeviceNotFound(name) from None
        if isinstance(found.parent, Device):
            found = found.parent if "/" in name else found
        if not isinstance(found, Device):
            raise NotADevice(name)
        return found

    def backend(self, name: str) -> Backend:
        """Find the backend of a device; a proxy's inner device has it, the proxy has not."""
        device = self.find(name)
        by_id = "/" not in name or device.path == name
        if device.backend is None or (by_id and device.owner is not device):
            raise NoBackend
        return device.backend

    def of_backend(self, backend: Backend) -> Device | None:
        """Return the device that uses a backend."""
        return next((d for d in self._all() if d.backend is backend), None)

    def iothread_of(self, backend: Backend) -> str | None:
        """Return the I/O thread of the controller of the device that uses a backend.

        A virtio-blk disk's own thread takes over when the guest runs, which it never does.
        """
        device = self.of_backend(backend)
        return thread_above(device, self.buses) if device is not None else None

    # Plugging in

    async def add(self, options: Mapping[str, str], *, folder: str = "") -> Device:
        """Make a device.  ``folder``: where it goes instead of what its id says.

        Raises:
            QmpError: it cannot be; nothing is left of it.

        """
        given = options.get("driver")
        if given is None:
            raise MissingParameter("driver")
        model = BY_NAME.get(given)
        if model is None:
            from blockemu.machine.bystanders import find_type  # few machines have one

            model = find_type(given, running=self.started)
        bus = self._bus(model, options.get("bus"))
        if self.started and not bus.hotplug:
            raise NoHotplug(bus.title)
        device = class_of(model)(model, bus, options.get("id", ""))
        device.hotplugged = self.started
        self._place(device, folder)
        await self._start(device, options)
        if model.makes:
            self._bring_bus(device)
        for end, type_ in model.buses if not device.state.get("masterbus") else ():
            name = self._bus_name(device, type_, end)
            kind = "PCI" if type_ == "PCIE" else type_
            hotplug = type_ not in _COLD
            units = 1 if type_ == "IDE" else 0
            self._grow(BusPlan(name, kind, 0, hotplug, units, type_), device.owner)
        return device

    def _bring_bus(self, device: Device) -> None:
        """Give a controller or a bridge the bus that other devices go on."""
        kind = device.model.makes
        bridge = kind == "PCI"
        device.stays = bridge and not self.started
        name = self._bus_name(device, kind, "" if bridge else ".0")
        plan = BusPlan(name, kind, hotplug=kind not in _COLD, units=2 * (not bridge))
        bus = self._grow(plan, device.owner)
        bus.plain = "iothread" not in device.model.properties
        bus.standard = bridge and self.started

    async def add_fixed(self, model: DeviceType, name: str, drive: str) -> Device:
        """Make a device that belongs to the machine itself.

        Raises:
            QmpError: it cannot be; nothing is left of it.

        """
        bus = next(bus for bus in self.buses if bus.kind == model.bus)
        device = class_of(model)(model, bus, "")
        self.qom.container("machine").add_child(name, device)
        await self._start(device, {"drive": drive})
        return device

    async def _start(self, device: Device, options: Mapping[str, str]) -> None:
        device.graph, device.boot_order = self._graph, self._boot_order
        try:
            self.globals.apply(device, self._set_property)
            for name in in_order(options):
                if name not in _SPECIAL:
                    self._set_property(device, name, options[name], device.id)
            await realise(device)
            if device.model.does_nothing:
                self.claims.finish(device, self._all())
            self._check_slot(device)
            device.bus.attach(device)
            check_threads(device, self.buses)
            device.come_to_life()
            self.listeners.seat(device.model.name, device)
        except BaseException:
            device.bus.detach(device)
            await self._take_out(device)
            raise

    def _boot_order(self) -> set[int]:
        parts = (device.owner for device in self._all())
        return {part.state[name] for part in parts for name in part.model.boots}

    def _bus(self, model: DeviceType, name: str | None) -> Bus:
        if name is None and not model.bus:
            return Bus("", "", hotplug=False)
        if name is None:
            fits = (b for b in self._from_roots() if b.kind == model.bus and not b.full)
            found = next(fits, None)
            if found is None:
                raise NoBus(model.bus, model.name)
            return found
        found = next((b for b in self.buses if b.title == name), None)
        if found is None:
            raise BusNotFound(name)
        if found.kind != model.bus:
            raise WrongBus(model.name, found.type)
        if found.full:
            raise BusFull(name)
        return found

    def _from_roots(self) -> Iterator[Bus]:
        """Yield each bus before those behind it, the youngest first (qbus_find_recursive)."""
        for bus in reversed(self.buses):
            if bus.owner is None:
                yield from _with_buses_behind(bus)

    def _bus_name(self, device: Device, kind: str, end: str) -> str:
        if device.id:
            return device.id + end
        taken = self._numbered[kind]
        self._numbered[kind] += 1
        return f"{kind.lower()}.{taken}"

    def _place(self, device: Device, folder: str) -> None:
        machine = self.qom.container("machine")
        if folder:
            _folder(machine, "unattached").add_child(folder, device)
        elif device.id:
            if not is_identifier(device.id):
                raise InvalidParameterValue("id", "an identifier", hint=IDENTIFIER_HINT)
            peripheral = _folder(machine, "peripheral")
            if peripheral.child(device.id) is not None:
                raise DuplicateDevice(device.id)
            peripheral.add_child(device.id, device)
        else:
            name = f"device[{self._anonymous}]"
            self._anonymous += 1
            _folder(machine, "peripheral-anon").add_child(name, device)

    def _set_property(self, device: Device, name: str, value: str, id_: str = "") -> None:
        """Take a property's value; ``id_``: as errors have it.  Raises QmpError."""
        kind = device.model.properties.get(name)
        if kind is None:
            raise NoSuchProperty(device.model.name, name)
        part = device if name in device.state or device.inner is None else device.inner
        parsed = parse_value(part.model.name, name, kind, value)
        if name in ("logical_block_size", "physical_block_size"):
            check_block_size(id_, name, parsed)
        if name == "drive" and value:
            if device.backend is not None:
                self.globals.check_conflict(device, name, value)
            self._attach(device, value)
        if (spec := part.model.spec(name)) is not None and spec.refers:
            self.claims.take(part, device, spec, value)
        self._graph.threads.used |= name == "iothread"
        device.values[name] = value
        device.keep(name, parsed)

    def _attach(self, device: Device, name: str) -> None:
        """Give a device its backend: a drive's, or a new one on a node (set_drive_helper)."""
        backend = self._graph.named(name)
        if backend is not None and backend.device:
            raise (DriveAutomatic if backend in self.automatic else DriveTaken)(name)
        if backend is None:
            try:
                node = self._graph.lookup_either(None, name)
            except NodeNotFound:
                raise DriveNotFound(device.model.model, name) from None
            backend = Backend()
            self._graph.insert(backend, node)
            self._graph.backends[device.owner.path] = backend  # no name begins with a slash
        backend.device = backend.device_id = device.called
        device.backend = backend

    def _check_slot(self, device: Device) -> None:
        """Refuse the first slot behind a bridge that was plugged in, which is the default."""
        if device.bus.standard and device.state["addr"] < FUNCTIONS:
            if device.inner is not None:
                self._emit(DeviceDeleted(path=device.inner.path))
            raise BadSlot(0)

    # Unplugging

    async def request_removal(self, name: str) -> Callable[[], Any] | None:
        """Begin to unplug; return what finishes it at once, None if the guest must consent.

        The guest that nobody runs consents when the machine is reset.
        """
        device = self.find(name)
        if device.leaving:
            raise UnplugPending(device.id or name)
        if not device.bus.hotplug:
            raise NoHotplug(device.bus.title)
        if device.fixed or not device.model.hotplug:
            raise NoDeviceHotplug(device.model.name)
        device.leaving = True
        if device.bus.kind == "PCI" and not device.bus.standard:
            return None
        self.listeners.unseat(device)
        await self._let_go(device)
        return lambda: self.remove(device)

    async def _let_go(self, device: Device) -> None:
        """Wait for requests, and cancel the jobs on a drive that goes with its device."""
        backend = device.backend
        if backend is not None and backend.inserted is not None:
            async with drained(backend.node):
                pass
            if backend.title:
                await self._jobs.cancel_using(backend.node)

    async def remove(self, device: Device) -> None:
        """Take a device out, and what hangs on it, once its jobs are over; say so."""
        await self._jobs.settled()
        async with self._removing:
            await self._remove(device)

    async def _remove(self, device: Device) -> None:
        if device.parent is None:
            return
        for bus in device.brought:
            for each in list(bus.devices):
                await self._remove(each)
            self.buses.remove(bus)
        device.bus.detach(device)
        path, inner = device.path, device.inner
        inner_path = inner.path if inner is not None else ""
        await self._take_out(device, drop=True)
        if inner_path:
            self._emit(DeviceDeleted(path=inner_path))
        self._emit(DeviceDeleted(device=device.id or None, path=path))

    async def reset(self) -> None:
        """Let those go that were waiting for it."""
        self._was_reset(None)
        for bus in list(self.buses):
            for device in [d for d in bus.devices if d.leaving and not d.stays]:
                await self._let_go(device)
                await self.remove(device)

    def _was_reset(self, device: Device | None) -> None:
        for hook in self.reset_hooks:
            hook(device)

    async def _take_out(self, device: Device, *, drop: bool = False) -> None:
        """Detach from the tree and the drive; ``drop``: a drive goes with its device."""
        self._was_reset(device)
        self.listeners.unseat(device)
        if device.model.does_nothing:
            self.claims.release(device)
        backend, device.backend = device.backend, None
        if backend is not None:
            backend.device = backend.device_id = ""
            backend.removable, backend.reports_errors = True, False
            backend.tray = backend.tray_open = False
            backend.media_hooks.clear()
            anonymous = not backend.title
            if anonymous or drop:
                self._forget(backend)
                self.automatic.discard(backend)
                await self._graph.remove(backend)
            else:
                want(backend, Perm.NONE, Perm.ALL)
        if device.parent is not None:
            device.parent.remove_child(device.name)

    def _forget(self, backend: Backend) -> None:
        for key, each in list(self._graph.backends.items()):
            if each is backend:
                del self._graph.backends[key]

    # Drives

    async def delete_drive(self, backend: Backend) -> None:
        """Take a drive's node away and its name; it stays as long as a device uses it."""
        await self._graph.remove(backend)
        device = self.of_backend(backend)
        if device is None:
            self._forget(backend)
            return
        backend.error_actions = ("report", "report")  # no reason to stop the guest any more
        old, backend.title = backend.title, ""
        self._graph.backends = {
            (device.owner.path if key == old else key): each
            for key, each in self._graph.backends.items()
        }


def _with_buses_behind(bus: Bus) -> Iterator[Bus]:
    yield bus
    for device in reversed(bus.devices):
        for part in device.list_devices():
            for child in reversed(part.child_buses):
                yield from _with_buses_behind(child)


def _folder(machine: Object, name: str) -> Object:
    found = machine.child(name)
    if found is None:
        found = Container()
        machine.add_child(name, found)
    return found
