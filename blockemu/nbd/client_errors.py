"""What a client says when a handshake fails, in QEMU's words (after nbd/client.c).

``leave`` on a class tells whether the server is still told that the client goes away.
"""

from typing import ClassVar

from blockemu.errors import QmpError


class HandshakeError(QmpError):
    """The handshake came to nothing."""

    leave: ClassVar[bool] = False


class ReadFailed(HandshakeError):
    """(what was to be read, why)."""

    template = "Failed to read {}: {}"


class SendFailed(HandshakeError):
    """(what was to be sent, why)."""

    template = "Failed to send {}: {}"


class BadInitialMagic(HandshakeError):
    """(the number): the peer speaks something else."""

    template = "Bad initial magic received: 0x{:x}"


class BadServerMagic(HandshakeError):
    """(the number): neither old nor new style."""

    template = "Bad server magic received: 0x{:x}"


class NoStartTls(HandshakeError):
    """The server is too old for encryption."""

    template = "Server does not support STARTTLS"


class StartTlsRefused(HandshakeError):
    """The server knows options, this one not."""

    leave = True
    template = "Server don't support STARTTLS option"


class NoExportNames(HandshakeError):
    """An old-style server has one export, without a name."""

    template = "Server does not support non-empty export names"


class NoExportLists(HandshakeError):
    """A server without the fixed handshake cannot be asked."""

    template = "Server does not support export lists"


class UnexpectedFlags(HandshakeError):
    """(the number): an old-style server has sixteen; the last letter is QEMU's own."""

    template = "Unexpected export flags {:x}x"


class OptionError(HandshakeError):
    """Something is wrong with the reply to an option."""

    leave = True


class BadReplyMagic(OptionError):
    """That was no reply."""

    template = "Unexpected option reply magic"


class OtherOption(OptionError):
    """(got, its name, expected, its name)."""

    template = "Unexpected option type {} ({}), expected {} ({})"


class UnexpectedReply(OptionError):
    """(got, its name, expected, its name)."""

    template = "Unexpected reply type {} ({}), expected {} ({})"


class UnexpectedInfoReply(OptionError):
    """(got, its name, expected, its name)."""

    template = "unexpected reply type {} ({}), expected {} ({})"


class UnexpectedAnswer(OptionError):
    """(option, its name, reply, its name)."""

    template = "Server answered option {} ({}) with unexpected reply {} ({})"


class AnswerTooLong(OptionError):
    """(option, its name, length)."""

    template = "Option {} ('{}') response length is {} (it should be zero)"


class MessageTooLong(OptionError):
    """(reply, its name)."""

    template = "server error {} ({}) message is too long"


class MessageUnread(OptionError):
    """(reply, its name, why)."""

    template = "Failed to read option error {} ({}) message: {}"


class Refused(OptionError):
    """(option, its name): the server said no; ``hint`` has what it said besides."""


class DeniedByPolicy(Refused):
    """It must not be."""

    template = "Denied by server for option {} ({})"


class InvalidParameters(Refused):
    """The server did not understand."""

    template = "Invalid parameters for option {} ({})"


class PlatformLacksSupport(Refused):
    """The server cannot."""

    template = "Server lacks support for option {} ({})"


class TlsRequired(Refused):
    """Not in clear text."""

    template = "TLS negotiation required before option {} ({})"


class ExportUnknown(Refused):
    """There is no such export."""

    template = "Requested export not available"


class ServerShutsDown(Refused):
    """Too late."""

    template = "Server shutting down before option {} ({})"


class BlockSizeRequired(Refused):
    """The client must ask for block sizes."""

    template = "Server requires INFO_BLOCK_SIZE for option {} ({})"


class UnknownRefusal(Refused):
    """An error that nobody has heard of."""

    template = "Unknown error code when asking for option {} ({})"


class ListEndTooLong(OptionError):
    """The end of a list has no content."""

    template = "length too long for option end"


class ListLength(OptionError):
    """(length)."""

    template = "incorrect option length {}"


class ListNameLength(OptionError):
    """A name longer than what holds it, or than names may be."""

    template = "incorrect name length in server's list response"


class ListDescriptionLength(OptionError):
    """A description longer than strings may be."""

    template = "incorrect description length in server's list response"


class NoSuchExport(OptionError):
    """(name): the list has others."""

    template = "No export with name '{}' available"


class InvalidAck(HandshakeError):
    """An acknowledgement has no content."""

    template = "server sent invalid NBD_REP_ACK"


class ExportInfoMissing(HandshakeError):
    """The server did not say how big the export is."""

    template = "broken server omitted NBD_INFO_EXPORT"


class InfoTooShort(OptionError):
    """(length)."""

    template = "NBD_REP_INFO length {} is too short"


class InfoLength(OptionError):
    """(length)."""

    template = "remaining export info len {} is unexpected size"


class InfoUnread(OptionError):
    """(why)."""

    template = "Failed to read info payload: {}"


class SizeUnaligned(OptionError):
    """(size, minimum block size)."""

    template = "export size {} is not multiple of minimum block size {}"


class MinimumNotPower(OptionError):
    """(size)."""

    template = "server minimum block size {} is not a power of two"


class PreferredInvalid(OptionError):
    """(size)."""

    template = "server preferred block size {} is not valid"


class MaximumInvalid(OptionError):
    """(size)."""

    template = "server maximum block size {} is not valid"


class MetaAckTooLong(OptionError):
    """An acknowledgement has no content."""

    template = "Unexpected length to ACK response"


class MetaLength(OptionError):
    """(length)."""

    template = "Failed to negotiate meta context, server answered with unexpected length {}"


class OtherContext(OptionError):
    """(asked for, got)."""

    template = "Failed to negotiate meta context '{}', server answered with different context '{}'"


class SeveralContexts(OptionError):
    """One was asked for."""

    template = "Server answered with more than one context"


class ReservedUnread(HandshakeError):
    """(why)."""

    template = "Failed to read reserved block: {}"
