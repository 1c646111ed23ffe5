"""Any bytes to a session give replies, never an exception."""

import json

from hypothesis import given
from hypothesis import strategies as st

from blockemu.qmp_server.dispatch import Registry, command
from blockemu.qmp_server.qapi import Struct
from blockemu.qmp_server.session import Service, Session


class Point(Struct):
    x: int
    y: float = 0.0


@command
def draw(context: object, *, points: list[Point], colour: str | None = None) -> list[Point]:
    return points


@command(oob=True)
def now(context: object) -> str:
    return "now"


SERVICE = Service(lambda: Registry([draw, now]), on_bug=lambda error: (_ for _ in ()).throw(error))
WORDS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"execute"',
    b'"exec-oob"',
    b'"arguments"',
    b'"id"',
    b'"draw"',
    b'"now"',
]
WORDS += [
    b'"points"',
    b'"x"',
    b'"y"',
    b"1",
    b"1.5",
    b"-9",
    b"true",
    b"null",
    b"'",
    b'"',
    b"\\u",
    b"\xff",
    b"\x00",
    b" ",
]
WORDS += [
    b'{"execute":"draw","arguments":{"points":[',
    b'{"x":',
    b'}]},"id":',
    b'{"execute":"qmp_capabilities"}',
]
REQUESTS = st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join) | st.binary(max_size=200)


@given(st.lists(REQUESTS, max_size=5), st.booleans(), st.booleans())
def test_any_bytes_give_replies(packets: list[bytes], negotiated: bool, oob: bool) -> None:
    session = Session(SERVICE)
    if negotiated:
        session.negotiate(["oob"] if oob else [])
    for packet in packets:
        for request in session.receive(packet):
            reply = session.execute(request)
            assert isinstance(reply, bytes)
            assert reply.endswith(b"}\r\n")
            assert json.loads(reply).keys() & {"return", "error"}
