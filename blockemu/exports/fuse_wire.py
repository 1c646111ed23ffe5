"""The protocol that the kernel speaks on /dev/fuse, as far as one file needs it: bytes and values.

Numbers and layouts are those of the kernel's user interface, linux/fuse.h; what is answered to
INIT is what libfuse answers for QEMU.
"""

import errno
import stat
import struct
from typing import Final, NamedTuple

MAJOR: Final = 7
MINOR: Final = 38
LARGEST_WRITE: Final = 1 << 20
HEAD: Final = struct.Struct("=IIQQIII4x")  # length, what, which request, file; uid, gid, pid
BUFFER: Final = LARGEST_WRITE + 4096  # bytes of a request at the most
_ANSWER: Final = struct.Struct("=IiQ")
_INIT: Final = struct.Struct("=IIII")
_INIT_ANSWER: Final = struct.Struct("=IIIIHHIIHHI28x")
_SETATTR: Final = struct.Struct("=I4xQQQ36xI4xII4x")
_ATTR: Final = struct.Struct("=QI4xQQQQQQIIIIIIIII4x")
_OPENED: Final = struct.Struct("=QI4x")
_RANGE: Final = struct.Struct("=QQI")  # file handle, offset, size
_WRITTEN: Final = struct.Struct("=I4x")
_FALLOCATE: Final = struct.Struct("=QQQI4x")
_SEEK: Final = struct.Struct("=QQI4x")
_FOUND: Final = struct.Struct("=Q")
_STATFS: Final = struct.Struct("=QQQQQIII28x")
WRITE_HEAD: Final = HEAD.size + 40  # bytes before what is written

# What is asked
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE = 1, 2, 3, 4, 14, 15, 16
STATFS, RELEASE, FSYNC, FLUSH, INIT = 17, 18, 20, 25, 26
INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, LSEEK = 36, 38, 42, 43, 46
UNANSWERED: Final = frozenset({FORGET, INTERRUPT, BATCH_FORGET})

# What is to be changed
MODE, UID, GID, SIZE = 1, 2, 4, 8
_CHANGES: Final = 0x1DBF  # that libfuse knows: neither which handle, nor whose lock

# What the kernel may do: read ahead, write more than a page, many things at once; open(O_TRUNC)
# does not truncate, as the file is not told.
_ABILITIES: Final = sum(1 << bit for bit in (0, 3, 5, 12, 15, 18, 19, 22))
_PAGES: Final = LARGEST_WRITE // 4096


class Asked(NamedTuple):
    """The head of a request."""

    length: int
    what: int
    number: int
    file: int
    uid: int
    gid: int
    pid: int


class Attributes(NamedTuple):
    """What stat tells; all times are ``now``."""

    inode: int
    size: int
    blocks: int
    now: int
    mode: int
    uid: int
    gid: int
    block_size: int


class Changes(NamedTuple):
    """What SETATTR is to change: of these what ``which`` says."""

    which: int
    size: int
    mode: int
    uid: int
    gid: int


def parse(data: memoryview) -> Asked:
    """Read the head of a request."""
    return Asked(*HEAD.unpack_from(data))


def answer(number: int, length: int = 0) -> bytes:
    """Return the head of an answer to a request, of which ``length`` bytes follow."""
    return _ANSWER.pack(_ANSWER.size + length, 0, number)


def failure(number: int, error: int) -> bytes:
    """Return the answer to a request that failed with an errno."""
    return _ANSWER.pack(_ANSWER.size, -error, number)


def init(data: memoryview) -> bytes:
    """Answer the first request of all.

    Raises:
        OSError: EPROTO, the kernel is too old.

    """
    major, _, readahead, abilities = _INIT.unpack_from(data, HEAD.size)
    if major < MAJOR:
        raise OSError(errno.EPROTO, "too old")
    if major > MAJOR:  # it asks again
        return _INIT_ANSWER.pack(MAJOR, MINOR, *bytes(9))
    return _INIT_ANSWER.pack(
        MAJOR, MINOR, readahead, abilities & _ABILITIES, 0, 0, LARGEST_WRITE, 1, _PAGES, 0, 0
    )


def attributes(of: Attributes) -> bytes:
    """Return what stat tells, for a second."""
    times = (of.now, of.now, of.now, 0, 0, 0)
    return _ATTR.pack(
        1, 0, of.inode, of.size, of.blocks, *times, of.mode, 1, of.uid, of.gid, 0, of.block_size
    )


def changes(data: memoryview) -> Changes:
    """Read what is to be changed."""
    which, _, size, _, mode, uid, gid = _SETATTR.unpack_from(data, HEAD.size)
    return Changes(which & _CHANGES, size, stat.S_IMODE(mode), uid, gid)


def opened() -> bytes:
    """Answer OPEN."""
    return _OPENED.pack(0, 0)


def extent(data: memoryview) -> tuple[int, int]:
    """Read where is to be read or written, and how much."""
    _, offset, size = _RANGE.unpack_from(data, HEAD.size)
    return offset, size


def written(size: int) -> bytes:
    """Answer WRITE."""
    return _WRITTEN.pack(size)


def allocation(data: memoryview) -> tuple[int, int, int]:
    """Read FALLOCATE: mode, offset, length."""
    _, offset, length, mode = _FALLOCATE.unpack_from(data, HEAD.size)
    return mode, offset, length


def seek(data: memoryview) -> tuple[int, int]:
    """Read LSEEK: offset, whence."""
    _, offset, whence = _SEEK.unpack_from(data, HEAD.size)
    return offset, whence


def found(offset: int) -> bytes:
    """Answer LSEEK."""
    return _FOUND.pack(offset)


def file_system() -> bytes:
    """Answer STATFS as libfuse does for those who do not."""
    return _STATFS.pack(0, 0, 0, 0, 0, 512, 255, 0)
