"""What can be wrong with a qcow2 header and what it points to; the words are QEMU's."""

from blockemu.images.errors import FormatError


class NotQcow2(FormatError):
    """The magic number is not there."""

    template = "Image is not in qcow2 format"


class BadVersion(FormatError):
    """Neither version 2 nor 3."""

    template = "Unsupported qcow2 version {}"


class BadClusterSize(FormatError):
    """Cluster bits out of range."""

    template = "Unsupported cluster size: 2^{}"


class HeaderTooShort(FormatError):
    """header_length does not hold version 3's fields."""

    template = "qcow2 header too short"


class HeaderTooLong(FormatError):
    """header_length goes beyond the first cluster."""

    template = "qcow2 header exceeds cluster size"


class BadBackingOffset(FormatError):
    """The backing file's name lies outside the first cluster."""

    template = "Invalid backing file offset"


class BackingNameTooLong(FormatError):
    """The backing file's name is too long."""

    template = "Backing file name too long"


class BadCompression(FormatError):
    """An unknown compression type."""

    template = "qcow2: unknown compression type: {}"


class CompressionBit(FormatError):
    """The compression type and its feature bit do not agree: (must, must not)."""

    template = "qcow2: Compression type incompatible feature bit {} be set"


class UnsupportedFeatures(FormatError):
    """Incompatible features that nobody here knows: their names."""

    template = "Unsupported qcow2 feature(s): {}"


class BadSubclusterSize(FormatError):
    """Subclusters below one sector."""

    template = "Unsupported subcluster size: {}"


class BadRefcountOrder(FormatError):
    """Refcounts of more than 64 bits."""

    template = "Reference count entry width too large; may not exceed 64 bits"


class NoRefcountTable(FormatError):
    """A refcount table of no clusters."""

    template = "Image does not contain a reference count table"


class TableTooLarge(FormatError):
    """A table is larger than QEMU would read: its name."""

    template = "{} too large"


class BadTableOffset(FormatError):
    """A table lies nowhere: its name."""

    template = "{} offset invalid"


class ImageTooBig(FormatError):
    """More L1 entries than can be counted."""

    template = "Image is too big"


class L1TooSmall(FormatError):
    """The L1 table does not cover the disk."""

    template = "L1 table is too small"


class BadEncryption(FormatError):
    """An unknown encryption method."""

    template = "Unsupported encryption method {}"


class ExtensionTooLarge(FormatError):
    """An extension goes beyond the room for extensions."""

    template = "Header extension too large"


class BackingFormatTooLong(FormatError):
    """The backing format's name is too long."""

    template = "ERROR: ext_backing_format: len={} too large (>=16)"


class UnexpectedCrypto(FormatError):
    """An encryption header without LUKS."""

    template = "CRYPTO header extension only expected with LUKS encryption method"


class BadCryptoSize(FormatError):
    """The encryption header extension has a wrong size."""

    template = "CRYPTO header extension size {}, but expected size 16"


class BadCryptoOffset(FormatError):
    """The encryption header is not at a cluster."""

    template = "Encryption header offset '{}' is not a multiple of cluster size '{}'"


class MissingCrypto(FormatError):
    """LUKS without an encryption header."""

    template = "Missing CRYPTO header for crypt method {}"


class BadBitmapsExtension(FormatError):
    """The bitmaps extension is wrong: what is."""

    template = "bitmaps_ext: {}"


class NoBitmaps(FormatError):
    """A bitmaps extension for no bitmaps."""

    template = "found bitmaps extension with zero bitmaps"


class SnapshotExtraTooLarge(FormatError):
    """Too much extra data with a snapshot: its index."""

    template = "Too much extra metadata in snapshot table entry {}"
    hint = "You can force-remove this extra metadata with qemu-img check -r all\n"


class SnapshotTableTooBig(FormatError):
    """The snapshot table is larger than QEMU would read: so many snapshots are too many."""

    template = "Snapshot table is too big"

    def __init__(self, left: int = 0) -> None:
        super().__init__()
        if left:
            self.hint = (
                f"You can force-remove all {left} overhanging snapshots with "
                "qemu-img check -r all\n"
            )
