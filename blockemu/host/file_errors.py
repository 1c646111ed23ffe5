"""What can be wrong with files and devices of the host, in QEMU's words (block/file-posix.c)."""

from blockemu.errors import QmpError


class NotWritable(QmpError):
    """(why): the device as such is read-only."""

    template = "The device is not writable: {}"


class NotRegular(QmpError):
    """(driver, name)."""

    template = "'{}' driver requires '{}' to be a regular file"


class NativeNeedsDirect(QmpError):
    """Linux AIO waits unless the page cache is out of the way."""

    template = "aio=native was specified, but it requires cache.direct=on, which was not specified."


class NoReservations(QmpError):
    """(id): there are no such objects here."""

    template = "No persistent reservation manager with id '{}'"
