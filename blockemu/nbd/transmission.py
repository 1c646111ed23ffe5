"""The client's requests and the replies to them, without I/O.

What is checked, and what a wrong reply does to the request and to the connection, is as in QEMU's
client (block/nbd.c): a reply that fits no request ends the connection with EIO for all that were
under way; one that is wrong for its request does so too, with EINVAL for that request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from blockemu.nbd import wire
from blockemu.nbd.client import ExportInfo
from blockemu.nbd.wire import CHUNK, SIMPLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGE: Final = 1 << 16  # bytes received at once, unless they go to a reader's own buffer
MOST_SMALL: Final = 1000  # bytes of a chunk that is neither data nor block status
MOST_STATUS: Final = 4 + (8 << 20)  # bytes of a block status chunk: a million extents
U32: TypeAlias = "NDArray[np.uint32]"


class RemoteProtocolError(Exception):
    """The server broke the protocol: (what it did); the connection is of no more use."""


class WrongReply(RemoteProtocolError):
    """A reply that cannot be the one to its request."""

    def __init__(self, command: Command, what: str) -> None:
        super().__init__(what)
        self.command = command


class Command:
    """A request under way; ``ended`` is called once it is over.

    ``error`` is the errno that the server gave, ``lost`` the one for a connection that failed, 0
    is none.  ``extents`` of a block status request is uint32 of shape (n, 2): lengths and flags.
    """

    __slots__ = (
        "buf",
        "chunked",
        "cookie",
        "ended",
        "error",
        "extents",
        "filled",
        "flags",
        "kind",
        "length",
        "lost",
        "offset",
    )

    def __init__(
        self,
        kind: int,
        offset: int,
        length: int,
        ended: Callable[[Command], None],
        flags: int = 0,
        buf: memoryview | None = None,
    ) -> None:
        self.kind = kind
        self.flags = flags
        self.offset = offset
        self.length = length
        self.buf = buf  # of a read, what is to be filled
        self.ended = ended
        self.cookie = 0
        self.error = 0
        self.lost = 0
        self.chunked = False  # a first chunk has come, so no simple reply may
        self.filled: list[tuple[int, int]] = []  # parts of the buffer, beginning and end
        self.extents: U32 | None = None

    def fail(self, error: int) -> None:
        """End it, since the connection is lost."""
        self.lost = self.lost or error
        self.ended(self)

    def settle(self) -> None:
        """Zero what no chunk has filled: the buffer may hold another client's data."""
        assert self.buf is not None
        at = 0
        for start, end in sorted(self.filled):
            if start > at:
                self.buf[at:start] = bytes(start - at)
            at = max(at, end)
        if at < len(self.buf):
            self.buf[at:] = bytes(len(self.buf) - at)


class Transmission:
    """One connection after its handshake.

    ``begin`` gives the bytes to send; ``room`` says where to receive to, ``received`` that so much
    came.
    """

    def __init__(self, info: ExportInfo) -> None:
        self.info = info
        self.commands: dict[int, Command] = {}
        self._cookies = 0
        self._stage = memoryview(bytearray(STAGE))
        self._begin = self._end = 0  # what of the stage is not taken yet
        self._target: memoryview | None = None  # what is left of a payload
        self._then: Callable[[], None] = self._nothing
        self._next: Callable[[], bool] = self._header

    def begin(self, command: Command) -> bytes:
        """Enter a request and return its header."""
        self._cookies += 1
        cookie = command.cookie = self._cookies
        self.commands[cookie] = command
        return wire.REQUEST.pack(
            wire.REQUEST_MAGIC,
            command.flags,
            command.kind,
            cookie,
            command.offset,
            command.length,
        )

    def fail(self, error: int) -> None:
        """End all requests: the connection is lost."""
        commands = list(self.commands.values())
        self.commands.clear()
        for command in commands:
            command.fail(error)

    # Receiving

    def room(self) -> memoryview:
        """Return where the next bytes belong; never empty."""
        if self._target is not None:
            return self._target
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._end == STAGE:
            left = self._end - self._begin
            self._stage[:left] = bytes(self._stage[self._begin : self._end])
            self._begin, self._end = 0, left
        return self._stage[self._end :]

    def received(self, count: int) -> None:
        """Take what was received to the ``room``; requests end as their replies are complete.

        Raises:
            RemoteProtocolError: hang up, and ``fail`` what is left.

        """
        if self._target is None:
            self._end += count
        else:
            self._target = self._target[count:]
            if len(self._target):
                return
            self._target = None
            self._then()
        while self._next():
            pass

    def _staged(self, count: int) -> bool:
        return self._end - self._begin >= count

    def _take(self, count: int) -> memoryview:
        taken = self._stage[self._begin : self._begin + count]
        self._begin += count
        return taken

    def _fill(self, target: memoryview, then: Callable[[], None]) -> bool:
        """Receive into ``target`` and then go on; return whether that is done already."""
        have = min(len(target), self._end - self._begin)
        target[:have] = self._take(have)
        if have == len(target):
            then()
            return True
        self._target, self._then = target[have:], then
        return False

    def _nothing(self) -> None:
        """Do nothing after a payload."""

    # Replies

    def _header(self) -> bool:
        """Take the header of a reply; return False while it is not complete."""
        if not self._staged(4):
            return False
        magic = int.from_bytes(self._stage[self._begin : self._begin + 4], "big")
        if magic == wire.SIMPLE_MAGIC:
            if not self._staged(SIMPLE.size):
                return False
            _, error, cookie = SIMPLE.unpack(self._take(SIMPLE.size))
            return self._simple(self._find(cookie), wire.system_errno(error))
        if magic != wire.CHUNK_MAGIC:
            raise RemoteProtocolError(f"invalid magic (got 0x{magic:x})")
        if not self._staged(CHUNK.size):
            return False
        _, flags, kind, cookie, length = CHUNK.unpack(self._take(CHUNK.size))
        if not self.info.structured:
            raise RemoteProtocolError("structured reply where none was agreed on")
        return self._chunk(self._find(cookie), flags & wire.CHUNK_DONE != 0, kind, length)

    def _find(self, cookie: int) -> Command:
        try:
            return self.commands[cookie]
        except KeyError:
            raise RemoteProtocolError(f"reply to no request (cookie {cookie:#x})") from None

    def _over(self, command: Command) -> None:
        del self.commands[command.cookie]
        if command.buf is not None and not command.error:
            command.settle()
        command.ended(command)

    def _simple(self, command: Command, error: int) -> bool:
        structured_only = command.kind == wire.CMD_READ and self.info.structured
        if command.chunked or structured_only:
            raise WrongReply(command, "simple reply when structured reply chunk was expected")
        command.error = error
        if error or command.buf is None:
            return self._end_simple(command)
        command.filled.append((0, len(command.buf)))
        return self._fill(command.buf, lambda: self._over(command))

    def _end_simple(self, command: Command) -> bool:
        if command.kind == wire.CMD_BLOCK_STATUS and not command.error:
            self._no_extents(command)
        self._over(command)
        return True

    def _chunk(self, command: Command, done: bool, kind: int, length: int) -> bool:
        command.chunked = True
        if kind == wire.CHUNK_NONE:
            if not done or length:
                raise WrongReply(command, "NONE chunk that is not the last, or not empty")
            self._end_chunk(command, done=True)
            return True
        if kind == wire.CHUNK_OFFSET_DATA:
            return self._begin_data(command, done, length)
        return self._begin_payload(command, done, kind, length)

    def _end_chunk(self, command: Command, *, done: bool) -> None:
        if done:
            if command.kind == wire.CMD_BLOCK_STATUS and not command.error:
                self._no_extents(command)
            self._over(command)

    def _no_extents(self, command: Command) -> None:
        """Fail a block status request that had no answer; the connection stays (as in QEMU)."""
        if command.extents is None:
            command.lost = wire.EIO

    # Data

    def _begin_data(self, command: Command, done: bool, length: int) -> bool:
        if command.buf is None:
            raise WrongReply(command, "data that was not asked for")
        if length <= 8:
            raise WrongReply(command, "data chunk without data")

        def offset() -> bool:
            if not self._staged(8):
                return False
            self._next = self._header
            where = int.from_bytes(self._take(8), "big")
            view = self._part(command, where, length - 8)
            return self._fill(view, lambda: self._end_chunk(command, done=done))

        self._next = offset
        return True

    def _part(self, command: Command, offset: int, size: int) -> memoryview:
        """Return the part of a reader's buffer that a chunk is for."""
        assert command.buf is not None
        start = offset - command.offset
        if start < 0 or start + size > len(command.buf):
            raise WrongReply(command, "server sent chunk exceeding requested region")
        command.filled.append((start, start + size))
        return command.buf[start : start + size]

    # All other chunks

    def _begin_payload(self, command: Command, done: bool, kind: int, length: int) -> bool:
        is_error = bool(kind & wire.CHUNK_ERROR_BIT)
        if length and not is_error and command.kind not in (wire.CMD_READ, wire.CMD_BLOCK_STATUS):
            raise WrongReply(command, "unexpected structured payload")
        if length > (MOST_STATUS if kind == wire.CHUNK_BLOCK_STATUS else MOST_SMALL):
            raise WrongReply(command, "payload too large")
        payload = memoryview(bytearray(length))

        def end() -> None:
            if is_error:
                self._take_error(command, payload)
            else:
                self._take_payload(command, kind, payload)
            self._end_chunk(command, done=done)

        return self._fill(payload, end)

    def _take_error(self, command: Command, payload: memoryview) -> None:
        if len(payload) < 6:
            raise WrongReply(command, "invalid payload for structured error")
        error = wire.system_errno(int.from_bytes(payload[:4], "big"))
        if not error:
            raise WrongReply(command, "structured error chunk with error = 0")
        command.error = command.error or error
        if int.from_bytes(payload[4:6], "big") > len(payload) - 6:
            raise WrongReply(command, "structured error chunk with incorrect message size")

    def _take_payload(self, command: Command, kind: int, payload: memoryview) -> None:
        if command.kind == wire.CMD_READ:
            if kind != wire.CHUNK_OFFSET_HOLE:
                raise WrongReply(command, f"unexpected chunk {kind} for a read")
            self._take_hole(command, payload)
        elif command.kind == wire.CMD_BLOCK_STATUS:
            if kind != wire.CHUNK_BLOCK_STATUS:
                raise WrongReply(command, f"unexpected chunk {kind} for block status")
            self._take_status(command, payload)

    def _take_hole(self, command: Command, payload: memoryview) -> None:
        if len(payload) != 12:
            raise WrongReply(command, "invalid payload for a hole")
        size = int.from_bytes(payload[8:], "big")
        if not size:
            raise WrongReply(command, "server sent chunk exceeding requested region")
        view = self._part(command, int.from_bytes(payload[:8], "big"), size)
        view[:] = bytes(size)

    def _take_status(self, command: Command, payload: memoryview) -> None:
        if command.extents is not None:
            raise WrongReply(command, "several block status chunks")
        if len(payload) < 12:
            raise WrongReply(command, "invalid payload for block status")
        context = int.from_bytes(payload[:4], "big")
        if context != self.info.context_id:
            raise WrongReply(command, f"unexpected context id {context}")
        count = (len(payload) - 4) // 8
        columns = np.frombuffer(payload, ">u4", 2 * count, 4).reshape(count, 2)
        if not columns[0, 0]:
            raise WrongReply(command, "server sent status chunk with zero length")
        command.extents = columns.astype(np.uint32)
