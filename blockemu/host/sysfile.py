"""System calls on files and devices that Python's ``os`` lacks or wraps badly."""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import threading
from _thread import allocate_lock
from functools import cache

import numpy as np

from blockemu.errors import QmpError
from blockemu.os_errors import os_error
from blockemu.route import Leaf

KEEP_SIZE = 1
PUNCH_HOLE = 2
ZERO_RANGE = 16
PAGE = mmap.PAGESIZE
MAX_ALIGN = max(4096, PAGE)  # what direct I/O never asks more than
ALIGNMENTS = (1, 512, 1024, 2048, 4096)
_BLKROGET, _BLKSSZGET = 0x125E, 0x1268
_BLKDISCARD, _BLKZEROOUT = 0x1277, 0x127F
_PART = 27  # bits: 128 MiB, about as much as a file system describes in one place
_MOST_ASKED = 1 << 14
_MOST_RUNS = 64
_MUCH_MAPPED = 64 << 20
_POPULATE_READ = 22  # advice to map pages that are there
_XFS_DIOINFO = 0x800C581E  # struct of three uint32: memory, smallest and largest transfer
_CDROM_DRIVE_STATUS, _CDSL_CURRENT = 0x5326, 0x7FFFFFFF
_OF_BLOCKS = ("ext2", "ext3", "ext4", "xfs")  # whose blocks are data as a whole, or holes
_UNSUPPORTED = (errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


class NoAlignment(QmpError):
    """Direct I/O fails with any alignment."""

    template = "Could not find working O_DIRECT alignment"


@cache
def _libc() -> "ctypes.CDLL":
    """Return libc with the calls that Python has not got; few programs need one (start-up)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return libc


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Reserve, punch or zero a range, as the system call of this name.

    Raises:
        OSError: ENOTSUP for all ways in which kernels say that they cannot do it.

    """
    while _libc().fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise os_error(errno.ENOTSUP if code in _UNSUPPORTED else code)


def device_range(fd: int, request: int, offset: int, length: int) -> None:
    """Discard or zero a range of a block device; errors as ``fallocate``."""
    try:
        fcntl.ioctl(fd, request, array.array("Q", (offset, length)))
    except OSError as e:
        code = e.errno or errno.EIO
        raise os_error(errno.ENOTSUP if code in _UNSUPPORTED else code) from e


def discard_device(fd: int, offset: int, length: int) -> None:
    """Drop a range of a block device."""
    device_range(fd, _BLKDISCARD, offset, length)


def zero_device(fd: int, offset: int, length: int) -> None:
    """Zero a range of a block device."""
    device_range(fd, _BLKZEROOUT, offset, length)


def device_is_read_only(fd: int) -> bool:
    """Tell whether a block device is set read-only, which ``open`` does not mind."""
    return stat.S_ISBLK(os.fstat(fd).st_mode) and bool(_ioctl_int(fd, _BLKROGET))


def is_tmpfs(fd: int) -> bool:
    """Tell whether a file is in tmpfs; not if that cannot be found out."""
    told = os.fstat(fd)
    if not stat.S_ISREG(told.st_mode) or os.major(told.st_dev):
        return False  # a device, or a file on one
    return _file_system(told.st_dev) == "tmpfs"


def holes_are_pages(fd: int) -> bool:
    """Tell whether all of a page is data or none of it; not if that cannot be found out."""
    kind = _file_system(os.fstat(fd).st_dev)
    return kind == "tmpfs" or (kind in _OF_BLOCKS and os.fstatvfs(fd).f_frsize % PAGE == 0)


def _file_system(device: int) -> str:
    """Return what kind of file system a device has, as it is mounted; empty if it is not found.

    By the list of mounts, since ``fstatfs`` takes ctypes, which a start has no time for.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = open("/proc/self/mountinfo", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123
    except OSError:
        return ""
    with mounts:
        for line in mounts:
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == wanted:
                return system.partition(" ")[0]
    return ""


def is_cdrom(filename: str) -> bool:
    """Tell whether a name is that of a drive for optical discs."""
    try:
        if not stat.S_ISBLK(os.stat(filename).st_mode):  # noqa: PTH116
            return False
        fd = os.open(filename, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        fcntl.ioctl(fd, _CDROM_DRIVE_STATUS, _CDSL_CURRENT)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def direct_alignment(fd: int) -> int:
    """Return the bytes that requests on a file opened with O_DIRECT must be aligned to.

    After raw_probe_alignment, block/file-posix.c.  Raises NoAlignment.
    """
    known = _ioctl_int(fd, _BLKSSZGET)
    xfs = array.array("I", (0, 0, 0))
    try:
        fcntl.ioctl(fd, _XFS_DIOINFO, xfs)
        known = xfs[1]
    except OSError:
        pass
    if known:
        return known
    room = memoryview(mmap.mmap(-1, MAX_ALIGN))
    for size in ALIGNMENTS:
        try:
            os.preadv(fd, (room[:size],), 0)
        except OSError as e:
            if e.errno == errno.EINVAL:
                continue
        return size if size > 1 else MAX_ALIGN  # one byte is no proof: the file may be empty
    raise NoAlignment(hint="Try cache.direct=off\n")


def _ioctl_int(fd: int, request: int) -> int:
    """Return what an ioctl that fills an int answers, 0 if it fails."""
    value = array.array("i", (0,))
    try:
        fcntl.ioctl(fd, request, value)
    except OSError:
        return 0
    return value[0]


def aligned_buffer(length: int) -> memoryview:
    """Return a buffer that begins at a page; its contents are undefined."""
    room = np.empty(length + PAGE, np.uint8)
    skip = -room.__array_interface__["data"][0] % PAGE
    return room[skip : skip + length].data


def data_runs(fd: int, offset: int, end: int, most: int) -> list[tuple[int, int]]:
    """Return up to ``most`` (start, end) of data beginning in a range; the last may go beyond."""
    runs: list[tuple[int, int]] = []
    while offset < end and len(runs) < most:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                break
            raise
        if start >= end:
            break
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        runs.append((start, offset))
    return runs


class HostLeaf(Leaf):
    """What lies in a file, and what the file system said of holes in it."""

    __slots__ = ("_asked", "_paged", "data_end", "data_start", "fd")
    memory: bool = False  # whether it is in tmpfs, which never waits

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self._asked: set[int] = set()  # parts of the file: see ``ask``
        self._paged: bool | None = None  # whether holes are whole pages, once that is known
        self.forget_data()

    def forget_data(self) -> None:
        """Do not say that there is data without having looked: holes may have been made."""
        self.data_start = self.data_end = 0

    def forget_pages(self) -> None:
        """Let go of what is mapped, if anything is."""

    def ask(self, offset: int, end: int, most: int) -> list[tuple[int, int]]:
        """Do as ``data_runs``, on any thread; from now on the file system knows of this range."""
        runs = data_runs(self.fd, offset, end, most)
        if len(self._asked) >= _MOST_ASKED:
            self._asked.clear()
        self._asked.update(_parts(offset, min(end, offset + (_MOST_ASKED << _PART))))
        return runs

    def _whole_pages(self) -> bool:
        """Tell whether all of a page is data or none of it."""
        if self._paged is None:
            self._paged = holes_are_pages(self.fd)
        return self._paged

    def _told(self, offset: int, end: int) -> bool:
        """Tell whether the file system has in memory what it knows of a range, and nobody waits."""
        asked, part = self._asked, offset >> _PART
        if self.writing or part not in asked:
            return False
        return part == end - 1 >> _PART or asked.issuperset(_parts(offset, end))

    def data_now(self, offset: int, end: int) -> list[tuple[int, int]] | None:
        """Ask the file system; on a disk, only where it has been asked before.

        Only data is remembered: somebody else may fill a hole.  Saves reads of holes the way
        through coroutines and a thread (``make bench``: growth).
        """
        try:
            if not (self.memory or self._told(offset, end)):
                return None
            if offset // PAGE == (end - 1) // PAGE and (self.memory or self._whole_pages()):
                # Where there is no more data to come, asking for some would make an exception
                # (``make bench``: a hole on a disk; growth, reads of a hole below).
                stop = os.lseek(self.fd, offset, os.SEEK_HOLE)
                if stop == offset:
                    return []
                if stop >= end:
                    self.data_start, self.data_end = offset, stop
                    return [(offset, end)]
            runs = data_runs(self.fd, offset, end, _MOST_RUNS)
        except OSError:
            return None  # it will be met again
        if len(runs) == _MOST_RUNS:
            return None
        if runs:
            start, stop = self.data_start, self.data_end = runs[-1]
            runs[-1] = start, min(stop, end)
        return runs


def _parts(offset: int, end: int) -> range:
    return range(offset >> _PART, (end - 1 >> _PART) + 1)


class FileLeaf(HostLeaf):
    """A file's pages.

    Reads take what the page cache has (RWF_NOWAIT), and wait on a thread where the file system does
    not know that flag; tmpfs never waits.  Writes have no such flag on most file systems, so only
    tmpfs is written to on the event loop's thread.
    """

    __slots__ = (
        "_flags",
        "_map",
        "_residency",
        "_vector",
        "_vector_at",
        "inline_writes",
        "memory",
        "written",
    )

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.written = allocate_lock()  # see ``offload``; threading's would have it all imported
        self.memory = is_tmpfs(fd)
        self.inline_writes = self.memory
        self._flags = 0 if self.memory else os.RWF_NOWAIT
        self._map: memoryview = memoryview(b"")
        self._residency = 0
        self._vector = bytearray()
        self._vector_at = 0
        self.forget_data()

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Read what is in memory; what is wrong comes out when it is read again."""
        try:
            return os.preadv(self.fd, (buf,), offset, self._flags) == len(buf)
        except OSError:
            return False

    def read(self, offset: int, buf: memoryview) -> None:
        """Read what is there."""
        done = 0
        while done < len(buf):
            got = os.preadv(self.fd, (buf[done:],), offset + done)
            if not got:
                buf[done:] = bytes(len(buf) - done)
                return
            done += got

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Write, to the page cache at least."""
        done = os.pwrite(self.fd, buf, offset)
        while done < len(buf):
            done += os.pwrite(self.fd, buf[done:], offset + done)

    def write_parts(self, offset: int, parts: list[memoryview]) -> None:
        """Write from several places, in one go if the system takes it all."""
        done = os.pwritev(self.fd, parts, offset)
        if done < sum(map(len, parts)):
            self.write_now(offset + done, memoryview(b"".join(parts))[done:])

    def has_data(self, offset: int, length: int) -> bool:
        """Look for the end of the data, if that is quickly done.

        In tmpfs it may take 1 ms, but what was found is remembered.
        """
        end = offset + length
        if self.data_start <= offset and end <= self.data_end:
            return True
        return self.data_now(offset, end) == [(offset, end)]

    def forget_pages(self) -> None:
        """Map anew at the next window: the file may have become shorter.

        To take 1 GiB of pages out of the map takes 40 ms, so a thread does that.
        """
        pages = [self._map]
        self._map = memoryview(b"")
        if len(pages[0]) >= _MUCH_MAPPED:
            threading.Thread(target=pages.clear, name="unmapping").start()

    def window(self, offset: int, length: int) -> memoryview | None:
        """Return mapped pages.

        Only for the kernel to read (sendmsg): pages that another process cut off are an error
        there, but end this process when touched by Python.  Not for holes in tmpfs, which would
        take memory from then on and look like data.
        """
        end = offset + length
        if self.writing:
            return None
        if end > len(self._map):
            size = os.fstat(self.fd).st_size
            if end > size:
                return None
            self._map = memoryview(mmap.mmap(self.fd, size, prot=mmap.PROT_READ))
            self._residency = _address(self._map)
        if not self.memory:
            first = offset & -PAGE
            pages = (end - first + PAGE - 1) // PAGE
            if pages > len(self._vector):
                self._vector = bytearray(pages)
                self._vector_at = ctypes.addressof(ctypes.c_char.from_buffer(self._vector))
            if _libc().mincore(self._residency + first, end - first, self._vector_at):
                return None
            if self._vector.count(1, 0, pages) != pages:
                return None
        return self._map[offset:end]

    def map_ahead(self, offset: int, length: int) -> None:
        """Have pages mapped that a write from a window will read, if there is data in all of them.

        It only saves time, so it may fail, as on a kernel before Linux 5.14.
        """
        pages = self.window(offset, length) if self.has_data(offset, length) else None
        if pages is not None:
            at, before = _address(pages), offset % PAGE
            _libc().madvise(at - before, length + before, _POPULATE_READ)


class DirectLeaf(HostLeaf):
    """A file opened with O_DIRECT: all I/O waits, and goes through page-aligned buffers."""

    __slots__ = ("align",)
    inline_writes = False

    def __init__(self, fd: int, align: int) -> None:
        super().__init__(fd)
        self.align = align

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Decline: there is no cache to read from."""
        return False

    def read(self, offset: int, buf: memoryview) -> None:
        """Read what is there; an odd end means the end of the file."""
        bounce = aligned_buffer(len(buf))
        done = 0
        while done < len(buf):
            got = os.preadv(self.fd, (bounce[done:],), offset + done)
            done += got
            if not got or done % self.align:
                break
        buf[:done] = bounce[:done]
        buf[done:] = bytes(len(buf) - done)

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Write; to be called on a thread."""
        bounce = aligned_buffer(len(buf))
        bounce[:] = buf
        done = 0
        while done < len(buf):
            done += os.pwrite(self.fd, bounce[done:], offset + done)


def _address(buf: memoryview) -> int:
    """Return where in memory a buffer is; numpy's ``ctypes`` would import modules for that."""
    where: int = np.frombuffer(buf, np.uint8).__array_interface__["data"][0]
    return where
