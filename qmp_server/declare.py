"""QAPI types as Python types: what a declaration is, before anything is done with it.

A struct is a class with annotations, a union is the set of structs registered under one
discriminator, an alternate is a named choice between JSON types.  Declaring costs a few
microseconds a type: annotations are looked at when a type is first used.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar, dataclass_transform

from blockemu.qmp_server.profile import ALL, FOREVER, FeatureNames, Life, Profile


class Integer(NamedTuple):
    """A QAPI integer type: its name, its range, and its name in range errors."""

    name: str
    low: int
    high: int
    c_name: str

    @property
    def unsigned(self) -> bool:
        """Whether it is read as uint64 first (which takes negative numbers modulo 2**64)."""
        return self.low == 0


def _integer(name: str, bits: int, *, signed: bool) -> Integer:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return Integer(name, low, high, f"{name}_t")


INT: Final = _integer("int", 64, signed=True)
I8 = Annotated[int, _integer("int8", 8, signed=True)]
I16 = Annotated[int, _integer("int16", 16, signed=True)]
I32 = Annotated[int, _integer("int32", 32, signed=True)]
I64 = Annotated[int, _integer("int64", 64, signed=True)]
U8 = Annotated[int, _integer("uint8", 8, signed=False)]
U16 = Annotated[int, _integer("uint16", 16, signed=False)]
U32 = Annotated[int, _integer("uint32", 32, signed=False)]
U64 = Annotated[int, _integer("uint64", 64, signed=False)]
Size = Annotated[int, _integer("size", 64, signed=False)]
Int = Annotated[int, INT]


class _Absent:
    """The type of ABSENT."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final[Any] = _Absent()  # default of a member for which absent is not null


class Wire:
    """Mark of a member: its name on the wire, where that is not the Python name with ``-``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Member(NamedTuple):
    """A member of a struct or a parameter of a command."""

    name: str  # in Python
    wire: str
    hint: Any  # as annotated
    optional: bool
    default: Any
    life: Life

    @property
    def notes(self) -> tuple[Any, ...]:
        """The metadata of the annotation."""
        return getattr(self.hint, "__metadata__", ())


def make_member(name: str, hint: Any, default: Any, *, optional: bool) -> Member:
    """Return the member that an annotation and a default declare."""
    notes = getattr(hint, "__metadata__", ())
    wire = next((n.name for n in notes if type(n) is Wire), None)
    if wire is None:
        wire = (name[:-1] if name[-1] == "_" else name).replace("_", "-")
    return Member(name, wire, hint, optional, default, Life.of(notes) if notes else FOREVER)


class Union:
    """A tagged union, open to more cases: each struct with a ``tag`` adds itself."""

    def __init__(self, name: str, discriminator: str) -> None:
        self.name = name
        self.discriminator = discriminator
        self.cases: dict[str, type[Struct]] = {}
        self.late: Callable[[str], object] | None = None  # imports where a case is declared
        self._empty: dict[str, tuple[type[Struct], Life]] = {}

    def find(self, tag: str) -> "type[Struct] | None":
        """Return the case of a tag, None if there is none."""
        if tag not in self.cases and self.late is not None:
            self.late(tag)
        if tag not in self.cases and tag in self._empty:
            self._make_empty(tag)
        return self.cases.get(tag)

    def all_cases(self) -> "dict[str, type[Struct]]":
        """Return all cases that are declared so far, in the order of their tags."""
        for tag in self._empty.keys() - self.cases.keys():
            self._make_empty(tag)
        return dict(sorted(self.cases.items()))

    def declare_empty(self, base: "type[Struct]", lives: Mapping[str, Life]) -> None:
        """Declare cases without members of their own, for tags that no struct joins."""
        self._empty |= {tag: (base, life) for tag, life in lives.items()}

    def _make_empty(self, tag: str) -> None:
        base, life = self._empty[tag]
        name = self.name + tag.title().replace("-", "").replace("_", "")
        case: Any = type(name, (base,), {"__doc__": None}, tag=tag)
        case.life = life

    def __repr__(self) -> str:
        return f"Union({self.name!r}, {self.discriminator!r})"

    @property
    def base(self) -> "type[Struct]":
        """The struct with the members that all cases share."""
        for case in self.cases.values():
            for cls in reversed(case.__mro__):
                if issubclass(cls, Struct) and cls.union is self:
                    return cls
        return Struct


class Alternate:
    """A choice told apart by JSON type, e.g. a node name or an inline definition.

    Choices may be marked with ages; where a version has one only, there is no choice.
    """

    def __init__(self, name: str, choices: Iterable[Any]) -> None:
        self.name = name
        self.choices = tuple(choices)

    def known(self, profile: Profile = ALL) -> list[Any]:
        """Return the choices that a version has."""
        notes = ((choice, getattr(choice, "__metadata__", ())) for choice in self.choices)
        return [choice for choice, marks in notes if profile.knows(Life.of(marks))]

    def __repr__(self) -> str:
        return f"Alternate({self.name!r})"


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Struct:
    """Base of QAPI structs: immutable, keyword-only; ``tag`` names the case of the union it joins.

    Members that were not given are the class's attributes, which are the defaults.
    """

    union: ClassVar[Union | None] = None
    tag: ClassVar[str | None] = None
    life: ClassVar[Life] = FOREVER
    _members: ClassVar[dict[str, Member] | None] = None  # made at the first use
    _names: ClassVar[AbstractSet[str]] = frozenset()
    _required: ClassVar[AbstractSet[str]] = frozenset()

    def __init_subclass__(
        cls,
        *,
        tag: str | None = None,
        union: Union | None = None,
        since: str | None = None,
        deprecated: str | None = None,
        removed: str | None = None,
        features: FeatureNames = (),
    ) -> None:
        super().__init_subclass__()
        cls._members = None
        marked = since or deprecated or removed or features
        cls.life = Life(since, deprecated, removed, features) if marked else FOREVER
        if union is not None:
            cls.union = union
        if tag is not None:
            assert cls.union is not None, f"{cls.__name__} has a tag and no union"
            cls.tag = tag
            cls.union.cases[tag] = cls

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        if cls._members is None:
            fields(cls)
        given = values.keys()
        if not cls._required <= given <= cls._names:
            raise TypeError(_wrong_arguments(cls, given))
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in fields(type(self)))

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in fields(type(self)))))

    def __repr__(self) -> str:
        body = ", ".join(f"{name}={getattr(self, name)!r}" for name in fields(type(self)))
        return f"{type(self).__qualname__}({body})"


S = TypeVar("S", bound=Struct)


def fields(struct: type[Struct]) -> dict[str, Member]:
    """Return the members of ``struct`` by Python name, its base's first."""
    known = struct._members
    if known is None:
        known = {
            name: make_member(
                name, hint, getattr(struct, name, ABSENT), optional=hasattr(struct, name)
            )
            for name, hint in typing.get_type_hints(struct, include_extras=True).items()
            if typing.get_origin(hint) is not ClassVar and hint is not ClassVar
        }
        known = {name: known[name] for name in _base_first(struct, known)}
        struct._members = known
        struct._names = frozenset(known)
        struct._required = frozenset(name for name, m in known.items() if not m.optional)
    return known


def _wrong_arguments(struct: type[Struct], given: AbstractSet[str]) -> str:
    odd = [name for name in given if name not in struct._names]
    lacking = sorted(struct._required - given)
    what = f"no member {odd[0]!r}" if odd else f"no value for member {lacking[0]!r}"
    return f"{struct.__name__} has {what}"


def _base_first(struct: type[Struct], known: Iterable[str]) -> list[str]:
    order = dict.fromkeys(name for cls in reversed(struct.__mro__) for name in _annotations(cls))
    known = set(known)
    return [name for name in order if name in known]


def _annotations(cls: type) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        return inspect.get_annotations(cls)
    own: Mapping[str, Any] = vars(cls).get("__annotations__", {})  # start-up: inspect is large
    return own


def members(struct: type[Struct]) -> dict[str, tuple[Member, Any]]:
    """Return the members of ``struct`` by wire name, with their annotations."""
    return {member.wire: (member, member.hint) for member in fields(struct).values()}


def new(struct: type[S], values: dict[str, Any]) -> S:
    """Make an instance of values that are known to be right."""
    instance = object.__new__(struct)
    instance.__dict__.update(values)
    return instance


def replace(struct: S, **changes: Any) -> S:
    """Return a copy with some members changed."""
    return type(struct)(**{**struct.__dict__, **changes})


def is_union(hint: Any) -> bool:
    """Tell whether a struct stands for its union: it is the base, not a case."""
    return (
        isinstance(hint, type)
        and issubclass(hint, Struct)
        and hint.union is not None
        and hint.tag is None
    )


def is_optional(member: Member) -> bool:
    """Tell whether the member may be absent."""
    return member.optional


def bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a hint without its Annotated and ``| None`` layers, and all the notes met."""
    notes: list[Any] = []
    while True:
        origin = typing.get_origin(hint)
        if origin is Annotated:
            notes.extend(hint.__metadata__)
            note = next((n for n in hint.__metadata__ if isinstance(n, Union | Alternate)), None)
            hint = hint.__origin__ if note is None else note
        elif origin is _UnionType or origin is typing.Union:
            (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
        else:
            return (dict if origin is dict else hint), tuple(notes)


_UnionType = type(int | None)
