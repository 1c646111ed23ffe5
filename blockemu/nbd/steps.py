"""The steps of a handshake: what a transport is to do next, on either side."""

from collections.abc import Generator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Send(NamedTuple):
    """Send these bytes."""

    data: bytes


class Receive(NamedTuple):
    """Receive exactly so many bytes and send them in; or throw ``Lost``.

    ``what`` is for the log, empty where QEMU does not say.
    """

    size: int
    what: str = ""


class StartTls(NamedTuple):
    """Encrypt from now on; or throw what went wrong."""


Step = Send | Receive | StartTls
Handshake = Generator[Step, bytes, T]
