"""nbd: a disk that an NBD server offers.  After block/nbd.c."""

import asyncio
import errno
import os
from collections import deque
from enum import Enum, auto
from typing import Annotated, Any, Final

import numpy as np

from blockemu.blockdev_options import NodeOptions
from blockemu.connecting import resolve_name
from blockemu.drivers.nbd import names
from blockemu.drivers.nbd.channel import Channel
from blockemu.drivers.nbd.connector import SECOND, Connector
from blockemu.drivers.nbd.dialling import dial
from blockemu.errors import HostError, InvalidParameterValue, QmpError
from blockemu.extents import ALLOCATED, DATA, ZERO, Extents
from blockemu.nbd import client, wire
from blockemu.nbd.client import ExportInfo, Wanted
from blockemu.nbd.transmission import Command
from blockemu.node import Flags, Limits, Node, Write
from blockemu.optlist import number
from blockemu.os_errors import os_error
from blockemu.qmp_server.qapi import U32, Features, InvalidInput, Since, visit
from blockemu.schema.sockets import AnySocketAddress
from blockemu.tls.credentials import TlsCreds, credentials
from blockemu.transaction import Transaction

MOST_REQUESTS: Final = 16  # under way at once
SECTOR: Final = 512
MOST_LENGTH: Final = (1 << 31) - 1  # bytes of a request without data, before it is aligned


class NameTooLong(QmpError):
    """More than the protocol lets through."""

    template = "export name too long to send to server"


class QueryTooLong(QmpError):
    """More than the protocol lets through."""

    template = "x-dirty-bitmap query too long to send to server"


class OnlyReadable(HostError):
    """The server lets nobody write."""

    template = "Can't reopen read-only NBD mount as read/write"


class CannotResize(HostError):
    """The protocol has no way to."""

    template = "Cannot resize NBD nodes"


class CannotGrow(HostError):
    """The protocol has no way to."""

    template = "Cannot grow NBD nodes"


class UnknownLength(QmpError):
    """(why): the server told a size that QEMU takes for an errno."""

    template = "Could not refresh total sector count: {}"


class NbdOptions(NodeOptions, tag="nbd", since="2.9"):
    """Options of nbd.

    @server: where the server is
    @export: name of the export
    @tls-creds: credentials for an encrypted connection
    @tls-hostname: the name that the server's certificate must have
    @x-dirty-bitmap: a meta context to show in place of block status
    @reconnect-delay: seconds that requests wait for a lost connection to come back
    @open-timeout: seconds for which opening is tried again
    """

    server: AnySocketAddress
    export: str | None = None
    tls_creds: str | None = None
    tls_hostname: Annotated[str | None, Since("7.0")] = None
    x_dirty_bitmap: Annotated[str | None, Since("3.0"), Features("unstable")] = None
    reconnect_delay: Annotated[U32 | None, Since("4.2")] = None
    open_timeout: Annotated[U32 | None, Since("7.0")] = None


class State(Enum):
    """Of the connection; what is not connected becomes so, or not, when a request comes."""

    WAITING = auto()  # requests wait for the next connection
    FAILING = auto()  # they fail at once, if it is not there yet
    CONNECTED = auto()
    DEAD = auto()  # the server cannot be trusted: nothing is tried again


CONNECTING: Final = (State.WAITING, State.FAILING)


class Nbd(Node[NbdOptions]):
    """One connection; at most ``MOST_REQUESTS`` are under way on it, the others wait in order."""

    Options = NbdOptions
    is_protocol = True
    protocols = ("nbd", "nbd+tcp", "nbd+unix")
    creates_by_opening = True
    strong = ("path", "host", "port", "export", "tls-creds", "tls-hostname", "server")

    # Options and names

    @classmethod
    def parse_filename(cls, filename: str, options: dict[str, Any]) -> None:
        """Put what the name says into the options."""
        del options["filename"]
        names.parse(filename, options)

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Translate the options of older programs, and read what QEMU reads apart."""
        names.translate_legacy(options)
        if not options.get("server"):
            raise names.NoServer
        for name in ("reconnect-delay", "open-timeout"):
            text = options.get(name)
            if isinstance(text, str):
                options[name] = _seconds(name, text)
        try:
            visit(AnySocketAddress, options["server"], keyval=True)
        except InvalidInput as e:
            raise QmpError(str(e)) from e

    def gather_filename(self) -> None:
        """Be a URI, if that says it all."""
        self.exact_filename = names.plain_name(self.options.server, self.options.export)

    def strong_options(self) -> dict[str, Any]:
        """Return what decides about which disk this is."""
        found = {name: self.effective[name] for name in self.strong if name in self.effective}
        server = found.pop("server", {})
        return found | {f"server.{name}": value for name, value in server.items()}

    # Life

    async def open(self) -> None:
        """Connect; for ``open-timeout`` seconds an attempt that fails is made again."""
        options, clock = self.options, self.services.clocks.realtime
        self._channel: Channel | None = None
        self._info = ExportInfo()
        self._in_flight = 0
        self._queue: deque[asyncio.Future[None]] = deque()  # requests that may not begin yet
        self._state = State.WAITING
        self._stop_delay = _nothing
        self._delay = (options.reconnect_delay or 0) * SECOND
        self._connector = Connector(self._attempt, clock)
        self._credentials: TlsCreds | None = None
        self._server = resolve_name(options.server)
        self._check_options()
        self._connector.retry = bool(options.open_timeout)
        stop_timer = _nothing
        if options.open_timeout:
            stop_timer = clock.timer(options.open_timeout * SECOND, self._connector.cancel)
        try:
            await self._establish(blocking=True)
            self._size = _signed(self._info.size)
        except BaseException:
            await self._connector.close()
            raise
        finally:
            stop_timer()
        self._connector.retry = True
        self.limits = self._limits()

    def _check_options(self) -> None:
        options = self.options
        if options.export is not None and _too_long(options.export):
            raise NameTooLong
        if options.tls_creds is not None:
            self._credentials = credentials(self.services.find_object, options.tls_creds, "client")
        if options.x_dirty_bitmap is not None and _too_long(options.x_dirty_bitmap):
            raise QueryTooLong

    async def close(self) -> None:
        """Take leave of the server."""
        self._stop_delay()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        await self._connector.close()
        self._state = State.DEAD

    async def reopen(self, options: NbdOptions, flags: Flags, transaction: Transaction) -> None:
        """Refuse to write what the server lets nobody write."""
        if not flags.read_only and self._info.flags & wire.READ_ONLY:
            raise OnlyReadable(errno=errno.EACCES)

    # Connections

    async def _attempt(self) -> Channel:
        """Connect and lead the handshake; raises QmpError."""
        options, credentials = self.options, self._credentials
        channel = await dial(self._server, self.pool, credentials, options.tls_hostname)
        wanted = Wanted(
            options.export or "",
            options.x_dirty_bitmap or wire.BASE_ALLOCATION,
            tls=credentials is not None,
        )
        try:
            await channel.negotiate(client.connect(wanted))
        except BaseException:
            channel.close(politely=False)
            raise
        return channel

    async def _establish(self, *, blocking: bool) -> None:
        """Get a connection and see whether it will do.

        Raises:
            QmpError: there is none.
            OSError: it will not do.

        """
        channel = await self._connector.establish(blocking=blocking)
        self._info = channel.info
        try:
            self._check_info()
        except OSError:
            channel.close()
            raise
        self._channel = channel
        self._state = State.CONNECTED

    def _check_info(self) -> None:
        """See whether the server has what was asked for (nbd_handle_updated_info)."""
        if self.options.x_dirty_bitmap is not None and self._info.context_id is None:
            raise os_error(errno.EINVAL)
        if self._info.flags & wire.READ_ONLY and not self.flags.read_only:
            if not self.flags.auto_read_only:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self.flags.read_only = True

    def _limits(self) -> Limits:
        """Return the sizes that the server copes with (nbd_refresh_limits)."""
        info = self._info
        least = info.min_block
        if not least:
            aligned = info.size % SECTOR == 0 and info.context_id is None
            least = SECTOR if aligned else 1
        most = min(wire.MAX_PAYLOAD, info.max_block or wire.MAX_PAYLOAD)
        return Limits(
            request_alignment=least,
            max_transfer=most,
            opt_transfer=info.opt_block,
            max_write_zeroes=most,
            max_discard=MOST_LENGTH & -least,
        )

    def _lost(self, error: int) -> None:
        """Take note that the connection is of no use (nbd_channel_error)."""
        if error != errno.EIO:
            self._state = State.DEAD
        elif self._state is State.CONNECTED:
            self._state = State.WAITING if self._delay else State.FAILING

    async def _reconnect(self) -> None:
        """Try for a connection, alone: all other requests wait (nbd_reconnect_attempt)."""
        blocking = self._state is State.WAITING
        if blocking:
            clock = self.services.clocks.realtime
            self._stop_delay = clock.timer(self._delay, self._give_up)
        if self._channel is not None:
            self._channel.close(politely=False)
            self._channel = None
        try:
            await self._establish(blocking=blocking)
        except (QmpError, OSError):
            pass
        finally:
            self._stop_delay()
            self._stop_delay = _nothing

    def _give_up(self) -> None:
        """Let requests fail until there is a connection again."""
        if self._state is State.WAITING:
            self._state = State.FAILING
            self._connector.cancel()

    def yank(self) -> None:
        """Break the connection for good: requests fail, now and later (nbd_yank)."""
        self._stop_delay()
        self._state = State.DEAD
        self._connector.cancel()
        if self._channel is not None:
            self._channel.close(politely=False)

    def cancel_in_flight(self) -> None:
        """Do not wait for a connection any more (nbd_cancel_in_flight)."""
        self._stop_delay()
        if self._state is State.WAITING:
            self._state = State.FAILING
        self._connector.cancel()

    # Requests

    async def _request(
        self,
        kind: int,
        offset: int = 0,
        length: int = 0,
        flags: int = 0,
        buf: memoryview | None = None,
        payload: memoryview | None = None,
    ) -> Command:
        """Make a request, again and again while a lost connection may come back.

        Raises:
            OSError: the server refused, or there is no connection.

        """
        while True:
            command = await self._try(kind, offset, length, flags, buf, payload)
            lost = command is None or command.lost
            if not (lost and self._state is State.WAITING):
                break
        error = errno.EIO if command is None else command.lost or command.error
        if error or command is None:
            raise os_error(error)
        return command

    async def _try(
        self,
        kind: int,
        offset: int,
        length: int,
        flags: int,
        buf: memoryview | None,
        payload: memoryview | None,
    ) -> Command | None:
        """Make a request once; return None if there was no connection to make it on."""
        while self._in_flight == MOST_REQUESTS or (
            self._state is not State.CONNECTED and self._in_flight
        ):
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            await turn
        self._in_flight += 1
        try:
            if self._state in CONNECTING:
                await self._reconnect()
                self._wake(len(self._queue))
            channel = self._channel
            if self._state is not State.CONNECTED or channel is None:
                return None
            command = await channel.request(
                kind, offset, length, flags=flags, buf=buf, payload=payload
            )
            if channel.broken is not None and channel is self._channel:
                self._lost(channel.broken)
            return command
        finally:
            self._in_flight -= 1
            self._wake(1)

    def _wake(self, count: int) -> None:
        """Let waiting requests look again whether they may begin."""
        while count and self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    # Data path

    @property
    def length(self) -> int:
        """The size that the server told when the node was opened."""
        return self._size

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read; the last sector may reach beyond the end and is zero there."""
        inside = max(0, min(len(buf), self._info.size - offset))
        if len(buf) - inside < SECTOR and inside < len(buf):
            buf[inside:] = bytes(len(buf) - inside)
            buf = buf[:inside]
        if len(buf):
            await self._request(wire.CMD_READ, offset, len(buf), buf=buf)

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write; a server without FUA is told to flush afterwards."""
        if not len(buf):
            return
        fua = self._fua(flags)
        await self._request(wire.CMD_WRITE, offset, len(buf), fua, payload=buf)
        if flags & Write.FUA and not fua:
            await self.flush()

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Let the server zero the range, if it can."""
        if not self._info.flags & wire.SEND_WRITE_ZEROES:
            raise NotImplementedError
        if flags & Write.NO_FALLBACK and not self._info.flags & wire.SEND_FAST_ZERO:
            raise NotImplementedError
        fua = self._fua(flags)
        how = fua | (0 if flags & Write.MAY_UNMAP else wire.FLAG_NO_HOLE)
        how |= wire.FLAG_FAST_ZERO if flags & Write.NO_FALLBACK else 0
        await self._request(wire.CMD_WRITE_ZEROES, offset, length, how)
        if flags & Write.FUA and not fua:
            await self.flush()

    def _fua(self, flags: int) -> int:
        can = flags & Write.FUA and self._info.flags & wire.SEND_FUA
        return wire.FLAG_FUA if can else 0

    async def discard(self, offset: int, length: int) -> None:
        """Tell the server, if it wants to know."""
        if self._info.flags & wire.SEND_TRIM:
            await self._request(wire.CMD_TRIM, offset, length)

    async def flush(self) -> None:
        """Tell the server, if it wants to know."""
        if self._info.flags & wire.SEND_FLUSH:
            await self._request(wire.CMD_FLUSH)

    async def truncate(
        self, length: int, *, exact: bool = True, prealloc: str = "off", zero: bool = False
    ) -> None:
        """Refuse, unless nothing has to change."""
        if length != self._info.size and exact:
            raise CannotResize(errno=errno.ENOTSUP)
        if length > self._info.size:
            raise CannotGrow(errno=errno.EINVAL)

    async def block_status(self, offset: int, length: int) -> Extents:
        """Ask the server; without a meta context all is data."""
        if self._info.context_id is None:
            return Extents.one(offset, length, DATA | ALLOCATED, offset)
        if offset >= self._info.size:
            return Extents.one(offset, length, ZERO | ALLOCATED)
        most = min(MOST_LENGTH & -self.limits.request_alignment, self._info.size - offset)
        asked = min(length, most)
        command = await self._request(wire.CMD_BLOCK_STATUS, offset, asked)
        assert command.extents is not None
        return self._to_extents(command.extents, offset, asked)

    def _to_extents(self, found: "np.ndarray[Any, Any]", offset: int, asked: int) -> Extents:
        """Make extents of lengths and flags, uint32 of shape (n, 2).

        As in QEMU, what is not aligned ends at the last boundary, or is data up to the next, and
        what lies beyond the request is cut off (nbd_parse_blockstatus_payload).
        """
        lengths, flags = found[:, 0].astype(np.int64), found[:, 1].copy()
        least = self._info.min_block or 1
        odd = np.flatnonzero((lengths == 0) | (lengths % least != 0))
        if len(odd):
            good = max(1, int(odd[0]))
            lengths, flags = lengths[:good], flags[:good]
            if lengths[0] < least:
                lengths[0], flags[0] = least, 0
            lengths[0] &= -least
        if self.options.x_dirty_bitmap == wire.ALLOCATION_DEPTH:
            flags = np.minimum(flags, 2)
        ends = np.cumsum(lengths)
        used = int(ends.searchsorted(asked, "left")) + 1
        ends, flags = ends[:used], flags[:used]
        starts = offset + np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        hole, zero = flags & wire.STATE_HOLE != 0, flags & wire.STATE_ZERO != 0
        status = np.where(hole, 0, DATA) | np.where(zero, ZERO, 0)
        status |= np.where(status != 0, ALLOCATED, 0)
        end = offset + min(asked, int(ends[-1]))
        return Extents(starts, status.astype(np.uint8), starts.copy(), end)


def _seconds(name: str, text: str) -> int:
    """Read a number as QEMU does, which keeps 32 bits of it."""
    value = number(text)
    if value is None:
        raise InvalidParameterValue(name, "a number")
    return value & 0xFFFFFFFF


def _too_long(text: str) -> bool:
    return len(text.encode("utf-8", "surrogateescape")) > wire.MAX_STRING


def _signed(size: int) -> int:
    """Return a size as QEMU takes it, which has 63 bits for it (bdrv_refresh_total_sectors)."""
    if not size >> 63:
        return size
    code = size & 0xFFFFFFFF
    if code >> 31:
        raise UnknownLength(os.strerror((1 << 32) - code))
    return 0


def _nothing() -> None:
    """Stop a timer that there is not."""
