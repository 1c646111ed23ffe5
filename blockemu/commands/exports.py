"""The NBD server and what it offers (after blockdev-nbd.c and block/export/export.c)."""

from typing import Annotated

from blockemu.commands.context import Context
from blockemu.commands.fds import take_socket
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.exports.listening import listen, plain_address
from blockemu.exports.nbd_server import MAX_CONNECTIONS, NbdServer, Security
from blockemu.host.sockets import unbind
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import U32, Since
from blockemu.schema.exports import (
    AnyExportOptions,
    BlockExportInfo,
    BlockExportOptionsNbd,
    BlockExportRemoveMode,
    NbdServerAddOptions,
    NbdServerOptions,
)
from blockemu.schema.sockets import AnySocketAddressLegacy, SocketAddressFd
from blockemu.tls.credentials import credentials


class ServerRunning(QmpError):
    """One server is all there is."""

    template = "NBD server already running"


async def start_server(emu: Emulator, options: NbdServerOptions) -> None:
    """Start the NBD server (nbd_server_start)."""
    if emu.exports.server is not None:
        raise ServerRunning
    most = options.max_connections
    listeners = listen(options.addr)
    tls_creds = None
    if options.tls_creds is not None:
        try:
            tls_creds = credentials(emu.objects.find, options.tls_creds, "server")
        except QmpError:
            for each in listeners:
                unbind(each)
            raise
    emu.exports.server = server = NbdServer(
        emu.exports,
        listeners,
        emu.pool,
        emu.clocks.realtime,
        max_connections=MAX_CONNECTIONS if most is None else most,
        security=Security(tls_creds, options.tls_authz, emu.objects.find),
    )
    server.tell = emu.report
    server.log = lambda who, why: emu.log("an NBD client was hung up on", client=who, why=why)
    server.start()


@command(since="1.3")
async def nbd_server_start(
    context: Context,
    *,
    addr: AnySocketAddressLegacy,
    tls_creds: Annotated[str | None, Since("2.6")] = None,
    tls_authz: Annotated[str | None, Since("4.0")] = None,
    max_connections: Annotated[U32 | None, Since("5.2")] = None,
) -> None:
    """Begin to listen for NBD clients."""
    where = plain_address(addr)
    if isinstance(where, SocketAddressFd) and context.emu.exports.server is None:
        where = SocketAddressFd(str_=take_socket(context, where.str_))
    options = NbdServerOptions(
        addr=where,
        tls_creds=tls_creds,
        tls_authz=tls_authz,
        max_connections=max_connections,
    )
    await start_server(context.emu, options)


@command(since="1.3")
async def nbd_server_stop(context: Context) -> None:
    """Let all NBD exports go, and listen no more."""
    await context.emu.exports.stop_server(unbinds=True)


@command(since="1.3", deprecated="5.2")
async def nbd_server_add(context: Context, options: NbdServerAddOptions) -> None:
    """Export a device or node by NBD."""
    emu = context.emu
    node = emu.graph.lookup(options.device)
    name = options.name if options.name is not None else options.device
    export = await emu.exports.add(
        BlockExportOptionsNbd(
            id=name,
            node_name=node.name,
            name=name,
            description=options.description,
            writable=bool(options.writable) and not node.flags.read_only,
            bitmaps=[options.bitmap] if options.bitmap is not None else None,
        )
    )
    backend = emu.graph.named(options.device)
    if backend is not None:
        backend.removed_hooks.append(export.shut_down)


@command(since="2.12", deprecated="5.2")
async def nbd_server_remove(
    context: Context, *, name: str, mode: BlockExportRemoveMode | None = None
) -> None:
    """Let an NBD export go."""
    await context.emu.exports.remove(name, mode or BlockExportRemoveMode.SAFE)


@command(since="5.2")
async def block_export_add(context: Context, options: AnyExportOptions) -> None:
    """Export a node."""
    await context.emu.exports.add(options)


@command(since="5.2")
async def block_export_del(
    context: Context, *, id: str, mode: BlockExportRemoveMode | None = None
) -> None:
    """Let an export go."""
    await context.emu.exports.remove(id, mode or BlockExportRemoveMode.SAFE)


@command(since="5.2")
def query_block_exports(context: Context) -> list[BlockExportInfo]:
    """List the exports."""
    return context.emu.exports.info()
