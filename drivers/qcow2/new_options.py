"""What a new qcow2 image is made by: options of blockdev-create, and of ``-o``."""

from typing import Annotated

from blockemu.blockdev_options import BlockdevRef
from blockemu.create_options import BlockdevDriver, CreationOptions, PreallocMode, TextOption
from blockemu.qmp_server.qapi import QEnum, Since, Size
from blockemu.schema.crypto import CREATE_ENCRYPTED, QCryptoBlockCreateOptions


class BlockdevQcow2Version(QEnum):
    """Versions of the format."""

    V2 = "v2"
    V3 = "v3"


class Qcow2CompressionType(QEnum):
    """How clusters are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


class BlockdevCreateOptionsQcow2(CreationOptions, tag="qcow2"):
    """A qcow2 image to be created.

    @file: the node that shall hold the image
    @data-file: the node that shall hold the guest's data
    @data-file-raw: whether the data file must stay a valid raw image
    @extended-l2: whether L2 entries have subclusters
    @size: size of the disk in bytes
    @version: version of the format
    @backing-file: name of the backing file
    @backing-fmt: its format
    @encrypt: how it shall be encrypted
    @cluster-size: bytes of a cluster
    @preallocation: what is allocated
    @lazy-refcounts: whether refcounts may be left wrong until the image is closed
    @refcount-bits: width of refcounts
    @compression-type: how clusters are compressed
    """

    file: BlockdevRef
    data_file: Annotated[BlockdevRef | None, Since("4.0")] = None
    data_file_raw: Annotated[bool | None, Since("4.0")] = None
    extended_l2: Annotated[bool | None, Since("5.2")] = None
    size: Size
    version: BlockdevQcow2Version | None = None
    backing_file: str | None = None
    backing_fmt: BlockdevDriver | None = None
    encrypt: Annotated[QCryptoBlockCreateOptions, CREATE_ENCRYPTED] | None = None
    cluster_size: Size | None = None
    preallocation: PreallocMode | None = None
    lazy_refcounts: bool | None = None
    refcount_bits: int | None = None
    compression_type: Annotated[Qcow2CompressionType | None, Since("5.1")] = None


ENCRYPTION_TEXTS = (
    TextOption(
        "encryption",
        "bool",
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    TextOption("encrypt.format", "string", "Encrypt the image, format choices: 'aes', 'luks'"),
    TextOption(
        "encrypt.key-secret",
        "string",
        "ID of secret providing qcow AES key or LUKS passphrase",
    ),
    TextOption("encrypt.cipher-alg", "string", "Name of encryption cipher algorithm"),
    TextOption("encrypt.cipher-mode", "string", "Name of encryption cipher mode"),
    TextOption("encrypt.ivgen-alg", "string", "Name of IV generator algorithm"),
    TextOption("encrypt.ivgen-hash-alg", "string", "Name of IV generator hash algorithm"),
    TextOption("encrypt.hash-alg", "string", "Name of encryption hash algorithm"),
    TextOption("encrypt.iter-time", "number", "Time to spend in PBKDF in milliseconds"),
)
COMMON_TEXTS = (
    TextOption("size", "size", "Virtual disk size"),
    TextOption("compat", "string", "Compatibility level (v2 [0.10] or v3 [1.1])"),
    TextOption("backing_file", "string", "File name of a base image"),
    TextOption("backing_fmt", "string", "Image format of the base image"),
    TextOption("data_file", "string", "File name of an external data file"),
    TextOption("data_file_raw", "bool", "The external data file must stay valid as a raw image"),
    TextOption("lazy_refcounts", "bool", "Postpone refcount updates", "off"),
    TextOption("refcount_bits", "number", "Width of a reference count entry in bits", "16"),
)
CREATE_TEXTS = (
    *ENCRYPTION_TEXTS,
    TextOption("cluster_size", "size", "qcow2 cluster size", "65536"),
    TextOption("extended_l2", "bool", "Extended L2 tables", "off"),
    TextOption(
        "preallocation",
        "string",
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
    ),
    TextOption(
        "compression_type",
        "string",
        "Compression method used for image cluster compression",
        "zlib",
    ),
    *COMMON_TEXTS,
)
AMEND_TEXTS = (
    TextOption(
        "encrypt.state", "string", "Select new state of affected keyslots (active/inactive)"
    ),
    TextOption("encrypt.keyslot", "number", "Select a single keyslot to modify explicitly"),
    TextOption("encrypt.old-secret", "string", "Select all keyslots that match this password"),
    TextOption(
        "encrypt.new-secret",
        "string",
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    TextOption("encrypt.iter-time", "number", "Time to spend in PBKDF in milliseconds"),
    *COMMON_TEXTS,
)
