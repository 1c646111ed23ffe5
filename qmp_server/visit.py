"""From JSON values to instances of QAPI types, refusing what does not fit in QEMU's words.

A hint is compiled once into a function from value to instance; ``visit`` looks it up.  Three modes:
"json" for QMP, "keyval" for strings from a command line (after util/keyval.c and
qobject_input_visitor_new_keyval), "output" for the check of our own replies.
"""

import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from blockemu.qmp_server import scalars
from blockemu.qmp_server.declare import (
    INT,
    Alternate,
    Integer,
    Member,
    Struct,
    Union,
    bare,
    fields,
    is_union,
    new,
)
from blockemu.qmp_server.errors import DisabledByPolicy, PolicyCrash
from blockemu.qmp_server.ghash import first_left
from blockemu.qmp_server.invalid import (
    InvalidInput,
    Missing,
    NotAccepted,
    OutOfRange,
    Unexpected,
    UnexpectedKeys,
    WrongAlternate,
    WrongType,
    WrongValue,
)
from blockemu.qmp_server.profile import ALL, Life, Profile
from blockemu.qmp_server.qenum import QEnum, enum_values, value_life

Visitor = Callable[[Any], Any]
JSON: Final = "json"
KEYVAL: Final = "keyval"
OUTPUT: Final = "output"
_compiled: dict[tuple[Any, Profile, str], Visitor] = {}


def visit(
    hint: Any,
    value: Any,
    path: str = "",
    keyval: bool = False,
    profile: Profile = ALL,
    *,
    drop: str | None = None,
) -> Any:
    """Return ``value`` as an instance of ``hint``; raise InvalidInput if it does not fit.

    ``path`` names the value in errors; ``keyval`` takes scalars spelled as strings, too.  ``drop``
    is a member of an object that was dealt with (the discriminator when a case is visited alone).
    """
    visitor = compiled(hint, profile, KEYVAL if keyval else JSON)
    try:
        if drop and isinstance(visitor, _StructVisitor):
            return visitor(value, drop)
        return visitor(value)
    except InvalidInput as e:
        if path:
            e.parts.append(path)
        e.keyval = keyval
        raise


def compiled(hint: Any, profile: Profile = ALL, mode: str = JSON) -> Visitor:
    """Return the function that visits values of type ``hint``."""
    try:
        return _compiled[hint, profile, mode]
    except KeyError:
        visitor = _compiled[hint, profile, mode] = _compile(hint, profile, mode)
        return visitor
    except TypeError:  # a note that cannot be hashed
        return _compile(hint, profile, mode)


def _compile(hint: Any, profile: Profile, mode: str) -> Visitor:
    hint, notes = bare(hint)
    if isinstance(hint, Union):
        return _UnionVisitor(hint, profile, mode)
    if isinstance(hint, Alternate):
        choices = hint.known(profile)
        if len(choices) == 1:
            return compiled(choices[0], profile, mode)
        return _alternate(hint, choices, profile, mode)
    if typing.get_origin(hint) is list:
        return _list(compiled(typing.get_args(hint)[0], profile, mode))
    if typing.get_origin(hint) is typing.Literal:
        return _enum({value: value for value in typing.get_args(hint)}, {}, profile, mode)
    if hint is int:
        integer = next((n for n in notes if type(n) is Integer), INT)
        return _integer(integer, mode)
    if hint in _SCALARS:
        return _scalar(hint, mode)
    if isinstance(hint, type):
        if issubclass(hint, Struct):
            if is_union(hint):
                assert hint.union is not None
                return _UnionVisitor(hint.union, profile, mode)
            return _StructVisitor(hint, profile, mode)
        if issubclass(hint, QEnum | enum.Enum):
            known = {value: hint(value) for value in enum_values(hint)}
            lives = {value: value_life(hint, value) for value in known}
            return _enum(known, lives, profile, mode)
    raise TypeError(f"not a QAPI type: {hint!r}")


# Scalars


def _text(value: Any) -> Any:
    """Return a scalar of keyval mode, which comes as string."""
    if isinstance(value, dict | list):
        raise UnexpectedKeys
    return value


def _string(value: Any) -> Any:
    if type(value) is not str:
        raise WrongType("string")
    return value


def _boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise WrongType("boolean")
    return value


def _number(value: Any) -> Any:
    if type(value) is not float and type(value) is not int:
        raise WrongType("number")
    return float(value)


def _null(value: Any) -> Any:
    if value is not None:
        raise WrongType("null")


def _any(value: Any) -> Any:
    return value


def _object(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise WrongType("object")
    return value


def _array(value: Any) -> Any:
    if not isinstance(value, list):
        raise WrongType("array")
    return value


_SCALARS: Final[dict[Any, Visitor]] = {
    str: _string,
    bool: _boolean,
    float: _number,
    None: _null,
    type(None): _null,
    Any: _any,
    dict: _object,
    list: _array,
}


def _scalar(hint: Any, mode: str) -> Visitor:
    visitor = _SCALARS[hint]
    if mode != KEYVAL or visitor in (_any, _null, _object, _array):
        return visitor
    parse, error = {
        str: (_any, WrongType("string")),
        bool: (scalars.parse_bool, WrongValue("'on' or 'off'")),
        float: (scalars.parse_number, WrongType("number")),
    }[hint]

    def keyval(value: Any) -> Any:
        if type(_text(value)) is not str:
            return visitor(value)
        try:
            return parse(value)
        except ValueError:
            raise type(error)(*error.values) from None

    return keyval


def _integer(kind: Integer, mode: str) -> Visitor:
    name, low, high, c_name = kind
    if mode == OUTPUT or (name in ("uint64", "size") and mode == JSON):
        return _strict_integer(kind) if mode == OUTPUT else _uint64
    if mode == KEYVAL and name == "size":
        return _keyval_integer(scalars.parse_size, _uint64, "size")
    if kind.unsigned:
        read = (
            _uint64 if mode == JSON else _keyval_integer(scalars.parse_unsigned, _uint64, "integer")
        )
    else:
        read = _int64 if mode == JSON else _keyval_integer(scalars.parse_signed, _int64, "integer")
    if high - low == 2**64 - 1:
        return read

    def ranged(value: Any) -> Any:
        value = read(value)
        if not low <= value <= high:
            raise OutOfRange(c_name)
        return value

    return ranged


def _int64(value: Any) -> Any:
    if type(value) is not int or not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise WrongType("integer")
    return value


def _uint64(value: Any) -> Any:
    if type(value) is not int or not -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
        raise WrongValue("uint64")
    return value & 0xFFFFFFFFFFFFFFFF  # as QEMU: negative numbers are cast


def _strict_integer(kind: Integer) -> Visitor:
    def strict(value: Any) -> Any:
        if type(value) is not int or not kind.low <= value <= kind.high:
            raise WrongValue(kind.name)
        return value

    return strict


def _keyval_integer(parse: Callable[[str], int], plain: Visitor, kind: str) -> Visitor:
    def keyval(value: Any) -> Any:
        if type(_text(value)) is not str:
            return plain(value)
        try:
            return parse(value)
        except ValueError:
            raise WrongValue(kind) from None

    return keyval


# Composite types


def _list(item: Visitor) -> Visitor:
    def visit_list(value: Any) -> Any:
        if type(value) is not list:
            raise WrongType("array")
        index = 0
        try:
            out = []
            for index, entry in enumerate(value):  # noqa: B007
                out.append(item(entry))
        except InvalidInput as e:
            e.parts.append(index)
            raise
        return out

    return visit_list


def _enum(
    known: Mapping[str, Any], lives: Mapping[str, Life], profile: Profile, mode: str
) -> Visitor:
    marked = {value: life for value, life in lives.items() if not life.plain}
    accepted = {
        value: member
        for value, member in known.items()
        if value not in marked or profile.knows(marked[value])
    }
    wary = {} if mode == OUTPUT or profile.quiet else marked
    string = _text if mode == KEYVAL else _string

    def visit_enum(value: Any) -> Any:
        string(value)
        try:
            member = accepted[value]
        except (KeyError, TypeError):
            raise NotAccepted(value) if isinstance(value, str) else WrongType("string") from None
        if value in wary:
            obey(profile, wary[value], "value", value)
        return member

    return visit_enum


def obey(
    profile: Profile,
    life: Life,
    kind: str,
    name: str,
    error: type[DisabledByPolicy] = DisabledByPolicy,
) -> None:
    """Apply the profile's policy to input; raise what it asks for."""
    policy, adjective = profile.input_policy(life)
    if policy == "reject":
        raise error(adjective, kind, name)
    if policy == "crash":
        raise PolicyCrash(adjective, kind, name)


class MemberTable:
    """The members of a struct or a command's arguments, ready to be visited under a profile."""

    __slots__ = ("all_optional", "rows")

    def __init__(self, known: Mapping[str, Member], profile: Profile, mode: str) -> None:
        self.rows: list[tuple[str, str, Visitor, bool]] = []
        for member in known.values():
            if not profile.knows(member.life):
                continue
            visitor = compiled(member.hint, profile, mode)
            if not (profile.quiet or member.life.plain or mode == OUTPUT):
                visitor = _guarded(visitor, profile, member)
            self.rows.append((member.wire, member.name, visitor, member.optional))
        self.all_optional = all(optional for *_, optional in self.rows)

    def read(self, value: Mapping[str, Any], drop: str | None = None) -> dict[str, Any]:
        """Return the members by Python name; those that are absent are left out."""
        out: dict[str, Any] = {}
        wire = ""
        try:
            for wire, name, visitor, optional in self.rows:
                if wire in value:
                    out[name] = visitor(value[wire])
                elif not optional:
                    raise Missing
        except InvalidInput as e:
            e.parts.append(wire)
            raise
        if len(out) + (drop in value) != len(value):
            self._refuse(value, drop)
        return out

    def _refuse(self, value: Mapping[str, Any], drop: str | None) -> None:
        seen = [wire for wire, *_ in self.rows if wire in value]
        error = Unexpected()
        error.parts.append(first_left(list(value), [k for k in value if k == drop] + seen))
        raise error


def _guarded(visitor: Visitor, profile: Profile, member: Member) -> Visitor:
    def guarded(value: Any) -> Any:
        obey(profile, member.life, "parameter", member.wire)
        return visitor(value)

    return guarded


class _StructVisitor:
    """Visits a struct.  Its table is made at the first visit, for types may be recursive."""

    __slots__ = ("mode", "profile", "struct", "table")

    def __init__(self, struct: type[Struct], profile: Profile, mode: str) -> None:
        self.struct = struct
        self.profile = profile
        self.mode = mode
        self.table: MemberTable | None = None

    def __call__(self, value: Any, drop: str | None = None) -> Struct:
        if not isinstance(value, dict):
            raise WrongType("object")
        table = self.table
        if table is None:
            table = self.table = MemberTable(fields(self.struct), self.profile, self.mode)
            if self.mode == OUTPUT and self.struct.tag is not None and not drop:
                assert self.struct.union is not None
        return new(self.struct, table.read(value, drop))


class _UnionVisitor:
    """Visits a union: first the discriminator, then the case."""

    __slots__ = ("cases", "mode", "profile", "union")

    def __init__(self, union: Union, profile: Profile, mode: str) -> None:
        self.union = union
        self.profile = profile
        self.mode = mode
        self.cases: dict[str, _StructVisitor] = {}

    def __call__(self, value: Any) -> Struct:
        if isinstance(value, Struct) and value.union is self.union:
            return value  # made already, of texts that mean more than the schema has
        if not isinstance(value, dict):
            raise WrongType("object")
        discriminator = self.union.discriminator
        try:
            if discriminator not in value:
                raise Missing
            tag = value[discriminator]
            case = self._case(tag)
        except InvalidInput as e:
            e.parts.append(discriminator)
            raise
        return case(value, discriminator)

    def _case(self, tag: Any) -> _StructVisitor:
        if self.mode == KEYVAL:
            _text(tag)
        if not isinstance(tag, str):
            raise WrongType("string")
        struct = self.union.find(tag)
        if struct is None or not self.profile.knows(struct.life):
            raise NotAccepted(tag)
        if not self.profile.quiet and self.mode != OUTPUT:
            obey(self.profile, struct.life, "value", tag)
        case = self.cases.get(tag)
        if case is None or case.struct is not struct:
            case = self.cases[tag] = _StructVisitor(struct, self.profile, self.mode)
        return case


_JSON_TYPES: Final[dict[Any, tuple[type, ...]]] = {
    str: (str,),
    bool: (bool,),
    int: (int, float),
    float: (int, float),
    None: (type(None),),
    type(None): (type(None),),
}


def _alternate(alternate: Alternate, choices: list[Any], profile: Profile, mode: str) -> Visitor:
    by_type: dict[type, Visitor] = {}
    for choice in choices:
        plain, _ = bare(choice)
        if typing.get_origin(plain) is list:
            kinds: tuple[type, ...] = (list,)
        elif plain in _JSON_TYPES:
            kinds = _JSON_TYPES[plain]
        elif isinstance(plain, type) and issubclass(plain, QEnum | enum.Enum):
            kinds = (str,)
        else:
            kinds = (dict,)
        for kind in kinds:
            by_type[kind] = compiled(choice, profile, mode)

    def visit_alternate(value: Any) -> Any:
        visitor = by_type.get(type(value))
        if visitor is None:
            raise WrongAlternate(alternate.name)
        return visitor(value)

    return visit_alternate
