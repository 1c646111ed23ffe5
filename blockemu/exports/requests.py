"""What an NBD client may ask for, and how it is answered, one request at a time.

This is the way for whatever has to wait; ``blockemu.exports.connection`` answers at once what it
can.  Checks and texts are those of nbd_co_receive_request and nbd_handle_request,
nbd/server.c.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from blockemu.backend import Backend
from blockemu.buffers import new_buffer
from blockemu.copying.copy_on_read import populate
from blockemu.exports.depth import allocation_depth
from blockemu.exports.dirty_runs import DirtyRuns
from blockemu.extents import DATA, ZERO, Extents
from blockemu.nbd import wire
from blockemu.nbd.server import BASE_ID, DEPTH_ID, FIRST_BITMAP_ID, Session
from blockemu.node import Write
from blockemu.walk import extents_above

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_EXTENTS: Final = (1 << 20) // 8  # of one reply (NBD_MAX_BLOCK_STATUS_EXTENTS)
_STATUS: Final = struct.Struct(">IHHQII")  # a chunk's head and a context
Pieces = list[bytes | memoryview]
Pairs: TypeAlias = "NDArray[np.uint32]"

_KNOWN: Final = {
    errno.EPERM: wire.EPERM,
    errno.EROFS: wire.EPERM,
    errno.EIO: wire.EIO,
    errno.ENOMEM: wire.ENOMEM,
    errno.EDQUOT: wire.ENOSPC,
    errno.EFBIG: wire.ENOSPC,
    errno.ENOSPC: wire.ENOSPC,
    errno.EOVERFLOW: wire.EOVERFLOW,
    errno.EOPNOTSUPP: wire.ENOTSUP,
    errno.ESHUTDOWN: wire.ESHUTDOWN,
}
_CHANGING: Final = frozenset({wire.CMD_WRITE, wire.CMD_WRITE_ZEROES, wire.CMD_TRIM})
_SIZED: Final = frozenset({wire.CMD_READ, wire.CMD_WRITE, wire.CMD_CACHE})
_NAMES: Final = {
    wire.CMD_READ: "read",
    wire.CMD_WRITE: "write",
    wire.CMD_DISC: "disconnect",
    wire.CMD_FLUSH: "flush",
    wire.CMD_TRIM: "trim",
    wire.CMD_CACHE: "cache",
    wire.CMD_WRITE_ZEROES: "write zeroes",
    wire.CMD_BLOCK_STATUS: "block status",
}
_FAILED: Final = {
    wire.CMD_READ: "reading from file failed",
    wire.CMD_WRITE: "writing to file failed",
    wire.CMD_WRITE_ZEROES: "writing to file failed",
    wire.CMD_FLUSH: "flush failed",
    wire.CMD_TRIM: "discard failed",
    wire.CMD_CACHE: "caching data failed",
    wire.CMD_BLOCK_STATUS: "can't get block status",
}


class Request(NamedTuple):
    """One request, without its payload."""

    flags: int
    kind: int
    cookie: int
    offset: int
    length: int


class Failed(Exception):
    """(errno, text): what the client is to be told."""


def error_reply(cookie: int, error: int, text: str, *, structured: bool) -> bytes:
    """Return the reply to a request that failed with an errno."""
    number = _KNOWN.get(error, wire.EINVAL)
    if not structured:
        return wire.SIMPLE.pack(wire.SIMPLE_MAGIC, number, cookie)
    message = text.encode("utf-8", "surrogateescape")
    head = (wire.CHUNK_MAGIC, wire.CHUNK_DONE, wire.CHUNK_ERROR, cookie, 6 + len(message))
    return wire.CHUNK.pack(*head) + struct.pack(">IH", number, len(message)) + message


class Requests:
    """Answers one client's requests; ``runs`` are those of the export's bitmaps."""

    def __init__(
        self,
        backend: Backend,
        session: Session,
        runs: list[DirtyRuns],
        *,
        size: int,
        writable: bool,
    ) -> None:
        self.backend = backend
        self.session = session
        self.structured = session.structured
        self._runs = runs
        chosen = session.contexts
        self._bitmaps: list[tuple[int, DirtyRuns, bool]] = []  # if no other contexts are chosen
        if all(number >= FIRST_BITMAP_ID for number in chosen):
            self._bitmaps = [(n, runs[n - FIRST_BITMAP_ID], n == chosen[-1]) for n in chosen]
        self.size = size
        self.writable = writable

    def refusal(self, request: Request) -> str | None:
        """Return why a request is wrong in itself, None if it is not."""
        flags, kind, _, offset, length = request
        if kind in _SIZED and length > wire.MAX_PAYLOAD:
            return f"len ({length} ) is larger than max len ({wire.MAX_PAYLOAD})"
        if kind in _CHANGING and not self.writable:
            return "Export is read-only"
        if offset > self.size or length > self.size - offset:
            return f"operation past EOF; From: {offset}, Len: {length}, Size: {self.size}"
        valid = wire.FLAG_FUA
        if kind == wire.CMD_READ and self.structured:
            valid |= wire.FLAG_DF
        elif kind == wire.CMD_WRITE_ZEROES:
            valid |= wire.FLAG_NO_HOLE | wire.FLAG_FAST_ZERO
        elif kind == wire.CMD_BLOCK_STATUS:
            valid |= wire.FLAG_REQ_ONE
        if flags & ~valid:
            name = _NAMES.get(kind, "<unknown>")
            return f"unsupported flags for command {name} (got 0x{flags:x})"
        return None

    async def answer(self, request: Request, payload: bytes = b"") -> Pieces:
        """Carry out a request and return the reply, of an error, too."""
        try:
            text = self.refusal(request)
            if text is not None:
                raise Failed(errno.EINVAL, text)
            return await self._do(request, payload)
        except Failed as e:
            error, text = e.args
        except OSError as e:
            error, text = e.errno or errno.EIO, _FAILED[request.kind]
        return [error_reply(request.cookie, error, text, structured=self.structured)]

    async def _do(self, request: Request, payload: bytes) -> Pieces:
        flags, kind, cookie, offset, length = request
        backend, fua = self.backend, flags & wire.FLAG_FUA
        if kind == wire.CMD_READ:
            return await self._read(request)
        if kind == wire.CMD_WRITE:
            await backend.pwrite(offset, payload, Write.FUA if fua else 0)
        elif kind == wire.CMD_WRITE_ZEROES:
            await backend.write_zeroes(offset, length, _zero_flags(flags))
        elif kind == wire.CMD_FLUSH:
            await backend.flush()
        elif kind == wire.CMD_TRIM:
            await backend.discard(offset, length)
            if fua:
                await backend.flush()
        elif kind == wire.CMD_CACHE:
            await self._cache(offset, length)
        elif kind == wire.CMD_BLOCK_STATUS:
            return await self._status(request)
        else:
            raise Failed(errno.EINVAL, f"invalid request type ({kind}) received")
        return [wire.SIMPLE.pack(wire.SIMPLE_MAGIC, 0, cookie)]

    async def _cache(self, offset: int, length: int) -> None:
        """Allocate what the image lacks, from the backing file or as zeroes, as QEMU does."""
        await self.backend.enter()
        try:
            if not self.backend.node.flags.read_only:
                await populate(self.backend, offset, length)
        finally:
            self.backend.leave()

    # Reads

    async def _read(self, request: Request) -> Pieces:
        flags, _, cookie, offset, length = request
        if flags & wire.FLAG_FUA:
            try:
                await self.backend.flush()
            except OSError as e:
                raise Failed(e.errno or errno.EIO, "flush failed") from e
        if self.structured and not length:
            head = (wire.CHUNK_MAGIC, wire.CHUNK_DONE, wire.CHUNK_NONE, cookie, 0)
            return [wire.CHUNK.pack(*head)]
        if self.structured and not flags & wire.FLAG_DF:
            return await self._sparse(cookie, offset, length)
        buf = new_buffer(length)
        await self.backend.pread(offset, buf)
        if not self.structured:
            return [wire.SIMPLE.pack(wire.SIMPLE_MAGIC, 0, cookie), buf]
        return [_data_head(cookie, offset, length, last=True), buf]

    async def _sparse(self, cookie: int, offset: int, length: int) -> Pieces:
        """Read what is not known to be zero; send the rest as holes."""
        try:
            runs = await self._holes(offset, length)
        except OSError as e:
            why = os.strerror(e.errno or errno.EIO)
            raise Failed(e.errno or errno.EIO, f"unable to check for holes: {why}") from e
        pieces: Pieces = []
        end = offset + length
        for start, size, zero in runs:
            last = start + size == end
            if zero:
                pieces.append(hole_chunk(cookie, start, size, last=last))
                continue
            buf = new_buffer(size)
            await self.backend.pread(start, buf)
            pieces += (_data_head(cookie, start, size, last=last), buf)
        return pieces

    async def _holes(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """Return offset, length and whether it is zero of each run, as they lie in the image."""
        runs: list[tuple[int, int, bool]] = []
        async with aclosing(self._extents(offset, length)) as batches:
            async for batch in batches:
                runs += [(start, size, bool(status & ZERO)) for start, size, status, _ in batch]
        return runs

    async def _extents(self, offset: int, length: int) -> AsyncGenerator[Extents, None]:
        await self.backend.enter()
        try:
            async with aclosing(extents_above(self.backend, offset, length)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.backend.leave()

    # Block status

    async def _status(self, request: Request) -> Pieces:
        flags, _, cookie, offset, length = request
        if not length:
            raise Failed(errno.EINVAL, "need non-zero length")
        chosen = self.session.contexts
        if not chosen:
            raise Failed(errno.EINVAL, "CMD_BLOCK_STATUS not negotiated")
        most = 1 if flags & wire.FLAG_REQ_ONE else MOST_EXTENTS
        pieces: Pieces = []
        for number in chosen:
            if number >= FIRST_BITMAP_ID:
                body = self._runs[number - FIRST_BITMAP_ID].body(offset, length, most)
            else:
                pairs = await self._pairs(number, offset, length, most)
                body = pairs[:most].astype(">u4").tobytes()
            pieces.append(_status_chunk(cookie, number, body, last=number == chosen[-1]))
        return pieces

    def status_now(self, flags: int, cookie: int, offset: int, length: int) -> bytes | None:
        """Answer a block status request, if it is for bitmaps only and there is nothing wrong."""
        if flags & ~wire.FLAG_REQ_ONE or not length or offset + length > self.size:
            return None
        most = 1 if flags else MOST_EXTENTS
        reply = b""
        for number, runs, last in self._bitmaps:
            body = runs.body(offset, length, most)
            reply += _status_chunk(cookie, number, body, last=last)
        return reply or None

    async def _pairs(self, number: int, offset: int, length: int, most: int) -> Pairs:
        """Return (length, flags) of runs: uint32 of shape (n, 2), neighbours differ."""
        if number == DEPTH_ID:
            await self.backend.enter()
            try:
                runs = await allocation_depth(self.backend, offset, length)
            finally:
                self.backend.leave()
            return _joined(runs[0], runs[1])
        assert number == BASE_ID
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        count = 0
        async with aclosing(self._extents(offset, length)) as batches:
            async for batch in batches:
                status = batch.status
                state = np.where(status & DATA, 0, wire.STATE_HOLE).astype(np.int64)
                state += np.where(status & ZERO, wire.STATE_ZERO, 0)
                parts.append((batch.length, state))
                count += int(np.count_nonzero(np.diff(state))) + 1
                if count > 2 * most:
                    break
        lengths = np.concatenate([each for each, _ in parts])
        return _joined(lengths, np.concatenate([each for _, each in parts]))


def _joined(lengths: NDArray[np.int64], state: NDArray[np.int64]) -> Pairs:
    """Join neighbours that are alike; drop what is empty."""
    some = lengths > 0
    lengths, state = lengths[some], state[some]
    first = np.flatnonzero(np.concatenate(([True], state[1:] != state[:-1])))
    total = np.add.reduceat(lengths, first) if len(first) else lengths
    return np.stack((total, state[first]), axis=1).astype(np.uint32)


def _status_chunk(cookie: int, number: int, body: bytes, *, last: bool) -> bytes:
    """Return the chunk that tells a context's runs."""
    done = wire.CHUNK_DONE if last else 0
    head = (wire.CHUNK_MAGIC, done, wire.CHUNK_BLOCK_STATUS, cookie, 4 + len(body), number)
    return _STATUS.pack(*head) + body


def hole_chunk(cookie: int, offset: int, size: int, *, last: bool) -> bytes:
    """Return the chunk that says that a range is zero."""
    done = wire.CHUNK_DONE if last else 0
    head = wire.CHUNK.pack(wire.CHUNK_MAGIC, done, wire.CHUNK_OFFSET_HOLE, cookie, 12)
    return head + struct.pack(">QI", offset, size)


def _data_head(cookie: int, offset: int, size: int, *, last: bool) -> bytes:
    done = wire.CHUNK_DONE if last else 0
    head = wire.CHUNK.pack(wire.CHUNK_MAGIC, done, wire.CHUNK_OFFSET_DATA, cookie, size + 8)
    return head + struct.pack(">Q", offset)


def _zero_flags(flags: int) -> int:
    how = 0 if flags & wire.FLAG_NO_HOLE else Write.MAY_UNMAP
    if flags & wire.FLAG_FUA:
        how |= Write.FUA
    if flags & wire.FLAG_FAST_ZERO:
        how |= Write.NO_FALLBACK
    return how
