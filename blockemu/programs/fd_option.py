"""``-add-fd``: descriptors that the program was started with."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockemu.errors import QmpError
from blockemu.optlist import number, parse_options

if TYPE_CHECKING:
    from blockemu.emulator import Emulator


class NoFdNumber(QmpError):
    """(option)."""

    template = "{} option is required and must be non-negative"


class StandardFd(QmpError):
    """A descriptor that the program itself uses."""

    template = "fd cannot be a standard I/O stream"


class InvalidFd(QmpError):
    """A descriptor that nobody passed."""

    template = "fd is not valid or already in use"


def add_fd(emu: "Emulator", value: str, warn: Callable[[str], None]) -> None:
    """Put a copy of a descriptor into a set.

    Raises:
        QmpError: it cannot be there.

    """
    options = parse_options(value, "", {"fd": "number", "set": "number", "opaque": "string"}, warn)
    fd, set_ = (number(options.get(key, "-1")) for key in ("fd", "set"))
    if fd is None or fd < 0:
        raise NoFdNumber("fd")
    if fd <= 2:
        raise StandardFd
    try:
        copy = os.dup(fd)
    except OSError as e:
        raise InvalidFd from e
    if set_ is None or set_ < 0:
        raise NoFdNumber("set")
    emu.fdsets.add(copy, set_, options.get("opaque"))
