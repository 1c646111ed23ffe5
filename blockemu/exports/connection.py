"""One NBD client's requests: a socket driven by hand.

asyncio's transports copy too much.  A connection takes what one ``recv_into`` brings, plans all
requests in it, and answers them with one send.  What cannot be planned runs as a coroutine
(``blockemu.exports.requests``).  Measured by the rows ``nbd`` of ``make bench``.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Final

from blockemu.backend import Backend
from blockemu.buffers import lazy_buffer
from blockemu.eager import start
from blockemu.exports.holes import with_holes
from blockemu.exports.outgoing import ARENA, FULL, SMALL, Outgoing
from blockemu.exports.requests import Request, Requests, error_reply
from blockemu.host.loop import watch
from blockemu.host.pool import Pool
from blockemu.host.streams import Stream
from blockemu.nbd import wire
from blockemu.route import NO_ROUTE, Commit, Leaf, Route, Segments

WINDOW: Final = 256 << 10  # bytes received at once
MOST_TASKS: Final = 16  # requests of a client that wait for something (MAX_NBD_REQUESTS)
_HEAD: Final = wire.REQUEST.size
_unpack = wire.REQUEST.unpack_from


class Connection:
    """One client in the transmission phase; ``closed`` is set once nothing of it is left."""

    def __init__(self, requests: Requests, pool: Pool, stream: Stream) -> None:
        self._requests = requests
        self._backend: Backend = requests.backend
        self._pool = pool
        self._structured = requests.structured
        self._size = requests.size
        self._read_flags = wire.FLAG_DF if self._structured else 0
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._fd = stream.fileno()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._window = lazy_buffer(WINDOW)
        self._start = self._end = 0  # what is received and not yet served
        self._out = Outgoing(stream, self._backend)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: list[tuple[Leaf, int, memoryview]] = []
        self._after: list[tuple[int, int, int, Commit | None]] = []  # cookie, offset, length
        self._route = NO_ROUTE  # what the last batch was planned by
        self._reached = 0  # how far that route knows of writes
        self._reading = self._busy = self._woken = self._leaving = False
        self.tell: Callable[[str], None] = lambda _: None  # why the client is hung up on
        self._resume()

    # Receiving

    def _readable(self) -> None:
        if self._busy:  # not told so before: mostly clients wait for the answer
            self._pause()
            return
        end, stream = self._end, self._stream
        try:
            got = stream.recv_into(self._window[end:] if end else self._window)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._dismiss(
                self._cut_short(f"Unable to read from socket: {os.strerror(e.errno or 0)}")
            )
            return
        if not got:
            self._at_end()
            return
        self._end = end + got
        self._serve()
        if stream.pending and self._reading:
            self._loop.call_soon(self._read_on)

    def _at_end(self) -> None:
        """Take note that the client has sent all that it will."""
        if self._start == self._end:
            self.close()
        elif self._end - self._start < _HEAD:
            self._dismiss("Unexpected end-of-file before all bytes were read")
        else:
            self._dismiss(self._cut_short("Unexpected end-of-file before all data were read"))

    def _cut_short(self, why: str) -> str:
        """Say what could not be read."""
        return f"Failed to read CMD_WRITE data: {why}" if self._end - self._start >= _HEAD else why

    def _dismiss(self, why: str) -> None:
        """Hang up on a client that breaks the protocol, or is gone (nbd_trip)."""
        if not self._leaving:
            self.tell(f"Disconnect client, due to: {why}")
        self.close()

    def _read_on(self) -> None:
        """Take what was decrypted and nobody announces."""
        if self._reading and self._stream.pending:
            self._readable()

    def _fail(self, error: Exception) -> None:
        """Hang up since something went wrong that nobody foresaw: the client must not wait."""
        context = {"message": "an NBD request failed unexpectedly", "exception": error}
        self._loop.call_exception_handler(context)
        after, self._after, self._writes = self._after, [], []
        for _, _, _, commit in after:
            if commit is not None:
                commit(False)
        self._out.drop()
        self.close()

    def _serve(self) -> None:
        """Answer what is received, or end."""
        try:
            self._serve_batch()
        except Exception as e:
            self._fail(e)

    def _serve_batch(self) -> None:
        """Answer what is received; stop where output, a thread or a task has to be waited for."""
        route = self._backend.route
        if route is not self._route:
            self._route, self._reached = route, 0
        need = _HEAD
        ends = broken = False
        while self._end - self._start >= _HEAD and len(self._tasks) < MOST_TASKS:
            head = _unpack(self._window, self._start)
            magic, flags, kind, cookie, offset, length = head
            if magic != wire.REQUEST_MAGIC:
                self._refuse(cookie, f"invalid magic (got 0x{magic:x})")
                broken = True
                break
            if kind == wire.CMD_DISC:
                ends = True
                break
            if kind == wire.CMD_WRITE:
                if length > wire.MAX_PAYLOAD:  # it is in the way of what follows
                    text = self._requests.refusal(Request._make(head[1:]))
                    self._refuse(cookie, text or "")
                    broken = True
                    break
                if self._end - self._start < _HEAD + length:
                    need = _HEAD + length
                    break
                self._write(flags, cookie, offset, length, route)
                continue
            if self._out.used > FULL and kind == wire.CMD_READ and self._out.crowded(length):
                self._out.flush()
                if self._out.sending:
                    break
            self._start += _HEAD
            if kind == wire.CMD_READ:
                if self._read(flags, cookie, offset, length, route):
                    continue
            elif kind == wire.CMD_BLOCK_STATUS:
                answer = self._requests.status_now(flags, cookie, offset, length)
                if answer is not None:
                    self._out.put(answer)
                    continue
            self._spawn(Request(flags, kind, cookie, offset, length))
        self._finish_batch(route, need)
        if broken:  # what came before is carried out
            self._dismiss("Request handling failed in intermediate state")
        elif ends:
            self.close()

    def _finish_batch(self, route: Route, need: int) -> None:
        if self._writes and all(leaf.late and leaf.inline_writes for leaf, _, _ in self._writes):
            self._write_together(route)
        self._flush()
        if self._writes:
            self._write_on_thread(route)
        if self._start < self._end or need > _HEAD:
            self._make_room(need)
        elif not self._busy:
            self._start = self._end = 0
        if self._out.sending or self._tasks or self._busy or not self._reading:
            self._pause_or_resume()

    def _make_room(self, need: int) -> None:
        if self._busy:
            return  # a thread is writing from the window
        left = self._end - self._start
        if not left and need <= len(self._window):
            self._start = self._end = 0
            return
        if need > len(self._window):
            bigger = lazy_buffer(need + WINDOW)
            bigger[:left] = self._window[self._start : self._end]
            self._window = bigger
        elif self._start:
            self._window[:left] = self._window[self._start : self._end]
        else:
            return
        self._start, self._end = 0, left

    def _pause_or_resume(self) -> None:
        stop = self._out.sending or len(self._tasks) >= MOST_TASKS or self._leaving
        if stop or (self._busy and self._stream.pending):
            if self._reading:
                self._pause()
        elif not self._reading and not self._busy:
            self._resume()

    def _pause(self) -> None:
        self._loop.remove_reader(self._fd)
        self._reading = False

    def _resume(self) -> None:
        watch(self._loop, self._fd, self._readable)
        self._reading = True
        if self._stream.pending:
            self._loop.call_soon(self._read_on)

    # Planned requests

    def _read(self, flags: int, cookie: int, offset: int, length: int, route: Route) -> bool:
        """Queue the reply to a read; return False, with nothing done, if it has to wait."""
        plan = route.read
        if plan is None or not length or flags & ~self._read_flags:
            return False
        if offset + length > self._size or length > wire.MAX_PAYLOAD:
            return False
        segments = plan(offset, length)
        if segments is None:
            return False
        if self._structured and not flags:
            leaf, host, size = segments[0]
            # What is known to have no hole, or to be one, needs no look (``make bench``: NBD).
            if len(segments) > 1 or not (
                leaf is None or (leaf.data_start <= host and host + size <= leaf.data_end)
            ):
                found = with_holes(segments, route)
                if found is None:
                    return False
                segments, (leaf, host, size) = found, found[0]
            if leaf is None and size == length:
                self._out.hole(wire.CHUNK_DONE, cookie, offset, size)
                return True
            if leaf is not None and size == length <= SMALL:
                return self._out.data(cookie, offset, leaf, host, size)
        elif flags and (len(segments) > 1 or segments[0][0] is None):
            return False
        mark = self._out.mark()
        good = False
        try:
            if self._structured:
                good = len(segments) * 64 <= ARENA // 2 and self._chunks(cookie, offset, segments)
            else:
                good = self._simple(cookie, length, segments)
        finally:
            if not good:
                self._out.rewind(mark)
        return good

    def _simple(self, cookie: int, length: int, segments: Segments) -> bool:
        if length > SMALL or any(leaf is None for leaf, _, _ in segments):
            return False
        self._out.done(cookie)
        return all(
            self._out.payload(leaf, host, size) for leaf, host, size in segments if leaf is not None
        )

    def _chunks(self, cookie: int, offset: int, segments: Segments) -> bool:
        last = len(segments) - 1
        out = self._out
        for index, (leaf, host, size) in enumerate(segments):
            done = wire.CHUNK_DONE if index == last else 0
            if leaf is None:
                out.hole(done, cookie, offset, size)
            else:
                out.head(done, cookie, offset, size)
                if not out.payload(leaf, host, size):
                    return False
            offset += size
        return True

    def _write(self, flags: int, cookie: int, offset: int, length: int, route: Route) -> None:
        """Carry out a write whose payload is there, now or by a task."""
        begin = self._start + _HEAD
        payload = self._window[begin : begin + length]
        self._start = begin + length
        inside = offset + length <= self._size and self._requests.writable and length > 0
        if route.write is not None and not flags and inside:
            planned = route.write(offset, length)
            if planned is not None:
                self._put(cookie, offset, payload, planned, route)
                return
        self._spawn(Request(flags, wire.CMD_WRITE, cookie, offset, length), bytes(payload))

    def _put(
        self,
        cookie: int,
        offset: int,
        payload: memoryview,
        planned: tuple[Segments, Commit | None],
        route: Route,
    ) -> None:
        """Carry out a planned write, or leave it for the thread."""
        segments, commit = planned
        length = len(payload)
        leaf = segments[0][0]
        if len(segments) > 1:
            now = all(leaf is not None and leaf.inline_writes for leaf, _, _ in segments)
        else:  # what would be cheaper together with others may have none
            others = self._writes or self._start < self._end
            now = leaf is not None and leaf.inline_writes and not (leaf.late and others)
        if not now:
            self._postpone(segments, payload)
            self._after.append((cookie, offset, length, commit))
            return
        code = at = 0
        try:
            for leaf, host, size in segments:
                assert leaf is not None
                part = payload if size == length else payload[at : at + size]
                leaf.recall()
                leaf.write_now(host, part)
                at += size
        except OSError as e:
            code = e.errno or errno.EIO
        self._written(cookie, offset, length, commit, code, route)

    def _postpone(self, segments: Segments, payload: memoryview) -> None:
        """Leave a write for the end of the batch."""
        at = 0
        for leaf, host, size in segments:
            assert leaf is not None
            self._writes.append((leaf, host, payload[at : at + size]))
            at += size

    def _written(
        self, cookie: int, offset: int, length: int, commit: Commit | None, code: int, route: Route
    ) -> None:
        if commit is not None:
            commit(not code)
        for bitmap, delta in route.marks:
            bitmap.mark(offset + delta, length)
        if offset + length > self._reached or route is not self._route:
            self._reached = offset + length
            route.reached(offset + length)
        if code:
            text = "writing to file failed"
            reply = error_reply(cookie, code, text, structured=self._structured)
            self._out.append(reply)
        else:
            self._out.done(cookie)

    def _write_together(self, route: Route) -> None:
        """Carry out writes, a segment each, that are cheaper together."""
        writes, after = self._writes, self._after
        self._writes, self._after = [], []
        pieces: dict[Leaf, list[tuple[int, memoryview]]] = {}
        for leaf, host, part in writes:
            pieces.setdefault(leaf, []).append((host, part))
        ready = {leaf: iter(leaf.prepare(some)) for leaf, some in pieces.items()}
        for (leaf, host, _), (cookie, offset, length, commit) in zip(writes, after, strict=True):
            code = 0
            try:
                leaf.recall()
                leaf.write_prepared(host, next(ready[leaf]))
            except OSError as e:
                code = e.errno or errno.EIO
            self._written(cookie, offset, length, commit, code, route)

    def _write_on_thread(self, route: Route) -> None:
        """Take the batch's writes to a thread together: one hop, however many."""
        writes, after = self._writes, self._after
        self._writes, self._after = [], []
        self._busy = True
        self._backend.hold(self, _nothing)
        self._backend.in_flight += 1
        leaves = {leaf for leaf, _, _ in writes}
        for leaf in leaves:
            leaf.recall()
            leaf.writing += 1

        def run() -> None:
            for leaf, host, part in writes:
                leaf.write_now(host, part)

        def done(error: BaseException | None) -> None:
            for leaf in leaves:
                leaf.writing -= 1
            code = 0
            if error is not None:
                code = (error.errno if isinstance(error, OSError) else None) or errno.EIO
            try:
                for cookie, offset, length, commit in after:
                    self._written(cookie, offset, length, commit, code, route)
            except Exception as e:
                self._fail(e)
            self._busy = False
            self._backend.release(self)
            self._backend.leave()
            self._go_on()

        self._pool.submit(run, done)

    # Sending

    def _flush(self) -> None:
        """Send what there is; what the socket does not take, wait for."""
        if self._leaving:
            return
        try:
            self._out.flush()
        except OSError as e:
            why = os.strerror(e.errno or 0)
            self._dismiss(f"Failed to send reply: Unable to write to socket: {why}")
            return
        except Exception as e:
            self._fail(e)
            return
        if self._out.sending:
            self._loop.add_writer(self._fd, self._writable_again)

    def _writable_again(self) -> None:
        self._loop.remove_writer(self._fd)
        self._out.sending = False
        self._flush()
        if not self._out.sending and not self._leaving:
            self._out.repay()
            self._go_on()

    def _go_on(self) -> None:
        """Serve what is waiting in the window, or end."""
        if self._leaving:
            self._end_if_idle()
        elif self._start < self._end and not self._busy and not self._out.sending:
            self._serve()
        else:
            self._flush()
            self._pause_or_resume()

    # Requests that wait

    def _spawn(self, request: Request, payload: bytes = b"") -> None:
        task = start(self._answer(request, payload))
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _refuse(self, cookie: int, text: str) -> None:
        """Say what is wrong with a request that nothing can come after."""
        self._out.append(error_reply(cookie, errno.EINVAL, text, structured=self._structured))

    async def _answer(self, request: Request, payload: bytes) -> None:
        self._out.append(*await self._requests.answer(request, payload))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)
        if self._leaving:
            self._end_if_idle()
        elif not self._woken:  # replies of tasks that end in the same turn go out together
            self._woken = True
            self._loop.call_soon(self._send_finished)

    def _send_finished(self) -> None:
        self._woken = False
        if not self._out.sending:
            self._flush()
        self._go_on()

    def close(self) -> None:
        """Take no more requests, and hang up once those under way are over."""
        if self._leaving:
            return
        self._leaving = True
        self._reading = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._out.repay()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._tasks or self._busy or self._writes or self.closed.done():
            return
        self._out.last_words()
        self._stream.close()
        self.closed.set_result(None)


def _nothing() -> None:
    """Do nothing: writes on a thread end by themselves."""
