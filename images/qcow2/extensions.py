"""Header extensions, and the first cluster as a whole: header, extensions, backing file name."""

import struct
from typing import Final

from blockemu.images.layout import U32, U64, Layout
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2 import errors
from blockemu.images.qcow2.header import LENGTH_V2, Header
from blockemu.records import field, record

END: Final = 0
BACKING_FORMAT: Final = 0xE2792ACA
FEATURE_TABLE: Final = 0x6803F857
CRYPTO_HEADER: Final = 0x0537BE77
BITMAPS: Final = 0x23852875
DATA_FILE: Final = 0x44415441
_HEAD = struct.Struct(">II")
_CRYPTO = struct.Struct(">QQ")


class BitmapsExtension(Layout):
    """Where the directory of persistent bitmaps is."""

    nb_bitmaps: U32 = 0
    reserved: U32 = 0
    directory_size: U64 = 0
    directory_offset: U64 = 0


@record
class Extensions:
    """What the extensions say."""

    backing_format: str | None = None
    feature_table: bytes = b""
    crypto: tuple[int, int] | None = None  # offset and length of the LUKS header
    bitmaps: BitmapsExtension | None = None
    stale_bitmaps: bool = False  # somebody who knows no bitmaps wrote to the image
    data_file: str | None = None
    unknown: list[tuple[int, bytes]] = field(default_factory=list)  # newest first, as rewritten


class NeedMoreError(Exception):
    """The extensions go on beyond the bytes given."""


def parse_extensions(
    data: bytes | memoryview, header: Header, into: Extensions | None = None
) -> Extensions:
    """Read the extensions from the image's first bytes.

    ``into`` has what was found before something is wrong.

    Raises:
        FormatError: an extension is wrong.
        NeedMoreError: ``data`` ends before the extensions do; give all up to ``extensions_end``.

    """
    found = Extensions() if into is None else into
    at, end = header.header_length, header.extensions_end
    while at < end:
        if at + 8 > len(data):
            raise NeedMoreError
        magic, length = _HEAD.unpack_from(data, at)
        at += 8
        if at > end or length > end - at:
            raise errors.ExtensionTooLarge
        if magic == END:
            break
        if at + length > len(data):
            raise NeedMoreError
        _take(found, header, magic, bytes(data[at : at + length]))
        at += (length + 7) & ~7
    return found


def _take(found: Extensions, header: Header, magic: int, body: bytes) -> None:
    match magic:
        case 0xE2792ACA:
            if len(body) >= 16:
                raise errors.BackingFormatTooLong(len(body))
            found.backing_format = _string(body)
        case 0x6803F857:
            found.feature_table = body
        case 0x0537BE77:
            if header.crypt_method != c.CRYPT_LUKS:
                raise errors.UnexpectedCrypto
            if len(body) != _CRYPTO.size:
                raise errors.BadCryptoSize(len(body))
            offset, length = _CRYPTO.unpack(body)
            found.crypto = offset, length
            if offset & header.cluster_size - 1:
                raise errors.BadCryptoOffset(offset, header.cluster_size)
        case 0x23852875:
            _take_bitmaps(found, header, body)
        case 0x44415441:
            found.data_file = _string(body)
        case _:
            found.unknown.insert(0, (magic, body))


def _take_bitmaps(found: Extensions, header: Header, body: bytes) -> None:
    if len(body) != BitmapsExtension.CODEC.size:
        raise errors.BadBitmapsExtension("Invalid extension length")
    if not header.autoclear_features & c.BITMAPS:
        found.stale_bitmaps = True
        return
    ext = BitmapsExtension.unpack(body)
    if ext.reserved:
        raise errors.BadBitmapsExtension("Reserved field is not zero")
    if ext.nb_bitmaps > c.MAX_BITMAPS:
        raise errors.BadBitmapsExtension(
            f"Image has {ext.nb_bitmaps} bitmaps, exceeding the QEMU supported maximum of "
            f"{c.MAX_BITMAPS}"
        )
    if not ext.nb_bitmaps:
        raise errors.NoBitmaps
    if ext.directory_offset & header.cluster_size - 1:
        raise errors.BadBitmapsExtension("invalid bitmap directory offset")
    if ext.directory_size > c.MAX_BITMAP_DIRECTORY:
        raise errors.BadBitmapsExtension(
            f"bitmap directory size ({ext.directory_size}) exceeds the maximum supported size "
            f"({c.MAX_BITMAP_DIRECTORY})"
        )
    found.bitmaps = ext


def _string(body: bytes) -> str:
    return body.split(b"\0")[0].decode(errors="surrogateescape")


class HeaderFullError(Exception):
    """Header, extensions and backing file name do not fit into the first cluster."""


def pack_first_cluster(
    header: Header, unknown_fields: bytes, found: Extensions, backing_file: str | None
) -> bytes:
    """Return the first cluster; the header's ``backing_file_offset`` and ``_size`` are set.

    In the order of qcow2_update_header: format, data file, encryption, feature names, bitmaps, what
    is not known, the end mark, the backing file's name.

    Raises:
        HeaderFullError: it does not fit.

    """
    parts = [unknown_fields]
    if found.backing_format is not None:
        parts.append(_extension(BACKING_FORMAT, _bytes(found.backing_format)))
    if header.has_data_file and found.data_file is not None:
        parts.append(_extension(DATA_FILE, _bytes(found.data_file)))
    if found.crypto is not None:
        parts.append(_extension(CRYPTO_HEADER, _CRYPTO.pack(*found.crypto)))
    if header.version >= 3 and header.cluster_size > 4096:
        names = b"".join(struct.pack("BB46s", *row) for row in c.FEATURE_NAMES)
        parts.append(_extension(FEATURE_TABLE, names))
    if found.bitmaps is not None:
        parts.append(_extension(BITMAPS, found.bitmaps.pack()))
    parts += [_extension(magic, body) for magic, body in found.unknown]
    parts.append(_extension(END, b""))
    body = b"".join(parts)
    fixed = LENGTH_V2 if header.version == 2 else Header.CODEC.size
    header.header_length = fixed + len(unknown_fields)
    name = _bytes(backing_file or "")
    header.backing_file_offset = fixed + len(body) if backing_file is not None else 0
    header.backing_file_size = len(name)
    if fixed + len(body) + len(name) > header.cluster_size:
        raise HeaderFullError
    return (header.pack()[:fixed] + body + name).ljust(header.cluster_size, b"\0")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _extension(magic: int, body: bytes) -> bytes:
    return _HEAD.pack(magic, len(body)) + body + bytes(-len(body) % 8)
