"""What the creation of images is described by: blockdev-create's options, and the programs' ``-o``.

A driver that can create declares both and gets a ``Creator``, by which it reaches the nodes that it
is to write to without knowing the graph.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from blockemu.errors import QmpError
from blockemu.measuring import Measured
from blockemu.qmp_server.qapi import QEnum, Struct, Union, enum_values, values
from blockemu.qmp_server.qenum import value_life
from blockemu.records import record

if TYPE_CHECKING:
    from blockemu.edge import Edge
    from blockemu.node import Node
    from blockemu.services import Services

CREATE = Union("BlockdevCreateOptions", "driver")
Texts = dict[str, str]  # options by name, as the user wrote them


class PreallocMode(QEnum):
    """What is allocated before anything is written."""

    OFF = "off"
    METADATA = "metadata"
    FALLOC = "falloc"
    FULL = "full"


@values(
    since={
        "compress": "5.0",
        "preallocate": "6.0",
        "copy-before-write": "6.2",
        "snapshot-access": "7.0",
    },
    deprecated={"vxhs": "4.2"},
    removed={"vxhs": "5.1", "sheepdog": "6.1"},
)
class BlockdevDriver(QEnum):
    """All block drivers of QEMU, since an image may name any of them."""

    BLKDEBUG = "blkdebug"
    BLKLOGWRITES = "blklogwrites"
    BLKREPLAY = "blkreplay"
    BLKVERIFY = "blkverify"
    BOCHS = "bochs"
    CLOOP = "cloop"
    COMPRESS = "compress"
    COPY_BEFORE_WRITE = "copy-before-write"
    COPY_ON_READ = "copy-on-read"
    DMG = "dmg"
    FILE = "file"
    SNAPSHOT_ACCESS = "snapshot-access"
    FTP = "ftp"
    FTPS = "ftps"
    GLUSTER = "gluster"
    HOST_CDROM = "host_cdrom"
    HOST_DEVICE = "host_device"
    HTTP = "http"
    HTTPS = "https"
    ISCSI = "iscsi"
    LUKS = "luks"
    NBD = "nbd"
    NFS = "nfs"
    NULL_AIO = "null-aio"
    NULL_CO = "null-co"
    NVME = "nvme"
    PARALLELS = "parallels"
    PREALLOCATE = "preallocate"
    QCOW = "qcow"
    QCOW2 = "qcow2"
    QED = "qed"
    QUORUM = "quorum"
    RAW = "raw"
    RBD = "rbd"
    REPLICATION = "replication"
    SHEEPDOG = "sheepdog"
    SSH = "ssh"
    THROTTLE = "throttle"
    VDI = "vdi"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VPC = "vpc"
    VVFAT = "vvfat"
    VXHS = "vxhs"


DRIVER_LIVES = {name: value_life(BlockdevDriver, name) for name in enum_values(BlockdevDriver)}


class UnknownValue(QmpError):
    """A value that an option of ``-o`` does not have."""

    template = "invalid parameter value: {}"


class CreationOptions(Struct):
    """Options of blockdev-create; a driver's own add members."""

    union = CREATE


@record(frozen=True)
class TextOption:
    """An option of ``-o``: its name, its kind, a line of help, and what is shown if not given."""

    name: str
    kind: Literal["string", "bool", "number", "size"]
    help: str
    default: str | None = None


class Creator(Protocol):
    """What a driver may use to create an image."""

    services: "Services"

    def node(self, ref: Any) -> AbstractAsyncContextManager["Node[Any]"]:
        """Open a BlockdevRef, or look it up, for as long as the context lasts."""

    def protocol(self, filename: str) -> AbstractAsyncContextManager["Node[Any]"]:
        """Open what a file name means, whatever format it holds, for writing and resizing."""

    def root(self, node: "Node[Any]") -> AbstractAsyncContextManager["Edge"]:
        """Write to a node, also beyond its end, and resize it."""

    def image(self, options: dict[str, Any]) -> AbstractAsyncContextManager["Edge"]:
        """Open an image for reading, writing and resizing."""

    async def create_file(self, filename: str, texts: Texts) -> None:
        """Create what a file name means, by the protocol's own options."""


class Creatable:
    """What a driver declares, and does, to create and to amend images: a part of ``Node``."""

    CreateOptions: ClassVar[type[CreationOptions] | None] = None  # of blockdev-create
    text_options: ClassVar[tuple[TextOption, ...] | None] = None  # of the programs' create -o
    amend_options: ClassVar[tuple[TextOption, ...] | None] = None  # of the programs' amend -o
    creates_by_opening: ClassVar[bool] = False  # nothing is made: what is there is resized

    @classmethod
    async def create(cls, options: CreationOptions, creator: Creator) -> None:
        """Create an image, by blockdev-create's options."""
        raise NotImplementedError

    @classmethod
    async def create_by_text(cls, filename: str, texts: Texts, creator: Creator) -> None:
        """Create an image, by the options of ``-o`` that were given; their kinds are right."""
        raise NotImplementedError

    async def delete_file(self) -> None:
        """Remove the storage of an image whose creation failed, where that can be done."""

    @classmethod
    async def measure(cls, texts: Texts, source: "Edge | None") -> Measured:
        """Work out how large a new image's file would be, with what is in a source if there is one.

        ``texts`` are options as of ``create_by_text``.  ``NotImplementedError``: nobody knows.
        """
        raise NotImplementedError

    async def amend(
        self, texts: Texts, tell: Callable[[int, int], None], *, force: bool = False
    ) -> None:
        """Change the image's own options, of kinds that are right; nothing may be in flight.

        ``tell`` hears what is done, and of how much.  NotImplementedError: there is no such format.
        """
        raise NotImplementedError

    def begin_amend(self) -> None:
        """Get ready for ``amend_by_options``; whatever comes of this, ``end_amend`` is called."""

    def end_amend(self) -> None:
        """Be an image as any again."""

    async def amend_by_options(self, options: Struct, *, force: bool) -> None:
        """Change what x-blockdev-amend can: BlockdevAmendOptions of the node's own driver."""
        raise NotImplementedError
