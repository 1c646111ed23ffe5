"""The bytes of a migration stream, without I/O: what every part of it is made of.

A stream is a header and then sections, each with the name of a part of the machine (after
migration/savevm.c and docs/devel/migration.rst).  All numbers are big-endian.

``Input`` is what has come of a stream.  Whoever reads from it is a generator that yields whenever
more is needed; reading past the end gives zeroes and leaves ``error``, as QEMUFile does.
"""

import errno
import struct
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")
Pull = Generator[None, None, T]

MAGIC: Final = 0x5145564D  # "QEVM"
VERSION: Final = 3
OBSOLETE_VERSION: Final = 2

EOF: Final = 0
SECTION_START: Final = 1
SECTION_PART: Final = 2
SECTION_END: Final = 3
SECTION_FULL: Final = 4
SUBSECTION: Final = 5
DESCRIPTION: Final = 6
CONFIGURATION: Final = 7
COMMAND: Final = 8
FOOTER: Final = 0x7E

OPEN_RETURN_PATH: Final = 1
PING: Final = 2
POSTCOPY_ADVISE: Final = 3
POSTCOPY_LISTEN: Final = 4
POSTCOPY_RUN: Final = 5
POSTCOPY_RAM_DISCARD: Final = 6
POSTCOPY_RESUME: Final = 9
PACKAGED: Final = 7
RECV_BITMAP: Final = 10
ENABLE_COLO: Final = 8
COMMANDS: Final = {  # names, and how long they are; None: that depends
    OPEN_RETURN_PATH: ("OPEN_RETURN_PATH", 0),
    PING: ("PING", 4),
    POSTCOPY_ADVISE: ("POSTCOPY_ADVISE", None),
    POSTCOPY_LISTEN: ("POSTCOPY_LISTEN", 0),
    POSTCOPY_RUN: ("POSTCOPY_RUN", 0),
    POSTCOPY_RAM_DISCARD: ("POSTCOPY_RAM_DISCARD", None),
    POSTCOPY_RESUME: ("POSTCOPY_RESUME", 0),
    PACKAGED: ("PACKAGED", 4),
    RECV_BITMAP: ("RECV_BITMAP", None),
    ENABLE_COLO: ("(null)", 0),
}
MOST_PACKAGED: Final = 1 << 24  # bytes

REPLY_SHUT: Final = 1  # messages of the return path
REPLY_PONG: Final = 2

RUN_STATE_BYTES: Final = 100
PAGE: Final = 4096
RAM_SIZE: Final = 0x04  # flags in the lowest bits of an address
RAM_END: Final = 0x10


class Input:
    """What has come of a stream so far, and whether that is all."""

    def __init__(self, data: bytes = b"", *, ended: bool = False) -> None:
        self._data = bytearray(data)
        self._at = 0
        self.ended = ended
        self.error = 0  # an errno, once somebody has read past the end

    def feed(self, data: bytes) -> None:
        """Take what came; nothing is the end."""
        if not data:
            self.ended = True
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    @property
    def available(self) -> int:
        """Bytes that have come and are not read yet."""
        return len(self._data) - self._at

    def ahead(self, length: int) -> memoryview:
        """Return up to so many bytes that have come, without reading them."""
        return memoryview(bytes(self._data[self._at : self._at + length]))

    def skip(self, length: int) -> None:
        """Read over bytes that have come."""
        self._at += length

    def _wait(self, length: int) -> Pull[None]:
        while self.available < length and not self.ended:
            yield

    def peek(self, length: int) -> Pull[memoryview]:
        """Return the next bytes, fewer at the end, without reading them."""
        yield from self._wait(length)
        return self.ahead(length)

    def some(self, length: int) -> Pull[bytes]:
        """Read so many bytes, fewer at the end (qemu_get_buffer)."""
        yield from self._wait(length)
        data = bytes(self._data[self._at : self._at + length])
        self._at += len(data)
        if len(data) < length:
            self.error = self.error or errno.EIO
        return data

    def exactly(self, length: int) -> Pull[bytes]:
        """Read so many bytes, zeroes beyond the end."""
        data = yield from self.some(length)
        return data.ljust(length, b"\0")

    def u8(self) -> Pull[int]:
        """Read one byte."""
        data = yield from self.exactly(1)
        return data[0]

    def u16(self) -> Pull[int]:
        """Read two bytes."""
        data = yield from self.exactly(2)
        return int.from_bytes(data, "big")

    def u32(self) -> Pull[int]:
        """Read four bytes."""
        data = yield from self.exactly(4)
        return int.from_bytes(data, "big")

    def u64(self) -> Pull[int]:
        """Read eight bytes."""
        data = yield from self.exactly(8)
        return int.from_bytes(data, "big")

    def counted(self) -> Pull[str | None]:
        """Read a string behind its length in a byte; None if it is empty or cut off."""
        length = yield from self.u8()
        data = yield from self.some(length)
        return _text(data) if length and len(data) == length else None


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """Return the bytes of a string in a stream."""
    return text.encode("utf-8", "surrogateescape")


def counted(text: str) -> bytes:
    """Return a string behind its length."""
    data = raw(text)
    return struct.pack(">B", len(data)) + data


def magic() -> bytes:
    """Return what each stream begins with."""
    return struct.pack(">II", MAGIC, VERSION)


def header(machine: str) -> bytes:
    """Return the begin of a stream; ``machine`` is the name of its kind."""
    name = raw(machine)
    return magic() + struct.pack(">BI", CONFIGURATION, len(name)) + name


def begin(kind: int, ident: int, name: str, version: int) -> bytes:
    """Return the begin of the first or only section of a part."""
    return struct.pack(">BI", kind, ident) + counted(name) + struct.pack(">II", 0, version)


def proceed(kind: int, ident: int) -> bytes:
    """Return the begin of a later section of a part."""
    return struct.pack(">BI", kind, ident)


def footer(ident: int) -> bytes:
    """Return the end of a section."""
    return struct.pack(">BI", FOOTER, ident)


def command(number: int, data: bytes = b"") -> bytes:
    """Return a command to the other side."""
    return struct.pack(">BHH", COMMAND, number, len(data)) + data


def packaged(data: bytes) -> bytes:
    """Return a part of the stream that is to be read as a whole first."""
    return command(PACKAGED, struct.pack(">I", len(data))) + data


def reply(number: int, value: int) -> bytes:
    """Return a message of the return path."""
    return struct.pack(">HHI", number, 4, value)


def description(text: str) -> bytes:
    """Return what stands behind the end, for people."""
    data = raw(text)
    return struct.pack(">BI", DESCRIPTION, len(data)) + data


def ram(*, first: bool = False) -> bytes:
    """Return what a machine says of its memory, of which it has none."""
    size = struct.pack(">Q", RAM_SIZE) if first else b""
    return size + struct.pack(">Q", RAM_END)


def timer(clock: int) -> bytes:
    """Return the state of the machine's clocks: no ticks, and nanoseconds."""
    return struct.pack(">qQq", 0, 0, clock)


def global_state(run_state: str) -> bytes:
    """Return what the machine did when it was stopped."""
    name = raw(run_state)
    return struct.pack(">I", len(name) + 1) + name.ljust(RUN_STATE_BYTES, b"\0")
