"""From QAPI values to plain JSON values, and the check that they fit their own types."""

import enum
from typing import Any

from blockemu.qmp_server.declare import ABSENT, Alternate, Member, Struct, bare, fields
from blockemu.qmp_server.invalid import InvalidInput
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.qdict import encode, quote
from blockemu.qmp_server.qenum import QEnum
from blockemu.qmp_server.visit import OUTPUT, compiled

_PLAIN = frozenset({str, int, bool, float, type(None)})
_shapes: dict[tuple[type[Struct], Profile], list[tuple[str, str, bool]]] = {}
_tables: dict[tuple[type[Struct], Profile], list[tuple[str, str, bool]]] = {}


class SelfCheckError(Exception):
    """A reply or event of ours does not fit its own type."""


def dump(value: Any, profile: Profile = ALL) -> Any:
    """Return ``value`` as plain JSON value, without what is absent or hidden by the profile."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return [dump(item, profile) for item in value]
    if isinstance(value, Struct):
        return _dump_struct(value, profile)
    if isinstance(value, dict):
        return {str(key): dump(item, profile) for key, item in value.items()}
    if isinstance(value, QEnum | enum.Enum):
        return value.value
    if isinstance(value, int):  # an IntEnum, a bool of numpy's ...
        return int(value)
    raise TypeError(f"not a QAPI value: {value!r}")


def _dump_struct(value: Struct, profile: Profile) -> dict[str, Any]:
    kind = type(value)
    table = _tables.get((kind, profile))
    if table is None:
        table = _tables[kind, profile] = [
            (member.name, member.wire, _none_is_absent(member))
            for member in fields(kind).values()
            if not profile.hides(member.life)
        ]
    out: dict[str, Any] = {}
    if kind.tag is not None and kind.union is not None:
        out[kind.union.discriminator] = kind.tag
    for name, wire, none_is_absent in table:
        item = getattr(value, name)
        if item is None:
            if not none_is_absent:
                out[wire] = None
        elif item is not ABSENT:
            out[wire] = item if type(item) in _PLAIN else dump(item, profile)
    return out


def text(value: Any, profile: Profile = ALL) -> str:
    """Return what ``encode(dump(value))`` would, in half the time."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind in _PLAIN:
        return encode(value)
    if kind is list:
        return "[" + ", ".join([text(item, profile) for item in value]) + "]"
    if isinstance(value, Struct):
        return _struct_text(value, profile)
    return encode(dump(value, profile))


def _struct_text(value: Struct, profile: Profile) -> str:
    kind = type(value)
    shape = _shapes.get((kind, profile))
    if shape is None:
        shape = _shapes[kind, profile] = _make_shape(kind, profile)
    parts = []
    for name, key, none_is_absent in shape:
        if not name:
            parts.append(key)
            continue
        item = getattr(value, name)
        if type(item) is str:
            parts.append(key + quote(item))
        elif type(item) is int:
            parts.append(f"{key}{item}")
        elif item is None:
            if not none_is_absent:
                parts.append(key + "null")
        elif item is not ABSENT:
            parts.append(key + text(item, profile))
    return "{" + ", ".join(parts) + "}"


def _make_shape(kind: type[Struct], profile: Profile) -> list[tuple[str, str, bool]]:
    """Return the members in printed order; without a name: the discriminator, printed."""
    rows = {
        member.wire: (member.name, f"{quote(member.wire)}: ", _none_is_absent(member))
        for member in fields(kind).values()
        if not profile.hides(member.life)
    }
    if kind.tag is not None and kind.union is not None:
        discriminator = kind.union.discriminator
        tag = "", f"{quote(discriminator)}: {quote(kind.tag)}", False
        rows = {discriminator: tag} | rows
    return [rows[wire] for wire in in_order(rows)]


def _none_is_absent(member: Member) -> bool:
    return member.optional and not _nullable(member.hint)


def _nullable(hint: Any) -> bool:
    """Tell whether null is a value of the type: then an absent member is ABSENT, not None."""
    plain, _ = bare(hint) if hint is not type(None) else (None, ())
    if isinstance(plain, Alternate):
        return any(choice in (None, type(None)) for choice in plain.choices)
    return plain in (None, type(None), Any)


def check(hint: Any, value: Any, profile: Profile = ALL) -> None:
    """Raise SelfCheckError unless the plain JSON ``value`` fits ``hint``."""
    if hint is None or hint is type(None):
        if value not in (None, {}):
            raise SelfCheckError(f"nothing expected, not {value!r}")
        return
    try:
        compiled(hint, profile, OUTPUT)(value)
    except InvalidInput as e:
        raise SelfCheckError(f"{e} (in {value!r}, of type {hint!r})") from e
