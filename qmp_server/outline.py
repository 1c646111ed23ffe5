"""An outline of an interface: a line for each thing that introspection tells of it.

A line is a path below a command or event: `` ARG.speed?:int``, `` RET[].status=^paused``,
``@feature:deprecated``.  ``?`` marks what may be absent, ``{case}`` a case of a union, ``|kind`` an
alternative, ``[]`` an element, ``=^`` a value of an enumeration (with its features behind it).
"""

from typing import Any

Entity = dict[str, Any]
Outline = dict[str, frozenset[str]]
SIDES = {"arg-type": " ARG", "ret-type": " RET"}
KINDS = {"enum": "string", "object": "object", "array": "array"}


def outline(entities: list[Entity], references: dict[str, str] | None = None) -> Outline:
    """Return the lines of each command and event of what query-qmp-schema answers.

    ``references`` says which types are not followed where they are met again: ``{"blockdev-add":
    "<BlockdevOptions>"}`` is the type of that command's arguments, and what to write for it.
    """
    known = {entity["name"]: entity for entity in entities}
    short = {
        known[command]["arg-type"]: text
        for command, text in (references or {}).items()
        if command in known
    }
    return {
        entity["name"]: frozenset(_Walk(known, short).entry(entity))
        for entity in entities
        if entity["meta-type"] in ("command", "event")
    }


class _Walk:
    """Follows one command or event to its types."""

    def __init__(self, known: dict[str, Entity], short: dict[str, str]) -> None:
        self._known = known
        self._short = short
        self._lines: set[str] = set()

    def entry(self, entity: Entity) -> set[str]:
        self._features("", entity)
        for key, side in SIDES.items():
            if key in entity:
                self._follow(entity[key], side, ())
        return self._lines

    def _features(self, path: str, thing: Entity) -> None:
        self._lines |= {f"{path}@feature:{name}" for name in thing.get("features", ())}

    def _type(self, name: str, path: str, above: tuple[str, ...]) -> None:
        """Note a type that is referred to."""
        if name in self._short or name in above:
            self._lines.add(f"{path}:{self._short.get(name, '<itself>')}")
        else:
            self._follow(name, path, above)

    def _follow(self, name: str, path: str, above: tuple[str, ...]) -> None:
        entity = self._known[name]
        self._features(path, entity)
        match entity["meta-type"]:
            case "builtin":
                self._lines.add(f"{path}:{entity['json-type']}")
            case "enum":
                self._values(entity, path)
            case "array":
                self._type(entity["element-type"], f"{path}[]", above)
            case "alternate":
                for choice in entity["members"]:
                    self._type(choice["type"], f"{path}|{self._kind(choice['type'])}", above)
            case "object":
                self._members(entity, path, (*above, name))

    def _values(self, entity: Entity, path: str) -> None:
        marks = {m["name"]: m.get("features", ()) for m in entity.get("members", ())}
        for value in entity["values"]:
            features = ", ".join(marks.get(value, ()))
            self._lines.add(f"{path}=^{value}" + (f" [{features}]" if features else ""))

    def _kind(self, name: str) -> str:
        entity = self._known[name]
        kind: str = KINDS.get(entity["meta-type"]) or entity["json-type"]
        return kind

    def _members(self, entity: Entity, path: str, above: tuple[str, ...]) -> None:
        for member in entity["members"]:
            at = f"{path}.{member['name']}" + ("?" if "default" in member else "")
            self._lines.add(at)
            self._features(at, member)
            self._type(member["type"], at, above)
        for variant in entity.get("variants", ()):
            self._follow(variant["type"], f"{path}{{{variant['case']}}}", above)
