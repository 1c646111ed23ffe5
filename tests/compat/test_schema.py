"""Introspection: what ours says of itself is a part of what the real programs say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu, Daemon, StorageDaemon, System

Entity = dict[str, Any]


class Schema:
    """The answer of query-qmp-schema, by name."""

    def __init__(self, entities: list[Entity]) -> None:
        self.entities = {entity["name"]: entity for entity in entities}

    def __getitem__(self, name: str) -> Entity:
        return self.entities[name]

    def named(self, kind: str) -> dict[str, Entity]:
        """Return all commands or all events."""
        return {
            name: entity for name, entity in self.entities.items() if entity["meta-type"] == kind
        }

    def member(self, entity: Entity, name: str) -> Entity:
        """Return the type of a member, or of a list's element for ``[]``."""
        if name == "[]":
            return self[entity["element-type"]]
        return self[next(m["type"] for m in entity["members"] if m["name"] == name)]

    def walk(self, command: str, *path: str) -> Entity:
        """Return the type at *path* below what a command returns."""
        entity = self[self[command]["ret-type"]]
        for name in path:
            entity = self.member(entity, name)
        return entity


def features(thing: Entity) -> set[str]:
    return set(thing.get("features", ()))


class Comparison:
    """Collects where *ours* says something that *theirs* does not."""

    def __init__(self, ours: Schema, theirs: Schema) -> None:
        self.ours, self.theirs = ours, theirs
        self.seen: set[tuple[str, str]] = set()

    def entry(self, mine: Entity, real: Entity) -> Iterator[str]:
        """Compare a command or an event."""
        name = mine["name"]
        if mine.get("allow-oob", False) != real.get("allow-oob", False):
            yield f"{name}: allow-oob"
        if features(mine) != features(real):
            yield f"{name}: features {features(mine) - features(real)}"
        yield from self.type(mine["arg-type"], real["arg-type"], f"{name} takes")
        if "ret-type" in real:
            yield from self.type(mine["ret-type"], real["ret-type"], f"{name} returns")

    def type(self, mine: str, real: str, path: str) -> Iterator[str]:
        if (mine, real) in self.seen:
            return
        self.seen.add((mine, real))
        one, other = self.ours[mine], self.theirs[real]
        if one["meta-type"] != other["meta-type"]:
            yield f"{path}: {one['meta-type']}, not {other['meta-type']}"
            return
        if features(one) != features(other):
            yield f"{path}: features {features(one) - features(other)}"
        yield from getattr(self, one["meta-type"])(one, other, path)

    def builtin(self, mine: Entity, real: Entity, path: str) -> Iterator[str]:
        if mine["json-type"] != real["json-type"]:
            yield f"{path}: {mine['json-type']}, not {real['json-type']}"

    def array(self, mine: Entity, real: Entity, path: str) -> Iterator[str]:
        yield from self.type(mine["element-type"], real["element-type"], f"{path}[]")

    def enum(self, mine: Entity, real: Entity, path: str) -> Iterator[str]:
        yield from (f"{path}: value {v}" for v in mine["values"] if v not in real["values"])
        marks = {member["name"]: features(member) for member in real["members"]}
        if [member["name"] for member in mine["members"]] != mine["values"]:
            yield f"{path}: members and values differ"
        for member in mine["members"]:
            if not features(member) <= marks.get(member["name"], set()):
                yield f"{path}: features of value {member['name']}"

    def alternate(self, mine: Entity, real: Entity, path: str) -> Iterator[str]:
        known = {self._kind(self.theirs, m["type"]): m["type"] for m in real["members"]}
        for member in mine["members"]:
            kind = self._kind(self.ours, member["type"])
            if kind not in known:
                yield f"{path}: alternative {kind}"
            else:
                yield from self.type(member["type"], known[kind], f"{path}|{kind}")

    @staticmethod
    def _kind(schema: Schema, name: str) -> str:
        entity = schema[name]
        kinds = {"enum": "string", "object": "object", "array": "array"}
        return kinds.get(entity["meta-type"]) or entity["json-type"]

    def object(self, mine: Entity, real: Entity, path: str) -> Iterator[str]:
        theirs = {member["name"]: member for member in real["members"]}
        names = {member["name"] for member in mine["members"]}
        for name, member in theirs.items():
            if name not in names and "default" not in member:
                yield f"{path}.{name}: lacks a mandatory member"
        for member in mine["members"]:
            name = member["name"]
            other = theirs.get(name)
            if other is None:
                yield f"{path}.{name}: unknown member"
                continue
            if ("default" in member) != ("default" in other):
                yield f"{path}.{name}: optional in one only"
            if features(member) != features(other):
                yield f"{path}.{name}: features"
            yield from self.type(member["type"], other["type"], f"{path}.{name}")
        if mine.get("tag") != real.get("tag"):
            yield f"{path}: tag {mine.get('tag')}, not {real.get('tag')}"
        cases = {variant["case"]: variant["type"] for variant in real.get("variants", ())}
        for variant in mine.get("variants", ()):
            case = variant["case"]
            if case not in cases:
                yield f"{path}: case {case}"
            else:
                yield from self.type(variant["type"], cases[case], f"{path}({case})")


Schemas = Callable[..., Schema]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Schemas:
    """Give ``schema(kind, *options)``, asked for once each."""
    known: dict[tuple[type[Daemon], tuple[str, ...]], Schema] = {}

    def ask(kind: type[Daemon], *options: str) -> Schema:
        if kind is not Blockemu:
            program(kind.kind)
        if (kind, options) not in known:
            with kind(Path(tmp_path_factory.mktemp("schema")), *options) as daemon:
                known[kind, options] = Schema(daemon("query-qmp-schema"))
        return known[kind, options]

    return ask


@pytest.mark.parametrize("meta", ["command", "event"])
def test_every_command_and_event_is_qemus_member_by_member(schema: Schemas, meta: str) -> None:
    ours = schema(Blockemu, "--compat", "7.2")
    mine = ours.named(meta)
    differences: list[str] = []
    left = set(mine)
    for kind in (StorageDaemon, System):
        theirs = schema(kind)
        comparison = Comparison(ours, theirs)
        for name in sorted(left & set(theirs.named(meta))):
            differences += comparison.entry(mine[name], theirs[name])
            left.discard(name)
    assert "\n".join(differences) == ""
    assert left == set(), f"no QEMU knows these {meta}s"
    assert len(mine) > {"command": 40, "event": 4}[meta]


def test_introspection_and_query_commands_agree(tmp_path: Path) -> None:
    with Blockemu(tmp_path) as daemon:
        listed = {command["name"] for command in daemon("query-commands")}
        assert listed == set(Schema(daemon("query-qmp-schema")).named("command"))


def test_every_entity_is_referred_to_and_exists(schema: Schemas) -> None:
    ours = schema(Blockemu, "--compat", "7.2")
    roots = {**ours.named("command"), **ours.named("event")}
    used: set[str] = set()
    for entity in ours.entities.values():
        for key in ("arg-type", "ret-type", "element-type"):
            used |= {entity[key]} if key in entity else set()
        if entity["meta-type"] != "enum":
            parts = entity.get("members", []) + entity.get("variants", [])
            used |= {part["type"] for part in parts}
    assert used <= set(ours.entities)
    assert set(ours.entities) - used - set(roots) == set()


BITMAP = ("[]", "dirty-bitmaps", "[]")


def names(entity: Entity) -> set[str]:
    return {member["name"] for member in entity["members"]}


def test_status_of_dirty_bitmaps_is_there_under_4_2_and_gone_under_7_2(schema: Schemas) -> None:
    old = schema(Blockemu, "--compat", "4.2").walk("query-named-block-nodes", *BITMAP)
    new = schema(Blockemu, "--compat", "7.2").walk("query-named-block-nodes", *BITMAP)
    assert "status" in names(old)
    assert "status" not in names(new)
    assert names(new) == names(schema(StorageDaemon).walk("query-named-block-nodes", *BITMAP))


@pytest.mark.parametrize(("profile", "expected"), [("4.2", "active"), ("7.2", None)])
def test_a_bitmap_shows_its_status_only_where_the_profile_has_it(
    tmp_path: Path, profile: str, expected: str | None
) -> None:
    with Blockemu(tmp_path, "--compat", profile) as daemon:
        daemon("blockdev-add", driver="null-co", node_name="n")
        daemon("block-dirty-bitmap-add", node="n", name="b")
        (node,) = daemon("query-named-block-nodes")
        (bitmap,) = node["dirty-bitmaps"]
        assert bitmap.get("status") == expected


@pytest.mark.parametrize(
    ("profile", "version"), [("4.2", (4, 2)), ("5.2", (5, 2)), ("6.2", (6, 2)), ("7.2", (7, 2))]
)
def test_the_greeting_is_of_the_profiles_version(
    tmp_path: Path, profile: str, version: tuple[int, int]
) -> None:
    with Blockemu(tmp_path, "--compat", profile) as daemon:
        greeted = daemon.greeting["QMP"]["version"]["qemu"]
        assert (greeted["major"], greeted["minor"]) == version
        assert daemon("query-version") == daemon.greeting["QMP"]["version"]
