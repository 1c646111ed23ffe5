"""What opening a node is refused for (block.c)."""

from blockemu.errors import QmpError


class UnknownDriver(QmpError):
    """There is no such driver."""

    template = "Unknown driver '{}'"


class NeitherDriverNorFile(QmpError):
    """Nothing says what to open."""

    template = "Must specify either driver or file"


class ReferenceWithOptions(QmpError):
    """A node that exists cannot be given options."""

    template = "Cannot reference an existing block device with additional options or a new filename"


class NeedsFilename(QmpError):
    """The driver cannot do without a file name."""

    template = "The '{}' block driver requires a file name"


class NoBackingSupport(QmpError):
    """The format has no backing files."""

    template = "Driver doesn't support backing files"


class UnsupportedOption(QmpError):
    """(kind, driver, option): an option that came by a file name or -drive and is not known."""

    template = "Block {} '{}' {} support the option '{}'"


class ChildNeeded(QmpError):
    """A child that the driver needs is not given."""

    template = 'A block device must be specified for "{}"'


class FileAndFilename(QmpError):
    """Both name the same thing."""

    template = "Can't specify 'file' and 'filename' options at the same time"


class CouldNotOpen(QmpError):
    """The driver failed with an errno."""

    template = "Could not open {}: {}"


class UnknownLength(QmpError):
    """The image is open, yet nobody can say how long it is."""

    template = "Could not refresh total sector count: {}"


class CouldNotProbe(QmpError):
    """The image's beginning cannot be read."""

    template = "Could not read image for determining its format: {}"
