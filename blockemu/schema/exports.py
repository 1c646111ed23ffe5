"""Exports and the NBD server (qapi/block-export.json)."""

from typing import Annotated

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import U32, QEnum, Since, Struct, Union, values
from blockemu.schema.bitmaps import BlockDirtyBitmapToExport
from blockemu.schema.sockets import AnySocketAddress

EXPORT = Union("BlockExportOptions", "type")


class NbdServerOptions(Struct):
    """An NBD server.

    @addr: where it listens
    @tls-creds: credentials: only encrypted connections then
    @tls-authz: who may come in
    @max-connections: clients at a time; 0 for any number, by default 100
    """

    addr: AnySocketAddress
    tls_creds: str | None = None
    tls_authz: Annotated[str | None, Since("4.0")] = None
    max_connections: Annotated[U32 | None, Since("5.2")] = None


class BlockExportOptionsNbdBase(Struct):
    """What both commands know of an NBD export.

    @name: the name clients ask for
    @description: a text for people
    """

    name: str | None = None
    description: Annotated[str | None, Since("5.0")] = None


class NbdServerAddOptions(BlockExportOptionsNbdBase):
    """An export by the older command.

    @device: node or device to be exported
    @writable: whether clients may write
    @bitmap: a dirty bitmap that clients may ask for
    """

    device: str
    writable: bool | None = None
    bitmap: Annotated[str | None, Since("4.0")] = None


class BlockExportRemoveMode(QEnum):
    """What becomes of clients when an export goes.

    @safe: the export stays if there are any
    @hard: they are disconnected
    """

    SAFE = "safe"
    HARD = "hard"


@values(since={"fuse": "6.0"})
class BlockExportType(QEnum):
    """How a node is exported.

    @nbd: to NBD clients
    @fuse: as a file, to all programs
    """

    NBD = "nbd"
    FUSE = "fuse"


class BlockExportOptions(Struct):
    """An export.

    @id: its name
    @fixed-iothread: whether it must stay in its I/O thread
    @iothread: the I/O thread
    @node-name: the node
    @writable: whether clients may write
    @writethrough: whether each write is durable before it is done
    """

    union = EXPORT
    id: str
    fixed_iothread: Annotated[bool | None, Since("5.2")] = None
    iothread: Annotated[str | None, Since("5.2")] = None
    node_name: str
    writable: bool | None = None
    writethrough: bool | None = None


class BlockExportOptionsNbd(BlockExportOptions, BlockExportOptionsNbdBase, tag="nbd"):
    """An export by NBD.

    @bitmaps: dirty bitmaps that clients may ask for
    @allocation-depth: whether clients may ask how deep in the chain data lies
    """

    bitmaps: Annotated[list[BlockDirtyBitmapToExport] | None, Since("5.2")] = None
    allocation_depth: Annotated[bool | None, Since("5.2")] = None


class FuseExportAllowOther(QEnum):
    """Whether users other than the one who mounted it may see what is mounted.

    @off: no
    @on: yes
    @auto: yes if that is possible
    """

    OFF = "off"
    ON = "on"
    AUTO = "auto"


class BlockExportOptionsFuse(BlockExportOptions, tag="fuse", since="6.0"):
    """An export as a file.

    @mountpoint: the file that it covers
    @growable: whether a write beyond the end makes the node longer
    @allow-other: whether other users may see it, by default if that is possible
    """

    mountpoint: str
    growable: bool | None = None
    allow_other: Annotated[FuseExportAllowOther | None, Since("6.1")] = None


AnyExportOptions = Annotated[BlockExportOptions, EXPORT]


class BlockExportInfo(Struct):
    """An export, as queries tell.

    @id: its name
    @type: how it is exported
    @node-name: the node
    @shutting-down: whether it is about to go
    """

    id: str
    type: BlockExportType
    node_name: str
    shutting_down: bool


class BlockExportDeleted(Event, event="BLOCK_EXPORT_DELETED", since="5.2"):
    """An export is gone.

    @id: its name
    """

    id: str
