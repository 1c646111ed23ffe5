"""What blockemu-img says when it does not do what it was told: a class for each text."""

from typing import ClassVar

from blockemu.errors import QmpError


class Refusal(QmpError):
    """The end of a command before its time; ``status`` is the program's.

    ``further`` is said after it, a report of its own for each line.
    """

    status: int = 1
    further: ClassVar[tuple[str, ...]] = ()


class Failed(Refusal):
    """(what was tried, why)."""

    template = "{}: {}"


class Misused(Refusal):
    """The command line is wrong; ``--help`` is pointed at."""


class MissingValue(Misused):
    """(option)."""

    template = "missing argument for option '{}'"


class UnknownOption(Misused):
    """(option)."""

    template = "unrecognized option '{}'"


class OneImageExpected(Misused):
    """There are none or several."""

    template = "Expecting one image file name"


class TwoImagesExpected(Misused):
    """There are others than two."""

    template = "Expecting two image file names"


class ImageExpected(Misused):
    """There is none."""

    template = "Expecting image file name"


class ImageAndSizeExpected(Misused):
    """Either is missing."""

    template = "Expecting image file name and size"


class NotEnoughArguments(Misused):
    """Something is missing."""

    template = "Not enough arguments"


class UnexpectedArgument(Misused):
    """(argument)."""

    template = "Unexpected argument: {}"


class BadOutputFormat(Refusal):
    """Neither of the two there are."""

    template = "--output must be used with human or json as argument."


class BadCache(Refusal):
    """(mode)."""

    template = "Invalid cache option: {}"


class BadSourceCache(Refusal):
    """(mode)."""

    template = "Invalid source cache option: {}"


class NotASize(Refusal):
    """(what)."""

    template = "Invalid {} specified. You may use k, M, G, T, P or E suffixes for"
    further = ("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",)


class SizeOutOfRange(Refusal):
    """(what, least, most)."""

    template = "Invalid {} specified. Must be between {} and {}."


class BadOptionList(Refusal):
    """(options): they could not be joined to others."""

    template = "Invalid option list: {}"


class FormatGivenTwice(Refusal):
    """As a format and among the image's options."""

    template = "--image-opts and --format are mutually exclusive"


class ForceShareConflict(Refusal):
    """The image's options say the opposite."""

    template = "--force-share/-U conflicts with image options"


class CouldNotOpen(Refusal):
    """(name, why)."""

    template = "Could not open '{}': {}"


class UnknownFormat(Refusal):
    """(name)."""

    template = "Unknown file format '{}'"


class NoImageCreation(Refusal):
    """(format)."""

    template = "Format driver '{}' does not support image creation"


class NoProtocolCreation(Refusal):
    """(protocol)."""

    template = "Protocol driver '{}' does not support image creation"


class SnapshotNotLoaded(Refusal):
    """(why)."""

    template = "Failed to load snapshot: {}"


class BadSnapshotParameter(Refusal):
    """(as given)."""

    template = "Failed in parsing snapshot param '{}'"
