"""Character devices (qapi/char.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import QEnum, Struct, Union
from blockemu.schema.sockets import AnySocketAddressLegacy

CHARDEV = Union("ChardevBackend", "type")


class DataFormat(QEnum):
    """How bytes are written in JSON."""

    UTF8 = "utf8"
    BASE64 = "base64"


class ChardevInfo(Struct):
    """A chardev.

    @label: its name
    @filename: what it is connected to
    @frontend-open: whether somebody uses it
    """

    label: str
    filename: str
    frontend_open: bool


class ChardevBackendInfo(Struct):
    """A kind of chardev.

    @name: its name
    """

    name: str


class ChardevReturn(Struct):
    """What ``chardev-add`` answers.

    @pty: the name of the pseudo terminal
    """

    pty: str | None = None


class ChardevCommon(Struct):
    """What all kinds have.

    @logfile: a file that gets a copy of the output
    @logappend: append to it
    """

    logfile: str | None = None
    logappend: bool | None = None


class ChardevFile(ChardevCommon):
    """A file.

    @in: a file to read from
    @out: the file to write to
    @append: append to it
    """

    in_: str | None = None
    out: str
    append: bool | None = None


class ChardevHostdev(ChardevCommon):
    """A device or FIFO.

    @device: its path
    """

    device: str


class ChardevStdio(ChardevCommon):
    """Standard input and output.

    @signal: whether ^C is a signal
    """

    signal: bool | None = None


class ChardevRingbuf(ChardevCommon):
    """A ring buffer.

    @size: its size in bytes, a power of two
    """

    size: int | None = None


class ChardevSocket(ChardevCommon):
    """A socket.

    @addr: where to listen or connect
    @tls-creds: credentials for TLS
    @tls-authz: who may come in
    @server: listen
    @wait: wait for the first client
    @nodelay: send small packets at once
    @telnet: speak telnet
    @tn3270: speak tn3270
    @websocket: speak websocket
    @reconnect: seconds until a lost connection is made anew; 0: never
    """

    addr: AnySocketAddressLegacy
    tls_creds: str | None = None
    tls_authz: str | None = None
    server: bool | None = None
    wait: bool | None = None
    nodelay: bool | None = None
    telnet: bool | None = None
    tn3270: bool | None = None
    websocket: bool | None = None
    reconnect: int | None = None


class ChardevBackend(Struct):
    """What kind of chardev, with its options in ``data``."""

    union = CHARDEV


class ChardevFileWrapper(ChardevBackend, tag="file"):
    """A file.

    @data: its options
    """

    data: ChardevFile


class ChardevPipeWrapper(ChardevBackend, tag="pipe"):
    """FIFOs.

    @data: their options
    """

    data: ChardevHostdev


class ChardevSocketWrapper(ChardevBackend, tag="socket"):
    """A socket.

    @data: its options
    """

    data: ChardevSocket


class ChardevNullWrapper(ChardevBackend, tag="null"):
    """Nothing.

    @data: its options
    """

    data: ChardevCommon


class ChardevStdioWrapper(ChardevBackend, tag="stdio"):
    """Standard input and output.

    @data: its options
    """

    data: ChardevStdio


class ChardevRingbufWrapper(ChardevBackend, tag="ringbuf"):
    """A ring buffer.

    @data: its options
    """

    data: ChardevRingbuf


class ChardevMemoryWrapper(ChardevBackend, tag="memory"):
    """A ring buffer by its old name.

    @data: its options
    """

    data: ChardevRingbuf


AnyChardevBackend = Annotated[ChardevBackend, CHARDEV]
