"""What blockemu-nbd says to a command line that makes no sense, in qemu-nbd's words."""

from blockemu.errors import QmpError


class CacheTwice(QmpError):
    """-n is one, too."""

    template = "-n and --cache can only be specified once"


class BadCache(QmpError):
    """(mode)."""

    template = "Invalid cache mode `{}'"


class AioTwice(QmpError):
    """Once is enough."""

    template = "--aio can only be specified once"


class BadAio(QmpError):
    """(mode)."""

    template = "Invalid aio mode '{}'"


class DiscardTwice(QmpError):
    """Once is enough."""

    template = "--discard can only be specified once"


class BadDiscard(QmpError):
    """(mode)."""

    template = "Invalid discard mode `{}'"


class BadDetectZeroes(QmpError):
    """(mode)."""

    template = "Failed to parse detect_zeroes mode: invalid parameter value: {}"


class UnmapWithoutDiscard(QmpError):
    """Zeroes cannot be dropped if nothing may be."""

    template = (
        "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"
    )


class BadOffset(QmpError):
    """(text)."""

    template = "Invalid offset '{}'"


class RelativeSocket(QmpError):
    """The program leaves its folder."""

    template = "socket path must be absolute"


class BadShared(QmpError):
    """(text)."""

    template = "Invalid shared device number '{}'"


class NameTooLong(QmpError):
    """(name)."""

    template = "export name '{}' too long"


class DescriptionTooLong(QmpError):
    """(text)."""

    template = "export description '{}' too long"


class BadSnapshot(QmpError):
    """(text)."""

    template = "Failed in parsing snapshot param `{}'"


class ListWithFile(QmpError):
    """A list is of a server, not of a file."""

    template = "List mode is incompatible with a file name"


class ListWithSettings(QmpError):
    """Nothing is exported."""

    template = "List mode is incompatible with per-device settings"


class ListWithFork(QmpError):
    """A list is shown and done."""

    template = "List mode is incompatible with forking"


class WrongCount(QmpError):
    """Of words that are no options."""

    template = "Invalid number of arguments"


class TlsWithDevice(QmpError):
    """The kernel speaks clear text."""

    template = "TLS is not supported with a host device"


class AuthorizationWithList(QmpError):
    """A client has nobody to admit."""

    template = "TLS authorization is incompatible with export list"


class HostnameWithoutList(QmpError):
    """A server has no server to check."""

    template = "TLS hostname is only supported with export list"


class AuthorizationWithoutTls(QmpError):
    """Nobody is known by name in clear text."""

    template = "--tls-authz is not permitted without --tls-creds"


class HostnameWithoutTls(QmpError):
    """There is no certificate to check."""

    template = "--tls-hostname is not permitted without --tls-creds"


class NoSelinux(QmpError):
    """Labels are not supported."""

    template = "SELinux support not enabled in this binary"


class NoKernelDevices(QmpError):
    """Nothing is attached to the kernel."""

    template = "Kernel /dev/nbdN support not available"


class FormatGivenTwice(QmpError):
    """As a format and among the image's options."""

    template = "--image-opts and -f are mutually exclusive"


class ActivationWith(QmpError):
    """(what else says where to listen)."""

    template = "{} when using socket activation"


class ListWithActivation(QmpError):
    """A list is shown and done."""

    template = "List mode is incompatible with socket activation"


class SeveralSockets(QmpError):
    """One is listened at."""

    template = "qemu-nbd does not support socket activation with LISTEN_FDS > 1"


class BadActivation(QmpError):
    """(number, why)."""

    template = "Socket activation failed: invalid file descriptor fd = {}: {}"
