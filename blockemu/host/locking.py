"""Image locks, as QEMU's programs take them from one another.

A permission is a byte: one at 100 and up says that somebody uses the permission, one at 200 and up
that somebody does not share it.  All take shared (read) locks on their bytes and then look whether
anybody else holds a byte that contradicts.  The locks belong to the open file description (OFD
locks), so several nodes of one process exclude each other, too.  After raw_handle_perm_lock,
block/file-posix.c.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from blockemu.errors import QmpError
from blockemu.perm import Perm, perm_names
from blockemu.records import record

USED_BASE = 100
UNSHARED_BASE = 200
ELSEWHERE = (errno.EAGAIN, errno.EACCES)  # somebody else holds the lock
_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, pid


class LockTaken(QmpError):
    """Another program uses a permission or does not share it: (what kind, permission)."""

    template = 'Failed to get {}"{}" lock'


class LockFailed(QmpError):
    """A lock cannot be set for another reason than another user: (what, byte, why)."""

    template = "Failed to {} byte {}{}"


def bits(perm: Perm) -> Iterator[tuple[int, Perm]]:
    """Yield the permissions in a set, with their numbers."""
    for number, one in enumerate(Perm):
        if one in perm:
            yield number, one


class ImageLock:
    """What one open file description holds: which bytes, as ``used`` and ``unshared``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.used = Perm.NONE
        self.unshared = Perm.NONE

    def take(self, used: Perm, unshared: Perm) -> None:
        """Hold these bytes in addition; raises LockFailed with what it got so far held."""
        for number, one in bits(used & ~self.used):
            self._set(USED_BASE + number, fcntl.F_RDLCK, "lock")
            self.used |= one
        for number, one in bits(unshared & ~self.unshared):
            self._set(UNSHARED_BASE + number, fcntl.F_RDLCK, "lock")
            self.unshared |= one

    def keep(self, used: Perm, unshared: Perm) -> None:
        """Let go of all other bytes."""
        for number, one in bits(self.used & ~used):
            self._set(USED_BASE + number, fcntl.F_UNLCK, "unlock")
            self.used &= ~one
        for number, one in bits(self.unshared & ~unshared):
            self._set(UNSHARED_BASE + number, fcntl.F_UNLCK, "unlock")
            self.unshared &= ~one

    def check(self, perm: Perm, shared: Perm, filename: str) -> None:
        """Raise LockTaken if another holder contradicts ``perm`` and ``shared``."""
        hint = f"Is another process using the image [{filename}]?\n"
        for number, one in bits(perm):
            self._test(UNSHARED_BASE + number, "", one, hint)
        for number, one in bits(Perm.ALL & ~shared):
            self._test(USED_BASE + number, "shared ", one, hint)

    def _set(self, byte: int, kind: int, verb: str) -> None:
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _flock(kind, byte))
        except OSError as e:
            why = "" if e.errno in ELSEWHERE else f": {os.strerror(e.errno or errno.EIO)}"
            raise LockFailed(verb, byte, why) from e

    def _test(self, byte: int, kind: str, perm: Perm, hint: str) -> None:
        found = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
        if _FLOCK.unpack(found)[0] != fcntl.F_UNLCK:
            raise LockTaken(kind, perm_names(perm), hint=hint)


def _flock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


@record(eq=False)
class Opened:
    """A descriptor (-1: closed), its flags, its locks, and the alignment it asks for."""

    fd: int
    flags: int
    lock: ImageLock
    align: int
