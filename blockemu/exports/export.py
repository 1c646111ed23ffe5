"""An export by NBD: a node that clients reach, until none uses it any more.  After nbd/server.c."""

import asyncio
from copy import copy
from typing import Any, ClassVar, Protocol

from blockemu.backend import Backend
from blockemu.dirty import ALLOW_READONLY, DirtyBitmap
from blockemu.errors import QmpError
from blockemu.exports.base import Export
from blockemu.exports.dirty_runs import DirtyRuns
from blockemu.exports.requests import Requests
from blockemu.find_bitmap import find_bitmap
from blockemu.graph import Graph
from blockemu.nbd import wire
from blockemu.nbd.server import Session
from blockemu.node import Node
from blockemu.schema.exports import BlockExportOptionsNbd, BlockExportType

_SECTOR = 512


class BitmapAbsent(QmpError):
    """Neither the node nor what is below it has such a bitmap."""

    template = "Bitmap '{}' is not found"


class BitmapRecords(QmpError):
    """The bitmap would change under a reader."""

    template = "Enabled bitmap '{}' incompatible with readonly export"


class NameTooLong(QmpError):
    """The name does not fit the protocol."""

    template = "export name '{}' too long"


class DescriptionTooLong(QmpError):
    """The description does not fit the protocol."""

    template = "description '{}' too long"


class Client(Protocol):
    """A connection that uses an export."""

    closed: "asyncio.Future[None]"

    def close(self) -> None:
        """Hang up as soon as what is under way is over."""


class NbdExport(Export):
    """A node under a name, and the clients that use it."""

    type: ClassVar[BlockExportType] = BlockExportType.NBD

    def __init__(self, graph: Graph, options: BlockExportOptionsNbd, backend: Backend) -> None:
        super().__init__(graph, options, backend)
        self.name = options.name if options.name is not None else options.node_name
        self.description = options.description
        self.allocation_depth = bool(options.allocation_depth)
        self.size = backend.length // _SECTOR * _SECTOR
        self.bitmaps: list[DirtyBitmap] = []
        self._runs: list[DirtyRuns] = []  # those of the client that came last
        self.multi_conn = True
        self.clients: set[Client] = set()

    @property
    def in_use(self) -> bool:
        """Whether a client is connected."""
        return bool(self.clients)

    @property
    def flags(self) -> int:
        """What clients may do (transmission flags)."""
        flags = wire.HAS_FLAGS | wire.SEND_FLUSH | wire.SEND_FUA | wire.SEND_CACHE
        if self.multi_conn:
            flags |= wire.CAN_MULTI_CONN
        if not self.writable:
            return flags | wire.READ_ONLY
        return flags | wire.SEND_TRIM | wire.SEND_WRITE_ZEROES | wire.SEND_FAST_ZERO

    @property
    def alignment(self) -> int:
        """Bytes that requests should be multiples of."""
        return max(self.backend.node.limits.request_alignment, 1)

    @property
    def max_transfer(self) -> int:
        """Bytes of one request at the most."""
        return min(self.backend.node.limits.max_transfer, wire.MAX_PAYLOAD)

    @property
    def bitmap_names(self) -> list[str]:
        """The bitmaps that clients may ask for."""
        return [bitmap.name or "" for bitmap in self.bitmaps]

    def requests(self, session: Session) -> Requests:
        """Return what answers one client; it begins with what the one before knew of bitmaps."""
        self._runs = [copy(each) for each in self._runs]
        return Requests(self.backend, session, self._runs, size=self.size, writable=self.writable)

    def check_names(self) -> None:
        """Refuse what the protocol has no room for."""
        if len(self.name.encode()) > wire.MAX_STRING:
            raise NameTooLong(self.name)
        if self.description is not None and len(self.description.encode()) > wire.MAX_STRING:
            raise DescriptionTooLong(self.description)

    def take_bitmaps(self, options: BlockExportOptionsNbd) -> None:
        """Find the bitmaps and keep others from changing them."""
        found = []
        for each in options.bitmaps or ():
            if isinstance(each, str):
                bitmap = self._find(each)
            else:
                bitmap = find_bitmap(self.graph.lookup, each.node, each.name)[1]
            bitmap.check(ALLOW_READONLY)
            found.append(bitmap)
        self.bitmaps = found
        self._runs = [DirtyRuns(bitmap) for bitmap in found]
        for bitmap in found:
            bitmap.busy = True

    def _find(self, name: str) -> DirtyBitmap:
        at: Node[Any] | None = self.backend.node
        while at is not None:
            bitmap = at.bitmap_set.find(name) if at.bitmap_set is not None else None
            if bitmap is not None:
                if not self.writable and not at.flags.read_only and bitmap.enabled:
                    raise BitmapRecords(name)
                return bitmap
            at = at.below.node if at.below is not None else None
        raise BitmapAbsent(name)

    def add_client(self, client: Client) -> None:
        """Count a client in until it is closed."""
        self.clients.add(client)
        client.closed.add_done_callback(lambda _: self._left(client))
        if not self.user_owned:
            client.close()

    def _left(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            for runs in self._runs:
                runs.trim()
        if not self.user_owned and not self.clients:
            self.gone()

    def shut_down(self) -> None:
        """Let the clients go, and then itself; once is enough."""
        super().shut_down()
        for client in list(self.clients):
            client.close()

    async def release(self) -> None:
        """Let go of bitmaps and node."""
        for bitmap in self.bitmaps:
            bitmap.busy = False
        await super().release()
