"""What goes out to an NBD client: small replies in one buffer, large payload as it lies.

Pages of a file are handed to the socket without a copy.  If the socket does not take them at once
they are *lent* (see ``blockemu.route.Leaf``): whoever changes them has a copy made first.
"""

import struct
from contextlib import suppress
from typing import Final

from blockemu.backend import Backend
from blockemu.buffers import lazy_buffer, new_buffer
from blockemu.nbd import wire
from blockemu.route import Leaf
from blockemu.streams import Stream

ARENA: Final = 1 << 20  # bytes: small replies of a batch are put together here
SMALL: Final = 32 << 10  # payload up to this is copied to the arena
_MOST_PIECES: Final = 512  # of one sendmsg; the system takes 1024
_HEADS: Final = 64  # more than the longest head of a reply
DATA: Final = struct.Struct(">IHHQIQ")  # a chunk's head and an offset
_NOTHING: Final = memoryview(b"")

Mark = tuple[int, int, int]


class Outgoing:
    """The queue of one socket; ``sending``: the socket takes no more just now."""

    def __init__(self, stream: Stream, backend: Backend) -> None:
        self._stream = stream
        self._backend = backend
        self._arena = lazy_buffer(ARENA)
        self._used = self._queued = 0  # bytes in the arena; those of them already in ``_out``
        self._out: list[memoryview] = []
        self._lent: dict[int, tuple[Leaf, int]] = {}  # windows in ``_out``, by id: where from
        self._lenders: set[Leaf] = set()
        self._late: dict[Leaf, list[tuple[int, memoryview]]] = {}  # in the arena, to be finished
        self._key = object()
        self.sending = False

    def crowded(self, length: int) -> bool:
        """Whether a reply with so much payload should wait until what is there has gone."""
        return self._used + min(length, SMALL) + _HEADS > ARENA

    def mark(self) -> Mark:
        """Note how far the queue goes."""
        return self._used, self._queued, len(self._out)

    def rewind(self, mark: Mark) -> None:
        """Forget what was queued since ``mark``."""
        self._finish_late()
        self._used, self._queued, count = mark
        for piece in self._out[count:]:
            self._lent.pop(id(piece), None)
        del self._out[count:]

    def pack(self, layout: struct.Struct, *values: int) -> None:
        """Queue a head."""
        if self._used + layout.size > ARENA:
            self.append(layout.pack(*values))
            return
        layout.pack_into(self._arena, self._used, *values)
        self._used += layout.size

    def payload(self, leaf: Leaf, host: int, size: int) -> bool:
        """Queue bytes of a file; False: they are not at hand."""
        if size <= SMALL and self._used + size + _HEADS < ARENA:
            part = self._arena[self._used : self._used + size]
            if leaf.late:
                if not leaf.read_late(host, part):
                    return False
                self._late.setdefault(leaf, []).append((host, part))
            elif not leaf.read_now(host, part):
                return False
            self._used += size
            return True
        if leaf.late or not leaf.has_data(host, size):
            buf = new_buffer(size)
            good = leaf.read_now(host, buf)
            self.append(buf)
            return good
        pages = leaf.window(host, size)
        if pages is None:
            return False
        self.append(pages)
        self._lent[id(self._out[-1])] = leaf, host
        return True

    def data(self, cookie: int, offset: int, leaf: Leaf, host: int, size: int) -> bool:
        """Queue the one chunk of a small read; False, with nothing done: it is not at hand.

        Saves half of what ``pack`` and ``payload`` cost (``make bench``: NBD, 4 KiB reads).
        """
        begin = self._used + DATA.size
        if begin + size + _HEADS > ARENA:
            return False
        if not leaf.read_now(host, self._arena[begin : begin + size]):
            return False
        head = (wire.CHUNK_MAGIC, wire.CHUNK_DONE, wire.CHUNK_OFFSET_DATA, cookie, size + 8, offset)
        DATA.pack_into(self._arena, self._used, *head)
        self._used = begin + size
        return True

    def put(self, data: bytes) -> None:
        """Queue a whole reply, by a copy if it is small."""
        end = self._used + len(data)
        if len(data) > SMALL or end > ARENA:
            self.append(data)
            return
        self._arena[self._used : end] = data
        self._used = end

    def append(self, *pieces: bytes | memoryview) -> None:
        """Queue buffers that nobody changes any more, or that are lent."""
        if self._used > self._queued:
            self._out.append(self._arena[self._queued : self._used])
            self._queued = self._used
        self._out += (p if isinstance(p, memoryview) else memoryview(p) for p in pieces)

    def drop(self) -> None:
        """Forget what is not sent."""
        self._late.clear()
        self._out.clear()
        self._lent.clear()
        self._used = self._queued = 0

    def flush(self) -> None:
        """Send as much as the socket takes.  Raises OSError when the client is gone."""
        self._finish_late()
        if self.sending:
            return
        try:
            if self._stream.unsent:
                self._stream.send(_NOTHING)
            if not self._out and self._used:
                sent = self._stream.send(self._arena[: self._used])
                if sent == self._used:
                    self._used = 0
                    self.sending = self._stream.unsent
                    return
                self._out.append(self._arena[sent : self._used])
                self._queued = self._used
            elif self._used > self._queued:
                self.append()
            while self._out:
                self._trim(self._stream.sendmsg(self._out[:_MOST_PIECES]))
        except (BlockingIOError, InterruptedError):
            self.sending = True
            self._borrow()
            return
        self._used = self._queued = 0
        self.sending = self._stream.unsent

    def _finish_late(self) -> None:
        """Have leaves do for all reads what they put off: the arena is about to be sent."""
        if self._late:
            for leaf, pieces in self._late.items():
                leaf.finish(pieces)
            self._late.clear()

    def last_words(self) -> None:
        """Send what can still be sent when the connection is about to end."""
        self.sending = False
        with suppress(OSError):
            self.flush()
        self.repay()

    def _borrow(self) -> None:
        """Say whose pages are on their way."""
        if not self._lent:
            return
        self._backend.hold(self._key, self._copy_lent)
        self._lenders = {leaf for leaf, _ in self._lent.values()}
        for leaf in self._lenders:
            leaf.lend(self, self._copy_lent)

    def _trim(self, sent: int) -> None:
        out, count = self._out, 0
        while count < len(out) and sent >= len(out[count]):
            sent -= len(out[count])
            self._lent.pop(id(out[count]), None)
            count += 1
        del out[:count]
        if sent:
            rest = out[0][sent:]
            where = self._lent.pop(id(out[0]), None)
            out[0] = rest
            if where is not None:
                self._lent[id(rest)] = where[0], where[1] + sent

    def _copy_lent(self) -> None:
        """Copy what is lent: the pages may change after this."""
        for index, piece in enumerate(self._out):
            where = self._lent.pop(id(piece), None)
            if where is not None:
                self._out[index] = copy = new_buffer(len(piece))
                where[0].read(where[1], copy)  # not from piece: another process may have cut it off
        self.repay()

    def repay(self) -> None:
        """Say that nothing is on loan any more."""
        for leaf in self._lenders:
            leaf.repaid(self)
        self._lenders.clear()
        self._backend.release(self._key)
