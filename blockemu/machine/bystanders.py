"""Devices that have nothing to do with disks: they are plugged in, looked at, and do nothing.

What they are is a table (``type_facts``), read when one of them is first named.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from blockemu.errors import InvalidParameterValue
from blockemu.machine.device_errors import UnknownDevice
from blockemu.machine.pci import PciFacts, Region
from blockemu.machine.properties import Level, Spec
from blockemu.machine.type_facts import Row, device_facts, is_a, known_types, line_of, own_rows
from blockemu.machine.types import BY_NAME, DeviceType
from blockemu.qmp_server.qapi import ABSENT

_KINDS: Final = {
    "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56": "macaddr",
    "ID of a netdev to use as a backend": "netdev",
    "ID of a chardev to use as a backend": "chardev",
    "ID of an audiodev to use as a backend": "audiodev",
    "Node name or ID of a block device to use as a backend": "drive",
    "Slot and optional function number, example: 06.0 or 06": "devfn",
}


def find_type(name: str, *, running: bool) -> DeviceType:
    """Return the type of devices of a name; ``running``: for one that is plugged in later.

    Raises:
        QmpError: there are none, or none that could be plugged in.

    """
    model = BY_NAME.get(name)
    if model is not None:
        return model
    name = _by_alias().get(name, name)
    known = known_types().get(name)
    if known is None or not is_a(name, "device"):
        raise UnknownDevice(name)
    if known.abstract:
        raise InvalidParameterValue("driver", "a non-abstract device type")
    facts = device_facts().get(name)
    if facts is None or (running and facts.get("fixed")):
        raise InvalidParameterValue("driver", "a pluggable device type")
    return bystander(name)


@cache
def _by_alias() -> Mapping[str, str]:
    return {facts["alias"]: name for name, facts in device_facts().items() if "alias" in facts}


@cache
def bystander(name: str) -> DeviceType:
    """Return a type of devices that do nothing."""
    facts = device_facts().get(name, {})
    inner = bystander(facts["inner"]) if "inner" in facts else None
    if inner is not None:
        inner = inner._replace(
            settled=facts.get("inner_settled", {}), extra=_extra(facts.get("inner_extra", ()))
        )
    behind = set(inner.properties) if inner is not None else set()
    rows = own_rows(name)
    return DeviceType(
        name,
        facts.get("bus", ""),
        _levels(name),
        inner=inner,
        pci=_pci(facts["pci"]) if "pci" in facts else None,
        wires=tuple(facts.get("wires", ())),
        boots=tuple(
            row.name for row in rows if row.name.startswith("bootindex") and row.name not in behind
        ),
        extra=_extra(facts.get("extra", ())),
        buses=tuple(tuple(each.rsplit(" ", 1)) for each in facts.get("buses", ())),
        settled=facts.get("settled", {}),
        tail=_tail(next(iter(facts.get("tail", ())), "")),
        refusal=facts.get("refusal", ""),
        hotplug=not facts.get("fixed"),
        does_nothing=True,
    )


def _extra(rows: Iterable[tuple[str, str, Any]]) -> tuple[Spec, ...]:
    return tuple(Spec(n, "chardev" if n == "chardev" else kind, value) for n, kind, value in rows)


def _tail(text: str) -> str:
    """Return what a bus says of a device, with names for what depends on its place."""
    text = text.replace("addr 0.0, port 1, speed", "addr {bus}.0, port {where}, speed")
    text = text.replace("speed 480", "speed {high}")
    return re.sub(r"^port \d+", "port {nr}", text)


def _levels(name: str) -> tuple[Level, ...]:
    found = []
    for each in line_of(name):
        if each.name == "device":
            break
        found.append(Level(each.name, _specs(own_rows(each.name)), abstract=each.abstract))
    return tuple(found)


def _specs(rows: tuple[Row, ...]) -> tuple[Spec, ...]:
    """Return what can be set, in the order in which ``info qtree`` has it, links at last."""
    ranked = sorted((row for row in rows if row.rank >= 0), key=lambda row: row.rank)
    names = {row.name for row in rows}
    links = [row for row in rows if f"legacy-{row.name}" in names and row.rank < 0]
    return tuple(_spec(row) for row in (*ranked, *links))


def _spec(row: Row) -> Spec:
    kind = _KINDS.get(row.description or "", row.type)
    if row.type == "bool" and row.description == "on/off":
        kind = "bit"
    return Spec(row.name, kind, _default(row))


def _default(row: Row) -> Any:
    if row.default is not ABSENT:
        return row.default
    return None if row.type in ("str", "bool") or row.type.startswith("link<") else 0


def _pci(facts: Mapping[str, Any]) -> PciFacts:
    (vendor, number), (subvendor, subnumber) = facts["id"], facts["sub"]
    return PciFacts(
        facts["class"],
        vendor,
        number,
        subvendor,
        subnumber,
        interrupts=bool(facts["pin"]),
        regions=tuple(Region(*each) for each in facts["regions"]),
        pin=facts["pin"],
        closed=facts["closed"],
    )
