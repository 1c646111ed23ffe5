"""The drivers by name, each imported when it is asked for; guessing an image's format."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from blockemu.node import Node

Drivers = Mapping[str, type[Node[Any]]]

SURE: Final = 100  # what a driver answers that knows the image


class Late(NamedTuple):
    """What must be known of a driver to leave it alone until it is needed."""

    module: str  # in ``blockemu.drivers``
    protocols: tuple[str, ...] = ()  # as the driver's own
    magic: tuple[int, bytes] | None = None  # (offset, bytes): ``probe`` says 0 to other images
    # Which of ``probe`` and ``probe_device`` the driver has; the latter is for special files only.
    probes: tuple[str, ...] = ()


class Catalog(Drivers):
    """Drivers that ``load(tag)`` brings when they are first looked up, and those that are there.

    Names, and who is to be asked about a file, are known without any import.
    """

    def __init__(
        self,
        late: Mapping[str, Late],
        load: Callable[[str], type[Node[Any]]],
        there: Drivers,
    ) -> None:
        self._late = {tag: entry for tag, entry in late.items() if tag not in there}
        self._load = load
        self._there = dict(there)
        self._names = dict.fromkeys((*late, *there))

    def __getitem__(self, tag: str) -> type[Node[Any]]:
        if tag not in self._names:
            raise KeyError(tag)
        found = self._there.get(tag)
        if found is None:
            found = self._there[tag] = self._load(tag)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, tag: object) -> bool:
        return tag in self._names

    def with_probe(self, head: bytes) -> Iterator[str]:
        """Yield those that may have ``probe``, and may know a beginning."""
        for tag in self._names:
            entry = self._late.get(tag)
            if entry is None or ("probe" in entry.probes and _begins(entry, head)):
                yield tag

    def with_device_probe(self, filename: str) -> Iterator[str]:
        """Yield those that may have ``probe_device``, and may know a file."""
        special = _is_special(filename)
        for tag in self._names:
            entry = self._late.get(tag)
            if entry is None or (special and "probe_device" in entry.probes):
                yield tag

    def with_protocol(self, protocol: str) -> Iterator[str]:
        """Yield those that may have a protocol."""
        for tag in self._names:
            entry = self._late.get(tag)
            if entry is None or protocol in entry.protocols:
                yield tag


def _begins(entry: Late, head: bytes) -> bool:
    return entry.magic is None or head.startswith(entry.magic[1], entry.magic[0])


def probe(head: bytes, filename: str, drivers: Drivers) -> str:
    """Guess the format of an image by its first bytes: the name of the surest driver.

    A format's ``probe(head, filename)`` answers how sure it is, 0 to 100.
    """
    tags = drivers.with_probe(head) if isinstance(drivers, Catalog) else drivers
    scores: dict[str, int] = {}
    for tag, driver in _picked(tags, drivers):
        if hasattr(driver, "probe"):
            scores[tag] = driver.probe(head, filename)
            if scores[tag] == SURE:
                break
    return max(scores, key=lambda tag: scores[tag])


def probe_device(filename: str, drivers: Drivers) -> str | None:
    """Return the driver for what a file name is on the host, None if it is nothing special.

    A driver's ``probe_device(filename)`` answers how sure it is; 0 is not at all.
    """
    best, surest = 0, None
    tags = drivers.with_device_probe(filename) if isinstance(drivers, Catalog) else drivers
    for tag, driver in _picked(tags, drivers):
        score = driver.probe_device(filename) if hasattr(driver, "probe_device") else 0
        if score > best:
            best, surest = score, tag
    return surest


def _is_special(filename: str) -> bool:
    try:
        return filename.startswith("/dev/") or not S_ISREG(os.stat(filename).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def of_protocol(protocol: str, drivers: Drivers) -> str | None:
    """Return the driver of file names that begin with a protocol, None if there is none."""
    tags = drivers.with_protocol(protocol) if isinstance(drivers, Catalog) else drivers
    return next((tag for tag, d in _picked(tags, drivers) if protocol in d.protocols), None)


def _picked(tags: Iterable[str], drivers: Drivers) -> Iterator[tuple[str, type[Node[Any]]]]:
    return ((tag, drivers[tag]) for tag in tags)
