"""All exports, by id.  After block/export/export.c."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blockemu.activation import activate
from blockemu.backend import Backend
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.exports.base import Export
from blockemu.exports.export import NbdExport
from blockemu.exports.nbd_server import NbdServer
from blockemu.graph import Graph
from blockemu.node import Node
from blockemu.objects.object_add import IoThread
from blockemu.optlist import is_identifier
from blockemu.perm import Perm
from blockemu.permissions import try_set_perm
from blockemu.qmp_server.profile import Life
from blockemu.schema.exports import (
    BlockExportDeleted,
    BlockExportInfo,
    BlockExportOptions,
    BlockExportOptionsFuse,
    BlockExportOptionsNbd,
    BlockExportRemoveMode,
)

if TYPE_CHECKING:
    from blockemu.emulator import Emulator


WRITABLE_MULTI_CONN = Life(since="7.1")  # several connections may write


class BadExportId(QmpError):
    """An id that is not a valid identifier."""

    template = "Invalid block export id"


class ExportIdInUse(QmpError):
    """The id is taken."""

    template = "Block export id '{}' is already in use"


class ReadOnlyExport(QmpError):
    """Clients cannot write to a node that nobody can."""

    template = "Cannot export read-only node as writable"


class NoSuchIothread(QmpError):
    """There is no such thread."""

    template = 'iothread "{}" not found'


class ServerNotRunning(QmpError):
    """There is nobody to serve clients."""

    template = "NBD server not running"


class ExportNameInUse(QmpError):
    """Clients know another export by this name."""

    template = "NBD server already has export named '{}'"


class ExportNotFound(QmpError):
    """There is no such export."""

    template = "Export '{}' is not found"


class ExportShutsDown(QmpError):
    """It is about to go already."""

    template = "Export '{}' is already shutting down"


class ExportInUse(QmpError):
    """(id): clients are connected."""

    template = "export '{}' still in use"

    def __init__(self, name: object) -> None:
        super().__init__(name, hint="Use mode='hard' to force client disconnect\n")


class Exports:
    """The exports of one emulator, and the server they are reached by."""

    def __init__(self, emu: "Emulator") -> None:
        self._emu = emu
        self._exports: dict[str, Export] = {}
        self._empty: list[asyncio.Future[None]] = []
        self.server: NbdServer | None = None

    @property
    def graph(self) -> Graph:
        """Where the nodes are."""
        return self._emu.graph

    # As the handshake sees them

    def find(self, name: str) -> NbdExport | None:
        """Return the export that clients know by a name."""
        return next((each for each in self.all() if each.name == name), None)

    def all(self) -> Sequence[NbdExport]:
        """Return what clients may use, in the order it came."""
        known = self._exports.values()
        return [each for each in known if isinstance(each, NbdExport) and each.user_owned]

    # As commands do

    async def add(self, options: BlockExportOptions) -> Export:
        """Export a node (blk_exp_add, nbd_export_create)."""
        if not is_identifier(options.id):
            raise BadExportId
        if options.id in self._exports:
            raise ExportIdInUse(options.id)
        node = self.graph.lookup_either(None, options.node_name)
        if node.flags.read_only and options.writable:
            raise ReadOnlyExport
        if options.iothread is not None:
            self._check_iothread(options.iothread, node, fixed=bool(options.fixed_iothread))
        with suppress(QmpError):  # disks are mirrored to a machine that has not come yet
            await activate(self.graph, node)
        perm = Perm.CONSISTENT_READ | (Perm.WRITE if options.writable else Perm.NONE)
        backend = Backend(perm=perm, shared=Perm.ALL)
        self.graph.insert(backend, node)
        backend.write_cache = not options.writethrough
        try:
            export = self._make(options, backend)
            export.gone = lambda: self._emu.keep(self._delete(export))
        except BaseException:
            await self.graph.remove(backend)
            raise
        self._exports[options.id] = export
        return export

    def _make(self, options: BlockExportOptions, backend: Backend) -> Export:
        if isinstance(options, BlockExportOptionsNbd):
            return self._make_nbd(options, backend)
        assert isinstance(options, BlockExportOptionsFuse)
        from blockemu.exports.fuse import FuseExport  # start-up: few are files

        known = self._exports.values()
        taken = {each.mountpoint for each in known if isinstance(each, FuseExport)}
        export = FuseExport(self.graph, options, backend)
        export.start(self._emu.warn, taken)
        return export

    def _make_nbd(self, options: BlockExportOptionsNbd, backend: Backend) -> NbdExport:
        if self.server is None:
            raise ServerNotRunning
        export = NbdExport(self.graph, options, backend)
        export.check_names()
        if self.find(export.name) is not None:
            raise ExportNameInUse(export.name)
        try_set_perm(backend, backend.perm, Perm.ALL & ~Perm.RESIZE)
        export.multi_conn = self.server.max_connections != 1 and (
            not export.writable or self._emu.profile.knows(WRITABLE_MULTI_CONN)
        )
        export.take_bitmaps(options)
        return export

    def _check_iothread(self, name: str, node: Node[Any], *, fixed: bool) -> None:
        """Refuse what is no thread, or none for the node (bdrv_try_change_aio_context)."""
        if not isinstance(self._emu.objects.find(name), IoThread):
            raise NoSuchIothread(name)
        if fixed:
            self.graph.threads.enter(node, name)
        self.graph.threads.used = True

    def pinned(self, edge: Edge) -> str | None:
        """Return the thread that a user of a node must stay in; empty: the program's own."""
        for export in self._exports.values():
            if export.backend is edge:
                return export.pinned
        if isinstance(edge, Backend) and edge.device:
            return self._emu.devices.iothread_of(edge) or ""
        return None

    def by_id(self, name: str) -> Export | None:
        """Return an export by its id."""
        return self._exports.get(name)

    async def remove(self, name: str, mode: BlockExportRemoveMode) -> None:
        """Let an export go (qmp_block_export_del); wait until it has, unless it has clients."""
        export = self._exports.get(name)
        if export is None:
            raise ExportNotFound(name)
        if not export.user_owned:
            raise ExportShutsDown(name)
        if mode is BlockExportRemoveMode.SAFE and export.in_use:
            raise ExportInUse(name)
        if export.in_use:
            export.shut_down()
        else:  # in QEMU, too, the event comes before the reply then
            export.user_owned = False
            await self._delete(export)

    async def _delete(self, export: Export) -> None:
        await export.release()
        del self._exports[export.id]
        self._emu.emit(BlockExportDeleted(id=export.id))
        if not self._of(type(export)):
            for waiter in self._empty:
                if not waiter.done():
                    waiter.set_result(None)
            self._empty.clear()

    async def close_all(self, kind: type[Export] = Export) -> None:
        """Let all exports of a kind go and wait until they are gone."""
        for export in self._of(kind)[::-1]:
            if export.user_owned:
                export.shut_down()
        while self._of(kind):
            self._empty.append(asyncio.get_running_loop().create_future())
            await self._empty[-1]

    def _of(self, kind: type[Export]) -> list[Export]:
        return [each for each in self._exports.values() if isinstance(each, kind)]

    def info(self) -> list[BlockExportInfo]:
        """Describe all exports, the newest first."""
        return [
            BlockExportInfo(
                id=export.id,
                type=export.type,
                node_name=export.backend.node.name,
                shutting_down=not export.user_owned,
            )
            for export in reversed(self._exports.values())
        ]

    async def stop_server(self, *, unbinds: bool = False) -> None:
        """Let all NBD exports go, then the server (``NbdServer.close``)."""
        server = self.server
        if server is None:
            raise ServerNotRunning
        await self.close_all(NbdExport)
        self.server = None
        await server.close(unbinds=unbinds)
