"""Introspection (query-qmp-schema) and reference documentation of what is declared.

Entities come in QEMU's order: commands and events first, then each type when first referred to;
types have numbers for names (after scripts/qapi/introspect.py).
"""

import enum
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

from blockemu.qmp_server.declare import (
    Alternate,
    Member,
    Struct,
    Union,
    bare,
    fields,
    is_union,
)
from blockemu.qmp_server.dispatch import Command, Event, Registry
from blockemu.qmp_server.profile import ALL, FOREVER, Life, Profile
from blockemu.qmp_server.qenum import QEnum, enum_values, value_life

Entity = dict[str, Any]
BUILTINS: Final[dict[Any, tuple[str, str]]] = {
    int: ("int", "int"),
    float: ("number", "number"),
    bool: ("bool", "boolean"),
    str: ("str", "string"),
    None: ("null", "null"),
    type(None): ("null", "null"),
    Any: ("any", "value"),
    dict: ("any", "value"),
}
MEMBERS_SINCE: Final = Life(since="6.2")  # before, enum entities had values only
FEATURES_SINCE: Final = Life(since="4.2")


class Introspection:
    """The SchemaInfo entities of commands, events and of all types they refer to."""

    def __init__(self, profile: Profile = ALL) -> None:
        self.profile = profile
        self.entities: dict[str, Entity] = {}  # by name
        self._names: dict[Any, str] = {}  # of types
        self._numbered = 0
        self._todo: list[tuple[str, Callable[[], Entity]]] = []

    # What is public

    def add(self, registry: Registry) -> None:
        """Add the commands and events of a registry."""
        registry.complete()
        for command in registry.known(self.profile):
            if not self.profile.hides(command.life):
                self.command(command)
        for event in registry.events(self.profile):
            if not self.profile.hides(event.life):
                self.event(event)

    def command(self, command: Command) -> None:
        """Add a command."""
        if command.boxed is not None:
            argument = self._argument(command.boxed)
        else:
            argument = self._anonymous((command.name, "arg"), command.parameters)
        info: Entity = {"arg-type": argument, "ret-type": self._argument(command.returns)}
        if command.oob:
            info["allow-oob"] = True
        self._public(command.name, "command", info, command.life)

    def event(self, event: type[Event]) -> None:
        """Add an event."""
        argument = self._anonymous((event.event, "event"), fields(event))
        self._public(event.event, "event", {"arg-type": argument}, event.life)

    def _public(self, name: str, kind: str, info: Entity, life: Life) -> None:
        features = self._features(life)
        self.entities[name] = {"name": name, "meta-type": kind} | info | features

    def result(self) -> list[Entity]:
        """Return all entities: those added, then the types."""
        self._build()
        return list(self.entities.values())

    def _build(self) -> None:
        todo = self._todo
        index = 0
        while index < len(todo):  # building refers to more types
            name, build = todo[index]
            self.entities[name] = {"name": name} | build()
            index += 1
        todo.clear()

    # Types

    def ref(self, hint: Any) -> str:
        """Return the name of a type; its entity is there once ``result`` was called."""
        hint, _ = bare(hint) if hint is not None else (None, ())
        if isinstance(hint, Alternate) and len(hint.known(self.profile)) == 1:
            return self.ref(hint.known(self.profile)[0])
        if typing.get_origin(hint) is list:
            item = self.ref(typing.get_args(hint)[0])
            name = f"[{item}]"
            return self._name(name, name, lambda: {"meta-type": "array", "element-type": item})
        if hint in BUILTINS:
            name, kind = BUILTINS[hint]
            return self._name(name, name, lambda: {"meta-type": "builtin", "json-type": kind})
        if isinstance(hint, type) and issubclass(hint, Struct) and is_union(hint):
            hint = hint.union
        return self._name(hint, None, lambda: self._type(hint))

    def _name(self, key: Any, name: str | None, build: Callable[[], Entity]) -> str:
        if key not in self._names:
            if name is None:
                name = str(self._numbered)
                self._numbered += 1
            self._names[key] = name
            self._todo.append((name, build))
        return self._names[key]

    def _type(self, hint: Any) -> Entity:
        if isinstance(hint, Union):
            return self._union(hint)
        if isinstance(hint, Alternate):
            choices = [{"type": self.ref(choice)} for choice in hint.known(self.profile)]
            return {"meta-type": "alternate", "members": choices}
        if typing.get_origin(hint) is typing.Literal:
            return self._enum(typing.get_args(hint), lambda value: FOREVER)
        if issubclass(hint, QEnum | enum.Enum):
            return self._enum(enum_values(hint), lambda value: value_life(hint, value))
        return self._object(fields(hint).values(), hint.life)

    def _argument(self, hint: Any) -> str:
        return self._anonymous((), {}) if hint is None else self.ref(hint)

    def _anonymous(self, key: Any, known: dict[str, Member], life: Life = FOREVER) -> str:
        """Return the name of an object type without one; all empty ones are one."""
        members = tuple(known.values())
        return self._name(key if members else (), None, lambda: self._object(members, life))

    def _object(self, known: Iterable[Member], life: Life = FOREVER) -> Entity:
        members = [self._member(m) for m in known if not self.profile.hides(m.life)]
        return {"meta-type": "object", "members": members} | self._features(life)

    def _member(self, member: Member) -> Entity:
        info: Entity = {"name": member.wire, "type": self.ref(member.hint)}
        if member.optional:
            info["default"] = None
        return info | self._features(member.life)

    def _union(self, union: Union) -> Entity:
        known = union.all_cases()
        base = union.base
        shared = frozenset(fields(base))
        cases = {tag: case for tag, case in known.items() if not self.profile.hides(case.life)}
        # A case's features are its struct's; the name of the case shares its age only.
        lives = {tag: case.life.without_features() for tag, case in cases.items()}
        tag = self._name((union, "tag"), None, lambda: self._enum(cases, lives.__getitem__))
        info = self._object(fields(base).values())
        info["members"].insert(0, {"name": union.discriminator, "type": tag})
        info["tag"] = union.discriminator
        info["variants"] = [
            {"case": name, "type": self._variant(case, shared)} for name, case in cases.items()
        ]
        return info

    def _variant(self, case: type[Struct], shared: frozenset[str]) -> str:
        own = {name: m for name, m in fields(case).items() if name not in shared}
        return self._anonymous((case, "variant"), own, case.life.without_ages())

    def _enum(self, known: Iterable[str], life: Callable[[str], Life]) -> Entity:
        visible = [value for value in known if not self.profile.hides(life(value))]
        info: Entity = {"meta-type": "enum", "values": visible}
        if self.profile.knows(MEMBERS_SINCE):
            info["members"] = [{"name": value} | self._features(life(value)) for value in visible]
        return info

    def _features(self, life: Life) -> Entity:
        names = self.profile.features(life)
        return {"features": names} if names and self.profile.knows(FEATURES_SINCE) else {}


def schema(registry: Registry, profile: Profile = ALL) -> list[Entity]:
    """Return what query-qmp-schema answers."""
    introspection = Introspection(profile)
    introspection.add(registry)
    return introspection.result()


# Documentation


def documented(*docs: str | None) -> dict[str, str]:
    """Return what the ``@name: text`` lines of docstrings say, later ones over earlier ones."""
    out: dict[str, str] = {}
    for doc in docs:
        name = ""
        for line in (doc or "").splitlines():
            text = line.strip()
            if text.startswith("@") and ":" in text:
                name, _, said = text[1:].partition(":")
                out[name] = said.strip()
            elif name and text:
                out[name] += f" {text}"
            else:
                name = ""
    return out


def describe(subject: type[Struct] | Command) -> str:
    """Return the members of a struct or command, with what the docstrings say of each."""
    if isinstance(subject, Command):
        known, docs = subject.parameters, documented(subject.doc)
        if isinstance(subject.boxed, type) and issubclass(subject.boxed, Struct):
            return describe(subject.boxed)
    else:
        known = fields(subject)
        docs = documented(*(cls.__dict__.get("__doc__") for cls in reversed(subject.__mro__)))
    return "\n".join(f"  {m.wire}: {docs.get(m.wire, '')}" for m in known.values())


def undocumented(subject: type[Struct] | Command) -> list[str]:
    """Return the members that no docstring describes."""
    lines = (line.strip() for line in describe(subject).splitlines())
    return [line[:-1] for line in lines if line.endswith(":")]
