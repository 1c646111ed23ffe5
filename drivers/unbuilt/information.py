"""What would be told of images that cannot be opened."""

from typing import Annotated

from blockemu.qmp_server.qapi import QEnum, Since, Struct
from blockemu.schema.images import ImageInfo, SpecificInfo


class VmdkInfo(Struct):
    """What is special to a vmdk image.

    @create-type: which kind it is
    @cid: what changes when it is written to
    @parent-cid: the same of the image below
    @extents: its parts
    """

    create_type: str
    cid: int
    parent_cid: int
    extents: list[ImageInfo]


class ImageInfoSpecificVmdk(SpecificInfo, tag="vmdk"):
    """What is special to a vmdk image, as a case of ImageInfoSpecific.

    @data: that
    """

    data: VmdkInfo


class RbdEncryptionFormat(QEnum):
    """How a Ceph image is encrypted."""

    LUKS = "luks"
    LUKS2 = "luks2"


class RbdInfo(Struct):
    """What is special to an image of a Ceph cluster.

    @encryption-format: how it is encrypted
    """

    encryption_format: Annotated[RbdEncryptionFormat | None, Since("6.1")] = None


class ImageInfoSpecificRbd(SpecificInfo, tag="rbd", since="6.1"):
    """What is special to an image of a Ceph cluster, as a case of ImageInfoSpecific.

    @data: that
    """

    data: RbdInfo
