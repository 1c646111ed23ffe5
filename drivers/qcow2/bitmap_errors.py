"""What can be wrong with bitmaps that an image stores, or is to store; in QEMU's words."""

import errno
import os

from blockemu.errors import QmpError
from blockemu.images.qcow2 import bitmaps as codec
from blockemu.images.qcow2.extensions import HeaderFullError
from blockemu.os_errors import os_error


class UnreadableTable(QmpError):
    """(name, why)."""

    template = "Could not read bitmap_table table from image for bitmap '{}': {}"


class UnreadableBitmap(QmpError):
    """(name, why)."""

    template = "Could not read bitmap '{}' from image: {}"


class CannotUpdateDirectory(QmpError):
    """The bitmaps could not be marked as in use, when the image was opened."""

    template = "Can't update bitmap directory: {}"


class CannotUpdateAtReopen(QmpError):
    """The same, when it was reopened."""

    template = "Cannot update bitmap directory: {}"


class CannotUpdateExtension(QmpError):
    """The new directory could not be written."""

    template = "Failed to update bitmap extension: {}"


class UnexpectedBitmap(QmpError):
    """(name, image): in the image, but not in memory."""

    template = "Unexpected bitmap '{}' in image '{}'"


class NotInUseNorReadOnly(QmpError):
    """(name, image)."""

    template = (
        "Corruption: bitmap '{}' is not marked IN_USE in the image '{}' and not marked readonly "
        "in RAM"
    )


class InconsistentNotInUse(QmpError):
    """(name, image)."""

    template = "Corruption: bitmap '{}' is inconsistent but is not marked IN_USE in the image '{}'"


class InUseButReadOnly(QmpError):
    """(name, image)."""

    template = (
        "Corruption: bitmap '{}' is marked IN_USE in the image '{}' but it is readonly and "
        "consistent in RAM"
    )


class NoAccessToFile(QmpError):
    """The file below stayed read-only."""

    template = "Failed to reopen bitmaps rw: no write access the protocol file"


class BitmapsNotLoaded(QmpError):
    """Stored bitmaps would have to be resized, too."""

    template = "Cannot resize qcow2 with persistent bitmaps that were not loaded into memory"


class OldVersion(QmpError):
    """Version 2 has no way to tell that bitmaps are up to date."""

    template = "Cannot store dirty bitmaps in qcow2 v2 files"


class GranularityTooLarge(QmpError):
    """More bytes for a bit than can be stored."""

    template = f"Granularity exceeds maximum ({1 << codec.MAX_GRANULARITY_BITS} bytes)"


class GranularityTooSmall(QmpError):
    """Fewer bytes for a bit than can be stored."""

    template = f"Granularity is under minimum ({1 << codec.MIN_GRANULARITY_BITS} bytes)"


class TooMuchSpace(QmpError):
    """The bits would not fit."""

    template = "Too much space will be occupied by the bitmap. Use larger granularity"


class NameTooLong(QmpError):
    """The name would not fit."""

    template = f"Name length exceeds maximum ({codec.MAX_NAME} characters)"


class TooManyToAdd(QmpError):
    """One more would be too many."""

    template = "Maximum number of persistent bitmaps is already reached"


class NoSpaceInDirectory(QmpError):
    """One more would not fit."""

    template = "Not enough space in the bitmap directory"


class TooManyToStore(QmpError):
    """More than an image can have."""

    template = "Too many persistent bitmaps"


class DirectoryTooLarge(QmpError):
    """More than an image can have room for."""

    template = "Bitmap directory is too large"


class AlreadyStored(QmpError):
    """The image has a valid bitmap of that name."""

    template = "Bitmap '{}' already exists in the image"


class NoWriteAccess(QmpError):
    """A bitmap of a read-only image cannot be stored."""

    template = "No write access"


class TooBig(QmpError):
    """A bitmap takes too many bytes."""

    template = "Bitmap '{}' is too big"


class NoMemory(QmpError):
    """A bitmap without bits, as QEMU puts it."""

    template = "No memory"


class NoClusters(QmpError):
    """(name, why)."""

    template = "Failed to allocate clusters for bitmap '{}': {}"


class Overlaps(QmpError):
    """The place that was found is metadata's."""

    template = "Qcow2 overlap check failed: {}"


class CannotWrite(QmpError):
    """(name, why)."""

    template = "Failed to write bitmap '{}' to file: {}"


def invalid() -> OSError:
    """Return the error of what makes no sense on disk."""
    return os_error(errno.EINVAL)


def why(e: Exception) -> str:
    """Return what the C library says of an error."""
    if isinstance(e, HeaderFullError):
        return os.strerror(errno.ENOSPC)
    code = e.errno if isinstance(e, OSError) else None
    return os.strerror(code or errno.EINVAL)
