"""object-add and object-del, and the qom- commands."""

from typing import Annotated, Any

from blockemu.commands.context import Context
from blockemu.errors import DeviceNotFound, InvalidParameterValue
from blockemu.machine.board import ABSTRACT, KNOWN
from blockemu.machine.device import describe_properties
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import ABSENT, Since, Struct, visit
from blockemu.qom import NoSuchClass, list_class_properties
from blockemu.qom_types import TYPES, is_a
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
    default_value: Annotated[Any, Since("5.0")] = ABSENT


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
def object_del(context: Context, *, id: str) -> None:
    """Delete an object."""
    context.emu.objects.delete(id)


@command(since="1.2")
def qom_list(context: Context, *, path: str) -> list[ObjectPropertyInfo]:
    """List an object's properties and children."""
    found = context.emu.qom.resolve(path, explain=True)
    return _infos(found.list_properties())


@command(since="1.2")
def qom_get(context: Context, *, path: str, property: str) -> Any:
    """Return a property's value."""
    return context.emu.qom.resolve(path).get(property)


@command(since="1.2")
async def qom_set(context: Context, *, path: str, property: str, value: Any) -> None:
    """Set a property."""
    found = context.emu.qom.resolve(path)
    writable = found.writable(property)
    assert writable.write is not None
    change = writable.write(found, visit(writable.hint, value, path=property))
    if change is not None:
        await change


@command(since="1.1")
def qom_list_types(
    context: Context, *, implements: str | None = None, abstract: bool | None = None
) -> list[ObjectTypeInfo]:
    """List the types of objects, those that implement an interface or derive from a type."""
    return [
        ObjectTypeInfo(name=t.name, abstract=t.abstract or None, parent=t.parent or None)
        for t in TYPES.values()
        if (abstract or not t.abstract) and (implements is None or is_a(t, implements))
    ]


@command(since="2.12")
def qom_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that all objects of a type have."""
    if typename not in TYPES:
        raise NoSuchClass(typename)
    if not is_a(TYPES[typename], "object"):
        raise InvalidParameterValue("typename", "a QOM type")
    return _infos(list_class_properties(TYPES[typename].cls))


@command(since="1.2")
def device_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that devices of a type take.

    @typename: the type
    """
    model = KNOWN.get(typename)
    if model is None:
        if typename not in TYPES and typename not in ABSTRACT:
            raise DeviceNotFound(typename)
        raise InvalidParameterValue("typename", "a non-abstract device type")
    return [
        ObjectPropertyInfo(
            name=each.name,
            type=each.type,
            description=each.description,
            default_value=each.default,
        )
        for each in describe_properties(model)
    ]


def _infos(rows: list[tuple[str, str]]) -> list[ObjectPropertyInfo]:
    return [ObjectPropertyInfo(name=name, type=type_) for name, type_ in rows]
