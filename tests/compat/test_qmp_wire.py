"""Odd and malformed bytes: the real daemon and our session give the same replies, byte for byte."""

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockemu.qmp_server.dispatch import Registry, command
from blockemu.qmp_server.qapi import Struct
from blockemu.qmp_server.session import Service, Session

NEGOTIATE = b'{"execute": "qmp_capabilities"}'
END = b'\xff{"execute": "no-such-thing", "id": "END"}'  # forces a known state, and marks the end


class VersionTriple(Struct):
    major: int
    minor: int
    micro: int


class VersionInfo(Struct):
    qemu: VersionTriple
    package: str


@command
def query_version(context: Any) -> VersionInfo:
    return VersionInfo(qemu=VersionTriple(major=7, minor=2, micro=22), package="")


class Ours:
    def __init__(self) -> None:
        self.session = Session(Service(lambda: Registry([query_version])))

    def ask(self, data: bytes) -> bytes:
        replies = [self.session.execute(request) for request in self.session.receive(data + END)]
        return b"".join(reply for reply in replies if isinstance(reply, bytes))


class Real:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.greeting = self._read(b"\r\n")

    def ask(self, data: bytes) -> bytes:
        self.sock.sendall(data + END)
        return self._read(b'"id": "END"')

    def _read(self, mark: bytes) -> bytes:
        out = b""
        while not (mark in out and out.endswith(b"\r\n")):
            data = self.sock.recv(1 << 16)
            assert data, out
            out += data
        return re.sub(rb'"package": "[^"]*"', b'"package": ""', out)


@pytest.fixture
def real(program: Callable[[str], str], tmp_path: Path) -> Iterator[Real]:
    path = tmp_path / "qmp.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        daemon = subprocess.Popen(
            [
                program("qemu-storage-daemon"),
                "--chardev",
                f"socket,id=c,path={path}",
                "--monitor",
                "c",
            ]
        )
        try:
            sock, _ = listener.accept()
            with sock:
                yield Real(sock)
        finally:
            daemon.kill()
            daemon.wait()


CASES = [
    b"{}",
    b"[]",
    b"1 ",
    b'"a"',
    b"null ",
    b"tru ",
    b"true ",
    b"{",
    b"}",
    b"]",
    b'{"execute":1}',
    b'{"execute":"query-version","arguments":1}',
    b'{"execute":"query-version","arguments":{"a":1}}',
    b'{"execute":"query-version","x":1}',
    b'{"x":1,"y":2,"zz":1,"execute":1}',
    b'{"exec-oob":"query-version"}',
    b'{"execute":"query-version","exec-oob":"a"}',
    b'{"id":1}',
    b'{"id":{"a":[1.5,null,"\xc3\xa9\\n"]},"execute":"foo"}',
    b"{'execute':'foo\\'x'}",
    b'{"execute":"f\\u00e9"}',
    b'{"execute":"\\ud83d\\ude00"}',
    b'{"execute":"\\ud83d"}',
    b'{"execute":"a\x01b"}',
    b'{"execute":"a\tb"}',
    b'{"a":1,"a":2}',
    b'{"execute":"foo","id":-0.0}',
    b'{"execute":"foo","id":1e400}',
    b'{"execute":"foo","id":18446744073709551615}',
    b'{"execute":"foo","id":18446744073709551616}',
    b'{"execute":"foo","id":-9223372036854775808}',
    b'{"execute":"foo","id":-9223372036854775809}',
    b'{"execute":"foo","id":0.1}',
    b'{"execute":"foo","id":1E2}',
    b'{"execute":"foo","id":01}',
    b'{"execute":"foo","id":1.}',
    b'{"execute":"foo","id":.5}',
    b'{"execute":"foo","id":+5}',
    b'{"execute":"foo","id":-}',
    b'{"execute":"foo","id":NaN}',
    b'{"execute":"foo","id":Infinity}',
    b'{"execute":"foo",}',
    b'{"execute" "foo"}',
    b'{"execute":,}',
    b"{1:2}",
    b"{[1]:2}",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b'{"a":1]',
    b"[1}",
    b'{"execute":"foo","id":"\xff"}',
    b'{"execute":"foo","id":"\xed\xa0\x80"}',
    b'{"execute":"foo","id":"\xc0\x80"}',
    b'{"execute":"foo","id":"\xef\xbf\xbe"}',
    b'{"execute":"foo","id":"\xc3"}',
    b'{"execute":"foo","id":"\\x"}',
    b'{"execute":"foo","id":"\\u12"}',
    b'{"execute":"foo","id":"\\ufffe"}',
    b'{"execute":"foo","id":"\\u0000"}',
    b'{"execute":"foo","id":"\\ud800\\u0041"}',
    b"\x00\x00{}",
    b"abc def ",
    b"%d",
    b"#comment\n{}",
    b"//x\n",
    b'"unterminated\n{}',
    b"[" * 1024 + b"]" * 1024,
    b"[" * 1030,
    b'{"a":' * 1024 + b"1" + b"}" * 1024,
    b'{"execute":"foo"}{"execute":"bar"}',
    b'{"execute":\r\n\t "foo"}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":[1]}}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":{}}}',
    b'{"execute":"qmp_capabilities","arguments":{"enable":null}}',
    b"\xfe\xff",
    b'{"execute":"foo","id":"\x7f/\\/"}',
    b'{"execute":"foo","id":{"major":1,"minor":2,"micro":3,"a":{},"b":[]}}',
    b"a" * 2000 + b" ",
    b"[\x0c]",
    b'{"execute":"foo","id":1.7976931348623157e308}',
    b'{"execute":"foo","id":5e-324}',
    b'{"execute":"foo","id":123456789012345678}',
    b'{"execute":"foo","id":1.0}',
]


def test_greetings_are_equal(real: Real) -> None:
    assert Ours().session.greeting() == real.greeting


@pytest.mark.parametrize("negotiated", [False, True], ids=["before", "after"])
def test_odd_bytes_get_equal_replies(real: Real, negotiated: bool) -> None:
    ours = Ours()
    if negotiated:
        assert ours.ask(NEGOTIATE) == real.ask(NEGOTIATE)
    for data in CASES:
        if negotiated or b'"oob"' not in data:  # that would end the negotiation
            assert (data, ours.ask(data)) == (data, real.ask(data))


PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"a"',
    b'"execute"',
    b'"exec-oob"',
    b'"arguments"',
    b'"id"',
    b'"foo"',
]
PIECES += [
    b"1",
    b"-",
    b"0",
    b".5",
    b"e3",
    b"true",
    b"nul",
    b"'",
    b'"',
    b"\\",
    b"\\u",
    b"d83d",
    b"\xc3\xa9",
    b"\xff",
]
PIECES += [
    b"\n",
    b" ",
    b"\t",
    b"\x00",
    b'{"execute":',
    b'{"execute":"query-version"',
    b'"arguments":{',
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.sampled_from(PIECES), max_size=16).map(b"".join))
def test_random_pieces_get_equal_replies(real: Real, data: bytes) -> None:
    ours = Ours()
    ours.session.negotiate([])
    if not hasattr(real, "negotiated"):
        real.ask(NEGOTIATE)
        real.negotiated = True  # type: ignore[attr-defined]
    assert (data, ours.ask(data)) == (data, real.ask(data))
