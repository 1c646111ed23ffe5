"""Commands from signatures, the registry, the session's conversation, introspection."""

import asyncio
import types
from typing import Annotated, Any

import pytest

from blockemu.qmp_server.control import qmp_capabilities
from blockemu.qmp_server.dispatch import Command, Event, Registry, command
from blockemu.qmp_server.events import EventHub
from blockemu.qmp_server.introspect import describe, schema, undocumented
from blockemu.qmp_server.qapi import (
    ALL,
    Alternate,
    InvalidInput,
    Profile,
    QEnum,
    Struct,
    Union,
    values,
)
from blockemu.qmp_server.scheduler import Dispatcher, Lane
from blockemu.qmp_server.session import Pending, Service, Session

THINGS = Union("Thing", "kind")


@values(deprecated={"old": "6.2"})
class Age(QEnum):
    NEW = "new"
    OLD = "old"


class Thing(Struct):
    """A thing.

    @age: how old it is
    """

    union = THINGS
    age: Age | None = None


class Box(Thing, tag="box"):
    """A box.

    @inside: what is in it
    @size: how big it is,
        in metres
    """

    inside: Annotated["str | Thing", Alternate("ThingRef", (THINGS, str))]
    size: int


class Nothing(Thing, tag="nothing"):
    """Nothing at all."""


class ThingDone(Event, event="THING_DONE", since="5.0"):
    """A thing is done.

    @name: its name
    """

    name: str
    age: Age | None = None


class Ping(Event, event="PING"):
    """No data."""


class QuorumReportBad(Event, event="QUORUM_REPORT_BAD"):
    """Limited to one a second for each node."""

    node_name: str
    number: int


@command
def thing_sum(context: Any, *, a: int, b: int = 1, x_: list[int] | None = None) -> int:
    """Add.

    @a: one
    @b: two
    """
    return a + b + sum(x_ or ())


@command(name="thing_add", since="5.2")
def thing_add(context: list[Any], thing: Thing) -> None:
    context.append(thing)


@command(oob=True)
def thing_now(context: Any) -> str:
    return "now"


@command(gen=False)
def thing_raw(context: Any, arguments: dict[str, Any]) -> Any:
    return arguments


@command(deprecated="6.2")
async def thing_slow(context: "list[asyncio.Future[int]]") -> int:
    return await context[0]


@command
def thing_bug(context: Any) -> None:
    raise KeyError("oops")


@command(success_response=False)
def thing_quiet(context: Any) -> None:
    return None


@command
def thing_wrong(context: Any) -> int:
    return "five"  # type: ignore[return-value]


REGISTRY = Registry()
REGISTRY.add(qmp_capabilities)
REGISTRY.collect(types.SimpleNamespace(**globals()))  # type: ignore[arg-type]


def service(profile: Profile = ALL, **options: Any) -> Service:
    return Service(lambda: REGISTRY, profile, on_bug=lambda _: None, **options)


def talk(data: bytes, session: Session | None = None, context: Any = None) -> list[str]:
    """Send bytes to a session; return its replies as lines."""
    session = session or negotiated()
    replies = [session.execute(request, context) for request in session.receive(data)]
    return (
        b"".join(reply for reply in replies if isinstance(reply, bytes)).decode().split("\r\n")[:-1]
    )


def negotiated(profile: Profile = ALL, **options: Any) -> Session:
    session = Session(service(profile, **options))
    session.negotiate(["oob"])
    return session


def error(words: str, kind: str = "GenericError", ident: str = "") -> str:
    return f'{{{ident}"error": {{"class": "{kind}", "desc": "{words}"}}}}'


# Commands


def test_a_signature_is_a_schema() -> None:
    assert thing_sum.name == "thing-sum"
    assert thing_add.name == "thing_add"
    assert thing_sum.run(None, {"a": 1, "x": [2, 3]}) == 7
    with pytest.raises(InvalidInput, match="Parameter 'a' is missing"):
        thing_sum.run(None, {})
    with pytest.raises(InvalidInput, match="Parameter 'c' is unexpected"):
        thing_sum.run(None, {"a": 1, "c": 1})
    with pytest.raises(InvalidInput, match="Parameter 'a' is unexpected"):
        thing_now.run(None, {"a": 1})
    assert thing_sum(None, a=1) == 2
    assert thing_raw.run(None, {"any": ["thing"]}) == {"any": ["thing"]}


def test_a_boxed_parameter_takes_all_arguments() -> None:
    things: list[Any] = []
    thing_add.run(things, {"kind": "box", "inside": {"kind": "nothing"}, "size": 1})
    assert things == [Box(inside=Nothing(), size=1)]


def test_a_registry_knows_what_a_profile_has() -> None:
    assert "thing_add" not in REGISTRY.names(Profile.parse("4.2"))
    assert REGISTRY.get("thing_add", Profile.parse("5.2")) is thing_add
    assert [event.event for event in REGISTRY.events(Profile.parse("4.2"))] == [
        "PING",
        "QUORUM_REPORT_BAD",
    ]
    assert isinstance(next(iter(REGISTRY)), Command)


# Conversation


def test_greeting_and_negotiation() -> None:
    session = Session(service(Profile.parse("5.2")))
    assert session.greeting() == (
        b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 5}, "package": ""},'
        b' "capabilities": ["oob"]}}\r\n'
    )
    expecting = "Expecting capabilities negotiation with 'qmp_capabilities'"
    assert talk(b'{"execute": "thing-now"}', session) == [error(expecting, "CommandNotFound")]
    enable = b'{"execute": "qmp_capabilities", "arguments": {"enable": [%s]}}'
    assert talk(enable % b'"x"', session) == [error("Parameter 'null' does not accept value 'x'")]
    assert talk(enable % b'"oob"', session) == ['{"return": {}}']
    assert session.oob_enabled
    over = "Capabilities negotiation is already complete, command ignored"
    assert talk(enable % b"", session) == [error(over, "CommandNotFound")]


def test_a_capability_that_was_not_offered_is_refused() -> None:
    session = Session(service())
    session.offered = ()  # type: ignore[misc]
    request = b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}'
    assert talk(request, session) == [error("Capability oob not available")]


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"1 ", error("QMP input must be a JSON object")),
        (b'{"execute": 1}', error("QMP input member 'execute' must be a string")),
        (
            b'{"execute": "x", "exec-oob": "y"}',
            error("QMP input member 'execute' clashes with 'exec-oob'"),
        ),
        (
            b'{"execute": "x", "arguments": []}',
            error("QMP input member 'arguments' must be an object"),
        ),
        (b'{"execute": "x", "z": 1}', error("QMP input member 'z' is unexpected")),
        (b'{"id": null}', error("QMP input lacks member 'execute'", ident='"id": null, ')),
        (b'{"execute": "x"}', error("The command x has not been found", "CommandNotFound")),
        (b'{"exec-oob": "thing-sum"}', error("The command thing-sum does not support OOB")),
        (b'{"exec-oob": "thing-now"}', '{"return": "now"}'),
        (
            b'{"execute": "thing-sum", "arguments": {"a": 1}, "id": [1.5, {}]}',
            '{"return": 2, "id": [1.5, {}]}',
        ),
        (b'{"execute": "thing-bug"}', error("Internal error: KeyError: 'oops'")),
        (b"{", None),
    ],
)
def test_requests_are_answered_in_qemus_words(request_: bytes, reply: str | None) -> None:
    assert talk(request_) == ([] if reply is None else [reply])


def test_a_command_may_answer_nothing() -> None:
    assert talk(b'{"execute": "thing-quiet"}') == []


def test_self_check_reports_replies_of_the_wrong_type() -> None:
    (reply,) = talk(b'{"execute": "thing-wrong"}', negotiated(self_check=True))
    assert "Internal error: SelfCheckError" in reply


def test_a_deprecated_command_can_be_refused() -> None:
    session = negotiated(Profile.parse("7.2,deprecated-input=reject"))
    disabled = "Deprecated command thing-slow disabled by policy"
    assert talk(b'{"execute": "thing-slow"}', session) == [error(disabled, "CommandNotFound")]


def test_a_pretty_session_prints_over_lines() -> None:
    session = Session(service(), pretty=True)
    session.negotiate([])
    assert talk(b'{"execute": "thing-raw", "id": 1}', session) == [
        "{",
        '    "return": {',
        "    },",
        '    "id": 1',
        "}",
    ]


# Order


class Lanes:
    """A dispatcher whose waiting commands are stepped by hand."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.dispatcher = Dispatcher(lambda c: self.tasks.append(asyncio.ensure_future(c)))
        self.log: list[str] = []
        self.gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def lane(self, name: str, *, oob: bool = False) -> Lane:
        session = Session(service())
        session.negotiate(["oob"] if oob else [])
        return Lane(
            session, [self.gate], lambda data: self.log.append(f"{name} {data.decode().strip()}")
        )

    def send(self, lane: Lane, *names: str, key: str = "execute") -> None:
        lane.received.extend({key: name} for name in names)
        self.dispatcher.submit(lane)


async def test_commands_run_one_at_a_time_over_all_monitors() -> None:
    lanes = Lanes()
    a, b = lanes.lane("a"), lanes.lane("b")
    lanes.send(a, "thing-now", "thing-slow", "thing-now")
    lanes.send(b, "thing-now")
    assert lanes.log == ['a {"return": "now"}']
    assert (len(a.received), len(b.queued)) == (1, 1)
    lanes.gate.set_result(5)
    await asyncio.gather(*lanes.tasks)
    assert lanes.log[1:] == ['a {"return": 5}', 'b {"return": "now"}', 'a {"return": "now"}']
    assert a.idle
    assert b.idle


async def test_a_monitor_that_waited_for_another_gets_all_its_requests_run() -> None:
    lanes = Lanes()
    a, b = lanes.lane("a"), lanes.lane("b")
    progress: list[str] = []
    b.on_progress = lambda: progress.append("b")
    lanes.send(a, "thing-slow")
    lanes.send(b, *["thing-now"] * 5)
    lanes.gate.set_result(5)
    await asyncio.gather(*lanes.tasks)
    assert lanes.log == ['a {"return": 5}', *['b {"return": "now"}'] * 5]
    assert b.idle
    assert progress


async def test_out_of_band_commands_pass_a_waiting_one_but_not_a_full_queue() -> None:
    lanes = Lanes()
    a = lanes.lane("a", oob=True)
    lanes.send(a, "thing-slow", *["thing-raw"] * 7)
    lanes.send(a, "thing-now", key="exec-oob")
    assert lanes.log == ['a {"return": "now"}']
    lanes.send(a, "thing-raw")
    lanes.send(a, "thing-now", key="exec-oob")
    assert lanes.log == ['a {"return": "now"}']
    assert (len(a.queued), len(a.received)) == (8, 1)
    lanes.gate.set_result(5)
    await asyncio.gather(*lanes.tasks)
    assert lanes.log[1] == 'a {"return": 5}'
    assert len(lanes.log) == 11


async def test_a_stopped_dispatcher_takes_no_more_requests() -> None:
    lanes = Lanes()
    a = lanes.lane("a")
    lanes.dispatcher.stopped = True
    lanes.send(a, "thing-now")
    assert lanes.log == []


def test_an_asynchronous_command_is_handed_out() -> None:
    session = negotiated()
    (request,) = session.receive(b'{"execute": "thing-slow", "id": 1}')
    pending = session.execute(request, [None])
    assert isinstance(pending, Pending)
    pending.coroutine.close()
    assert session.finish(pending, 5) == b'{"return": 5, "id": 1}\r\n'
    assert b"oops" in session.fail(pending, KeyError("oops"))


# Events


class Clock:
    def __init__(self) -> None:
        self.now = 0
        self.timers: list[tuple[int, Any]] = []

    def later(self, delay: int, function: Any) -> None:
        self.timers.append((self.now + delay, function))

    def step(self, ns: int) -> None:
        self.now += ns
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, function in due:
            function()


class Ear:
    def __init__(self, *, pretty: bool = False) -> None:
        self.pretty = pretty
        self.heard: list[bytes] = []

    def send_event(self, data: bytes) -> None:
        self.heard.append(data)


def hub(profile: Profile = ALL, **options: Any) -> tuple[EventHub, Clock, Ear]:
    clock, ear = Clock(), Ear()
    made = EventHub(lambda: 1_500_000 + clock.now // 1000, clock.later, profile, **options)
    made.add(ear)
    return made, clock, ear


def test_an_event_has_a_timestamp_and_its_data() -> None:
    made, _, ear = hub(self_check=True)
    pretty = Ear(pretty=True)
    made.add(pretty)
    made.emit(ThingDone(name="x"))
    made.emit(Ping())
    stamp = b'{"timestamp": {"seconds": 1, "microseconds": 500000}, "event": '
    assert ear.heard == [
        stamp + b'"THING_DONE", "data": {"name": "x"}}\r\n',
        stamp + b'"PING"}\r\n',
    ]
    assert pretty.heard[1].startswith(b'{\r\n    "timestamp": {\r\n        "seconds": 1,\r\n')
    made.discard(ear)
    made.emit(Ping())
    assert len(ear.heard) == 2


def test_a_profile_hides_events() -> None:
    made, _, ear = hub(Profile.parse("4.2"))
    made.emit(ThingDone(name="x"))
    assert ear.heard == []


def test_limited_events_are_held_for_a_second_and_the_last_wins() -> None:
    made, clock, ear = hub()

    def numbers() -> list[bytes]:
        return [data[data.index(b'"data"') :] for data in ear.heard]

    for number in range(3):
        made.emit(QuorumReportBad(node_name="a", number=number))
    made.emit(QuorumReportBad(node_name="b", number=7))
    assert len(ear.heard) == 2
    clock.step(1_000_000_000)
    assert len(ear.heard) == 3
    assert b'"number": 2' in numbers()[2]
    clock.step(1_000_000_000)
    made.emit(QuorumReportBad(node_name="a", number=9))
    assert len(ear.heard) == 4


# Introspection


def entities(profile: Profile = ALL) -> dict[str, dict[str, Any]]:
    return {entity["name"]: entity for entity in schema(REGISTRY, profile)}


def test_schema_has_commands_events_and_the_types_they_use() -> None:
    known = entities()
    add = known["thing_add"]
    assert add["meta-type"] == "command"
    thing = known[add["arg-type"]]
    assert thing["tag"] == "kind"
    assert [member["name"] for member in thing["members"]] == ["kind", "age"]
    box, nothing = thing["variants"]
    assert known[nothing["type"]]["members"] == []
    inside, size = known[box["type"]]["members"]
    assert size == {"name": "size", "type": "int"}
    assert known["int"] == {"name": "int", "meta-type": "builtin", "json-type": "int"}
    ref = known[inside["type"]]
    assert ref["meta-type"] == "alternate"
    assert ref["members"] == [{"type": add["arg-type"]}, {"type": "str"}]
    age = known[thing["members"][1]["type"]]
    assert age["members"] == [{"name": "new"}, {"name": "old", "features": ["deprecated"]}]
    assert age["values"] == ["new", "old"]
    assert known["thing-now"]["allow-oob"] is True
    assert known["thing-slow"]["features"] == ["deprecated"]
    optional = {m["name"]: m for m in known[known["thing-sum"]["arg-type"]]["members"]}
    assert optional["x"] == {"name": "x", "type": "[int]", "default": None}
    assert known["[int]"]["element-type"] == "int"
    assert known["PING"]["arg-type"] == known["thing_add"]["ret-type"]
    assert known[known["thing-raw"]["ret-type"]]["json-type"] == "value"


def test_schema_follows_the_profile() -> None:
    known = entities(Profile.parse("4.2"))
    assert "thing_add" not in known
    assert "THING_DONE" not in known
    assert all("members" not in e for e in known.values() if e["meta-type"] == "enum")
    assert "thing-slow" not in entities(Profile.parse("7.2,deprecated-output=hide"))


def test_docstrings_describe_members() -> None:
    assert describe(Box) == (
        "  age: how old it is\n  inside: what is in it\n  size: how big it is, in metres"
    )
    assert describe(thing_sum).splitlines()[:2] == ["  a: one", "  b: two"]
    assert undocumented(thing_sum) == ["x"]
