"""Networks that a machine's cards may be on."""

from blockemu.commands.context import Context
from blockemu.errors import DeviceNotFound, QmpError
from blockemu.machine.networks import Card
from blockemu.qmp_server.dispatch import command
from blockemu.schema.machine_reports import RxFilterInfo, RxState
from blockemu.schema.networks import AnyNetdev


class NoNetwork(QmpError):
    """(name)."""

    template = "invalid net client name: {}"


class NoCard(QmpError):
    """(name)."""

    template = "net client({}) isn't a NIC"


class NoFilter(QmpError):
    """(name)."""

    template = "net client({}) doesn't support rx-filter querying"


@command(name="netdev_add", since="0.14", allow_preconfig=True)
def netdev_add(context: Context, options: AnyNetdev) -> None:
    """Make a network."""
    context.emu.networks.add(options)


@command(name="netdev_del", since="0.14", allow_preconfig=True)
def netdev_del(context: Context, *, id: str) -> None:
    """Remove a network.

    @id: its name
    """
    context.emu.networks.remove(id)


@command(name="set_link", since="0.14")
def set_link(context: Context, *, name: str, up: bool) -> None:
    """Plug a network cable in, or out; nothing goes through either way.

    @name: the card or the network
    @up: whether it is in
    """
    networks = context.emu.networks
    if name not in networks.known and not any(c.name == name for c in networks.cards.values()):
        raise DeviceNotFound(name)


@command(since="1.6")
def query_rx_filter(context: Context, *, name: str | None = None) -> list[RxFilterInfo]:
    """Tell what network cards take, of which only virtio's say so.

    @name: the card
    """
    networks = context.emu.networks
    cards = [card for card in networks.cards.values() if name in (None, card.name)]
    found = [_filter(card) for card in cards if card.model.startswith("virtio-net")]
    if name is not None and not found:
        if cards:
            raise NoFilter(name)
        raise (NoCard if name in networks.known else NoNetwork)(name)
    return found


def _filter(card: Card) -> RxFilterInfo:
    """Describe a card that no driver has set up: it takes all (virtio_net_query_rxfilter)."""
    return RxFilterInfo(
        name=card.name,
        promiscuous=True,
        multicast=RxState.NORMAL,
        unicast=RxState.NORMAL,
        vlan=RxState.ALL,
        broadcast_allowed=False,
        multicast_overflow=False,
        unicast_overflow=False,
        main_mac=card.address,
        vlan_table=list(range(4095, -1, -1)),
        unicast_table=[],
        multicast_table=[],
    )
