"""From QAPI values to plain JSON values, and the check that they fit their own types."""

import enum
from typing import Any

from blockemu.qmp_server.declare import ABSENT, Alternate, Struct, bare, fields
from blockemu.qmp_server.invalid import InvalidInput
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.qenum import QEnum
from blockemu.qmp_server.visit import OUTPUT, compiled

_PLAIN = frozenset({str, int, bool, float, type(None)})
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
            (member.name, member.wire, member.optional and not _nullable(member.hint))
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
