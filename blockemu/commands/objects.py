"""object-add and object-del, and the qom- commands."""

from typing import Annotated, Any

from blockemu.commands.context import Context
from blockemu.objects import EventLoop, Objects, SecretCommon
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Since, Struct, visit
from blockemu.qom import (
    Container,
    NoSuchClass,
    Object,
    list_class_properties,
)
from blockemu.schema.objects import ObjectOptions


class ObjectPropertyInfo(Struct):
    """A property.

    @name: its name
    @type: the name of its type; ``child<...>`` for a child
    @description: what it is for
    @default-value: its value unless set
    """

    name: str
    type: str
    description: str | None = None
    default_value: Annotated[Any, Since("5.0")] = None


class ObjectTypeInfo(Struct):
    """A type.

    @name: its name
    @abstract: whether it has no instances
    @parent: the type it derives from
    """

    name: str
    abstract: bool | None = None
    parent: str | None = None


@command(since="2.0")
def object_add(context: Context, options: ObjectOptions) -> None:
    """Create an object."""
    context.emu.objects.add(options)


@command(since="2.0")
def object_del(context: Context, *, id: str) -> None:  # noqa: A002: the wire's name
    """Delete an object."""
    context.emu.objects.delete(id)


@command(since="1.2")
def qom_list(context: Context, *, path: str) -> list[ObjectPropertyInfo]:
    """List an object's properties and children."""
    found = context.emu.qom.resolve(path, explain=True)
    return _infos(found.list_properties())


@command(since="1.2")
def qom_get(context: Context, *, path: str, property: str) -> Any:  # noqa: A002
    """Return a property's value."""
    return context.emu.qom.resolve(path).get(property)


@command(since="1.2")
def qom_set(context: Context, *, path: str, property: str, value: Any) -> None:  # noqa: A002
    """Set a property."""
    found = context.emu.qom.resolve(path)
    writable = found.writable(property)
    assert writable.write is not None
    writable.write(found, visit(writable.hint, value, path=property))


# Types, in QEMU's order.  "object" itself is not listed: clients get what they can name.
_TYPES: dict[str, type[Object]] = {
    cls.TYPE: cls
    for cls in (
        Container,
        SecretCommon,
        *(Objects.TYPES[name] for name in ("iothread", "secret")),
        EventLoop,
        Objects.TYPES["throttle-group"],
    )
}


@command(since="1.1")
def qom_list_types(
    context: Context,
    *,
    implements: str | None = None,
    abstract: bool | None = None,
) -> list[ObjectTypeInfo]:
    """List the types of objects, those that implement an interface or derive from a type."""
    return [
        ObjectTypeInfo(name=name, abstract=cls.ABSTRACT or None, parent=cls.PARENT)
        for name, cls in _TYPES.items()
        if (abstract or not cls.ABSTRACT) and _implements(cls, implements)
    ]


def _implements(cls: type[Object], name: str | None) -> bool:
    if name is None or name == "object":
        return True
    if name == "user-creatable":
        return cls is not Container
    return any(vars(base).get("TYPE") == name for base in cls.__mro__)


@command(since="2.12")
def qom_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that all objects of a type have."""
    if typename not in _TYPES:
        raise NoSuchClass(typename)
    return _infos(list_class_properties(_TYPES[typename]))


def _infos(rows: list[tuple[str, str]]) -> list[ObjectPropertyInfo]:
    return [ObjectPropertyInfo(name=name, type=type_) for name, type_ in rows]
