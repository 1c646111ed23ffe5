"""Why an image is not created or amended, in QEMU's words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from blockemu.errors import HostError, QmpError

_LEVEL = "compatibility level 1.1 and above (use version=v3 or greater)"


class UnalignedSize(QmpError):
    """The size is not in whole sectors."""

    template = "Image size must be a multiple of 512 bytes"


class NeedsVersion3(QmpError):
    """(what is or are): version 2 has no room for it."""

    template = "{} only supported with " + _LEVEL


class LazyNeedsVersion3(QmpError):
    """Version 2 cannot say that refcounts are wrong."""

    template = "Lazy refcounts only supported with " + _LEVEL


class WidthNeedsVersion3(QmpError):
    """Version 2 has refcounts of 16 bits."""

    template = (
        "Different refcount widths than 16 bits require compatibility level 1.1 or above "
        "(use version=v3 or greater)"
    )


class BadClusterSize(QmpError):
    """(least bytes, most KiB)."""

    template = "Cluster size must be a power of two between {} and {}k"


class ClusterTooSmall(QmpError):
    """(least bytes): each subcluster is a sector at least."""

    template = "Extended L2 entries are only supported with cluster sizes of at least {} bytes"


class BackingAndPreallocation(QmpError):
    """Allocated clusters hide the backing file."""

    template = (
        "Backing file and preallocation can only be used at the same time if extended_l2 is on"
    )


class FormatOfNothing(QmpError):
    """The format of a backing file, and no backing file."""

    template = "Backing format cannot be used without backing file"


class BadRefcountWidth(QmpError):
    """Refcounts have 1, 2, 4, ... 64 bits."""

    template = "Refcount width must be a power of two and may not exceed 64 bits"


class RawNeedsDataFile(QmpError):
    """There is no data file that could stay raw."""

    template = "data-file-raw requires data-file"


class RawAndBacking(QmpError):
    """A raw file has no backing file."""

    template = "Backing file and data-file-raw cannot be used at the same time"


class HeaderNotWritten(HostError):
    """(why)."""

    template = "Could not write qcow2 header: {}"


class TableNotWritten(HostError):
    """(why)."""

    template = "Could not write refcount table: {}"


class HeaderNotUpdated(HostError):
    """(why)."""

    template = "Could not update qcow2 header: {}"


class NotResized(HostError):
    """(why)."""

    template = "Could not resize image: {}"


class NegativeSize(HostError):
    """The size has no place in a signed number."""

    template = "Image size cannot be negative"


class BackingNotSet(HostError):
    """(name, format, why)."""

    template = "Could not assign backing file '{}' with format '{}': {}"


class OnlyLuksAmended(QmpError):
    """The first way to encrypt has nothing to amend."""

    template = "Only LUKS encryption options can be amended"


class NotEncrypted(QmpError):
    """There is no encryption that could be amended."""

    template = "Can't amend encryption options - encryption not present"


class UnknownLevel(QmpError):
    """(level)."""

    template = "Unknown compatibility level {}"


class HasNoDataFile(QmpError):
    """The data is in the image itself."""

    template = "data-file can only be set for images that use an external data file"


class RawTooLate(QmpError):
    """The tables are not such that the data file is raw."""

    template = "data-file-raw cannot be set on existing images"


class WidthNeedsLevel(QmpError):
    """Version 2 has refcounts of 16 bits."""

    template = (
        "Refcount widths other than 16 bits require compatibility level 1.1 or above "
        "(use compat=1.1 or greater)"
    )


class LazyNeedsLevel(QmpError):
    """Version 2 cannot say that refcounts are wrong."""

    template = (
        "Lazy refcounts only supported with compatibility level 1.1 and above "
        "(use compat=1.1 or greater)"
    )


class CannotAmendBacking(QmpError):
    """To change the backing file is another program's work."""

    template = "Cannot amend the backing file"


class HeaderNotAmended(HostError):
    """(why)."""

    template = "Failed to update the image header: {}"


class SnapshotsNotUpdated(HostError):
    """(why)."""

    template = "Failed to update the snapshot table: {}"


class NotCleaned(HostError):
    """(why)."""

    template = "Failed to make the image clean: {}"


class NotAmended(HostError):
    """(why), which says it all."""

    template = "{}"


class Level010NeedsWidth(QmpError):
    """Version 2 has refcounts of 16 bits."""

    template = "compat=0.10 requires refcount_bits=16"


class DataFileNeedsVersion3(QmpError):
    """Version 2 has no data files."""

    template = "Cannot downgrade an image with a data file"


class SnapshotsNeedVersion3(QmpError):
    """Version 2 stores neither a snapshot's disk size nor large states."""

    template = "Internal snapshots prevent downgrade of image"


class FeaturesNeedVersion3(QmpError):
    """(features)."""

    template = "Cannot downgrade an image with incompatible features {} set"


class ZeroesNotExpanded(HostError):
    """(why)."""

    template = "Failed to turn zero into data clusters: {}"


class ZstdNeedsVersion3(QmpError):
    """Version 2 knows zlib only."""

    template = (
        "Cannot downgrade an image with zstd compression type and existing compressed clusters"
    )


class CountTooLarge(QmpError):
    """(bits, offset, refcount)."""

    template = (
        "Cannot decrease refcount entry width to {} bits: Cluster at offset {} has a refcount of {}"
    )


class CountsTooMany(HostError):
    """The table would be too large."""

    template = "Failed to allocate the new reftable: File too large"


class CountsNotWritten(HostError):
    """(why)."""

    template = "Failed to write the new reftable: {}"


class NotSwitched(HostError):
    """(why)."""

    template = "Failed to update the qcow2 header: {}"


@contextmanager
def telling(kind: type[HostError], *values: object) -> Iterator[None]:
    """Raise ``kind`` for an error, told by ``values`` and then the error's own text or number."""
    try:
        yield
    except (QmpError, OSError) as e:
        code = getattr(e, "errno", None) or errno.EINVAL
        why = str(e) if isinstance(e, QmpError) else os.strerror(code)
        raise kind(*values, why, errno=code) from e
