"""Encrypted images: LUKS in clusters of its own, or the first way, which has no header."""

import errno
import os
from typing import TYPE_CHECKING

from blockemu.drivers.qcow2.image import Image
from blockemu.edge import Edge
from blockemu.encryption import (
    KeyMissing,
    LuksVolume,
    NewVolume,
    open_luks,
    qcow_encryption,
)
from blockemu.errors import HostError, QmpError
from blockemu.images.qcow2 import constants as c
from blockemu.keyslot_changes import change_keyslots
from blockemu.qmp_server.qapi import InvalidInput, Struct, visit
from blockemu.schema.creation import BlockdevAmendOptionsQcow2
from blockemu.schema.crypto import (
    QCryptoBlockAmendLuks,
    QCryptoBlockAmendOptionsLUKS,
    QCryptoBlockCreateLuks,
    QCryptoBlockCreateOptions,
    QCryptoBlockCreateOptionsQCow,
)

if TYPE_CHECKING:
    from blockemu.encryption import HeaderStore

PREFIX = "encrypt."


class OutsideHeader(QmpError):
    """The LUKS header tells of a place that it does not reach to."""

    template = "Request for data outside of extension header"


class HeaderNotDone(HostError):
    """(why), of reading and of writing, as in QEMU."""

    template = "Could not read encryption header: {}"


class NoRoomForHeader(HostError):
    """(bytes, why)."""

    template = "Cannot allocate cluster for LUKS header size {}: {}"


class NotEncrypted(QmpError):
    """There is nothing to amend."""

    template = "image is not encrypted, can't amend"


class OtherEncryption(QmpError):
    """Only LUKS has something to amend."""

    template = "Amend can't be used to change the qcow2 encryption format"


class OnlyLuks(QmpError):
    """The image is encrypted by the first way."""

    template = "Only LUKS encryption options can be amended for qcow2 with blockdev-amend"


class NotZeroed(HostError):
    """(why)."""

    template = "Could not zero fill encryption header: {}"


class ClusterStore:
    """A LUKS header within an image's file."""

    def __init__(self, file: Edge, offset: int, length: int) -> None:
        self._file, self._offset, self._length = file, offset, length

    async def read(self, offset: int, length: int) -> memoryview:
        """Read a part of it."""
        if offset + length > self._length:
            raise OutsideHeader
        data = memoryview(bytearray(length))
        try:
            await self._file.pread(self._offset + offset, data)
        except OSError as e:
            code = e.errno or errno.EIO
            raise HeaderNotDone(os.strerror(code), errno=code) from e
        return data

    async def write(self, offset: int, data: bytes) -> None:
        """Write a part of it."""
        if offset + len(data) > self._length:
            raise OutsideHeader
        try:
            await self._file.pwrite(self._offset + offset, data)
        except OSError as e:
            code = e.errno or errno.EIO
            raise HeaderNotDone(os.strerror(code), errno=code) from e


async def open_encryption(image: Image, key_secret: str | None) -> LuksVolume | None:
    """Let an image that is encrypted be read and written; without I/O no key is needed.

    Raises:
        QmpError: in QEMU's words; FormatError likewise.

    """
    services, no_io = image.node.services, image.node.flags.no_io
    if image.header.crypt_method == c.CRYPT_AES:
        if not no_io:
            image.encryption = qcow_encryption(services, key_secret, prefix=PREFIX)
        return None
    if image.extensions.crypto is None:
        return None
    store = ClusterStore(image.file, *image.extensions.crypto)
    volume = await open_luks(services, store, key_secret, prefix=PREFIX, no_io=no_io)
    image.encryption = volume.encryption
    return volume


async def set_up_encryption(image: Image, options: QCryptoBlockCreateOptions) -> None:
    """Encrypt an image that holds nothing yet (qcow2_set_up_encryption).

    Raises:
        QmpError: in QEMU's words; FormatError likewise.

    """
    services = image.node.services
    if isinstance(options, QCryptoBlockCreateOptionsQCow):
        if options.key_secret is None:
            raise KeyMissing(PREFIX)
        qcow_encryption(services, options.key_secret, prefix=PREFIX)  # there must be such a secret
        image.header.crypt_method = c.CRYPT_AES
    else:
        assert isinstance(options, QCryptoBlockCreateLuks)

        async def init(header_bytes: int) -> "HeaderStore":
            place = await _take_clusters(image, header_bytes)
            image.extensions.crypto = place, header_bytes
            return ClusterStore(image.file, place, header_bytes)

        await NewVolume(services, options, prefix=PREFIX).create(init)
        image.header.crypt_method = c.CRYPT_LUKS
    await image.write_header()


async def _take_clusters(image: Image, length: int) -> int:
    """Return where a header may go; it is all zeroes (qcow2_crypto_hdr_init_func)."""
    geometry = image.geometry
    count = geometry.clusters(length)
    try:
        place = await image.take_row(count) << geometry.cluster_bits
    except OSError as e:
        code = e.errno or errno.EIO
        raise NoRoomForHeader(length, os.strerror(code), errno=code) from e
    try:
        await image.file.write_zeroes(place, count << geometry.cluster_bits)
    except OSError as e:
        code = e.errno or errno.EIO
        raise NotZeroed(os.strerror(code), errno=code) from e
    return place


async def amend_by_text(volume: LuksVolume | None, texts: dict[str, str], *, force: bool) -> None:
    """Change key slots as ``amend -o`` says, by options without their prefix.

    Raises:
        QmpError: in QEMU's words.

    """
    assert volume is not None  # refused before
    try:
        typed = visit(QCryptoBlockAmendOptionsLUKS, texts, keyval=True)
    except InvalidInput as e:
        raise QmpError(str(e)) from e
    await change_keyslots(volume, typed, force=force)


async def amend_by_options(
    image: Image, volume: LuksVolume | None, options: Struct, *, force: bool
) -> None:
    """Change key slots as x-blockdev-amend says.

    Raises:
        QmpError: in QEMU's words.

    """
    assert isinstance(options, BlockdevAmendOptionsQcow2)
    if options.encrypt is None:
        return
    if not image.header.crypt_method:
        raise NotEncrypted
    if not isinstance(options.encrypt, QCryptoBlockAmendLuks):
        raise OtherEncryption
    if volume is None:
        raise OnlyLuks
    await change_keyslots(volume, options.encrypt, force=force)
