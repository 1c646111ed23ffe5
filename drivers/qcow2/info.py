"""What queries tell about a qcow2 image."""

from typing import TYPE_CHECKING, Annotated

from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2.bitmaps import AUTO, IN_USE, StoredBitmap
from blockemu.images.qcow2.extensions import Extensions
from blockemu.images.qcow2.header import Header
from blockemu.qmp_server.qapi import U32, QEnum, Since, Struct, Union, fields, replace
from blockemu.schema.crypto import QCryptoBlockInfoLUKS
from blockemu.schema.images import SpecificInfo

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.image import Image
    from blockemu.encryption import LuksVolume


class Qcow2BitmapInfoFlags(QEnum):
    """Flags of a stored bitmap."""

    IN_USE = "in-use"
    AUTO = "auto"


class Qcow2BitmapInfo(Struct):
    """A stored bitmap.

    @name: its name
    @granularity: bytes for each bit
    @flags: its flags
    """

    name: str
    granularity: U32
    flags: list[Qcow2BitmapInfoFlags]


class Qcow2CompressionType(QEnum):
    """How clusters are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


ENCRYPTED = Union("ImageInfoSpecificQCow2Encryption", "format")


class ImageInfoSpecificQCow2Encryption(Struct):
    """How an image is encrypted."""

    union = ENCRYPTED


class ImageInfoSpecificQCow2Aes(ImageInfoSpecificQCow2Encryption, tag="aes"):
    """By AES-CBC of old."""


class ImageInfoSpecificQCow2Luks(
    ImageInfoSpecificQCow2Encryption, QCryptoBlockInfoLUKS, tag="luks"
):
    """By LUKS."""


class ImageInfoSpecificQCow2(Struct):
    """What is special to a qcow2 image.

    @compat: version, as the QEMU version that it needs
    @data-file: file name of the data file, as stored in the image
    @data-file-raw: whether the data file is a valid raw image
    @extended-l2: whether L2 entries have subclusters
    @lazy-refcounts: whether refcounts may be left wrong until the image is closed
    @corrupt: whether the image is marked as corrupt
    @refcount-bits: bits in a refcount
    @encrypt: how it is encrypted
    @bitmaps: the stored bitmaps
    @compression-type: how clusters are compressed
    """

    compat: str
    data_file: Annotated[str | None, Since("4.0")] = None
    data_file_raw: Annotated[bool | None, Since("4.0")] = None
    extended_l2: Annotated[bool | None, Since("5.2")] = None
    lazy_refcounts: bool | None = None
    corrupt: Annotated[bool | None, Since("2.2")] = None
    refcount_bits: Annotated[int, Since("2.3")]
    encrypt: Annotated[
        Annotated[ImageInfoSpecificQCow2Encryption, ENCRYPTED] | None, Since("2.10")
    ] = None
    bitmaps: Annotated[list[Qcow2BitmapInfo] | None, Since("4.0")] = None
    compression_type: Annotated[Qcow2CompressionType, Since("5.1")]


class ImageInfoSpecificQCow2Wrapper(SpecificInfo, tag="qcow2"):
    """What is special to a qcow2 image, as a case of ImageInfoSpecific.

    @data: that
    """

    data: ImageInfoSpecificQCow2


def specific_info(image: "Image", volume: "LuksVolume | None") -> ImageInfoSpecificQCow2Wrapper:
    """Describe an image."""
    plain = _describe(image.header, image.extensions, image.bitmaps)
    encrypt: ImageInfoSpecificQCow2Encryption | None = None
    if volume is not None:
        luks = volume.info()
        encrypt = ImageInfoSpecificQCow2Luks(**{k: getattr(luks, k) for k in fields(type(luks))})
    elif image.header.crypt_method == c.CRYPT_AES:
        encrypt = ImageInfoSpecificQCow2Aes()
    data = plain if encrypt is None else replace(plain, encrypt=encrypt)
    return ImageInfoSpecificQCow2Wrapper(data=data)


def _bitmap_info(bitmap: StoredBitmap) -> Qcow2BitmapInfo:
    flags = [
        name
        for bit, name in (
            (IN_USE, Qcow2BitmapInfoFlags.IN_USE),
            (AUTO, Qcow2BitmapInfoFlags.AUTO),
        )
        if bitmap.flags & bit
    ]
    return Qcow2BitmapInfo(name=bitmap.name, granularity=1 << bitmap.granularity_bits, flags=flags)


def _describe(
    header: Header, extensions: Extensions, bitmaps: list[StoredBitmap]
) -> ImageInfoSpecificQCow2:
    """Version 2 has no more to tell than its refcounts' width."""
    bits = 1 << header.refcount_order
    if header.version == 2:
        return ImageInfoSpecificQCow2(
            compat="0.10", refcount_bits=bits, compression_type=Qcow2CompressionType.ZLIB
        )
    zstd = header.compression_type == c.ZSTD
    return ImageInfoSpecificQCow2(
        compat="1.1",
        data_file=extensions.data_file,
        data_file_raw=bool(header.autoclear_features & c.DATA_FILE_RAW)
        if header.has_data_file
        else None,
        extended_l2=header.extended_l2,
        lazy_refcounts=bool(header.compatible_features & c.LAZY_REFCOUNTS),
        corrupt=bool(header.incompatible_features & c.CORRUPT),
        refcount_bits=bits,
        bitmaps=[_bitmap_info(bitmap) for bitmap in bitmaps] or None,
        compression_type=Qcow2CompressionType.ZSTD if zstd else Qcow2CompressionType.ZLIB,
    )
