"""Devices on buses, and the backends they use (after softmmu/qdev-monitor.c, hw/block/block.c)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from blockemu.backend import Backend, drained
from blockemu.errors import (
    DeviceNotFound,
    InvalidParameterValue,
    MissingParameter,
    NodeNotFound,
    QmpError,
)
from blockemu.graph import Graph
from blockemu.jobs.registry import Jobs
from blockemu.machine.device import Bus, Device, class_of, inner_of
from blockemu.machine.device_errors import (
    BadSlot,
    BusFull,
    BusNotFound,
    DriveAutomatic,
    DriveNotFound,
    DriveTaken,
    DuplicateDevice,
    NeedsMedium,
    NoBackend,
    NoBus,
    NoChassis,
    NoHotplug,
    NoIothreads,
    NoSuchProperty,
    NotADevice,
    UnknownDevice,
    UnplugPending,
    WrongBus,
)
from blockemu.machine.error_policies import apply_policies
from blockemu.machine.property_values import check_value, slot
from blockemu.machine.types import BY_NAME, DeviceType, Drive
from blockemu.optlist import IDENTIFIER_HINT, is_identifier, is_on
from blockemu.perm import Perm
from blockemu.permissions import want
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import Struct
from blockemu.qmp_server.scalars import parse_unsigned
from blockemu.qom import Container, NoSuchObject, Object, Tree
from blockemu.schema.devices import DeviceDeleted
from blockemu.threads import IothreadFixed, roots_around

_SPECIAL = ("driver", "id", "bus")


class Devices:
    """The devices of a machine.  It has none, and no buses, until ``furnish`` gives it some."""

    def __init__(self, graph: Graph, jobs: Jobs, qom: Tree, emit: Callable[[Struct], None]) -> None:
        self._graph = graph
        self._jobs = jobs
        self._qom = qom
        self._emit = emit
        self.buses: list[Bus] = []
        self.started = False  # from then on devices are plugged in while the machine is on
        self.automatic: set[Backend] = set()  # drives that the machine connects by itself
        self._anonymous = 0
        self._numbered: Counter[str] = Counter()  # buses without an id, by kind
        self._removing = asyncio.Lock()  # one leaves after another
        self.reset_hooks: list[Callable[[Device | None], None]] = []  # None: all are reset

    def furnish(self, buses: list[Bus]) -> None:
        """Give the machine its buses, and devices their folders."""
        self.buses = buses
        self._numbered["PCI"] = sum(bus.name == "pci.0" for bus in buses)
        for name in ("unattached", "peripheral", "peripheral-anon"):
            _folder(self._qom.container("machine"), name)

    # Looking up

    def find(self, name: str) -> Device:
        """Find a device by its id or its path.

        Raises:
            DeviceNotFound: there is none.
            NotADevice: the path is something else's.

        """
        try:
            found = self._qom.resolve(
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
        return next((d for bus in self.buses for d in bus.devices if d.backend is backend), None)

    def iothread_of(self, backend: Backend) -> str | None:
        """Return the I/O thread of the controller of the device that uses a backend.

        A virtio-blk disk's own thread takes over when the guest runs, which it never does.
        """
        device = self.of_backend(backend)
        return self._iothread_above(device) if device is not None else None

    def _iothread_above(self, device: Device) -> str | None:
        at: Device | None = device
        while at is not None:
            bus, every = at.bus, (each for bus in self.buses for each in bus.devices)
            at = next((each for each in every if each.child_bus is bus), None)
            if at is not None and "iothread" in at.values:
                return at.values["iothread"]
        return None

    def _check_iothread(self, device: Device) -> None:
        """Refuse a disk whose other users are in another thread (virtio_scsi_hotplug)."""
        backend, threads = device.backend, self._graph.threads
        if not threads.used or backend is None or backend.inserted is None:
            return
        rest = [edge for edge in roots_around(backend.inserted) if edge is not backend]
        if {threads.pinned(edge) for edge in rest} <= {self._iothread_above(device) or "", None}:
            return
        raise NoIothreads if device.bus.kind == "SCSI" and device.bus.plain else IothreadFixed

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
            raise UnknownDevice(given)
        bus = self._bus(model, options.get("bus"))
        if self.started and not bus.hotplug:
            raise NoHotplug(bus.name)
        device = class_of(model)(model, bus, options.get("id", ""))
        self._place(device, folder)
        await self._start(device, options)
        if model.makes:
            plain = "iothread" not in model.properties
            bridge = model.makes == "PCI"
            device.stays = bridge and not self.started
            device.child_bus = Bus(
                self._bus_name(device), model.makes, plain=plain, standard=bridge and self.started
            )
            self.buses.append(device.child_bus)
        return device

    async def add_fixed(self, model: DeviceType, name: str, drive: str) -> Device:
        """Make a device that belongs to the machine itself.

        Raises:
            QmpError: it cannot be; nothing is left of it.

        """
        bus = next(bus for bus in self.buses if bus.kind == model.bus)
        device = class_of(model)(model, bus, "")
        self._qom.container("machine").add_child(name, device)
        await self._start(device, {"drive": drive})
        return device

    async def _start(self, device: Device, options: Mapping[str, str]) -> None:
        device.graph = self._graph
        try:
            self._set_properties(device, options)
            self._realise(device)
            self._check_slot(device)
            device.bus.devices.append(device)
            self._check_iothread(device)
        except BaseException:
            device.bus.devices = [each for each in device.bus.devices if each is not device]
            await self._take_out(device)
            raise

    def _bus(self, model: DeviceType, name: str | None) -> Bus:
        if name is None:
            fits = (b for b in self._from_roots() if b.kind == model.bus and not b.full)
            found = next(fits, None)
            if found is None:
                raise NoBus(model.bus, model.name)
            return found
        found = next((b for b in self.buses if b.name == name), None)
        if found is None:
            raise BusNotFound(name)
        if found.kind != model.bus:
            raise WrongBus(model.name, found.kind)
        if found.full:
            raise BusFull(name)
        return found

    def _from_roots(self) -> Iterator[Bus]:
        """Yield each bus before those behind it, the youngest first (qbus_find_recursive)."""
        behind = {d.child_bus for bus in self.buses for d in bus.devices}
        for bus in reversed(self.buses):
            if bus not in behind:
                yield from _with_buses_behind(bus)

    def _bus_name(self, device: Device) -> str:
        kind = device.model.makes
        if device.id:
            return device.id if kind == "PCI" else f"{device.id}.0"
        taken = self._numbered[kind]
        self._numbered[kind] += 1
        return f"{kind.lower()}.{taken}"

    def _place(self, device: Device, folder: str) -> None:
        machine = self._qom.container("machine")
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
        if device.model.inner:
            device.add_child("virtio-backend", inner_of(device.model))

    def _set_properties(self, device: Device, options: Mapping[str, str]) -> None:
        for name in in_order(options):
            if name in _SPECIAL:
                continue
            kind = device.model.properties.get(name)
            value = options[name]
            if kind is None:
                raise NoSuchProperty(device.model.name, name)
            check_value(name, kind, value)
            device.values[name] = value
            if name == "drive" and value:
                self._attach(device, value)
            if name == "iothread" and value and self._qom.container("objects").child(value) is None:
                raise DeviceNotFound(value)
            self._graph.threads.used |= name == "iothread"

    def _attach(self, device: Device, name: str) -> None:
        """Give a device its backend: a drive's, or a new one on a node (set_drive_helper)."""
        backend = self._graph.backends.get(name)
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

    def _realise(self, device: Device) -> None:
        """Check the drive and take the permissions (blkconf_apply_backend_options)."""
        kind, backend = device.model.drive, device.backend
        bridge = device.model.makes == "PCI"
        if bridge and not parse_unsigned(device.values.get("chassis_nr", "0")):
            raise NoChassis
        if kind is Drive.NONE:
            return
        has_tray = kind is Drive.MEDIUM or is_on(device.values.get("removable"))
        may_be_empty = has_tray or kind is Drive.FLOPPY
        if backend is None and not may_be_empty:
            raise QmpError(device.model.no_drive)
        if backend is None:
            backend = device.backend = Backend()
            self._graph.backends[device.owner.path] = backend
            backend.device = backend.device_id = device.called
        if backend.inserted is None and not may_be_empty:
            raise NeedsMedium
        self._take_permissions(device, backend)
        cache = device.values.get("write-cache", "auto")
        if cache != "auto":
            backend.write_cache = cache == "on"
        apply_policies(backend, device.values)
        backend.removable = may_be_empty
        backend.tray = has_tray
        backend.reports_errors = kind not in (Drive.FLOPPY, Drive.FLASH)
        backend.reset_io_status()
        if kind is Drive.FLOPPY:
            backend.media_hooks.append(lambda loaded: self._floppy_changed(device, loaded))

    def _check_slot(self, device: Device) -> None:
        """Refuse the first slot behind a bridge that was plugged in, which is the default."""
        if device.bus.standard and slot(device.values.get("addr", "0")) == 0:
            inner = device.child("virtio-backend")
            if inner is not None:
                self._emit(DeviceDeleted(path=inner.path))
            raise BadSlot(0)

    def _floppy_changed(self, device: Device, loaded: bool) -> None:
        """Want of the disk what it gives; of none, nothing (fd_change_cb, hw/block/fdc.c)."""
        assert device.backend is not None
        if loaded:
            self._take_permissions(device, device.backend)
        else:
            device.backend.perm, device.backend.shared = Perm.NONE, Perm.ALL

    def _take_permissions(self, device: Device, backend: Backend) -> None:
        kind, node = device.model.drive, backend.inserted
        read_only = kind is Drive.MEDIUM or (
            kind is not Drive.WRITABLE and (node is None or node.flags.read_only)
        )
        perm = Perm.CONSISTENT_READ if read_only else Perm.CONSISTENT_READ | Perm.WRITE
        shared = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
        if kind in (Drive.DISK, Drive.WRITABLE):
            shared |= Perm.RESIZE
        if is_on(device.values.get("share-rw")):
            shared |= Perm.WRITE
        if kind is Drive.FLASH:
            shared = Perm.ALL
        if self._graph.incoming and backend.suspended is None:
            backend.suspended = backend.perm, backend.shared
        want(backend, perm, shared)

    # Unplugging

    async def request_removal(self, name: str) -> Callable[[], Any] | None:
        """Begin to unplug; return what finishes it at once, None if the guest must consent.

        The guest that nobody runs consents when the machine is reset.
        """
        device = self.find(name)
        if device.leaving:
            raise UnplugPending(device.id or name)
        if not device.bus.hotplug:
            raise NoHotplug(device.bus.name)
        device.leaving = True
        if device.bus.kind == "PCI" and not device.bus.standard:
            return None
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
        if device.child_bus is not None:
            for each in list(device.child_bus.devices):
                await self._remove(each)
            self.buses.remove(device.child_bus)
        device.bus.devices.remove(device)
        path, inner = device.path, device.child("virtio-backend")
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
        if device.child_bus is not None:
            yield from _with_buses_behind(device.child_bus)


def _folder(machine: Object, name: str) -> Object:
    found = machine.child(name)
    if found is None:
        found = Container()
        machine.add_child(name, found)
    return found
