"""Networks that a machine's cards may be on (qapi/net.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import (
    I32,
    U16,
    U32,
    U64,
    Features,
    Since,
    Size,
    Struct,
    Union,
    Wire,
)
from blockemu.schema.sockets import AnySocketAddress, String

NETDEV = Union("Netdev", "type")


class Netdev(Struct, union=NETDEV):
    """A network.

    @id: its name
    """

    id: str


class NetdevNone(Netdev, tag="none"):
    """Nothing."""


class NetLegacyNicOptions(Netdev, tag="nic"):
    """A card.

    @netdev: the network it is on
    @macaddr: its address
    @model: its kind
    @addr: where it is plugged in
    @vectors: how many interrupts it has
    """

    netdev: str | None = None
    macaddr: str | None = None
    model: str | None = None
    addr: str | None = None
    vectors: U32 | None = None


class NetdevUserOptions(Netdev, tag="user"):
    """A network that the program plays.

    @hostname: what the guest is called
    @restrict: whether the guest is alone
    @ipv4: whether there are such addresses
    @ipv6: whether there are such addresses
    @ip: the network's addresses
    @net: the network's addresses
    @host: the host's address
    @tftp: a folder with files for the guest
    @bootfile: the file that it boots from
    @dhcpstart: the first address that is given away
    @dns: the name server's address
    @dnssearch: where names are looked up
    @domainname: where the guest is
    @ipv6-prefix: the network's addresses
    @ipv6-prefixlen: bits of that
    @ipv6-host: the host's address
    @ipv6-dns: the name server's address
    @smb: a folder that the guest may use
    @smbserver: the address where that is
    @hostfwd: ports of the host that lead to the guest
    @guestfwd: addresses in the network that lead to the host
    @tftp-server-name: what the server of files is called
    """

    hostname: str | None = None
    restrict: bool | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None
    ip: str | None = None
    net: str | None = None
    host: str | None = None
    tftp: str | None = None
    bootfile: str | None = None
    dhcpstart: str | None = None
    dns: str | None = None
    dnssearch: list[String] | None = None
    domainname: str | None = None
    ipv6_prefix: str | None = None
    ipv6_prefixlen: int | None = None
    ipv6_host: str | None = None
    ipv6_dns: str | None = None
    smb: str | None = None
    smbserver: str | None = None
    hostfwd: list[String] | None = None
    guestfwd: list[String] | None = None
    tftp_server_name: str | None = None


class NetdevTapOptions(Netdev, tag="tap"):
    """A network of the host's.

    @ifname: its interface
    @fd: descriptor of an open one
    @fds: descriptors of open ones
    @script: what is run when it is there
    @downscript: what is run before it goes
    @br: the bridge
    @helper: the program that opens it
    @sndbuf: bytes under way
    @vnet_hdr: whether packets have headers
    @vhost: whether the kernel is to do the work
    @vhostfd: descriptor of an open vhost device
    @vhostfds: descriptors of open vhost devices
    @vhostforce: whether it is to in any case
    @queues: how many queues
    @poll-us: microseconds to wait for packets
    """

    ifname: str | None = None
    fd: str | None = None
    fds: str | None = None
    script: str | None = None
    downscript: str | None = None
    br: str | None = None
    helper: str | None = None
    sndbuf: Size | None = None
    vnet_hdr: Annotated[bool | None, Wire("vnet_hdr")] = None
    vhost: bool | None = None
    vhostfd: str | None = None
    vhostfds: str | None = None
    vhostforce: bool | None = None
    queues: U32 | None = None
    poll_us: U32 | None = None


class NetdevL2TPv3Options(Netdev, tag="l2tpv3"):
    """A tunnel.

    @src: this end's address
    @dst: the other end's address
    @srcport: this end's port
    @dstport: the other end's port
    @ipv6: whether these are such addresses
    @udp: whether it goes by UDP
    @cookie64: whether cookies are long
    @counter: whether packets are counted
    @pincounter: whether the count stays 0
    @txcookie: what is written on packets
    @rxcookie: what is written on the other end's
    @txsession: this end's number
    @rxsession: the other end's number
    @offset: bytes before the packet
    """

    src: str
    dst: str
    srcport: str | None = None
    dstport: str | None = None
    ipv6: bool | None = None
    udp: bool | None = None
    cookie64: bool | None = None
    counter: bool | None = None
    pincounter: bool | None = None
    txcookie: U64 | None = None
    rxcookie: U64 | None = None
    txsession: U32
    rxsession: U32 | None = None
    offset: U32 | None = None


class NetdevSocketOptions(Netdev, tag="socket"):
    """A connection to another machine.

    @fd: descriptor of an open one
    @listen: where to wait for the other
    @connect: where the other waits
    @mcast: the address of several
    @localaddr: this end's address
    @udp: the other's address
    """

    fd: str | None = None
    listen: str | None = None
    connect: str | None = None
    mcast: str | None = None
    localaddr: str | None = None
    udp: str | None = None


class NetdevStreamOptions(Netdev, tag="stream", since="7.2"):
    """A connection to another machine.

    @addr: where
    @server: whether to wait for the other there
    """

    addr: AnySocketAddress
    server: bool | None = None


class NetdevDgramOptions(Netdev, tag="dgram", since="7.2"):
    """Packets to other machines.

    @local: this end's address
    @remote: the other end's address
    """

    local: AnySocketAddress | None = None
    remote: AnySocketAddress | None = None


class NetdevVdeOptions(Netdev, tag="vde"):
    """A switch that another program is.

    @sock: where it is
    @port: the port
    @group: the group of the socket's file
    @mode: the mode of the socket's file
    """

    sock: str | None = None
    port: U16 | None = None
    group: str | None = None
    mode: U16 | None = None


class NetdevBridgeOptions(Netdev, tag="bridge"):
    """A bridge of the host's.

    @br: the bridge
    @helper: the program that opens it
    """

    br: str | None = None
    helper: str | None = None


class NetdevHubPortOptions(Netdev, tag="hubport"):
    """A port of a hub.

    @hubid: the hub
    @netdev: the network that it leads to
    """

    hubid: I32
    netdev: str | None = None


class NetdevNetmapOptions(Netdev, tag="netmap"):
    """A fast interface of the host's.

    @ifname: its name
    @devname: the device
    """

    ifname: str
    devname: str | None = None


class NetdevVhostUserOptions(Netdev, tag="vhost-user"):
    """A program that does the work.

    @chardev: the chardev that leads to it
    @vhostforce: whether it does in any case
    @queues: how many queues
    """

    chardev: str
    vhostforce: bool | None = None
    queues: int | None = None


class NetdevVhostVDPAOptions(Netdev, tag="vhost-vdpa", since="5.1"):
    """A device of the host's that does the work.

    @vhostdev: the device
    @vhostfd: descriptor of the open device
    @queues: how many queues
    @x-svq: whether its queues are watched
    """

    vhostdev: str | None = None
    vhostfd: str | None = None
    queues: int | None = None
    x_svq: Annotated[bool | None, Since("7.1"), Features("unstable")] = None


AnyNetdev = Annotated[Netdev, NETDEV]
