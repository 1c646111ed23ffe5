"""``-drive``: named backends from the older syntax.

After drive_new and blockdev_init, blockdev.c.
"""

from collections.abc import Callable
from typing import Any, Final

from blockemu.backend import Backend
from blockemu.clocks import Clocks
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.filenames import nest
from blockemu.graph import Graph
from blockemu.machine.accounting import take_accounting
from blockemu.node import Flags, Node
from blockemu.opening import Opener
from blockemu.optlist import is_on, number, parse_any
from blockemu.perm import Perm
from blockemu.records import record
from blockemu.throttling.group import ThrottleGroups
from blockemu.throttling.limits import ThrottleConfig

_RENAMED: Final = {  # in the order in which they are looked at
    **{
        f"{unit}{way}{burst}": f"throttling.{unit}-{whole}{burst.replace('_', '-')}"
        for burst in ("", "_max")
        for unit in ("iops", "bps")
        for way, whole in (("", "total"), ("_rd", "read"), ("_wr", "write"))
    },
    "iops_size": "throttling.iops-size",
    "group": "throttling.group",
    "readonly": "read-only",
}
_CACHE: Final = {  # writeback, direct, no-flush
    "off": (True, True, False),
    "none": (True, True, False),
    "directsync": (False, True, False),
    "writeback": (True, False, False),
    "unsafe": (True, False, True),
    "writethrough": (False, False, False),
}
_INTERFACES: Final = {  # and how many units a bus has, 0: there are no buses
    "none": 0,
    "ide": 2,
    "scsi": 7,
    "floppy": 0,
    "pflash": 0,
    "mtd": 0,
    "sd": 0,
    "virtio": 0,
    "xen": 0,
}
NUMBERS: Final = {"none": 0, "ide": 1, "scsi": 2, "floppy": 3, "virtio": 7}
_BOOLS: Final = ("cache.writeback", "cache.direct", "cache.no-flush", "read-only", "snapshot")
_MORE_BOOLS: Final = ("copy-on-read", "stats-account-invalid", "stats-account-failed")
_ON_OFF: Final = ("on", "off", "yes", "no", "y", "n", "true", "false")


class BadCache(QmpError):
    """No such mode."""

    template = "invalid cache option"


class NameAndAlias(QmpError):
    """(name, its older alias)."""

    template = "'{}' and its alias '{}' can't be used at the same time"


class BadAio(QmpError):
    """No such mode."""

    template = "invalid aio option"


class BadDiscard(QmpError):
    """No such mode."""

    template = "Invalid discard option"


class BadDetectZeroes(QmpError):
    """No such mode."""

    template = "invalid parameter value: {}"


class BadMedia(QmpError):
    """Neither a disk nor a CD."""

    template = "'{}' invalid media"


class BadInterface(QmpError):
    """No such interface."""

    template = "unsupported bus type '{}'"


class IndexWithUnit(QmpError):
    """Two ways to say where."""

    template = "index cannot be used with bus and unit"


class UnitTooBig(QmpError):
    """(unit, the greatest)."""

    template = "unit {} too big (max is {})"


class PlaceTaken(QmpError):
    """(bus, unit, index)."""

    template = "drive with bus={}, unit={} (index={}) exists"


class TwoDrivers(QmpError):
    """Two words for one thing."""

    template = "Cannot specify both 'driver' and 'format'"


class BadErrorAction(QmpError):
    """(action, kind of request)."""

    template = "'{}' invalid {} error action"


class ErrorActionUnsupported(QmpError):
    """(option)."""

    template = "{} is not supported by this bus type"


class DuplicateDrive(QmpError):
    """The id was given before."""

    template = "Duplicate ID '{}' for drive"


class IdTaken(QmpError):
    """A made-up name that somebody has."""

    template = "Device with id '{}' already exists"


class NameIsNode(QmpError):
    """A node has the name."""

    template = "Device name '{}' conflicts with an existing node name"


class NotYet(QmpError):
    """A feature still to come."""

    template = "'{}' is not supported yet"


@record(frozen=True)
class Place:
    """Where a drive was asked to be."""

    interface: str
    bus: int
    unit: int
    cdrom: bool


class Drives:
    """The drives of a machine: which backends are drives, and where they are."""

    def __init__(
        self, graph: Graph, opener: Opener, groups: ThrottleGroups, clocks: Clocks
    ) -> None:
        self._graph = graph
        self._clocks = clocks
        self._groups = groups
        self._opener = opener
        self.places: dict[Backend, Place] = {}
        self.temporary = False  # whether drives forget what is written unless they say otherwise
        self.units = dict(_INTERFACES)  # on a bus, by interface
        self.optional: set[Backend] = set()  # need no place
        self.homeless = ""  # the drive that the machine has no place for

    def named(self, name: str) -> Backend:
        """Return the drive of that name."""
        return self._graph.backends[name]

    def taken(self, interface: str, index: int) -> bool:
        """Tell whether a drive has the place of that number."""
        at = self._split(interface, index)
        return any(p.interface == interface and (p.bus, p.unit) == at for p in self.places.values())

    def _split(self, interface: str, index: int) -> tuple[int, int]:
        most = self.units[interface]
        return divmod(index, most) if most else (0, index)

    def forget_gone(self) -> None:
        """Drop the places of drives that are no more."""
        known = set(self._graph.backends.values())
        self.places = {b: place for b, place in self.places.items() if b in known}

    async def add_text(
        self, text: str, default: str, warn: Callable[[str], None] = lambda text: None
    ) -> Backend:
        """Make a drive of what ``-drive`` or drive_add got."""
        options = parse_any(text, warn)
        if options.get("id") in self._graph.backends:
            raise DuplicateDrive(options["id"])
        return await self.add(options, default)

    async def add(self, options: dict[str, str], default: str) -> Backend:
        """Make a drive; ``default`` is the machine's interface.

        Raises:
            QmpError: it cannot be; nothing is left of it.

        """
        given = _normal(options)
        if self.temporary:
            given.setdefault("snapshot", "on")
        cdrom = _take_media(given)
        interface = given.pop("if", default)
        if interface not in _INTERFACES:
            raise BadInterface(interface)
        place = self._place(given, interface, cdrom)
        name = given.pop("id", None) or _name(place)
        actions = _take_actions(given, interface)
        backend = await self._open(given, name)
        backend.error_actions = actions
        self.places[backend] = place
        return backend

    def _place(self, given: dict[str, str], interface: str, cdrom: bool) -> Place:
        bus, unit, index = (_take_number(given, k, d) for k, d in _PLACE.items())
        most = self.units[interface]
        if index != -1:
            if bus != 0 or unit != -1:
                raise IndexWithUnit
            bus, unit = self._split(interface, index)
        self.forget_gone()
        taken = {(p.bus, p.unit) for p in self.places.values() if p.interface == interface}
        if unit == -1:
            unit = 0
            while (bus, unit) in taken:
                unit += 1
                if most and unit >= most:
                    bus, unit = bus + 1, unit - most
        if most and unit >= most:
            raise UnitTooBig(unit, most - 1)
        if (bus, unit) in taken:
            raise PlaceTaken(bus, unit, index)
        return Place(interface, bus, unit, cdrom)

    async def _open(self, given: dict[str, str], name: str) -> Backend:
        writeback = is_on(given.pop("cache.writeback", None), default=True)
        read_only = is_on(given.pop("read-only", None))
        temporary = is_on(given.pop("snapshot", None))
        limits, group = _take_limits(given), given.pop("throttling.group", None)
        zeroes = _take_common(given)
        accounting = take_accounting(given)
        filename = given.pop("file", None) or None
        backend = Backend(name, Perm.CONSISTENT_READ, Perm.ALL)
        if filename is not None or given:
            common = {"cache.direct": "off", "cache.no-flush": "off"}
            common |= {"read-only": "on" if read_only else "off", "auto-read-only": "on"}
            plain: dict[str, Any] = nest(common | given)
            node = await self._open_node(plain, filename, temporary=temporary)
            try:
                self._graph.insert(backend, node)
            except BaseException:
                await self._graph.release(node)
                raise
            node.flags.detect_zeroes = zeroes
            node.changed()
            try:
                accounting.set_up(backend.stats, self._clocks)
            except QmpError:
                await self._graph.remove(backend)
                raise
        backend.last_medium = Flags(
            read_only=read_only,
            direct=is_on(given.get("cache.direct")),
            no_flush=is_on(given.get("cache.no-flush")),
            unmap=given.get("discard") in ("on", "unmap"),
            detect_zeroes=zeroes,
        )
        backend.write_cache = writeback
        if limits.limits_anything:
            await backend.limit(self._groups.get(name if group is None else group))
            assert backend.throttle is not None
            backend.throttle.group.configure(limits)
        try:
            self._enter(backend)
        except QmpError:
            await self._graph.remove(backend)
            raise
        return backend

    async def _open_node(
        self, options: dict[str, Any], filename: str | None, *, temporary: bool
    ) -> Node[Any]:
        flags = Flags(inactive=self._graph.incoming)
        if not temporary:
            return await self._opener.open(options, filename=filename, flags=flags)
        from blockemu.temporary import open_temporary  # start-up: seldom asked for

        options.pop("auto-read-only")
        return await open_temporary(self._opener, filename, options, flags=flags)

    def _enter(self, backend: Backend) -> None:
        if backend.title in self._graph.backends:
            raise IdTaken(backend.title)
        if backend.title in self._graph.nodes:
            raise NameIsNode(backend.title)
        self._graph.backends[backend.title] = backend


_PLACE: Final = {"bus": 0, "unit": -1, "index": -1}


def _normal(options: dict[str, str]) -> dict[str, str]:
    """Give each option its newer name; spell the cache mode out; check bools."""
    for alias, name in _RENAMED.items():
        if alias in options and name in options:
            raise NameAndAlias(name, alias)
    given = {_RENAMED.get(key, key): value for key, value in options.items()}
    mode = given.pop("cache", None)
    if mode is not None:
        if mode not in _CACHE:
            raise BadCache
        words = ("cache.writeback", "cache.direct", "cache.no-flush")
        for key, value in zip(words, _CACHE[mode], strict=True):
            given.setdefault(key, "on" if value else "off")
    for key in (*_BOOLS, *_MORE_BOOLS):
        if given.get(key, "on") not in _ON_OFF:
            raise InvalidParameterValue(key, "'on' or 'off'")
    return given


def _take_media(given: dict[str, str]) -> bool:
    media = given.pop("media", "disk")
    if media not in ("disk", "cdrom"):
        raise BadMedia(media)
    if media == "cdrom":
        given["read-only"] = "on"
    return media == "cdrom"


def _take_number(given: dict[str, str], key: str, default: int) -> int:
    text = given.pop(key, None)
    if text is None:
        return default
    value = number(text)
    if value is None:
        raise InvalidParameterValue(key, "a number")
    return value


def _name(place: Place) -> str:
    """Make a name up, such as ide0-hd1."""
    media = ("-cd" if place.cdrom else "-hd") if place.interface in ("ide", "scsi") else ""
    bus = str(place.bus) if _INTERFACES[place.interface] else ""
    return f"{place.interface}{bus}{media}{place.unit}"


_ACTIONS: Final = ("ignore", "stop", "report", "enospc")


def _take_actions(given: dict[str, str], interface: str) -> tuple[str, str]:
    """Return what to do about errors of reads and of writes."""
    found = []
    for key, kind, default in (("werror", "write", "enospc"), ("rerror", "read", "report")):
        action = given.pop(key, None)
        if action is not None and interface not in ("ide", "scsi", "virtio", "none"):
            raise ErrorActionUnsupported(key)
        if action is not None and action not in _ACTIONS[: 4 if kind == "write" else 3]:
            raise BadErrorAction(action, kind)
        found.append(action or default)
    write, read = found
    return read, write


def _take_common(given: dict[str, str]) -> str:
    """Take what is about the backend; return whether zeroes are to be detected."""
    aio = given.pop("aio", "threads")
    if aio not in ("threads", "native", "io_uring"):
        raise BadAio
    zeroes = given.pop("detect-zeroes", "off")
    if zeroes not in ("off", "on", "unmap"):
        raise BadDetectZeroes(zeroes)
    if is_on(given.pop("copy-on-read", None)):
        raise NotYet("copy-on-read=on")
    tag = given.pop("format", None)
    if tag is not None and "driver" in given:
        raise TwoDrivers
    if tag is not None:
        given["driver"] = tag
    if given.get("discard", "off") not in ("off", "ignore", "on", "unmap"):
        raise BadDiscard
    return zeroes


def _take_limits(given: dict[str, str]) -> ThrottleConfig:
    """Take the drive's limits."""
    limits = ThrottleConfig()
    values = {
        name: _take_number(given, f"throttling.{name}", limits.values[name])
        for name in limits.values
    }
    limits = limits.change(values)
    limits.check()
    return limits
