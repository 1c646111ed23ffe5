"""The server's half of NBD: on bytes, and on sockets whose other end behaves as it likes."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luks_volumes import luks_volume

from blockemu.clocks import Clocks, SteppedClock
from blockemu.drivers.raw import Raw
from blockemu.emulator import Emulator
from blockemu.exports.nbd_server import NbdServer
from blockemu.host import sockets
from blockemu.nbd import client, wire
from blockemu.nbd.client import ExportInfo, Wanted
from blockemu.nbd.client_errors import HandshakeError
from blockemu.nbd.lost import EndOfFile
from blockemu.nbd.server import Negotiation, Refused, Session
from blockemu.nbd.steps import Handshake, Receive, Send, StartTls
from blockemu.route import Route
from blockemu.schema.exports import BlockExportOptionsNbd, BlockExportRemoveMode
from blockemu.schema.objects import SecretProperties

SECOND = 1_000_000_000
SIZE = 1 << 20
TURNS = 200  # of the loop: more than anything here needs
MOST_AT_ONCE = 64 << 10  # bytes that a handshake may want to have in memory


@dataclass
class FakeExport:
    """What a handshake sees of an export."""

    name: str
    description: str | None = None
    size: int = SIZE
    allocation_depth: bool = True
    flags: int = wire.HAS_FLAGS | wire.SEND_FLUSH
    alignment: int = 1
    max_transfer: int = wire.MAX_PAYLOAD
    bitmap_names: list[str] = field(default_factory=lambda: ["b0", "b1"])


class FakeExports:
    """Two exports, one of them aligned."""

    def __init__(self) -> None:
        self.every = [FakeExport("plain", "a text"), FakeExport("aligned", alignment=512)]

    def find(self, name: str) -> FakeExport | None:
        return next((each for each in self.every if each.name == name), None)

    def all(self) -> list[FakeExport]:
        return self.every


# Both roles, in memory


class Side:
    """One end of a handshake."""

    def __init__(self, steps: Handshake[Any]) -> None:
        self.steps = steps
        self.inbox = bytearray()
        self.result: Any = None
        self.over = False
        self.tls = 0
        self._step: Any = None

    def advance(self, peer: Side) -> bool:
        """Go as far as what is here allows; tell whether there was any progress."""
        moved = False
        while not self.over:
            answer = b""
            if isinstance(self._step, Receive):
                if len(self.inbox) < self._step.size:
                    return moved
                answer = bytes(self.inbox[: self._step.size])
                del self.inbox[: self._step.size]
            try:
                self._step = self.steps.send(answer) if self._step else next(self.steps)
            except StopIteration as stop:
                self.result, self._step, self.over = stop.value, None, True
            except (Refused, HandshakeError) as e:
                self.result, self._step, self.over = e, None, True
            moved = True
            if isinstance(self._step, Send):
                peer.inbox += self._step.data
            self.tls += isinstance(self._step, StartTls)
        return moved


def meet(steps: Handshake[Any], *, tls: bool = False) -> tuple[Side, Side]:
    """Have a client and our server talk; return both when neither can go on."""
    one, other = Side(steps), Side(Negotiation(FakeExports(), tls=tls).run())
    while one.advance(other) | other.advance(one):
        pass
    return one, other


@pytest.mark.parametrize("tls", [False, True])
def test_our_client_and_our_server_agree(tls: bool) -> None:
    ours, theirs = meet(client.connect(Wanted("plain", tls=tls)), tls=tls)
    assert isinstance(ours.result, ExportInfo)
    assert isinstance(theirs.result, Session)
    assert ours.result.size == theirs.result.export.size
    assert ours.result.structured is theirs.result.structured is True
    assert theirs.result.contexts == [0]
    assert ours.tls == theirs.tls == int(tls)
    assert not ours.inbox
    assert not theirs.inbox


def test_our_client_hears_from_our_server_that_there_is_no_such_export() -> None:
    ours, theirs = meet(client.connect(Wanted("nosuch")))
    assert isinstance(ours.result, HandshakeError)
    assert "export 'nosuch' not present" in str(ours.result) + ours.result.hint
    assert isinstance(theirs.result, Refused)


def test_our_client_lists_what_our_server_has() -> None:
    ours, _ = meet(client.list_exports())
    assert [(each.name, each.min_block) for each in ours.result] == [("plain", 1), ("aligned", 512)]
    assert ours.result[0].contexts == (
        "base:allocation",
        "qemu:allocation-depth",
        "qemu:dirty-bitmap:b0",
        "qemu:dirty-bitmap:b1",
    )


@pytest.mark.parametrize("tls", [False, True])
def test_who_speaks_of_encryption_alone_gets_nothing(tls: bool) -> None:
    ours, theirs = meet(client.connect(Wanted("plain", tls=tls)), tls=not tls)
    assert isinstance(ours.result, HandshakeError)
    assert not isinstance(theirs.result, Session)


# Any bytes


def option(number: int, data: bytes = b"") -> bytes:
    return wire.OPTION.pack(wire.OPTION_MAGIC, number, len(data)) + data


def named(name: bytes, rest: bytes) -> bytes:
    return struct.pack(">I", len(name)) + name + rest


def queries(name: bytes, *texts: bytes) -> bytes:
    return named(name, struct.pack(">I", len(texts)) + b"".join(named(t, b"") for t in texts))


OPTIONS = [
    option(wire.OPT_STRUCTURED_REPLY),
    option(wire.OPT_LIST),
    option(wire.OPT_INFO, named(b"plain", b"\0\0")),
    option(wire.OPT_INFO, named(b"aligned", b"\0\1\0\3")),
    option(wire.OPT_GO, named(b"plain", b"\0\2\0\3\0\1")),
    option(wire.OPT_SET_META_CONTEXT, queries(b"plain", b"base:allocation", b"qemu:")),
    option(wire.OPT_LIST_META_CONTEXT, queries(b"plain")),
    option(wire.OPT_LIST_META_CONTEXT, queries(b"aligned", b"qemu:dirty-bitmap:", b"base:")),
    option(wire.OPT_STARTTLS),
    option(wire.OPT_EXPORT_NAME, b"plain"),
    option(wire.OPT_ABORT),
    option(99, b"data"),
    struct.pack(">I", 3),
]


def answer(data: bytes, *, tls: bool = False) -> tuple[object, int, int]:
    """Give our server bytes; return the result, bytes sent, and the most it wanted at once."""
    steps = Negotiation(FakeExports(), tls=tls).run()
    sent = most = 0
    try:
        step = next(steps)
        while True:
            if isinstance(step, Receive):
                most = max(most, step.size)
                if len(data) < step.size:
                    raise EndOfFile
                part, data = data[: step.size], data[step.size :]
                step = steps.send(part)
            else:
                sent += len(step.data) if isinstance(step, Send) else 0
                step = steps.send(b"")
    except StopIteration as stop:
        return stop.value, sent, most
    except (Refused, EndOfFile) as e:
        return e, sent, most


pieces = st.lists(st.one_of(st.sampled_from(OPTIONS), st.binary(max_size=24)), max_size=12)


@given(pieces, st.integers(0, 400), st.binary(max_size=8), st.booleans(), st.booleans())
def test_any_bytes_give_a_session_or_are_refused_in_a_handshake(
    parts: list[bytes], at: int, noise: bytes, tls: bool, greeted: bool
) -> None:
    data = struct.pack(">I", 3) * greeted + b"".join(parts)
    data = data[:at] + noise + data[at + len(noise) :]
    result, sent, most = answer(data, tls=tls)
    assert isinstance(result, Session | Refused | EndOfFile)
    assert most <= MOST_AT_ONCE
    assert sent < 1024 * (len(data) // 2 + 1)  # nobody is an amplifier


@pytest.mark.parametrize("length", [MOST_AT_ONCE + 1, wire.MAX_PAYLOAD])
def test_options_that_are_long_and_unknown_are_thrown_away_piece_by_piece(length: int) -> None:
    head = struct.pack(">I", 3) + wire.OPTION.pack(wire.OPTION_MAGIC, 99, length)
    go = option(wire.OPT_GO, named(b"plain", b"\0\0"))
    result, _, most = answer(head + bytes(length) + go)
    assert isinstance(result, Session)
    assert most <= MOST_AT_ONCE


def test_an_option_longer_than_any_request_is_refused_before_it_comes() -> None:
    head = struct.pack(">I", 3) + wire.OPTION.pack(wire.OPTION_MAGIC, 99, wire.MAX_PAYLOAD + 1)
    result, _, _ = answer(head)
    assert str(result) == f"len ({wire.MAX_PAYLOAD + 1} ) is larger than max len ({1 << 25})"


# On sockets


class Served:
    """A server in this process, with one export that may be written to."""

    def __init__(self, emu: Emulator, clock: SteppedClock, path: str) -> None:
        self.emu = emu
        self.clock = clock
        self.path = path
        self.problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: self.problems.append(what))

    @property
    def clients(self) -> int:
        assert self.emu.exports.server is not None
        return self.emu.exports.server.clients

    async def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.path)
        await turns()
        return sock

    async def until(self, met: Callable[[], bool]) -> None:
        """Let the server work until something holds, which is sure to come."""
        while not met():
            await asyncio.sleep(0)


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def told(sock: socket.socket, count: int) -> bytes:
    """Receive exactly so many bytes."""
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        assert part, data
        data += part
    return data


async def rest(sock: socket.socket) -> bytes:
    """Receive all there is until the server hangs up."""
    data = b""
    with suppress(ConnectionError):
        while part := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            data += part
    return data


@asynccontextmanager
async def serving(folder: str, most: int = 0) -> AsyncIterator[Served]:
    clock = SteppedClock()
    emu = Emulator(clocks=Clocks(clock, clock))
    image = Path(folder) / "disk"
    image.write_bytes(b"\5" * SIZE)
    path = f"{folder}/s"
    listener = sockets.listen(sockets.UnixAddress(path))
    server = NbdServer(emu.exports, [listener], emu.pool, clock, max_connections=most)
    emu.exports.server = server
    options = {
        "driver": "raw",
        "node-name": "n",
        "file": {"driver": "file", "filename": str(image)},
    }
    node = await emu.opener.open(options)
    node.monitor_owned = True
    await emu.exports.add(BlockExportOptionsNbd(id="e", node_name="n", name="plain", writable=True))
    server.start()
    served = Served(emu, clock, path)
    try:
        yield served
    finally:
        await emu.close()
    assert not served.problems


def run(scenario: Callable[[Served], Coroutine[Any, Any, None]], most: int = 0) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with serving(folder, most) as served:
                await scenario(served)

    asyncio.run(main())


GREET = struct.pack(">I", 3)
ENTER = GREET + option(wire.OPT_STRUCTURED_REPLY) + option(wire.OPT_GO, named(b"plain", b"\0\0"))
GREETING = 18  # bytes


def request(kind: int, offset: int, length: int, flags: int = 0, cookie: int = 7) -> bytes:
    return wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, kind, cookie, offset, length)


TALK = (  # requests that do not overlap: they may be answered in any order
    ENTER
    + request(wire.CMD_WRITE, 4096, 3, cookie=1)
    + b"abc"
    + request(wire.CMD_READ, 131071, 5, cookie=2)
    + request(wire.CMD_READ, 0, 1024, wire.FLAG_DF, cookie=3)
    + request(wire.CMD_WRITE_ZEROES, 8192, 1, wire.FLAG_NO_HOLE, cookie=4)
    + request(wire.CMD_TRIM, 65536, 4096, cookie=5)
    + request(wire.CMD_CACHE, 0, 4096, cookie=6)
    + request(wire.CMD_FLUSH, 0, 0, cookie=7)
    + request(wire.CMD_READ, SIZE, 1, cookie=8)
    + request(99, 0, 0, cookie=9)
    + request(wire.CMD_READ, 262144, 3, cookie=10)
    + request(wire.CMD_DISC, 0, 0)
)


async def talk(served: Served, size: int) -> bytes:
    """Say all of TALK in pieces, each answered before the next; return the answers."""
    sock = await served.connect()
    with sock:
        for at in range(0, len(TALK), size):
            await asyncio.get_running_loop().sock_sendall(sock, TALK[at : at + size])
            if size < len(TALK):
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        return await rest(sock)


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """Take structured and simple replies apart: kind (-1: simple), cookie, body."""
    found = []
    while data:
        (magic,) = struct.unpack_from(">I", data)
        if magic == wire.SIMPLE_MAGIC:
            _, error, cookie = wire.SIMPLE.unpack_from(data)
            found.append((-1, cookie, struct.pack(">I", error)))
            data = data[wire.SIMPLE.size :]
        else:
            assert magic == wire.CHUNK_MAGIC, data[:32]
            _, _, kind, cookie, length = wire.CHUNK.unpack_from(data)
            end = wire.CHUNK.size + length
            assert len(data) >= end
            found.append((kind, cookie, data[wire.CHUNK.size : end]))
            data = data[end:]
    return found


def after_go(data: bytes) -> bytes:
    """Return what follows the handshake."""
    ack = wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, wire.OPT_GO, wire.REP_ACK, 0)
    return data.partition(ack)[2]


def test_messages_mean_the_same_one_byte_at_a_time() -> None:
    heard: dict[int, bytes] = {}

    async def scenario(served: Served) -> None:
        for size in (len(TALK), 1):
            heard[size] = await talk(served, size)

    run(scenario)
    whole, single = (sorted(replies(after_go(data))) for data in heard.values())
    assert whole == single
    assert {cookie for _, cookie, _ in whole} == set(range(1, 11))
    assert (wire.CHUNK_OFFSET_DATA, 10, struct.pack(">Q", 262144) + b"\5\5\5") in whole


def test_a_write_is_carried_out_though_the_client_leaves_at_once() -> None:
    async def scenario(served: Served) -> None:
        for last in (request(wire.CMD_DISC, 0, 0), b"x" * wire.REQUEST.size):
            with await served.connect() as sock:
                write = request(wire.CMD_WRITE, 1234, 5) + last[:5]
                await asyncio.get_running_loop().sock_sendall(sock, ENTER + write + last)
                await rest(sock)
            await served.until(lambda: served.clients == 0)
            disk = (Path(served.path).parent / "disk").read_bytes()
            assert disk[1233:1240] == b"\5" + last[:5] + b"\5"

    run(scenario)


def test_requests_to_an_encrypted_disk_that_come_together_are_each_whole() -> None:
    disk = bytearray(random.Random(1).randbytes(SIZE))

    async def scenario(served: Served) -> None:
        image = Path(served.path).with_name("encrypted")
        image.write_bytes(luks_volume(disk))
        served.emu.objects.add(SecretProperties(id="s", data="pass"))
        file = {"driver": "file", "filename": str(image)}
        options = {"driver": "luks", "node-name": "l", "key-secret": "s", "file": file}
        node = await served.emu.opener.open(options)
        node.monitor_owned = True
        await served.emu.exports.add(
            BlockExportOptionsNbd(id="l", node_name="l", name="encrypted", writable=True)
        )
        enter = option(wire.OPT_STRUCTURED_REPLY) + option(
            wire.OPT_GO, named(b"encrypted", b"\0\0")
        )
        heard = []
        large = [(131072, 102400), (262144, 65536), (655360, 1024)]
        for places in ([(8192, 4096), (0, 512), (65536, 1024)], [(512, 512)], large):
            with await served.connect() as sock:
                writes = [(at, random.Random(at).randbytes(size)) for at, size in places]
                said = b"".join(request(wire.CMD_WRITE, at, len(d)) + d for at, d in writes)
                for at, data in writes:
                    disk[at : at + len(data)] = data
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, GREET + enter + said + request(wire.CMD_DISC, 0, 0))
                heard.append(replies(after_go(await rest(sock))))
        assert heard == [[(-1, 7, bytes(4))] * count for count in (3, 1, 3)]
        with await served.connect() as sock:
            wanted = [(0, 4096), (8192, 4096), (65536, 512), (69632, 32768), (512, 512), (7, 9)]
            said = b"".join(request(wire.CMD_READ, at, size) for at, size in wanted)
            await loop.sock_sendall(sock, GREET + enter + said + request(wire.CMD_DISC, 0, 0))
            got = {body for _, _, body in replies(after_go(await rest(sock)))}
        assert got == {struct.pack(">Q", at) + disk[at : at + size] for at, size in wanted}
        with await served.connect() as sock:
            large = [(0, SIZE), (131072, 204800)]  # more than the socket holds
            said = b"".join(request(wire.CMD_READ, at, size) for at, size in large)
            await loop.sock_sendall(sock, GREET + enter + said)
            data, count = b"", sum(wire.CHUNK.size + 8 + size for _, size in large)
            while len(after_go(data)) < count:
                data += await loop.sock_recv(sock, 1 << 20)
            got = {body for _, _, body in replies(after_go(data))}
        assert got == {struct.pack(">Q", at) + disk[at : at + size] for at, size in large}

    run(scenario)


@pytest.mark.parametrize("kind", [wire.CMD_READ, wire.CMD_WRITE])
def test_a_client_does_not_wait_when_something_fails_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """It is hung up on, what failed is told, and others are served."""

    async def scenario(served: Served) -> None:
        def broken(self: Raw) -> Route:
            raise RuntimeError("no route")

        loop = asyncio.get_running_loop()
        with await served.connect() as sock:
            await loop.sock_sendall(sock, ENTER)
            await turns()
            node = served.emu.graph.lookup("n")
            with monkeypatch.context() as patched:
                patched.setattr(Raw, "route", broken)
                node.changed()
                said = request(kind, 0, 4) + b"abcd" * (kind == wire.CMD_WRITE)
                await loop.sock_sendall(sock, said + request(wire.CMD_READ, 0, 1))
                assert replies(after_go(await rest(sock))) == []
            await served.until(lambda: served.clients == 0)
        assert [str(what["exception"]) for what in served.problems] == ["no route"]
        served.problems.clear()
        node.changed()
        with await served.connect() as sock:
            await loop.sock_sendall(sock, ENTER + request(wire.CMD_READ, 0, 1))
            await loop.sock_sendall(sock, request(wire.CMD_DISC, 0, 0))
            [(_, _, body)] = replies(after_go(await rest(sock)))
            assert body[8:] == b"\5"

    run(scenario)


def test_who_does_not_finish_the_handshake_in_ten_seconds_is_sent_away() -> None:
    async def scenario(served: Served) -> None:
        half = await served.connect()
        done = await served.connect()
        with half, done:
            await asyncio.get_running_loop().sock_sendall(half, ENTER[:-1])
            await asyncio.get_running_loop().sock_sendall(done, ENTER)
            await turns()
            served.clock.step(10 * SECOND - 1)
            await turns()
            assert served.clients == 2
            served.clock.step(1)
            await served.until(lambda: served.clients == 1)
            await rest(half)
            await asyncio.get_running_loop().sock_sendall(done, request(wire.CMD_FLUSH, 0, 0))
            served.clock.step(1000 * SECOND)
            await turns()
            assert served.clients == 1

    run(scenario)


def test_a_client_that_never_reads_holds_nobody_up_and_is_not_read_from_for_ever() -> None:
    async def scenario(served: Served) -> None:
        deaf, other = await served.connect(), await served.connect()
        with deaf, other:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(deaf, ENTER)
            await turns()
            flood = request(wire.CMD_READ, 0, SIZE) * 1000
            pending = deque([flood] * 100)
            accepted = 0
            stuck = 0
            while stuck < TURNS:
                await asyncio.sleep(0)
                try:
                    accepted += deaf.send(pending[0])
                    stuck = 0
                except BlockingIOError:
                    stuck += 1
            assert accepted < 2 << 20
            await loop.sock_sendall(other, ENTER + request(wire.CMD_FLUSH, 0, 0))
            assert (await told(other, GREETING))[:8] == b"NBDMAGIC"
            await served.emu.exports.remove("e", BlockExportRemoveMode.HARD)
            await rest(other)
            await served.until(lambda: served.clients == 0)

    run(scenario)


def test_no_more_clients_come_in_than_may() -> None:
    async def scenario(served: Served) -> None:
        first, second = await served.connect(), await served.connect()
        with first, second:
            await told(first, GREETING)
            with pytest.raises(BlockingIOError):
                second.recv(1)
            first.close()
            await told(second, GREETING)
            assert served.clients == 1

    run(scenario, most=1)


requests = st.lists(
    st.one_of(
        st.builds(
            request,
            st.integers(0, 9),
            st.one_of(st.integers(0, SIZE), st.sampled_from([SIZE - 1, 1 << 63, (1 << 64) - 1])),
            st.sampled_from([0, 1, 511, 4096, 65537, SIZE, 1 << 25, (1 << 25) + 1, (1 << 32) - 1]),
            st.sampled_from([0, 0, 1, 2, 4, 8, 16, 31, 0xFFFF]),
            st.integers(0, (1 << 64) - 1),
        ),
        st.binary(max_size=40),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(requests)
def test_any_bytes_give_replies_or_the_end_of_a_connection(parts: list[bytes]) -> None:
    async def scenario(served: Served) -> None:
        sock = await served.connect()
        with sock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, ENTER)
            heard = b""
            while b"\0\0\0\7\0\0\0\1\0\0\0\0" not in heard:  # the acknowledgement of GO
                heard += await loop.sock_recv(sock, 4096)
            for part in parts:
                with suppress(ConnectionError):
                    await loop.sock_sendall(sock, part)
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            replies(await rest(sock))
            await served.until(lambda: served.clients == 0)

    run(scenario)
