"""object-add and object-del, and the qom- commands."""

from typing import Annotated, Any

from blockemu.commands.context import Context
from blockemu.errors import DeviceNotFound, InvalidParameterValue
from blockemu.machine import type_facts
from blockemu.machine.type_facts import known_types
from blockemu.objects.qom import NoSuchClass, list_class_properties
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import ABSENT, Since, Struct, visit
from blockemu.qom_types import TYPES, is_a
from blockemu.schema import memory_objects  # noqa: F401 - declares their options
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
    if _has_machine(context):
        return [
            ObjectTypeInfo(name=t.name, abstract=t.abstract or None, parent=t.parent or None)
            for t in known_types().values()
            if (abstract or not t.abstract)
            and (implements is None or type_facts.is_a(t.name, implements))
        ]
    return [
        ObjectTypeInfo(name=t.name, abstract=t.abstract or None, parent=t.parent or None)
        for t in TYPES.values()
        if (abstract or not t.abstract) and (implements is None or is_a(t, implements))
    ]


def _has_machine(context: Context) -> bool:
    """Tell whether there is a machine, which has many more types."""
    return bool(context.emu.devices.buses)


@command(since="2.12")
def qom_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that all objects of a type have."""
    if not _has_machine(context):
        if typename not in TYPES:
            raise NoSuchClass(typename)
        if not is_a(TYPES[typename], "object"):
            raise InvalidParameterValue("typename", "a QOM type")
        return _infos(list_class_properties(TYPES[typename].cls))
    if typename not in known_types():
        raise NoSuchClass(typename)
    if not type_facts.is_a(typename, "object"):
        raise InvalidParameterValue("typename", "a QOM type")
    return [
        ObjectPropertyInfo(name=row.name, type=row.type, description=row.description)
        for row in type_facts.rows_of(typename)
    ]


@command(since="1.2")
def device_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that devices of a type take.

    @typename: the type
    """
    found = known_types().get(typename)
    if found is None:
        raise DeviceNotFound(typename)
    if found.abstract or not type_facts.is_a(typename, "device"):
        raise InvalidParameterValue("typename", "a non-abstract device type")
    return [
        ObjectPropertyInfo(
            name=row.name,
            type=row.type,
            description=row.description,
            default_value=row.default,
        )
        for row in type_facts.taken_by(typename)
    ]


def _infos(rows: list[tuple[str, str]]) -> list[ObjectPropertyInfo]:
    return [ObjectPropertyInfo(name=name, type=type_) for name, type_ in rows]
