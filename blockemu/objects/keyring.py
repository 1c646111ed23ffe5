"""Secrets that the kernel keeps (crypto/secret_keyring.c)."""

import ctypes
import errno
import os
from typing import Final

from blockemu.errors import QmpError
from blockemu.objects.object_add import SecretCommon
from blockemu.objects.qom import Property
from blockemu.os_errors import os_error

_KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
_READ: Final = 11  # what keyctl(2) is to do


class NoKey(QmpError):
    """None has this number."""

    template = "'serial' should not be equal to 0"


class UnreadableKey(QmpError):
    """(number in hexadecimal, why)."""

    template = "Unable to read serial key {}: {}"


def read_key(serial: int) -> bytes:
    """Return what a key of the kernel's holds.

    Raises:
        OSError: it cannot be read.

    """
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        raise os_error(errno.ENOSYS)
    size = 0
    while True:
        buffer = ctypes.create_string_buffer(size) if size else None
        length = _system_call(number, serial, buffer, size)
        if length <= size:
            return buffer.raw[:length] if buffer else b""
        size = length


def _system_call(
    number: int, serial: int, buffer: "ctypes.Array[ctypes.c_char] | None", size: int
) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    arguments = ctypes.c_int32(serial), buffer, ctypes.c_size_t(size)
    length = int(syscall(ctypes.c_long(number), ctypes.c_int(_READ), *arguments))
    if length < 0:
        code = ctypes.get_errno()
        raise os_error(code)
    return length


def _set_serial(self: "SecretKeyring", value: int) -> None:
    if not value:
        raise NoKey
    self.serial = value


class SecretKeyring(SecretCommon):
    """A password or key that the kernel keeps."""

    TYPE = "secret_keyring"
    PROPERTIES = (Property("serial", "int32_t", int, lambda self: self.serial, _set_serial),)

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0

    def load(self) -> bytes:
        """Return the key."""
        try:
            return read_key(self.serial)
        except OSError as e:
            why = os.strerror(e.errno or errno.EIO)
            raise UnreadableKey(f"{self.serial & 0xFFFFFFFF:08x}", why) from e
