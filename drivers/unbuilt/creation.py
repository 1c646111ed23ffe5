"""Options of blockdev-create for formats and protocols that cannot be opened either."""

from typing import Annotated, Final

from blockemu.blockdev_options import BlockdevRef
from blockemu.create_options import BlockdevDriver, CreationOptions, PreallocMode
from blockemu.drivers.unbuilt.storage import (
    GlusterLocation,
    NfsLocation,
    RbdLocation,
    SheepdogLocation,
    SshLocation,
)
from blockemu.qmp_server.qapi import QEnum, Since, Size, Struct, Union
from blockemu.schema.crypto import (
    CREATE_ENCRYPTED,
    QCryptoBlockCreateOptions,
    QCryptoCipherAlgorithm,
)

RBD_CREATE_ENCRYPTION: Final = Union("RbdEncryptionCreateOptions", "format")
SHEEPDOG_REDUNDANCY: Final = Union("SheepdogRedundancy", "type")


class CreateGluster(CreationOptions, tag="gluster"):
    """A file on a Gluster volume.

    @location: where
    @size: bytes of the disk
    @preallocation: what is allocated at once
    """

    location: GlusterLocation
    size: Size
    preallocation: PreallocMode | None = None


class CreateNfs(CreationOptions, tag="nfs"):
    """A file on an NFS server.

    @location: where
    @size: bytes of the disk
    """

    location: NfsLocation
    size: Size


class CreateSsh(CreationOptions, tag="ssh"):
    """A file on an SSH server.

    @location: where
    @size: bytes of the disk
    """

    location: SshLocation
    size: Size


class RbdCreateEncryption(Struct):
    """How a Ceph image is encrypted."""

    union = RBD_CREATE_ENCRYPTION


class RbdCreateLuks(Struct):
    """By LUKS.

    @key-secret: the ID of the secret with the passphrase
    @cipher-alg: the cipher
    """

    key_secret: str
    cipher_alg: QCryptoCipherAlgorithm | None = None


class RbdCreateEncryptionLuks(RbdCreateEncryption, RbdCreateLuks, tag="luks"):
    """By LUKS."""


class RbdCreateEncryptionLuks2(RbdCreateEncryption, RbdCreateLuks, tag="luks2"):
    """By LUKS2."""


class CreateRbd(CreationOptions, tag="rbd"):
    """An image of a Ceph cluster.

    @location: where
    @size: bytes of the disk
    @cluster-size: bytes of an object
    @encrypt: how it is encrypted
    """

    location: RbdLocation
    size: Size
    cluster_size: Size | None = None
    encrypt: Annotated[
        Annotated[RbdCreateEncryption, RBD_CREATE_ENCRYPTION] | None, Since("6.1")
    ] = None


class SheepdogRedundancy(Struct):
    """How a Sheepdog cluster keeps a disk safe."""

    union = SHEEPDOG_REDUNDANCY


class SheepdogRedundancyFull(SheepdogRedundancy, tag="full"):
    """By copies.

    @copies: how many
    """

    copies: int


class SheepdogRedundancyErasureCoded(SheepdogRedundancy, tag="erasure-coded"):
    """By parity.

    @data-strips: parts of data
    @parity-strips: parts of parity
    """

    data_strips: int
    parity_strips: int


class CreateSheepdog(CreationOptions, tag="sheepdog", removed="6.1"):
    """A disk of a Sheepdog cluster.

    @location: where
    @size: bytes of the disk
    @backing-file: name of the backing file
    @preallocation: what is allocated at once
    @redundancy: how it is kept safe
    @object-size: bytes of an object
    """

    location: SheepdogLocation
    size: Size
    backing_file: str | None = None
    preallocation: PreallocMode | None = None
    redundancy: Annotated[SheepdogRedundancy, SHEEPDOG_REDUNDANCY] | None = None
    object_size: Size | None = None


class CreateParallels(CreationOptions, tag="parallels"):
    """A parallels image.

    @file: the node that it is written to
    @size: bytes of the disk
    @cluster-size: bytes of a cluster
    """

    file: BlockdevRef
    size: Size
    cluster_size: Size | None = None


class CreateQcow(CreationOptions, tag="qcow"):
    """A qcow image.

    @file: the node that it is written to
    @size: bytes of the disk
    @backing-file: name of the backing file
    @encrypt: how it is encrypted
    """

    file: BlockdevRef
    size: Size
    backing_file: str | None = None
    encrypt: Annotated[QCryptoBlockCreateOptions, CREATE_ENCRYPTED] | None = None


class CreateQed(CreationOptions, tag="qed"):
    """A qed image.

    @file: the node that it is written to
    @size: bytes of the disk
    @backing-file: name of the backing file
    @backing-fmt: its format
    @cluster-size: bytes of a cluster
    @table-size: clusters of a table
    """

    file: BlockdevRef
    size: Size
    backing_file: str | None = None
    backing_fmt: BlockdevDriver | None = None
    cluster_size: Size | None = None
    table_size: int | None = None


class VhdxSubformat(QEnum):
    """Kinds of vhdx images."""

    DYNAMIC = "dynamic"
    FIXED = "fixed"


class CreateVhdx(CreationOptions, tag="vhdx"):
    """A vhdx image.

    @file: the node that it is written to
    @size: bytes of the disk
    @log-size: bytes of the log
    @block-size: bytes of a block
    @subformat: which kind it is
    @block-state-zero: whether new blocks are known to be zero
    """

    file: BlockdevRef
    size: Size
    log_size: Size | None = None
    block_size: Size | None = None
    subformat: VhdxSubformat | None = None
    block_state_zero: bool | None = None


class VmdkSubformat(QEnum):
    """Kinds of vmdk images."""

    MONOLITHIC_SPARSE = "monolithicSparse"
    MONOLITHIC_FLAT = "monolithicFlat"
    TWO_GB_MAX_EXTENT_SPARSE = "twoGbMaxExtentSparse"
    TWO_GB_MAX_EXTENT_FLAT = "twoGbMaxExtentFlat"
    STREAM_OPTIMIZED = "streamOptimized"


class VmdkAdapterType(QEnum):
    """Controllers that a vmdk image is meant for."""

    IDE = "ide"
    BUSLOGIC = "buslogic"
    LSILOGIC = "lsilogic"
    LEGACY_ESX = "legacyESX"


class CreateVmdk(CreationOptions, tag="vmdk"):
    """A vmdk image.

    @file: the node that its description is written to
    @size: bytes of the disk
    @extents: the nodes that its parts are written to
    @subformat: which kind it is
    @backing-file: name of the backing file
    @adapter-type: the controller it is meant for
    @hwversion: version of the virtual hardware
    @toolsversion: version of the guest's tools
    @zeroed-grain: whether parts can be marked as zero
    """

    file: BlockdevRef
    size: Size
    extents: list[BlockdevRef] | None = None
    subformat: VmdkSubformat | None = None
    backing_file: str | None = None
    adapter_type: VmdkAdapterType | None = None
    hwversion: str | None = None
    toolsversion: Annotated[str | None, Since("6.2")] = None
    zeroed_grain: bool | None = None


class VpcSubformat(QEnum):
    """Kinds of vpc images."""

    DYNAMIC = "dynamic"
    FIXED = "fixed"


class CreateVpc(CreationOptions, tag="vpc"):
    """A vpc image.

    @file: the node that it is written to
    @size: bytes of the disk
    @subformat: which kind it is
    @force-size: whether the size shall be exact, though geometries cannot say it
    """

    file: BlockdevRef
    size: Size
    subformat: VpcSubformat | None = None
    force_size: bool | None = None
