"""Connections of SPICE (qapi/ui.json)."""

from blockemu.qmp_server.qapi import Struct
from blockemu.schema.displays import NetworkAddressFamily


class SpiceBasicInfo(Struct):
    """One side of a connection.

    @host: its address
    @port: its port
    @family: the kind of address
    """

    host: str
    port: str
    family: NetworkAddressFamily


class SpiceServerInfo(SpiceBasicInfo):
    """Where a display listens.

    @auth: how clients say who they are
    """

    auth: str | None = None


class SpiceChannel(SpiceBasicInfo):
    """A client's channel.

    @connection-id: the client
    @channel-type: what it is for
    @channel-id: which of these
    @tls: whether it is encrypted
    """

    connection_id: int
    channel_type: int
    channel_id: int
    tls: bool
