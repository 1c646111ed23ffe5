"""The object tree: what has a path, a type and properties that ``qom-get`` and its like reach.

After qom/object.c, as much of it as clients of a block layer see.  A class names its own
properties in ``PROPERTIES``; those of its bases are its too.  Children are properties as well.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, Final, NamedTuple

from blockemu.errors import QmpError
from blockemu.hashorder import HashOrder
from blockemu.qmp_server.qapi import ABSENT


class NoSuchObject(QmpError):
    """No object has this path."""

    qmp_class = "DeviceNotFound"
    template = "Device '{}' not found"


class AmbiguousPath(QmpError):
    """A partial path fits several objects."""

    template = "Path '{}' is ambiguous"


class NoSuchClass(QmpError):
    """No type has this name."""

    qmp_class = "DeviceNotFound"
    template = "Class '{}' not found"


class NoSuchProperty(QmpError):
    """The object lacks the property: (type, property)."""

    template = "Property '{}.{}' not found"


class NotWritable(QmpError):
    """The property is for reading only."""

    template = "Property '{}.{}' is not writable"


class DuplicateChild(QmpError):
    """The name is taken: (name, type of the parent)."""

    template = "attempt to add duplicate property '{}' to object (type '{}')"


class Property(NamedTuple):
    """A property: its QOM type, the QAPI type of its value, and how to get and set it.

    ``write`` gets a value that fits ``hint``; None: read-only.  ``description`` and ``default``
    are what is told of devices' properties.
    """

    name: str
    type: str
    hint: Any
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], Awaitable[None] | None] | None = None
    description: str | None = None
    default: Any = ABSENT


def attribute(name: str, type_: str, hint: Any, *, writable: bool = True) -> Property:
    """Return a property that is kept in the attribute of its name."""
    key = name.replace("-", "_")

    def write(self: Any, value: Any) -> None:
        setattr(self, key, value)

    return Property(name, type_, hint, lambda self: getattr(self, key), write if writable else None)


class Object:
    """Something with a place in the tree; subclasses state their QOM type."""

    TYPE: ClassVar[str] = "object"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (
        Property("type", "string", str, lambda self: self.TYPE),
    )

    def __init__(self) -> None:
        self.parent: Object | None = None
        self.name = ""
        self._children: dict[str, Object] = {}
        self._own: dict[str, Property] = {}  # besides those of its class
        self._order = HashOrder()

    # Children

    @property
    def path(self) -> str:
        """The canonical path."""
        if self.parent is None:
            return "/"
        above = self.parent.path
        return f"{above}{self.name}" if above == "/" else f"{above}/{self.name}"

    @property
    def children(self) -> Iterator["Object"]:
        """The children in GLib's hash order."""
        return (self._children[name] for name in self._order if name in self._children)

    def child(self, name: str) -> "Object | None":
        """Return the child of that name."""
        return self._children.get(name)

    def add_child(self, name: str, child: "Object") -> None:
        """Give an object its place.

        Raises:
            DuplicateChild: the name is taken, by a child or another property.
        """
        if name in self._children or self.property(name) is not None:
            raise DuplicateChild(name, self.TYPE)
        self._children[name] = child
        self._order.add(name)
        child.parent, child.name = self, name

    def remove_child(self, name: str, *, by_name: bool = False) -> None:
        """Take a child out; ``by_name`` as object_property_del does it, which may reorder."""
        self._children.pop(name).parent = None
        self._order.remove(name, shrink=by_name)

    # Properties

    def add_property(self, added: Property) -> None:
        """Give this object a property that its class lacks."""
        self._own[added.name] = added
        self._order.add(added.name)

    def remove_property(self, name: str) -> None:
        """Take such a property away."""
        del self._own[name]
        self._order.remove(name, shrink=True)

    def property(self, name: str) -> Property | None:
        """Return a property that is no child."""
        return self._own.get(name) or class_properties(type(self)).get(name)

    def list_properties(self) -> list[tuple[str, str]]:
        """Return (name, type) of all properties as ``qom-list`` orders them."""
        mine = [(name, self._type_of(name)) for name in self._order]
        return list_class_properties(type(self)) + mine[::-1]

    def _type_of(self, name: str) -> str:
        child = self._children.get(name)
        return self._own[name].type if child is None else f"child<{child.TYPE}>"

    def get(self, name: str) -> Any:
        """Return a property's value, a QAPI value; a child's is its path."""
        if (child := self._children.get(name)) is not None:
            return child.path
        found = self.property(name)
        if found is None:
            raise NoSuchProperty(self.TYPE, name)
        return found.read(self)

    def writable(self, name: str) -> Property:
        """Return a property that can be set.

        Raises:
            NoSuchProperty: it does not exist.
            NotWritable: it is a child, or for reading only.
        """
        found = self.property(name)
        if found is None and name not in self._children:
            raise NoSuchProperty(self.TYPE, name)
        if found is None or found.write is None:
            raise NotWritable(self.TYPE, name)
        return found


class Container(Object):
    """A folder."""

    TYPE = "container"


def _levels(cls: type[Object]) -> Iterator[tuple[Property, ...]]:
    return (vars(c)["PROPERTIES"] for c in cls.__mro__ if "PROPERTIES" in vars(c))


_found: Final[dict[Any, dict[str, Property]]] = {}  # by class


def class_properties(cls: type[Object]) -> dict[str, Property]:
    """Return the properties that all objects of a class have."""
    if cls not in _found:
        _found[cls] = {p.name: p for level in reversed(list(_levels(cls))) for p in level}
    return _found[cls]


def list_class_properties(cls: type[Object]) -> list[tuple[str, str]]:
    """Return (name, type) of a class's properties: the base's first, each level in hash order."""
    rows = []
    for level in _levels(cls):
        types = {p.name: p.type for p in level}
        rows += [(name, types[name]) for name in HashOrder(*types)]
    return rows[::-1]


class Tree:
    """An object tree from its root."""

    def __init__(self) -> None:
        self.root = Container()

    def container(self, name: str) -> Object:
        """Return a folder of the root, made when first asked for."""
        found = self.root.child(name)
        if found is None:
            found = Container()
            self.root.add_child(name, found)
        return found

    def resolve(
        self, path: str, kind: type[Object] | None = None, *, explain: bool = False
    ) -> Object:
        """Find an object by its absolute path, or by a partial one that fits only one of its kind.

        Raises:
            NoSuchObject: none has it, or several (AmbiguousPath then, with ``explain``).
        """
        parts = path.split("/")
        if path.startswith("/"):
            found = _descend(self.root, parts[1:])
        else:
            found_all = _search(self.root, parts)
            matches = [each for each in found_all if kind is None or isinstance(each, kind)]
            if len(matches) > 1 and explain:
                raise AmbiguousPath(path)
            found = matches[0] if len(matches) == 1 else None
        if found is None or (kind is not None and not isinstance(found, kind)):
            raise NoSuchObject(path)
        return found


def _descend(start: Object, parts: list[str]) -> Object | None:
    at: Object | None = start
    for part in parts:
        if part and at is not None:
            at = at.child(part)
    return at


def _search(start: Object, parts: list[str]) -> Iterator[Object]:
    if (found := _descend(start, parts)) is not None:
        yield found
    for child in start.children:
        yield from _search(child, parts)
