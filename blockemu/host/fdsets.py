"""File descriptor sets: descriptors a client handed over, opened by name as ``/dev/fdset/N``.

After monitor/misc.c and qemu_open, util/osdep.c: the set keeps what was added; each open of its
name makes a duplicate whose access mode matches; a set without either goes away.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from blockemu.errors import QmpError
from blockemu.records import field, record

PREFIX = "/dev/fdset/"
_SETTABLE = os.O_APPEND | os.O_ASYNC | os.O_DIRECT | os.O_NOATIME | os.O_NONBLOCK


class FdNotFound(QmpError):
    """No descriptor, or no set, goes by this name."""

    template = "File descriptor named '{}' not found"


class NegativeId(QmpError):
    """Ids of sets count from zero."""

    template = "Parameter 'fdset-id' expects a non-negative value"


class BadFdSetName(QmpError):
    """What follows the prefix is not a number."""

    template = "Could not parse fdset {}"


class CannotDuplicate(QmpError):
    """The set does not exist, or has no descriptor with the access mode asked for."""

    template = "Could not dup FD for {} flags {:x}: {}"


@record(eq=False)
class Member:
    """A descriptor in a set."""

    fd: int
    opaque: str | None = None
    removed: bool = False


@record(eq=False)
class FdSet:
    """What was added, the latest first, and the duplicates that are in use."""

    number: int
    members: list[Member] = field(default_factory=list)
    duplicates: set[int] = field(default_factory=set)


class FdSets:
    """All sets of an emulator.

    ``monitors`` is the number of connected monitors: a set that nobody uses lives only as long as
    one is there, so that a client that dies leaves no descriptors behind.  While ``keeps`` says so,
    as a stopped machine does, descriptors stay whatever happens.
    """

    def __init__(self, keeps: Callable[[], bool] = lambda: False) -> None:
        self._keeps = keeps
        self._sets: dict[int, FdSet] = {}
        self.monitors = 0

    def __iter__(self) -> Iterator[FdSet]:
        """Yield the sets in the order of their numbers."""
        return iter(sorted(self._sets.values(), key=lambda fdset: fdset.number))

    def add(self, fd: int, number: int | None = None, opaque: str | None = None) -> FdSet:
        """Take ``fd`` over into a set, a new one with the first free number if none is named.

        Raises:
            NegativeId: ``fd`` stays the caller's.
        """
        if number is None:
            number = next(n for n in range(len(self._sets) + 1) if n not in self._sets)
        elif number < 0:
            raise NegativeId
        fdset = self._sets.setdefault(number, FdSet(number))
        fdset.members.insert(0, Member(fd, opaque))
        return fdset

    def remove(self, number: int, fd: int | None = None) -> None:
        """Close one descriptor of a set, or all; the set stays while duplicates are in use."""
        fdset = self._sets.get(number)
        chosen = [m for m in fdset.members if fd is None or m.fd == fd] if fdset else []
        if fdset is None or (fd is not None and not chosen):
            raise FdNotFound(f"fdset-id:{number}" + ("" if fd is None else f", fd:{fd}"))
        for member in chosen:
            member.removed = True
        self._clean(fdset)

    def dup(self, path: str, flags: int) -> int:
        """Open ``/dev/fdset/N`` with ``open(2)``'s flags; close the result by ``close``.

        Raises:
            BadFdSetName: the name has no number.
            CannotDuplicate: as ENOENT or EACCES.
        """
        digits = path.removeprefix(PREFIX)
        if not (digits.isascii() and digits.isdigit()):
            raise BadFdSetName(path)
        try:
            return self._dup(int(digits), flags)
        except OSError as e:
            raise CannotDuplicate(path, flags, os.strerror(e.errno or errno.EIO)) from e

    def _dup(self, number: int, flags: int) -> int:
        fdset = self._sets.get(number)
        if fdset is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        for member in fdset.members:
            theirs = fcntl.fcntl(member.fd, fcntl.F_GETFL)
            if theirs & os.O_ACCMODE == flags & os.O_ACCMODE:
                break
        else:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        fd = fcntl.fcntl(member.fd, fcntl.F_DUPFD_CLOEXEC, 0)
        try:
            if theirs & _SETTABLE != flags & _SETTABLE:
                fcntl.fcntl(fd, fcntl.F_SETFL, theirs & ~_SETTABLE | flags & _SETTABLE)
        except OSError:
            os.close(fd)
            raise
        fdset.duplicates.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """Close a descriptor, one of ``dup``'s or any other."""
        os.close(fd)
        for fdset in list(self):
            if fd in fdset.duplicates:
                fdset.duplicates.discard(fd)
                if not fdset.duplicates:
                    self._clean(fdset)

    def monitor_gone(self) -> None:
        """Note that a monitor's client has left; close what nobody uses if it was the last."""
        self.monitors -= 1
        for fdset in list(self):
            self._clean(fdset)

    def close_all(self) -> None:
        """Close what was added: the end."""
        for fdset in self._sets.values():
            for member in fdset.members:
                os.close(member.fd)
        self._sets.clear()

    def _clean(self, fdset: FdSet) -> None:
        unused = not fdset.duplicates and self.monitors == 0
        for member in list(fdset.members):
            if (member.removed or unused) and not self._keeps():
                os.close(member.fd)
                fdset.members.remove(member)
        if not fdset.members and not fdset.duplicates:
            self._sets.pop(fdset.number, None)
