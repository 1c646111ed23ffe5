"""Requests in a guest's place, for tests of what clients do when disks fail."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Final

from blockemu.commands.context import Context
from blockemu.errors import InvalidParameterValue, MissingParameter
from blockemu.machine.guest import GuestDisk
from blockemu.objects.object_add import decode_base64
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import NO_QEMU, U8, U64
from blockemu.schema.guest import XEmuGuestIo, XEmuGuestOperation, XEmuGuestRequest

_Run = Callable[[GuestDisk, int, int, bytes], Awaitable[bytes | None]]
_RUN: Final[dict[XEmuGuestOperation, _Run]] = {
    XEmuGuestOperation.READ: lambda disk, at, length, _: disk.read(at, length),
    XEmuGuestOperation.WRITE: lambda disk, at, _, data: disk.write(at, data),
    XEmuGuestOperation.WRITE_ZEROES: lambda disk, at, length, _: disk.write_zeroes(at, length),
    XEmuGuestOperation.DISCARD: lambda disk, at, length, _: disk.discard(at, length),
    XEmuGuestOperation.FLUSH: lambda disk, *_: disk.flush(),
}


@command(name="x-emu-guest-io", since=NO_QEMU, features=("unstable",))
async def x_emu_guest_io(
    context: Context,
    *,
    device: str,
    operation: XEmuGuestOperation,
    offset: U64 = 0,
    length: U64 | None = None,
    data: str | None = None,
    pattern: U8 | None = None,
) -> XEmuGuestRequest:
    """Ask something of a disk as its guest's driver would, under the device's rerror and werror.

    The reply comes at once, and X_EMU_GUEST_IO when the guest would know of the end.

    @device: id or path of the device
    @operation: what is asked
    @offset: where, in bytes
    @length: how many bytes; not of a flush, nor where there is @data
    @data: what to write, in base64
    @pattern: what to write instead: @length times this byte
    """
    emu, disk = context.emu, context.emu.guest.disk(device)
    content = decode_base64(data.encode()) if data is not None else b""
    if operation is XEmuGuestOperation.FLUSH:
        length = 0
    elif operation is XEmuGuestOperation.WRITE and data is not None:
        if length is not None or pattern is not None:
            raise InvalidParameterValue("data", "neither length nor pattern beside it")
        length = len(content)
    if length is None:
        raise MissingParameter("length")
    if length > emu.guest.MOST:
        raise InvalidParameterValue("length", f"a number up to {emu.guest.MOST}")
    if operation is XEmuGuestOperation.WRITE and data is None:
        content = bytes([pattern or 0]) * length
    number = emu.guest.number()

    async def run() -> None:
        error, result = None, None
        try:
            result = await _RUN[operation](disk, offset, length, content)
        except OSError as e:
            error = e.strerror
        if not emu.guest.closed:
            said = base64.b64encode(result).decode() if result is not None else None
            emu.emit(XEmuGuestIo(request=number, error=error, data=said))

    asyncio.get_running_loop().call_soon(lambda: emu.keep(run()))  # the reply comes first
    return XEmuGuestRequest(request=number)
