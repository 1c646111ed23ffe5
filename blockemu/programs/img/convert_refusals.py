"""What ``convert`` does not do, and says so: a class for each text."""

from blockemu.programs.img.refusals import Refusal


class SkipNeedsBitmaps(Refusal):
    """There are none to be skipped."""

    template = "Use of --skip-broken-bitmaps requires --bitmaps"


class OffloadCompressed(Refusal):
    """The host does not compress."""

    template = "Cannot enable copy offloading when -c is used"


class OffloadSparse(Refusal):
    """The host does not look for zeroes."""

    template = "Cannot enable copy offloading when -S is used"


class OffloadSalvage(Refusal):
    """The host does not read on after an error."""

    template = "Cannot use copy offloading in salvaging mode"


class TargetOptionsNeedExisting(Refusal):
    """Images are made by name only."""

    template = "--target-image-opts requires use of -n flag"


class OptionsWithoutCreation(Refusal):
    """Nothing is made."""

    template = "-o has no effect when skipping image creation"


class ZeroNeedsExisting(Refusal):
    """Of an image that is made it is known."""

    template = "--target-is-zero requires use of -n flag"


class HelpNeedsFormat(Refusal):
    """Options are those of a format."""

    template = "Option help requires a format be specified"


class NameMissing(Refusal):
    """There must be two at least."""

    template = "Must specify image file name"


class BadSparseSize(Refusal):
    """(least, most)."""

    template = (
        "Invalid buffer size for sparse output specified. Valid sizes are multiples of {} up to "
        "{}. Select 0 to disable sparse detection (fully allocates output)."
    )


class BadWorkers(Refusal):
    """(most)."""

    template = "Invalid number of coroutines. Allowed number of coroutines is between 1 and {}"


class OneSnapshot(Refusal):
    """It is not said of which image."""

    template = "No support for concatenating multiple snapshot"


class NoBackingFile(Refusal):
    """(format)."""

    template = "Backing file not supported for file format '{}'"


class NoBackingFormat(Refusal):
    """(format)."""

    template = "Backing file format not supported for file format '{}'"


class ZeroWithBacking(Refusal):
    """The backing file would show through."""

    template = "Cannot use --target-is-zero when the destination image has a backing file"


class BackingForSeveral(Refusal):
    """It can be that of one only."""

    template = (
        "Having a backing file for the target makes no sense when concatenating multiple input "
        "images"
    )


class BackingNeedsFormat(Refusal):
    """Guessing is not safe."""

    template = "Use of backing file requires explicit backing format"


class NoCompression(Refusal):
    """The format has none."""

    template = "Compression not supported for this file format"


class CompressedEncrypted(Refusal):
    """Either, or."""

    template = "Compression and encryption not supported at the same time"


class CompressedPreallocated(Refusal):
    """How much is needed is not known before."""

    template = "Compression and preallocation not supported at the same time"


class BitmapsOfOne(Refusal):
    """Those of several would have to be joined."""

    template = "Copying bitmaps only possible with single source"


class NoBitmapSupport(Refusal):
    """(format)."""

    template = "Format driver '{}' does not support bitmaps"


class TargetTooSmall(Refusal):
    """Not everything would fit."""

    template = "output file is smaller than input file"


class BadClusterSize(Refusal):
    """Clusters cannot be compressed."""

    template = "invalid cluster size"
