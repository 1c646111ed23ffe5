"""Switches for tests of networks (qapi/rocker.json)."""

from blockemu.qmp_server.qapi import U8, U16, U32, U64, QEnum, Struct


class RockerSwitch(Struct):
    """A switch.

    @name: its name
    @id: its number
    @ports: how many ports it has
    """

    name: str
    id: U64
    ports: U32


class RockerPortDuplex(QEnum):
    """Whether a port sends and receives at a time."""

    HALF = "half"
    FULL = "full"


class RockerPortAutoneg(QEnum):
    """Whether a port finds out how fast it may be."""

    OFF = "off"
    ON = "on"


class RockerPort(Struct):
    """A port of a switch.

    @name: its name
    @enabled: whether it is used
    @link-up: whether somebody is there
    @speed: megabits a second
    @duplex: whether it sends and receives at a time
    @autoneg: whether it finds out how fast it may be
    """

    name: str
    enabled: bool
    link_up: bool
    speed: U32
    duplex: RockerPortDuplex
    autoneg: RockerPortAutoneg


class RockerOfDpaFlowKey(Struct):
    """What a flow's packets are known by.

    @priority: which flow comes first
    @tbl-id: the table it is in
    @in-pport: the port that they come by
    @tunnel-id: their tunnel
    @vlan-id: their virtual network
    @eth-type: their type
    @eth-src: who sends them
    @eth-dst: who is to get them
    @ip-proto: their protocol
    @ip-tos: their type of service
    @ip-dst: the address that is to get them
    """

    priority: U32
    tbl_id: U32
    in_pport: U32 | None = None
    tunnel_id: U32 | None = None
    vlan_id: U16 | None = None
    eth_type: U16 | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    ip_proto: U8 | None = None
    ip_tos: U8 | None = None
    ip_dst: str | None = None


class RockerOfDpaFlowMask(Struct):
    """Which bits of these are looked at.

    @in-pport: of the port
    @tunnel-id: of the tunnel
    @vlan-id: of the virtual network
    @eth-src: of the sender
    @eth-dst: of the receiver
    @ip-proto: of the protocol
    @ip-tos: of the type of service
    """

    in_pport: U32 | None = None
    tunnel_id: U32 | None = None
    vlan_id: U16 | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    ip_proto: U8 | None = None
    ip_tos: U8 | None = None


class RockerOfDpaFlowAction(Struct):
    """What becomes of a flow's packets.

    @goto-tbl: the table that is asked next
    @group-id: the group that they go to
    @tunnel-lport: the port of a tunnel
    @vlan-id: the virtual network that they go to
    @new-vlan-id: the virtual network that is written on them
    @out-pport: the port that they leave by
    """

    goto_tbl: U32 | None = None
    group_id: U32 | None = None
    tunnel_lport: U32 | None = None
    vlan_id: U16 | None = None
    new_vlan_id: U16 | None = None
    out_pport: U32 | None = None


class RockerOfDpaFlow(Struct):
    """A flow.

    @cookie: its number
    @hits: packets so far
    @key: what they are known by
    @mask: which bits of that are looked at
    @action: what becomes of them
    """

    cookie: U64
    hits: U64
    key: RockerOfDpaFlowKey
    mask: RockerOfDpaFlowMask
    action: RockerOfDpaFlowAction


class RockerOfDpaGroup(Struct):
    """What packets of several flows have in common.

    @id: its number
    @type: its kind
    @vlan-id: their virtual network
    @pport: a port
    @index: which of its kind it is
    @out-pport: the port that they leave by
    @group-id: the group that comes next
    @set-vlan-id: the virtual network that is written on them
    @pop-vlan: whether that is taken off
    @group-ids: the groups that come next
    @set-eth-src: the sender that is written on them
    @set-eth-dst: the receiver that is written on them
    @ttl-check: whether it is looked at how far they went
    """

    id: U32
    type: U8
    vlan_id: U16 | None = None
    pport: U32 | None = None
    index: U32 | None = None
    out_pport: U32 | None = None
    group_id: U32 | None = None
    set_vlan_id: U16 | None = None
    pop_vlan: U8 | None = None
    group_ids: list[U32] | None = None
    set_eth_src: str | None = None
    set_eth_dst: str | None = None
    ttl_check: U8 | None = None
