"""Opening and making files of the host by their paths, in QEMU's words for what may go wrong."""

import errno
import fcntl
import os
import struct
from typing import Final

from blockemu.errors import HostError, QmpError
from blockemu.host.hostspace import FileSpace
from blockemu.host.locking import ImageLock
from blockemu.perm import Perm
from blockemu.qmp_server.scalars import c_int

NUL: Final = b"\xc0\x80"  # what a JSON string's \\u0000 is in a C string of QEMU's
DEFAULT_EXTENT_HINT: Final = 1 << 20  # bytes
_GET_FLAGS, _SET_FLAGS, _NO_COW = 0x80086601, 0x40086602, 0x00800000  # FS_IOC_*FLAGS, FS_NOCOW_FL
_GET_XATTR, _SET_XATTR, _EXTENT_SIZE = 0x801C581F, 0x401C5820, 0x00000800  # FS_IOC_FS*XATTR
_XATTR: Final = struct.Struct("=IIIII8x")  # struct fsxattr: flags, extent size, ...


class CouldNotOpen(QmpError):
    """(name, why)."""

    template = "Could not open '{}': {}"


class CouldNotCreate(HostError):
    """(name, why)."""

    template = "Could not create '{}': {}"


class DirectUnsupported(QmpError):
    """(name): the file system has no direct I/O."""

    template = "Could not open '{}': filesystem does not support O_DIRECT"


def open_path(name: str, flags: int) -> int:
    """Open a path, with QEMU's words for what may go wrong."""
    path = os.fsencode(name).replace(b"\0", NUL)
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as e:
        code = e.errno or errno.EIO
    if code == errno.EINVAL and flags & os.O_DIRECT:
        try:
            os.close(os.open(path, flags & ~os.O_DIRECT | os.O_CLOEXEC))
        except OSError:
            pass
        else:
            raise DirectUnsupported(name)
    raise CouldNotOpen(name, os.strerror(code))


def create_path(name: str) -> int:
    """Open a path for reading and writing; make the file if there is none.

    Raises:
        CouldNotCreate: with the system's reason.

    """
    path = os.fsencode(name).replace(b"\0", NUL)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        code = e.errno or errno.EIO
        raise CouldNotCreate(name, os.strerror(code), errno=code) from e


def make_image(
    fd: int, name: str, size: int, *, prealloc: str, nocow: bool, extent_hint: int | None
) -> str | None:
    """Empty a file that nobody else uses, and give it its size; blocks (raw_co_create).

    Returns a warning, if there is one.

    Raises:
        QmpError: somebody else uses it, or there is no room.

    """
    perm, shared = Perm.WRITE | Perm.RESIZE, Perm.ALL & ~Perm.RESIZE
    lock = ImageLock(fd)  # goes with the descriptor
    lock.take(perm, ~shared)
    lock.check(perm, shared, name)
    space = FileSpace(fd)
    space.resize(0, exact=True, prealloc="off")
    if nocow:
        _set_nocow(fd)
    warning = _set_extent_hint(fd, DEFAULT_EXTENT_HINT if extent_hint is None else extent_hint)
    space.resize(c_int(size, 64), exact=True, prealloc=prealloc)
    return warning if extent_hint else None


def _set_nocow(fd: int) -> None:
    """Ask for no copy-on-write, which btrfs knows; where that fails it is as well."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        value = struct.unpack_from("=I", flags)[0] | _NO_COW
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=II", value, 0))
    except OSError:
        return


def _set_extent_hint(fd: int, size: int) -> str | None:
    """Ask the file system to allocate in large pieces; return why it does not."""
    raw = bytearray(_XATTR.size)
    try:
        fcntl.ioctl(fd, _GET_XATTR, raw)
        flags, _, *rest = _XATTR.unpack(raw)
        fcntl.ioctl(fd, _SET_XATTR, _XATTR.pack(flags | _EXTENT_SIZE, size, *rest))
    except OSError as e:
        return f"Failed to set extent size hint: {os.strerror(e.errno or errno.EIO)}"
    return None
