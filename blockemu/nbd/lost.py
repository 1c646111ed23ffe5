"""How a connection fails, in the words of QEMU's channels."""

from blockemu.errors import QmpError


class Lost(QmpError):
    """The connection failed; raised by the transport, with what the socket says."""


class EndOfFile(Lost):
    """The server closed its end."""

    template = "Unexpected end-of-file before all data were read"


class CannotRead(Lost):
    """(why)."""

    template = "Unable to read from socket: {}"


class CannotWrite(Lost):
    """(why)."""

    template = "Unable to write to socket: {}"


class CannotReadTls(Lost):
    """(why)."""

    template = "Cannot read from TLS channel: {}"


class CannotWriteTls(Lost):
    """(why)."""

    template = "Cannot write to TLS channel: {}"
