"""Requests as a guest's driver makes them: by a device, under its error policies.

No CPU runs here, so what a guest would ask of a disk has to be asked by a test.  A request waits
for the machine to run; one that fails is reported, passed over, or kept while the machine is
stopped and made again when it goes on, as the device's rerror and werror say.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Final

from blockemu.backend import Backend
from blockemu.clocks import Clocks
from blockemu.errors import QmpError
from blockemu.machine.device import Device
from blockemu.machine.devices import Devices
from blockemu.machine.error_policies import action_for, announce
from blockemu.machine.types import Drive
from blockemu.node import Write
from blockemu.os_errors import os_error
from blockemu.qmp_server.qapi import Struct
from blockemu.runstate import Machine
from blockemu.schema.jobs import BlockErrorAction
from blockemu.schema.run_state import Resume, RunState, Stop
from blockemu.stats import Kind
from blockemu.waiting import wake

_CD_BLOCK: Final = 2048
_BLOCK: Final = 512


class NoDisk(QmpError):
    """The device has no disk that a guest could use."""

    template = "Device '{}' has no disk"


class Guest:
    """The requests of all devices.  ``stop`` stops the machine: nothing is under way after it."""

    MOST: Final = 0x7FFFFFFF & -_BLOCK  # bytes of one request

    def __init__(
        self,
        devices: Devices,
        machine: Machine,
        clocks: Clocks,
        emit: Callable[[Struct], None],
        stop: Callable[[RunState], Awaitable[None]],
    ) -> None:
        self._devices = devices
        self._machine = machine
        self.clocks = clocks
        self.emit = emit
        self._stop_machine = stop
        self._held: dict[asyncio.Future[None], Device] = {}  # who waits for the machine to go on
        self._stopping: asyncio.Task[None] | None = None
        self._halting = False  # whether that task has begun
        self.closed = False
        self._requests = 0
        machine.resume_hooks.append(self._go_on)
        devices.reset_hooks.append(self._drop)

    def disk(self, name: str) -> "GuestDisk":
        """Return the disk of a device, by the device's id or path.

        Raises:
            DeviceNotFound: there is no such device.
            NoDisk: it has none.
        """
        device = self._devices.find(name)
        if device.model.drive in (Drive.NONE, Drive.FLASH):
            raise NoDisk(name)
        return GuestDisk(self, device)

    def number(self) -> int:
        """Return a number for a request."""
        self._requests += 1
        return self._requests

    async def close(self) -> None:
        """Forget the requests that wait for the machine."""
        self.closed = True
        self._drop(None)
        if self._stopping is not None:
            await self._stopping

    async def turn(self, device: Device) -> None:
        """Wait until the machine runs.

        Raises:
            OSError: ECANCELED; the device was reset.
        """
        while not self._machine.running or self._stopping is not None:
            held = asyncio.get_running_loop().create_future()
            self._held[held] = device
            try:
                await held
            finally:
                self._held.pop(held, None)

    def stop(self) -> None:
        """Stop the machine for an error, as soon as what is going on just now is over."""
        if self._stopping is None and self._machine.running:
            self._stopping = asyncio.get_running_loop().create_task(self._halt())

    async def _halt(self) -> None:
        self._halting = True
        await self._stop_machine(RunState.IO_ERROR)
        self._stopping, self._halting = None, False
        if self._machine.running:  # somebody was quicker
            self._go_on()

    def _go_on(self) -> None:
        """Let requests be made again; who heard of an error hears of a stop in any case."""
        if self._stopping is not None and not self._halting:
            self._stopping.cancel()
            self._stopping = None
            self.emit(Stop())
            self.emit(Resume())
        wake(list(self._held))

    def _drop(self, device: Device | None) -> None:
        """Forget what a device, or any, was about to make again (virtio_blk_reset)."""
        for held, of in self._held.items():
            if device in (None, of) and not held.done():
                held.set_exception(os_error(errno.ECANCELED))


class GuestDisk:
    """What a guest may ask of one disk; offsets and lengths in bytes, whole blocks.

    A request raises OSError: EIO where the guest is told of a failure (of the device's own words
    for it there is no more than that), EINVAL if it makes no sense, ENOMEDIUM, ECANCELED if the
    device was reset meanwhile.
    """

    def __init__(self, guest: Guest, device: Device) -> None:
        self._guest = guest
        self._device = device
        usual = _CD_BLOCK if device.model.drive is Drive.MEDIUM else _BLOCK
        self.block = int(device.values.get("logical_block_size", usual))

    async def read(self, offset: int, length: int) -> bytes:
        """Read; where an error is passed over the rest is zeroes."""
        buffer = bytearray(length)
        await self._run(
            Kind.READ, offset, length, lambda b: b.pread(offset, buffer), transfers=True
        )
        return bytes(buffer)

    async def write(self, offset: int, data: bytes) -> None:
        """Write."""
        await self._run(
            Kind.WRITE, offset, len(data), lambda b: b.pwrite(offset, data), transfers=True
        )

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Make a range read as zeroes; ``unmap``: and need no space, if the node may do that."""
        flags = Write.MAY_UNMAP if unmap else 0
        await self._run(Kind.WRITE, offset, length, lambda b: b.write_zeroes(offset, length, flags))

    async def discard(self, offset: int, length: int) -> None:
        """Drop a range."""
        await self._run(Kind.UNMAP, offset, length, lambda b: b.discard(offset, length))

    async def flush(self) -> None:
        """Make what is written durable."""
        await self._run(Kind.FLUSH, 0, 0, lambda b: b.flush())

    async def _run(
        self,
        kind: Kind,
        offset: int,
        length: int,
        attempt: Callable[[Backend], Awaitable[None]],
        *,
        transfers: bool = False,
    ) -> None:
        await self._guest.turn(self._device)
        self._check(kind, offset, length)
        early = transfers and self._device.model.bus == "SCSI"
        while not await self._attempt(kind, length, attempt, early=early):
            await self._guest.turn(self._device)

    def _backend(self) -> Backend:
        backend = self._device.backend
        if backend is None:
            raise os_error(errno.ENODEV)
        if backend.inserted is None:
            raise os_error(errno.ENOMEDIUM)
        return backend

    def _check(self, kind: Kind, offset: int, length: int) -> None:
        """Refuse what the device would not pass on; that is invalid, not failed."""
        backend = self._backend()
        whole = not (offset % self.block or length % self.block)
        if not whole or length > Guest.MOST or not 0 <= offset <= backend.length - length:
            if self._accounts(kind):
                backend.stats.invalid(kind, self._guest.clocks)
            raise os_error(errno.EINVAL)

    async def _attempt(
        self,
        kind: Kind,
        length: int,
        attempt: Callable[[Backend], Awaitable[None]],
        *,
        early: bool,
    ) -> bool:
        """Make the request; return False if it is to be made again once the machine goes on.

        ``early``: a failure is accounted as such whatever is done about it, as SCSI disks do with
        transfers; other devices account what the guest is told.
        """
        backend, guest = self._backend(), self._guest
        measured = backend.stats.begin(kind, length, guest.clocks)
        error, action = await _errno(attempt(backend)), BlockErrorAction.IGNORE
        if error:
            is_read = kind is Kind.READ
            action = action_for(backend, error, is_read=is_read)
            announce(backend, action, error, guest.emit, is_read=is_read)
        if self._accounts(kind):
            if error and (early or action is BlockErrorAction.REPORT):
                measured.failed()
            elif action is not BlockErrorAction.STOP:
                measured.done()
        if action is BlockErrorAction.REPORT:
            raise os_error(errno.EIO)
        if action is BlockErrorAction.STOP:
            guest.stop()
        return action is not BlockErrorAction.STOP

    def _accounts(self, kind: Kind) -> bool:
        """Tell whether the device keeps account of such requests: virtio's discards are not."""
        return kind is not Kind.UNMAP or not self._device.model.inner


async def _errno(request: Awaitable[None]) -> int:
    """Await a request; return its errno, 0 if it succeeded."""
    try:
        await request
    except NotImplementedError:
        return errno.ENOTSUP
    except OSError as e:
        return e.errno or errno.EIO
    return 0
