"""Options of formats and of filters."""

from typing import Annotated, Final

from blockemu.blockdev_options import BlockdevRef, BlockdevRefOrNull, NodeOptions
from blockemu.qmp_server.qapi import ABSENT, QEnum, Struct, Union

QCOW_ENCRYPTION: Final = Union("BlockdevQcowEncryption", "format")


class FormatOptions(NodeOptions):
    """Options of a format.

    @file: the node with the image
    """

    file: BlockdevRef


class CowFormatOptions(FormatOptions):
    """Options of a format with backing files.

    @backing: the node below, null for none; by default what the image names
    """

    backing: BlockdevRefOrNull = ABSENT


class CloopOptions(FormatOptions, tag="cloop", since="2.9"):
    """Options of cloop."""


class DmgOptions(FormatOptions, tag="dmg", since="2.9"):
    """Options of dmg."""


class ParallelsOptions(FormatOptions, tag="parallels", since="2.9"):
    """Options of parallels."""


class VhdxOptions(FormatOptions, tag="vhdx", since="2.9"):
    """Options of vhdx."""


class VpcOptions(FormatOptions, tag="vpc", since="2.9"):
    """Options of vpc."""


class QedOptions(CowFormatOptions, tag="qed", since="2.9"):
    """Options of qed."""


class VmdkOptions(CowFormatOptions, tag="vmdk", since="2.9"):
    """Options of vmdk."""


class QcowEncryption(Struct):
    """How a qcow image is decrypted."""

    union = QCOW_ENCRYPTION


class QcowEncryptionAes(QcowEncryption, tag="aes"):
    """In the one way there is.

    @key-secret: the ID of the secret with the key
    """

    key_secret: str | None = None


class QcowOptions(CowFormatOptions, tag="qcow", since="2.9"):
    """Options of qcow.

    @encrypt: how it is decrypted
    """

    encrypt: Annotated[QcowEncryption, QCOW_ENCRYPTION] | None = None


class ReplicationMode(QEnum):
    """Which side of a replicated disk a node is."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class ReplicationOptions(FormatOptions, tag="replication", since="2.9"):
    """Options of replication.

    @mode: which side this is
    @top-id: the device, on the secondary side
    """

    mode: ReplicationMode
    top_id: str | None = None


class BlkreplayOptions(NodeOptions, tag="blkreplay", since="4.2"):
    """Options of blkreplay.

    @image: the node below
    """

    image: BlockdevRef
