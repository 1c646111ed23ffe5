"""object-add and object-del, and the qom- commands."""

from collections.abc import Mapping
from typing import Annotated, Any

from blockemu.commands.context import Context
from blockemu.errors import DeviceNotFound, InvalidParameterValue
from blockemu.machine.board import ABSTRACT, KNOWN
from blockemu.machine.device import describe_properties, specimen
from blockemu.machine.machine_types import machine_types
from blockemu.machine.machine_types import specimen as looked_at
from blockemu.machine.qom_rows import all_types
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import ABSENT, Since, Struct, visit
from blockemu.qom import NoSuchClass, class_properties, list_class_properties
from blockemu.qom_types import TYPES, Type, is_a
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
    known = _types(context)
    return [
        ObjectTypeInfo(name=t.name, abstract=t.abstract or None, parent=t.parent or None)
        for t in known.values()
        if (abstract or not t.abstract) and (implements is None or is_a(t, implements, known))
    ]


def _types(context: Context) -> Mapping[str, Type]:
    """Return the types of objects; a machine has devices as well."""
    return all_types() if context.emu.devices.buses else TYPES


@command(since="2.12")
def qom_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that all objects of a type have."""
    known = _types(context)
    if typename not in known:
        raise NoSuchClass(typename)
    if not is_a(known[typename], "object", known):
        raise InvalidParameterValue("typename", "a QOM type")
    if typename in TYPES:
        return _infos(list_class_properties(TYPES[typename].cls))
    if typename in machine_types() and not known[typename].abstract:
        one = looked_at(known[typename])
        return _described(one.list_properties(), one)
    if typename not in KNOWN:
        return _described(list_class_properties(known[typename].cls), known[typename].cls)
    made = specimen(KNOWN[typename])
    return _described(made.list_properties(), made)


def _described(rows: list[tuple[str, str]], owner: Any) -> list[ObjectPropertyInfo]:
    """Return properties with what is said of them."""
    known = class_properties(owner if isinstance(owner, type) else type(owner))
    infos = []
    for name, type_ in rows:
        found = known.get(name) if isinstance(owner, type) else owner.property(name)
        description = found.description if found is not None else None
        infos.append(ObjectPropertyInfo(name=name, type=type_, description=description))
    return infos


@command(since="1.2")
def device_list_properties(context: Context, *, typename: str) -> list[ObjectPropertyInfo]:
    """List the properties that devices of a type take.

    @typename: the type
    """
    model = KNOWN.get(typename)
    if model is None:
        if typename not in TYPES and typename not in ABSTRACT and typename not in machine_types():
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
