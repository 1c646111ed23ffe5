"""QAPI enums: classes whose values are strings, made in a few microseconds each.

To a type checker ``QEnum`` is ``enum.StrEnum``.  The standard one takes 110 us a class, and there
are hundreds of them on the way to the first command.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from blockemu.qmp_server.profile import FOREVER, Life

T = TypeVar("T")

if TYPE_CHECKING:
    from enum import StrEnum

    QEnum = StrEnum
else:

    class QEnumType(type):
        """The type of enum classes."""

        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            """Turn the strings of the body into members."""
            values = {
                key: value for key, value in body.items() if type(value) is str and key[0] != "_"
            }
            plain = {key: value for key, value in body.items() if key not in values}
            cls = super().__new__(mcs, name, bases, plain)
            by_value: dict[str, str] = {}
            for key, value in values.items():
                member = by_value[value] = str.__new__(cls, value)
                member.name, member.value = key, value
                setattr(cls, key, member)
            cls._by_value_ = by_value
            cls.__members__ = {m.name: m for m in by_value.values()}
            return cls

        def __call__(cls, value: str) -> "QEnum":
            """Return the member with this value; raise ValueError if there is none."""
            try:
                return cls._by_value_[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __getitem__(cls, name: str) -> "QEnum":
            return cls.__members__[name]

        def __iter__(cls) -> Iterator["QEnum"]:
            return iter(cls._by_value_.values())

        def __len__(cls) -> int:
            return len(cls._by_value_)

        def __contains__(cls, value: object) -> bool:
            return value in cls._by_value_

    class QEnum(str, metaclass=QEnumType):
        """Base of QAPI enums; a member is a string equal to its value."""

        def __repr__(self) -> str:
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __str__(self) -> str:
            return self.value

        def __format__(self, spec: str) -> str:
            return format(self.value, spec)

        def __copy__(self) -> "QEnum":
            return self

        def __deepcopy__(self, memo: object) -> "QEnum":
            return self

        def __reduce__(self) -> tuple[Any, ...]:
            return type(self), (self.value,)


def values(
    since: dict[str, str] | None = None,
    deprecated: dict[str, str] | None = None,
    removed: dict[str, str] | None = None,
    features: dict[str, tuple[str, ...]] | None = None,
) -> Callable[[T], T]:
    """Decorate an enum with the versions (and features) of some of its values."""
    marked = {v for mark in (since, deprecated, removed, features) for v in mark or ()}

    def mark(cls: T) -> T:
        cls.__lives__ = {  # type: ignore[attr-defined]
            value: Life(
                (since or {}).get(value),
                (deprecated or {}).get(value),
                (removed or {}).get(value),
                (features or {}).get(value, ()),
            )
            for value in marked
        }
        return cls

    return mark


def enum_values(hint: Any) -> tuple[str, ...]:
    """Return the values of an enum (QEnum, enum.Enum of strings), in order."""
    return tuple(str(member.value) for member in hint)


def value_life(hint: Any, value: str) -> Life:
    """Return when a value of an enum existed."""
    lives: dict[str, Life] = getattr(hint, "__lives__", {})
    return lives.get(value, FOREVER)
