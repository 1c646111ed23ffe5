"""What qemu-io says when it does not do what it was told: a class for each text."""

import errno
import os
from typing import ClassVar, Literal

from blockemu.stats import Kind

MAX_REQUEST = 0x7FFFFFFF & -512  # bytes: the most one request may ask for


class Refusal(Exception):
    """A command's end before its time.

    ``template`` is filled with the values given and goes to ``stream``: ``out`` and ``err`` are the
    program's own, ``report`` is where QEMU reports errors: the monitor if there is one.
    ``code`` is what the command returns.
    """

    template: ClassVar[str] = "{}"
    stream: ClassVar[Literal["out", "err", "report"]] = "out"
    code: int = -errno.EINVAL

    def __init__(self, *values: object) -> None:
        super().__init__(self.template.format(*values))


class Usage(Refusal):
    """The command's one line of help: (name, arguments, what it does)."""

    template = "{} {} -- {}\n"


class BadOption(Refusal):
    """An option the command does not know: (command as typed, letter); usage follows."""

    stream = "err"
    template = "{}: invalid option -- '{}'\n"


class OptionWithoutValue(BadOption):
    """The last option lacks what must follow it."""

    template = "{}: option requires an argument -- '{}'\n"


class UnknownCommand(Refusal):
    """No such command."""

    stream = "err"
    template = 'command "{}" not found\n'


class NoFileOpen(Refusal):
    """The command needs an image."""

    stream = "err"
    template = "no file open, try 'help open'\n"


class TooFewArguments(Refusal):
    """(count, command as typed, least)."""

    stream = "err"
    template = "bad argument count {} to {}, expected at least {} arguments\n"


class WrongArgumentCount(Refusal):
    """(count, command as typed, the number that would be right)."""

    stream = "err"
    template = "bad argument count {} to {}, expected {} arguments\n"


class ArgumentCountOutOfRange(Refusal):
    """(count, command as typed, least, most)."""

    stream = "err"
    template = "bad argument count {} to {}, expected between {} and {} arguments\n"


class NotASize(Refusal):
    """A size was wanted."""

    template = "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {}\n"


class SizeTooLarge(Refusal):
    """A size beyond what fits in an off_t."""

    code = -errno.ERANGE
    template = "Parsing error: argument too large -- {}\n"


class BadPattern(Refusal):
    """A byte was wanted."""

    template = "{} is not a valid pattern byte\n"


class NotANumber(Refusal):
    """A number of milliseconds was wanted."""

    template = "{} is not a valid number\n"


class LengthTooLarge(Refusal):
    """(as typed)."""

    template = f"length cannot exceed {MAX_REQUEST}, given {{}}\n"


class WriteTooLarge(Refusal):
    """(as typed)."""

    template = f"length cannot exceed {MAX_REQUEST} without -n, given {{}}\n"


class ArgumentTooLarge(Refusal):
    """One of several lengths: (as typed)."""

    template = f"Argument '{{}}' exceeds maximum size {MAX_REQUEST}\n"


class TotalTooLarge(Refusal):
    """Several lengths together."""

    template = f"The total number of bytes exceed the maximum size {MAX_REQUEST}\n"


class PatternBeyondRead(Refusal):
    """What is to be verified was not read."""

    template = "pattern verification range exceeds end of read data\n"


class NotSectorAligned(Refusal):
    """(value, which)."""

    template = "{} is not a sector-aligned value for '{}'\n"


class Conflict(Refusal):
    """Options that exclude one another: (the options)."""

    template = "{} cannot be specified at the same time\n"


class OnlyOneFill(Refusal):
    """There are three ways to say what to write."""

    template = "Only one of -z, -P, and -s can be specified at the same time\n"


class NeedsZero(Refusal):
    """An option of zero writes: (option)."""

    template = "{} requires -z to be specified\n"


class OneLengthOnly(Refusal):
    """Zero writes have no buffers."""

    template = "-z supports only a single length parameter\n"


class InvalidRequest(Refusal):
    """A request that is counted as invalid and not made: (read or write)."""

    code = 0
    template = "injecting invalid {} request\n"

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind.value)
        self.kind = kind


class PatternFileError(Refusal):
    """The file to take data from cannot be read: (name, strerror)."""

    stream = "err"
    template = "{}: {}\n"


class PatternFileEmpty(Refusal):
    """The file to take data from holds none."""

    stream = "err"
    template = "{}: file is empty\n"


class BadPreallocation(Refusal):
    """(mode)."""

    stream = "report"
    template = "Invalid preallocation mode '{}'\n"


class BadCacheMode(Refusal):
    """(mode)."""

    stream = "report"
    template = "Invalid cache option: {}\n"


class OneModeOnly(Refusal):
    """Read-only and not."""

    stream = "report"
    template = "Only one -r/-w option may be given\n"


class ReadOnlyGivenTwice(Refusal):
    """As an option of the command and of the node."""

    stream = "report"
    template = "Cannot set both -r/-w and 'read-only'\n"


class CacheGivenTwice(Refusal):
    """As an option of the command and of the node."""

    stream = "report"
    template = "Cannot set both -c and the cache options\n"


class NoSuchCommand(Refusal):
    """Help was wanted about something else."""

    template = "command {} not found\n"


class SignalTooLarge(Refusal):
    """(as typed)."""

    template = "signal argument '{}' is too large to be a valid signal\n"


class Failed(Refusal):
    """A request failed: (what was tried, OSError)."""

    template = "{} failed: {}\n"

    def __init__(self, what: str, error: OSError) -> None:
        super().__init__(what, error.strerror or os.strerror(error.errno or errno.EIO))
        self.code = -(error.errno or errno.EIO)


class LengthUnknown(Failed):
    """No medium, most likely."""

    template = "{}: {}\n"


class Unmappable(Failed):
    """The length, or what is allocated, could not be found out."""

    stream = "report"
    template = "Failed to {}: {}\n"


class NoBreakpoint(Failed):
    """blkdebug is not there, or does not know the event."""

    template = "Could not {}: {}\n"
