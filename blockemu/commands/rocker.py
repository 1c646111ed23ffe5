"""Switches for tests of networks: the machine has none."""

from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import U8, U32
from blockemu.schema.rocker import RockerOfDpaFlow, RockerOfDpaGroup, RockerPort, RockerSwitch


class NoSwitch(QmpError):
    """(name)."""

    template = "rocker {} not found"


@command(since="2.4")
def query_rocker(context: Context, *, name: str) -> RockerSwitch:
    """Describe a switch.

    @name: the switch
    """
    raise NoSwitch(name)


@command(since="2.4")
def query_rocker_ports(context: Context, *, name: str) -> list[RockerPort]:
    """List a switch's ports.

    @name: the switch
    """
    raise NoSwitch(name)


@command(since="2.4")
def query_rocker_of_dpa_flows(
    context: Context, *, name: str, tbl_id: U32 | None = None
) -> list[RockerOfDpaFlow]:
    """List a switch's flows.

    @name: the switch
    @tbl-id: the table that they are in
    """
    raise NoSwitch(name)


@command(since="2.4")
def query_rocker_of_dpa_groups(
    context: Context, *, name: str, type: U8 | None = None
) -> list[RockerOfDpaGroup]:
    """List a switch's groups.

    @name: the switch
    @type: their kind
    """
    raise NoSwitch(name)
