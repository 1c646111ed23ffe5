"""Socket addresses (qapi/sockets.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U16, Since, Struct, Union

SOCKET = Union("SocketAddressLegacy", "type")


class InetSocketAddress(Struct):
    """A TCP address.

    @host: name or address
    @port: name or number
    @numeric: both are numbers
    @to: the last port to try
    @ipv4: whether to use IPv4
    @ipv6: whether to use IPv6
    @keep-alive: whether to probe idle connections
    """

    host: str
    port: str
    numeric: Annotated[bool | None, Since("2.9")] = None
    to: U16 | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None
    keep_alive: Annotated[bool | None, Since("4.2")] = None


class UnixSocketAddress(Struct):
    """A local address.

    @path: the path
    @abstract: a name in Linux's abstract namespace
    @tight: such a name is as long as it is, not padded
    """

    path: str
    abstract: Annotated[bool | None, Since("5.1")] = None
    tight: Annotated[bool | None, Since("5.1")] = None


class String(Struct):
    """A string in an object.

    @str: the string
    """

    str_: str


class SocketAddressLegacy(Struct):
    """An address with its content in ``data``."""

    union = SOCKET


class InetSocketAddressWrapper(SocketAddressLegacy, tag="inet"):
    """TCP.

    @data: the address
    """

    data: InetSocketAddress


class UnixSocketAddressWrapper(SocketAddressLegacy, tag="unix"):
    """Local.

    @data: the address
    """

    data: UnixSocketAddress


class StringWrapper(SocketAddressLegacy, tag="fd"):
    """An inherited or passed socket.

    @data: its number, or the name it was passed by
    """

    data: String


AnySocketAddressLegacy = Annotated[SocketAddressLegacy, SOCKET]
