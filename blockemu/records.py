"""Records: classes that hold named values, declared as dataclasses are.

A dataclass has four functions compiled when it is declared, about half a millisecond each time a
program starts, and most programs of ours make no instance of most of them.  A record has its
``__init__`` compiled when the first instance is made; the other methods are shared.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform, get_origin, overload

C = TypeVar("C", bound=type)
R = TypeVar("R")


class _Field:
    """What ``field`` says of a member."""

    __slots__ = ("factory", "init")

    def __init__(self, factory: Callable[[], Any] | None, *, init: bool) -> None:
        self.factory = factory
        self.init = init


_ABSENT: Final[Any] = type("_Absent", (), {"__repr__": lambda self: "..."})()


def field(*, default_factory: Callable[[], Any] | None = None, init: bool = True) -> Any:
    """Declare a member whose default is made anew for each record, or that is set later."""
    return _Field(default_factory, init=init)


@overload
def record(cls: C, /) -> C: ...
@overload
def record(*, frozen: bool = False, eq: bool = True, kw_only: bool = False) -> Callable[[C], C]: ...
@dataclass_transform(field_specifiers=(field,))
def record(
    cls: Any = None, /, *, frozen: bool = False, eq: bool = True, kw_only: bool = False
) -> Any:
    """Make a record of a class: its annotated members are slots, and arguments in that order.

    Args:
        cls: The class; its bases have no members of their own.
        frozen: Members keep their values; if it is compared by these, it can be hashed.
        eq: Records are equal if their members are; otherwise each is equal to itself only.
        kw_only: Members are given by name.

    """
    if cls is None:
        return lambda cls: _make(cls, frozen=frozen, eq=eq, kw_only=kw_only)
    return _make(cls, frozen=frozen, eq=eq, kw_only=kw_only)


def replace(original: R, **changes: Any) -> R:
    """Return a copy of a record with some members changed."""
    names = type(original)._fields  # type: ignore[attr-defined]
    return type(original)(**{name: getattr(original, name) for name in names} | changes)


def _make(cls: type, *, frozen: bool, eq: bool, kw_only: bool) -> type:
    body = dict(vars(cls))
    hints: dict[str, Any] = cls.__annotations__
    names = tuple(name for name, hint in hints.items() if get_origin(hint) is not ClassVar)
    defaults = {name: body.pop(name) for name in names if name in body}
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    body |= {
        "__slots__": names,
        "__match_args__": () if kw_only else names,
        "__qualname__": cls.__qualname__,
        "__init__": _first_init,
        "_fields": names,
        "_defaults": defaults,
        "_frozen": frozen,
        "_kw_only": kw_only,
    }
    body.setdefault("__repr__", _repr)
    if frozen:
        body |= {"__setattr__": _refuse, "__delattr__": _refuse}
    if eq and "__eq__" not in body:
        key = attrgetter("__class__", *names)  # one name at least: some have no members
        body |= {"_key": key, "__eq__": _equal, "__hash__": _hash if frozen else None}
    return type(cls)(cls.__name__, cls.__bases__, body)


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Take the place of ``__init__`` until it is needed."""
    cls: Any = next(c for c in type(self).__mro__ if "_fields" in vars(c))
    cls.__init__ = _compiled_init(cls)
    cls.__init__(self, *args, **kwargs)


def _compiled_init(cls: Any) -> Any:
    scope: dict[str, Any] = {"_absent": _ABSENT}
    parameters, lines = ["self", *["*"] * cls._kw_only], []
    for name in cls._fields:
        default = cls._defaults.get(name, _ABSENT)
        parameter, value = name, name
        if isinstance(default, _Field):
            if not default.init:
                continue
            parameter = f"{name}=_absent"
            scope[f"_make_{name}"] = default.factory
            value = f"_make_{name}() if {name} is _absent else {name}"
        elif default is not _ABSENT:
            scope[f"_default_{name}"] = default
            parameter = f"{name}=_default_{name}"
        parameters.append(parameter)
        if cls._frozen:
            scope[f"_set_{name}"] = vars(cls)[name].__set__
            lines.append(f" _set_{name}(self, {value})")
        else:
            lines.append(f" self.{name} = {value}")
    exec(f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or " pass"), scope)
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(self: Any) -> Iterable[tuple[str, Any]]:
    return ((name, getattr(self, name, _ABSENT)) for name in self._fields)


def _repr(self: Any) -> str:
    body = ", ".join(f"{name}={value!r}" for name, value in _values(self))
    return f"{type(self).__qualname__}({body})"


def _equal(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return bool(self._key(self) == self._key(other))


def _hash(self: Any) -> int:
    return hash(self._key(self))


def _refuse(self: Any, name: str, value: Any = None) -> None:
    raise AttributeError(f"cannot change {name!r} of a {type(self).__name__}")
