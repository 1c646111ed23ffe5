"""Room on the host: zeroing, dropping and resizing in the ways that the kernel offers.

The file systems differ in what they can do.  What turned out not to work is not tried again.  All
methods block and belong on a thread.
"""

import errno
import os
from typing import Literal

import numpy as np

from blockemu.errors import HostError
from blockemu.extents import ALLOCATED, DATA, ZERO, Extents
from blockemu.host.sysfile import (
    KEEP_SIZE,
    PUNCH_HOLE,
    ZERO_RANGE,
    discard_device,
    fallocate,
    zero_device,
)
from blockemu.os_errors import os_error

FIRST_BLOCK = 4096
STEP = 1 << 20  # bytes of zeroes written at once
Ability = Literal["zero", "punch", "reserve"]


class CouldNotResize(HostError):
    """(why)."""

    template = "Could not resize file: {}"


class CouldNotPreallocate(HostError):
    """(why)."""

    template = "Could not preallocate new data: {}"


class CouldNotWriteZeroes(HostError):
    """(why)."""

    template = "Could not write zeros for preallocation: {}"


class NoShrinkPreallocation(HostError):
    """There is nothing to allocate in a file that becomes shorter."""

    template = "Cannot use preallocation for shrinking files"


class UnknownPreallocation(HostError):
    """(mode): a mode that only formats know."""

    template = "Unsupported preallocation mode: {}"


class NoDevicePreallocation(HostError):
    """(mode): a device has all its room already."""

    template = "Preallocation mode '{}' unsupported for this non-regular file"


class FixedDevice(HostError):
    """A device has the size it has."""

    template = "Cannot resize device files"


class ShortDevice(HostError):
    """A device has the size it has, and more is wanted."""

    template = "Cannot grow device files"


class FileSpace:
    """The room of a regular file (handle_aiocb_write_zeroes and others, block/file-posix.c)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lacks: set[Ability] = set()

    def _try(self, ability: Ability, mode: int, offset: int, length: int) -> bool:
        """Return whether it worked; raise anything but the lack of the ability."""
        if ability in self._lacks:
            return False
        try:
            fallocate(self.fd, mode, offset, length)
        except OSError as e:
            if e.errno == errno.ENOTSUP:
                self._lacks.add(ability)
            elif e.errno != errno.EINVAL or mode == 0:  # some dislike unaligned ranges
                raise
            return False
        return True

    def zero(self, offset: int, length: int, *, unmap: bool, fallback: bool = True) -> None:
        """Make a range read as zeroes, without a trace on the disk if ``unmap`` is True.

        A hole punched beyond the end leaves the file as short as it was.  Raises ENOTSUP if only
        writing will do.
        """
        if unmap and self._punch_lightly(offset, length):
            return
        if self._try("zero", ZERO_RANGE, offset, length):
            return
        if (
            "reserve" not in self._lacks
            and self._try("punch", PUNCH_HOLE | KEEP_SIZE, offset, length)
            and self._try("reserve", 0, offset, length)
        ):
            return
        if offset >= os.fstat(self.fd).st_size and self._try("reserve", 0, offset, length):
            return
        raise os_error(errno.ENOTSUP)

    def _punch_lightly(self, offset: int, length: int) -> bool:
        try:
            fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        except OSError as e:
            if e.errno not in (errno.ENOTSUP, errno.EINVAL, errno.EBUSY):
                raise
            return False
        return True

    def drop(self, offset: int, length: int) -> None:
        """Punch a hole; raises ENOTSUP where that cannot be done."""
        if "punch" in self._lacks:
            raise os_error(errno.ENOTSUP)
        try:
            fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        except OSError as e:
            if e.errno == errno.ENOTSUP:
                self._lacks.add("punch")
            raise

    def resize(self, length: int, *, exact: bool, prealloc: str) -> None:
        """Set the size and, as ``prealloc`` says, take the room; undone if that fails."""
        old = os.fstat(self.fd).st_size
        if length < old and prealloc != "off":
            raise NoShrinkPreallocation(errno=errno.ENOTSUP)
        grow = {"off": self._grow, "falloc": self._reserve, "full": self._fill}.get(prealloc)
        if grow is None:
            raise UnknownPreallocation(prealloc, errno=errno.ENOTSUP)
        try:
            grow(old, length)
        except OSError:
            os.ftruncate(self.fd, old)
            raise

    def _grow(self, old: int, length: int) -> None:
        try:
            os.ftruncate(self.fd, length)
        except OSError as e:
            raise _in_words(CouldNotResize, e) from e
        if not old and length:
            self._allocate_first_block(length)

    def _reserve(self, old: int, length: int) -> None:
        if length == old:
            return
        try:
            os.posix_fallocate(self.fd, old, length - old)
        except OSError as e:
            raise _in_words(CouldNotPreallocate, e) from e
        if not old:
            self._allocate_first_block(length)

    def _fill(self, old: int, length: int) -> None:
        try:
            os.ftruncate(self.fd, length)
        except OSError as e:
            raise _in_words(CouldNotResize, e) from e
        zeroes = memoryview(bytes(min(STEP, length - old)))
        try:
            while old < length:
                old += os.pwrite(self.fd, zeroes[: length - old], old)
            os.fsync(self.fd)
        except OSError as e:
            raise _in_words(CouldNotWriteZeroes, e) from e

    def _allocate_first_block(self, length: int) -> None:
        """Let a new file begin with data, where alignment is tried out; it may as well not."""
        try:
            os.pwrite(self.fd, bytes(512 if length < FIRST_BLOCK else FIRST_BLOCK), 0)
        except OSError:
            return


class DeviceSpace:
    """The room of a block or character device.

    ``cached``: the page cache lies between, and does not hear of what is dropped below it.
    """

    def __init__(self, fd: int, *, cached: bool) -> None:
        self.fd = fd
        self._zeroes = not cached
        self._drops = True

    def zero(self, offset: int, length: int, *, unmap: bool, fallback: bool = True) -> None:
        """Have the device zero a range; raises ENOTSUP where only writing will do."""
        if not self._zeroes or not fallback:
            raise os_error(errno.ENOTSUP)
        try:
            zero_device(self.fd, offset, length)
        except OSError as e:
            self._zeroes = e.errno != errno.ENOTSUP
            raise

    def drop(self, offset: int, length: int) -> None:
        """Have the device drop a range; raises ENOTSUP where that cannot be done."""
        if not self._drops:
            raise os_error(errno.ENOTSUP)
        try:
            discard_device(self.fd, offset, length)
        except OSError as e:
            self._drops = e.errno != errno.ENOTSUP
            raise

    def resize(self, length: int, *, exact: bool, prealloc: str) -> None:
        """Agree to the size there is, or to less if it need not be exact."""
        if prealloc != "off":
            raise NoDevicePreallocation(prealloc, errno=errno.ENOTSUP)
        now = os.lseek(self.fd, 0, os.SEEK_END)
        if length != now and exact:
            raise FixedDevice(errno=errno.ENOTSUP)
        if length > now:
            raise ShortDevice(errno=errno.EINVAL)


def _in_words(kind: type[HostError], error: OSError) -> HostError:
    code = error.errno or errno.EIO
    return kind(os.strerror(code), errno=code)


def status_of(runs: list[tuple[int, int]], offset: int, end: int, align: int) -> Extents:
    """Return data where the runs are and holes elsewhere, on boundaries of ``align``."""
    edges = np.array([offset, *(e for run in runs for e in run), end], np.int64)
    if align > 1:
        edges[1:-1:2] &= -align
        edges[2:-1:2] = -(-edges[2:-1:2] // align) * align
    edges = np.maximum.accumulate(edges.clip(offset, end))
    start, stop = edges[:-1], edges[1:]
    status = np.full(len(start), ZERO | ALLOCATED, np.uint8)
    status[1::2] = DATA | ALLOCATED
    some = stop > start
    return Extents(start[some], status[some], start[some], end)


class PagesNotDropped(HostError):
    """(what, why): pages in memory may be older than what another host has written."""

    template = "{} failed: {}"


def drop_pages(fd: int) -> None:
    """Write the dirty pages of a file and drop them all from memory.

    Raises:
        PagesNotDropped: that did not work.

    """
    for what, step in (("flush", os.fdatasync), ("fadvise", _advise)):
        try:
            step(fd)
        except OSError as e:
            code = e.errno or errno.EIO
            raise PagesNotDropped(what, os.strerror(code), errno=code) from e


def _advise(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
