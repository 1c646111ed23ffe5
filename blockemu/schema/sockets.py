"""Socket addresses (qapi/sockets.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U16, Since, Struct, Union

SOCKET_LEGACY = Union("SocketAddressLegacy", "type")
SOCKET = Union("SocketAddress", "type")


class InetSocketAddress(Struct):
    """A TCP address.

    @host: name or address
    @port: name or number
    @numeric: both are numbers
    @to: the last port to try
    @ipv4: whether to use IPv4
    @ipv6: whether to use IPv6
    @keep-alive: whether to probe idle connections
    @mptcp: whether to use more than one path
    """

    host: str
    port: str
    numeric: Annotated[bool | None, Since("2.9")] = None
    to: U16 | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None
    keep_alive: Annotated[bool | None, Since("4.2")] = None
    mptcp: Annotated[bool | None, Since("6.1")] = None


class UnixSocketAddress(Struct):
    """A local address.

    @path: the path
    @abstract: a name in Linux's abstract namespace
    @tight: such a name is as long as it is, not padded
    """

    path: str
    abstract: Annotated[bool | None, Since("5.1")] = None
    tight: Annotated[bool | None, Since("5.1")] = None


class VsockSocketAddress(Struct):
    """An address of a virtual machine or its host.

    @cid: number of the machine
    @port: number of the port
    """

    cid: str
    port: str


class String(Struct):
    """A string in an object.

    @str: the string
    """

    str_: str


class SocketAddressLegacy(Struct):
    """An address with its content in ``data``."""

    union = SOCKET_LEGACY


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


class VsockSocketAddressWrapper(SocketAddressLegacy, tag="vsock"):
    """Between a virtual machine and its host.

    @data: the address
    """

    data: VsockSocketAddress


class StringWrapper(SocketAddressLegacy, tag="fd"):
    """An inherited or passed socket.

    @data: its number, or the name it was passed by
    """

    data: String


AnySocketAddressLegacy = Annotated[SocketAddressLegacy, SOCKET_LEGACY]


class SocketAddress(Struct):
    """An address, with its members beside its type."""

    union = SOCKET


class SocketAddressInet(SocketAddress, InetSocketAddress, tag="inet"):
    """TCP."""


class SocketAddressUnix(SocketAddress, UnixSocketAddress, tag="unix"):
    """Local."""


class SocketAddressVsock(SocketAddress, VsockSocketAddress, tag="vsock"):
    """Between a virtual machine and its host."""


class SocketAddressFd(SocketAddress, String, tag="fd"):
    """An inherited or passed socket."""


AnySocketAddress = Annotated[SocketAddress, SOCKET]
