"""How a file of the host is open: for what access, and with which permissions locked.

After raw_check_perm, raw_reconfigure_getfd and raw_handle_perm_lock of block/file-posix.c.
"""

import errno
import os
from collections.abc import Callable
from typing import Final

from blockemu.errors import QmpError
from blockemu.file_creation import FDSET
from blockemu.host.file_errors import NotWritable
from blockemu.host.hostpath import open_path
from blockemu.host.locking import ImageLock, Opened
from blockemu.host.sysfile import device_is_read_only, direct_alignment
from blockemu.perm import Perm
from blockemu.services import Services
from blockemu.transaction import Transaction


class FileAccess:
    """The descriptor of a file, and the one that will follow it.

    Its number stays the same.  Where another access mode is needed (auto-read-only, a reopen),
    the file is opened anew and takes over the number when the transaction commits, so a thread's
    request is done on one or the other.

    Raises QmpError.
    """

    def __init__(
        self,
        services: Services,
        path: str,
        flags: int,
        *,
        locks: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        """Open the file.

        Args:
            services: those of the node
            path: of the file, or of a descriptor handed over (``/dev/fdset/N``)
            flags: those of open(2)
            locks: tells whether other programs are to be kept from conflicting uses now
            on_change: called just before another descriptor takes over the number
        """
        self._services: Final = services
        self._path: Final = path
        self._locks: Final = locks
        self._on_change: Final = on_change
        self._wanted = self._settled = (Perm.NONE, Perm.ALL)
        self._active = self._next = self._open(flags)

    @property
    def fd(self) -> int:
        """The number of the descriptor."""
        return self._active.fd

    @property
    def align(self) -> int:
        """What offsets, lengths and addresses of requests must be multiples of, in bytes."""
        return self._active.align

    @property
    def direct(self) -> bool:
        """Whether requests pass the page cache by."""
        return bool(self._active.flags & os.O_DIRECT)

    def close(self) -> None:
        """Close the file; its locks go with it."""
        self._close(self._active)

    def set_perm(
        self, perm: Perm, shared: Perm, flags: int, name: str, transaction: Transaction
    ) -> None:
        """Lock the image for these permissions, and open it with the flags that they take.

        Until the commit the old descriptor holds the locks of before and after; a transaction may
        change its mind as often as it likes.  Errors call the file ``name``.
        """
        before = self._wanted, self._next
        target = self._matching(flags)
        try:
            self._lock(perm, shared, name)
        except BaseException:
            self._drop(target, unless=self._next)
            raise
        self._wanted, self._next = (perm, shared), target

        def undo() -> None:
            self._wanted, self._next = before
            self._drop(target, unless=self._next)
            self._keep()

        def settle() -> None:
            self._drop(target, unless=self._next)
            self._settle()

        transaction.on_abort(undo)
        transaction.on_commit(settle)

    # Descriptors

    def _open(self, flags: int) -> Opened:
        """Open the file once more."""
        if self._path.startswith(FDSET):
            fd = self._services.fdsets.dup(self._path, flags)
        else:
            fd = open_path(self._path, flags)
        opened = Opened(fd, flags, ImageLock(fd), 1)
        try:
            if flags & os.O_RDWR and device_is_read_only(fd):
                raise NotWritable(os.strerror(errno.EACCES))
            if flags & os.O_DIRECT:
                opened.align = direct_alignment(fd)
        except BaseException:
            self._close(opened)
            raise
        return opened

    def _close(self, opened: Opened) -> None:
        if self._path.startswith(FDSET):
            self._services.fdsets.close(opened.fd)
        else:
            os.close(opened.fd)
        opened.fd = -1

    def _matching(self, flags: int) -> Opened:
        """Return a descriptor with these flags: used, or wanted last, or new."""
        for opened in (self._active, self._next):
            if opened.flags == flags:
                return opened
        return self._open(flags)

    def _drop(self, opened: Opened, *, unless: Opened) -> None:
        if opened is not unless and opened is not self._active and opened.fd >= 0:
            self._close(opened)

    def _settle(self) -> None:
        """Make the permissions wanted last those that count."""
        self._settled = self._wanted
        if self._next is not self._active:
            self._take_over(self._next, self._active)
        self._keep()

    def _take_over(self, new: Opened, old: Opened) -> None:
        """Give the old descriptor's number to the new one, which gets the locks first."""
        try:
            new.lock.take(old.lock.used, old.lock.unshared)
        except QmpError as e:
            self._services.warn(str(e))  # nobody locks exclusively: this does not happen
        self._on_change()
        os.dup2(new.fd, old.fd, inheritable=False)
        self._close(new)
        old.flags, old.align = new.flags, new.align
        self._next = old

    # Locks

    def _lock(self, perm: Perm, shared: Perm, name: str) -> None:
        """Hold what was needed before and what will be; on failure only the former."""
        lock = self._active.lock
        if not (self._locks() and (perm & ~lock.used or ~shared & ~lock.unshared)):
            return
        try:
            lock.take(perm, ~shared)
            lock.check(perm, shared, name)
        except BaseException:
            self._keep()
            raise

    def _keep(self) -> None:
        """Let go of locks that neither the permissions settled on nor the wanted ones need."""
        if self._locks():
            perm, shared = self._wanted
            was_perm, was_shared = self._settled
            self._active.lock.keep(perm | was_perm, ~shared | ~was_shared)
