"""What ``blockemu-nbd`` does once its command line makes sense: open an image and serve it.

The steps, and what is said where one fails, are those of qemu-nbd's main.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import Backend
from blockemu.errors import HostError, QmpError, Wrapped
from blockemu.exports.nbd_server import NbdServer, Security
from blockemu.filenames import nest
from blockemu.host import sockets
from blockemu.host.loop import run
from blockemu.node import Node
from blockemu.optlist import parse_any
from blockemu.perm import Perm
from blockemu.programs import nbd_refusals as refusals
from blockemu.programs.nbd_settings import Settings
from blockemu.programs.process import PidFile, on_signal
from blockemu.schema.exports import BlockExportOptionsNbd

if TYPE_CHECKING:
    from blockemu.emulator import Emulator
    from blockemu.programs.nbd_cli import Program
    from blockemu.tls.credentials import TlsCreds

EXPORT_ID: Final = "qemu-nbd-export"
MOST_WAITING: Final = 4096  # clients that the kernel keeps for us (SOMAXCONN)
ACTIVATED: Final = 3  # descriptor of the socket that a service manager hands over


class NotReadOnly(QmpError):
    """A snapshot is shown in place of the disk: nobody may write to that."""

    template = "Device is not readonly"


class NoSnapshots(QmpError):
    """(driver, device): the format has none to show."""

    template = (
        "Block format '{}' used by device '{}' "
        "does not support temporarily loading internal snapshots"
    )


def serve(
    program: "Program",
    settings: Settings,
    emulator: "Emulator",
    tls: "TlsCreds | None",
    *,
    activated: bool,
) -> int:
    """Serve until told to end, or until the last client has left; return the exit status."""
    if settings.fork:
        status = _into_background()
        if status is not None:
            return status
    return run(_Run(program, settings, emulator, tls).serve(activated=activated))


def _into_background() -> int | None:
    """Go on as a daemon, which gets None; the parent passes on what it says until it is ready.

    Until then the daemon's standard error leads to the parent, which gets an exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        said = False
        while data := os.read(reader, 1024):
            said = True
            os.write(2, data)
        return int(said)
    os.close(reader)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    os.dup2(writer, 2)
    os.close(writer)
    return None


class _Run:
    """One image, served."""

    def __init__(
        self,
        program: "Program",
        settings: Settings,
        emulator: "Emulator",
        tls: "TlsCreds | None",
    ) -> None:
        self._security = Security(tls, settings.tls_authz, emulator.objects.find)
        self._program = program
        self._settings = settings
        self._emu = emulator
        self._end = asyncio.Event()

    async def serve(self, *, activated: bool) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            on_signal(number, loop, self._end.set)
        settings = self._settings
        try:
            listener = self._listen(activated=activated)
            backend = await self._open()
            server = await self._offer(listener, backend)
            if settings.pid_file is not None:
                _write_pid_file(settings.pid_file)
        except QmpError as e:
            await self._emu.close()
            return self._program.fail(str(e), e.hint)
        server.start()
        os.chdir("/")
        if settings.fork:
            os.dup2(1, 2)
        await self._end.wait()
        await self._emu.exports.stop_server()
        await self._emu.graph.remove(backend)
        await self._emu.close()
        if settings.socket is not None:
            with suppress(OSError):
                os.unlink(settings.socket)  # noqa: PTH108
        return 0

    async def _offer(self, listener: socket.socket, backend: Backend) -> NbdServer:
        """Export the node by a server that lets nobody in yet."""
        settings, emu = self._settings, self._emu
        server = NbdServer(
            emu.exports,
            [listener],
            emu.pool,
            emu.clocks.realtime,
            max_connections=settings.shared,
            security=self._security,
        )
        server.tell = self._program.say
        server.left = self._left
        emu.exports.server = server
        await emu.exports.add(
            BlockExportOptionsNbd(
                id=EXPORT_ID,
                node_name=backend.node.name,
                name=settings.name or "",
                description=settings.description,
                writable=not settings.read_only,
                writethrough=settings.write_through,
                bitmaps=list(settings.bitmaps),
                allocation_depth=settings.allocation_depth,
            )
        )
        return server

    def _left(self, negotiated: bool) -> None:
        """End the program with the last client, if that came as far as the export."""
        server = self._emu.exports.server
        if negotiated and not self._settings.persistent and server and not server.clients:
            self._end.set()

    # Where

    def _listen(self, *, activated: bool) -> socket.socket:
        settings = self._settings
        if activated:
            return socket.socket(fileno=ACTIVATED)
        backlog = settings.shared
        if settings.persistent or not settings.shared or settings.shared > MOST_WAITING:
            backlog = MOST_WAITING
        where = settings.address()
        if where["type"] == "unix":
            return sockets.listen(sockets.UnixAddress(where["path"]), backlog)
        return sockets.listen(sockets.InetAddress(where["host"], where["port"]), backlog)

    # What

    async def _open(self) -> Backend:
        """Open the image, or the part or the snapshot of it that is wanted."""
        settings, graph = self._settings, self._emu.graph
        if settings.image_opts and settings.format is not None:
            raise refusals.FormatGivenTwice
        try:
            node = await self._open_image()
            backend = Backend(perm=self._perm())
            try:
                graph.insert(backend, node)
            except QmpError:
                await graph.release(node)
                raise
        except QmpError as e:
            raise Wrapped(f"Failed to blk_new_open '{settings.file}'", e, hint=e.hint) from e
        if settings.offset:
            part = {"driver": "raw", "file": node.name, "offset": settings.offset}
            node = await self._emu.opener.open(part, defaults=settings.node_defaults())
            await graph.remove(backend)
            backend = Backend(perm=self._perm())
            graph.insert(backend, node)
        if settings.load_snapshot is not None:
            try:
                await self._show_snapshot(node, settings.load_snapshot)
            except QmpError as e:
                raise Wrapped("Failed to load snapshot", e) from e
        node.flags.detect_zeroes = settings.detect_zeroes
        node.changed()
        return backend

    def _perm(self) -> Perm:
        return Perm.CONSISTENT_READ | (Perm.NONE if self._settings.read_only else Perm.WRITE)

    async def _open_image(self) -> Node[Any]:
        settings = self._settings
        name: str | None = settings.file
        options: dict[str, Any] = {}
        if settings.image_opts:
            options, name = nest(parse_any(settings.file, self._program.say, "file")), None
        elif settings.format is not None:
            options = {"driver": settings.format}
        if settings.aio not in (None, "threads") and "driver" in options:
            below = options.setdefault("file", {})
            if isinstance(below, dict):
                below.setdefault("aio", settings.aio)
        defaults = settings.node_defaults()
        if settings.snapshot:
            from blockemu.temporary import open_temporary  # start-up: seldom asked for

            return await open_temporary(self._emu.opener, name, options, defaults)
        return await self._emu.opener.open(options, filename=name, defaults=defaults)

    async def _show_snapshot(self, node: Node[Any], wanted: str) -> None:
        """Let the node read as one of its snapshots (bdrv_snapshot_load_tmp_by_id_or_name)."""
        if not node.flags.read_only:
            raise NotReadOnly
        tries = (
            [self._settings.load_by] if self._settings.load_by else [(wanted, None), (None, wanted)]
        )
        for at, (ident, name) in enumerate(tries, 1):
            try:
                await node.snapshot_load_tmp(ident, name)
            except NotImplementedError:
                raise NoSnapshots(node.driver, "") from None
            except HostError as e:
                if at == len(tries) or e.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
            else:
                return


def _write_pid_file(path: str) -> None:
    """Write the process id to a file, which stays; raises QmpError in qemu-nbd's words."""
    try:
        PidFile(path)
    except Wrapped as e:
        raise QmpError(str(e.__cause__)) from e
