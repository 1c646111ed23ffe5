"""Requests that a test makes in a guest's place; no QEMU has these."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import NO_QEMU, QEnum, Struct


class XEmuGuestOperation(QEnum):
    """What a guest may ask of a disk."""

    READ = "read"
    WRITE = "write"
    WRITE_ZEROES = "write-zeroes"
    DISCARD = "discard"
    FLUSH = "flush"


class XEmuGuestRequest(Struct):
    """A request that was made.

    @request: its number, which the event about its end has
    """

    request: int


class XEmuGuestIo(Event, event="X_EMU_GUEST_IO", since=NO_QEMU):
    """A request of x-emu-guest-io has come to its end: the guest knows.

    @request: its number
    @error: why it failed, as text; absent if it did not
    @data: what was read, in base64
    """

    request: int
    error: str | None = None
    data: str | None = None
