"""Networks that a machine's cards may be on: names, since no card here sends anything.

A network that the program plays (``user``) is empty, and hubs lead to nobody.  What would reach the
host is refused as by a QEMU that was built without it.  After net_client_init1, net/net.c, and
net_slirp_init, net/slirp.c, which says what the addresses may be.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final

from blockemu.errors import DeviceNotFound, MissingParameter, QmpError
from blockemu.optlist import is_identifier, parse_any
from blockemu.qmp_server.keyval import parse_json
from blockemu.qmp_server.qapi import replace, visit
from blockemu.records import field, record
from blockemu.schema.networks import AnyNetdev, Netdev, NetdevHubPortOptions, NetdevUserOptions

_NET: Final = "10.0.2.0/24"
_PREFIX: Final = "fec0::"
_LONGEST_NAME: Final = 255


_LISTS: Final = ("dnssearch", "hostfwd", "guestfwd")


class DuplicateName(QmpError):
    """(name)."""

    template = "Duplicate ID '{}'"


class BadName(QmpError):
    """No identifier."""

    template = "Parameter 'id' expects an identifier"


class NotBuilt(QmpError):
    """(kind)."""

    template = "network backend '{}' is not compiled into this binary"


class NoNetdev(QmpError):
    """(name)."""

    template = "netdev '{}' not found"


class BadAddress(QmpError):
    """(what is wrong)."""

    template = "{}"


class NoForwarding(QmpError):
    """(rule): nobody on the network would answer."""

    template = "Could not set up host forwarding rule '{}'"


class NoGuestForwarding(QmpError):
    """(rule)."""

    template = "Could not set up guest forwarding rule '{}'"


@record
class Network:
    """A network: ``text`` is what lists say of it; ``hub`` and ``peer`` where a port leads."""

    name: str
    text: str = ""
    hub: int | None = None
    peer: str = ""
    card: Any = None  # the device that is on it
    order: int = 0


@record
class Card:
    """A network card: its name, its type and address, and where it leads."""

    name: str
    model: str
    address: str
    peer: Network | None = None
    order: int = 0

    @property
    def text(self) -> str:
        """What lists say of it."""
        return f"index=0,type=nic,model={self.model},macaddr={self.address}"


@record
class Networks:
    """All of them, in the order in which they came."""

    known: dict[str, Network] = field(default_factory=dict)
    hubs: list[int] = field(default_factory=list)  # that ever had a port
    cards: dict[Any, Card] = field(default_factory=dict)  # by device
    _made: int = 0

    def add(self, options: Netdev) -> None:
        """Make a network.

        Raises:
            QmpError: it cannot be made.

        """
        name = options.id
        if not is_identifier(name):
            raise BadName
        if name in self.known:
            raise DuplicateName(name)
        if isinstance(options, NetdevUserOptions):
            self.known[name] = Network(name, _user(options))
        elif isinstance(options, NetdevHubPortOptions):
            peer = options.netdev or ""
            if peer and peer not in self.known:
                raise NoNetdev(peer)
            self.known[name] = Network(name, hub=options.hubid, peer=peer)
            if options.hubid not in self.hubs:
                self.hubs.append(options.hubid)
        else:
            raise NotBuilt(options.tag)
        self.known[name].order = self._next()

    def _next(self) -> int:
        self._made += 1
        return self._made

    def seat(self, device: Any, name: str, model: str, address: str) -> None:
        """Take note of a card; one without a name is called by its type."""
        peer = next((each for each in self.known.values() if each.card is device), None)
        like = sum(each.model == model for each in self.cards.values())
        name = name or f"{model}.{like}"
        self.cards[device] = Card(name, model, address, peer, self._next())

    def unseat(self, device: Any) -> None:
        """Forget a card."""
        self.cards.pop(device, None)
        for network in self.known.values():
            if network.card is device:
                network.card = None

    def accept(self, options: Netdev) -> None:
        """Make a network that a machine begins with; what it would do does not matter.

        Raises:
            QmpError: there is one of the name, or the name is none.

        """
        if isinstance(options, NetdevUserOptions):
            options = replace(options, hostfwd=None, guestfwd=None)
        try:
            self.add(options)
        except NotBuilt:
            text = f"index=0,type={options.tag}"
            self.known[options.id] = Network(options.id, text, order=self._next())

    def remove(self, name: str) -> None:
        """Take a network away.

        Raises:
            DeviceNotFound: there is none of the name.

        """
        if self.known.pop(name, None) is None:
            raise DeviceNotFound(name)

    def played(self) -> Iterator[Network]:
        """Yield those that the program plays."""
        return (each for each in self.known.values() if "type=user" in each.text)

    def hub_of(self, name: str) -> int:
        """Return the hub that a network leads to; -1 if to none."""
        return next(
            (e.hub for e in self.known.values() if e.peer == name and e.hub is not None), -1
        )

    def describe(self) -> str:
        """Return what ``info network`` shows: hubs, then what leads to none."""
        ports: dict[int, list[str]] = {number: [] for number in self.hubs}
        shown = set()
        for each in self.known.values():
            if each.hub is None:
                continue
            peer = self.known.get(each.peer)
            shown.add(each.peer)
            after = f": {_row(peer)}" if peer else "\n"
            ports[each.hub].insert(0, f" \\ {each.name}{after}")
        parts = [f"hub {number}\n{''.join(rows)}" for number, rows in reversed(ports.items())]
        alone: list[Network | Card] = [
            e
            for e in self.known.values()
            if e.hub is None and e.name not in shown and e.card is None
        ]
        for each_one in sorted([*alone, *self.cards.values()], key=lambda one: one.order):
            parts.append(_row(each_one))
            if isinstance(each_one, Card) and each_one.peer is not None:
                parts.append(f" \\ {_row(each_one.peer)}")
        return "".join(parts)


def _row(each: Network | Card) -> str:
    return f"{each.name}: {each.text}\n"


def _user(options: NetdevUserOptions) -> str:
    _check_kinds(options)
    net = _check_addresses(options)
    _check_long_addresses(options)
    _check_names(options)
    for rule in options.hostfwd or ():
        raise NoForwarding(rule.str_)
    for rule in options.guestfwd or ():
        raise NoGuestForwarding(rule.str_)
    return f"index=0,type=user,net={net.network_address},restrict={_switch(options.restrict)}"


def _check_kinds(options: NetdevUserOptions) -> None:
    """Refuse addresses of a kind that there is none of; who wants one kind has no other."""
    short = options.ipv4 is not False and not (options.ipv6 and options.ipv4 is None)
    long = options.ipv6 is not False and not (options.ipv4 and options.ipv6 is None)
    if not short and (options.net or options.ip or options.host or options.dns):
        raise BadAddress("IPv4 disabled but netmask/host/dns provided")
    if not long and (options.ipv6_prefix or options.ipv6_host or options.ipv6_dns):
        raise BadAddress("IPv6 disabled but prefix/host6/dns6 provided")
    if not short and not long:
        raise BadAddress("IPv4 and IPv6 disabled")


def _switch(value: bool | None) -> str:
    return "on" if value else "off"


def _network(text: str) -> ipaddress.IPv4Network:
    address, _, mask = text.partition("/")
    try:
        base = ipaddress.IPv4Address(address)
    except ValueError:
        raise BadAddress("Failed to parse netmask") from None
    if mask.isdigit() and not 4 <= int(mask) <= 32:
        raise BadAddress("Invalid netmask provided (must be in range 4-32)")
    try:
        return ipaddress.IPv4Network(f"{base}/{mask or _usual_mask(base)}", strict=False)
    except ValueError:
        raise BadAddress("Failed to parse netmask (trailing chars)") from None


def _usual_mask(base: ipaddress.IPv4Address) -> int:
    """Return how many bits name the network, by the address alone."""
    usual = ("0.0.0.0/1", 8), ("172.16.0.0/12", 12), ("192.168.0.0/16", 16), ("128.0.0.0/2", 16)
    more = ("198.18.0.0/15", 15), ("224.0.0.0/3", 24)
    found = (bits for net, bits in (*usual, *more) if base in ipaddress.IPv4Network(net))
    return next(found, 28)


def _short(text: str | None, otherwise: ipaddress.IPv4Address, what: str) -> ipaddress.IPv4Address:
    if text is None:
        return otherwise
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise BadAddress(f"Failed to parse {what}") from None


def _check_addresses(options: NetdevUserOptions) -> ipaddress.IPv4Network:
    ip = None if options.ip is None else f"{options.ip}/24"
    net = _network(options.net or ip or _NET)
    places = [
        ipaddress.IPv4Address(int(net.network_address) | (low & int(net.hostmask)))
        for low in (0x0202, 0x0203, 0x020F)
    ]
    host = _short(options.host, places[0], "host")
    if host not in net:
        raise BadAddress("Host doesn't belong to network")
    dns = _short(options.dns, places[1], "DNS")
    if options.restrict and dns not in net:
        raise BadAddress("DNS doesn't belong to network")
    if dns == host:
        raise BadAddress("DNS must be different from host")
    dhcp = _short(options.dhcpstart, places[2], "DHCP start address")
    if dhcp not in net:
        raise BadAddress("DHCP doesn't belong to network")
    if dhcp in (host, dns):
        raise BadAddress("DHCP must be different from host and DNS")
    return net


def _long(text: str, what: str) -> ipaddress.IPv6Address:
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise BadAddress(f"Failed to parse IPv6 {what}") from None


def _check_long_addresses(options: NetdevUserOptions) -> None:
    prefix = _long(options.ipv6_prefix or _PREFIX, "prefix")
    length = options.ipv6_prefixlen or 64
    if not 0 <= length <= 126:
        raise BadAddress(
            "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)"
        )
    net = ipaddress.IPv6Network(f"{prefix}/{length}", strict=False)
    if options.ipv6_host is not None and _long(options.ipv6_host, "host") not in net:
        raise BadAddress("IPv6 Host doesn't belong to network")
    if options.ipv6_dns is not None:
        inside = _long(options.ipv6_dns, "DNS") in net
        if options.restrict and not inside:
            raise BadAddress("IPv6 DNS doesn't belong to network")


def _check_names(options: NetdevUserOptions) -> None:
    if options.domainname == "":
        raise BadAddress("'domainname' parameter cannot be empty")
    names = (
        ("domainname", options.domainname),
        ("vhostname", options.hostname),
        ("tftp-server-name", options.tftp_server_name),
    )
    for name, value in names:
        if value is not None and len(value.encode()) > _LONGEST_NAME:
            raise BadAddress(f"'{name}' parameter cannot exceed 255 bytes")


def read_netdev(options: Mapping[str, str]) -> Any:
    """Return the network that options describe.

    Raises:
        ProtocolError: they describe none.

    """
    found: dict[str, Any] = dict(options)
    for key in _LISTS:
        if key in found:
            found[key] = [{"str": found[key]}]
    return visit(AnyNetdev, found, keyval=True)


def parse_netdev(text: str) -> Any:
    """Return the network that an option describes, which may be JSON.

    Raises:
        ProtocolError: it describes none.
        QmpError: it has no name, or is no list of options.

    """
    if text.startswith("{"):
        return visit(AnyNetdev, parse_json(text))
    given = parse_any(text, lambda _: None, "type")
    if "id" not in given:
        raise MissingParameter("id")
    return read_netdev(given)
