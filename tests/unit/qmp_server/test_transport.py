"""Monitors on sockets, pipes and files."""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockemu.qmp_server.address import AddressError, parse_address
from blockemu.qmp_server.control import qmp_capabilities
from blockemu.qmp_server.dispatch import Event, Registry, command
from blockemu.qmp_server.events import EventHub
from blockemu.qmp_server.transport import Connection, Monitor, Server, bind, make_dispatcher, serve

NEGOTIATE = b'{"execute": "qmp_capabilities"}'
GREETING_START = b'{"QMP": '


class Tick(Event, event="TICK"):
    """No data."""


class Shared:
    """What the commands of a test act on."""

    def __init__(self) -> None:
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hub = EventHub(lambda: 0, lambda delay, function: None)
        self.started: list[str] = []


class Context:
    def __init__(self, shared: Shared, connection: Connection) -> None:
        self.shared = shared
        self.connection = connection


@command
def now(context: Context, *, text: str = "") -> str:
    return f"now{text}"


@command
async def wait(context: Context) -> str:
    context.shared.started.append("wait")
    await context.shared.gate
    return "waited"


@command
def tick(context: Context) -> None:
    context.shared.hub.emit(Tick())


@command
def take_fd(context: Context) -> int:
    fd = context.connection.take_fd()
    return -1 if fd is None else fd


REGISTRY = Registry([qmp_capabilities, now, wait, tick, take_fd])


class Client:
    """The other end, read line by line without blocking the loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._rest = b""

    async def line(self) -> bytes:
        loop = asyncio.get_running_loop()
        while b"\r\n" not in self._rest:
            data = await loop.sock_recv(self.sock, 1 << 16)
            if not data:
                return b""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def begin(self) -> None:
        assert (await self.line()).startswith(GREETING_START)
        await self.send(NEGOTIATE)
        assert await self.line() == b'{"return": {}}'


@pytest.fixture
async def shared() -> Shared:
    return Shared()


@pytest.fixture
def monitor(shared: Shared) -> Monitor:
    return Monitor(
        lambda connection: Context(shared, connection),
        lambda: REGISTRY,
        dispatcher=make_dispatcher(),
        hub=shared.hub,
        self_check=True,
    )


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    things: list[Any] = []

    def keep(thing: Any) -> Any:
        things.append(thing)
        return thing

    yield keep
    for thing in things:
        thing.close()


@pytest.fixture
async def pair(monitor: Monitor, closing: Callable[[Any], Any]) -> tuple[Server, Client]:
    ours, theirs = socket.socketpair()
    client = Client(closing(theirs))
    server = closing(await serve(monitor, ours))
    await client.begin()
    return server, client


async def test_replies_come_in_order(pair: tuple[Server, Client], shared: Shared) -> None:
    _, client = pair
    await client.send(b'{"execute": "now"}{"execute": "wait"}{"execute": "now", "id": 1}{"exec')
    await client.send(b'ute": "tick"}')
    assert await client.line() == b'{"return": "now"}'
    shared.gate.set_result(None)
    assert await client.line() == b'{"return": "waited"}'
    assert await client.line() == b'{"return": "now", "id": 1}'
    assert b'"event": "TICK"' in await client.line()
    assert await client.line() == b'{"return": {}}'


async def test_replies_of_one_packet_are_sent_together(pair: tuple[Server, Client]) -> None:
    _, client = pair
    await client.send(b'{"execute": "now"}' * 100)
    data = await asyncio.get_running_loop().sock_recv(client.sock, 1 << 16)
    assert data == b'{"return": "now"}\r\n' * 100


async def test_no_events_before_the_negotiation(
    monitor: Monitor, shared: Shared, closing: Any
) -> None:
    ours, theirs = socket.socketpair()
    client = Client(closing(theirs))
    closing(await serve(monitor, ours))
    shared.hub.emit(Tick())
    await client.begin()
    shared.hub.emit(Tick())
    assert b"TICK" in await client.line()


async def test_requests_before_the_end_of_input_are_still_run(
    pair: tuple[Server, Client], shared: Shared
) -> None:
    server, client = pair
    await client.send(b'{"execute": "wait"}{"execute": "now"}')
    client.sock.shutdown(socket.SHUT_WR)
    while not shared.started:
        await asyncio.sleep(0)
    shared.gate.set_result(None)
    assert await client.line() == b'{"return": "waited"}'
    assert await client.line() == b'{"return": "now"}'
    assert await client.line() == b""
    assert server.connection is None


async def test_a_client_that_does_not_read_is_not_read_from(pair: tuple[Server, Client]) -> None:
    _, client = pair
    big = b'{"execute": "now", "arguments": {"text": "%s"}}' % (b"x" * 30000)
    sender = asyncio.ensure_future(client.send(big * 300))
    for _ in range(300):
        await asyncio.sleep(0)
    assert not sender.done()
    for _ in range(300):
        assert len(await client.line()) == 30000 + len(b'{"return": "now"}')
    await sender


async def test_file_descriptors_come_with_the_request(
    pair: tuple[Server, Client], tmp_path: Path
) -> None:
    _, client = pair
    files = [(tmp_path / name).open("w") for name in "ab"]
    fds = array.array("i", [file.fileno() for file in files])
    client.sock.sendmsg([b'{"execute": "take-fd"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    reply = await client.line()
    for file in files:
        file.close()
    fd = int(reply.rpartition(b" ")[2][:-1])
    os.write(fd, b"hello")
    os.close(fd)
    assert (tmp_path / "a").read_text() == "hello"
    await client.send(b'{"execute": "take-fd"}')
    assert await client.line() == b'{"return": -1}'  # the other one was closed


async def test_the_next_client_waits_for_the_first_to_leave(
    monitor: Monitor, closing: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "qmp.sock")
    server = closing(await serve(monitor, f"unix:{path},server=on,wait=off"))
    clients = []
    for _ in range(2):
        sock = closing(socket.socket(socket.AF_UNIX))
        sock.connect(path)
        clients.append(Client(sock))
    await clients[0].begin()
    await server.wait_client()
    second = asyncio.ensure_future(clients[1].begin())
    await asyncio.sleep(0)
    assert not second.done()
    clients[0].sock.close()
    await second
    server.close()
    assert not Path(path).exists()


async def test_a_monitor_connects_out(monitor: Monitor, closing: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    with pytest.raises(OSError, match="No such file"):
        await serve(monitor, f"unix:{path},server=off")
    listener = closing(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(1)
    closing(await serve(monitor, f"unix:{path},server=off"))
    client = Client(closing(listener.accept()[0]))
    await client.begin()


async def test_a_monitor_listens_on_tcp_and_on_an_inherited_socket(
    monitor: Monitor, closing: Any
) -> None:
    listener = bind(parse_address("tcp:127.0.0.1:0"))
    port = listener.getsockname()[1]
    closing(await serve(monitor, f"fd:{listener.detach()}"))
    client = Client(closing(socket.create_connection(("127.0.0.1", port))))
    await client.begin()


async def test_a_monitor_reads_pipes_to_their_end(monitor: Monitor) -> None:
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    server = Server(monitor, parse_address("stdio"))
    server.attach_fds(in_read, out_write)
    os.write(in_write, NEGOTIATE + b'{"execute": "now"}')
    os.close(in_write)
    out = b""
    while b"now" not in out:
        await asyncio.sleep(0)
        out += os.read(out_read, 1 << 16)
    assert out.endswith(b'{"return": {}}\r\n{"return": "now"}\r\n')
    server.close()
    for fd in (in_read, out_read, out_write):
        os.close(fd)


async def test_a_monitor_reads_and_writes_files(monitor: Monitor, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(NEGOTIATE + b'{"execute": "now"}')
    in_fd = os.open(tmp_path / "in", os.O_RDONLY)
    out_fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    server = Server(monitor, parse_address("stdio"))
    left = asyncio.Event()
    monitor.on_disconnect = left.set
    server.attach_fds(in_fd, out_fd)
    await left.wait()
    server.close()
    os.close(in_fd)
    os.close(out_fd)
    assert (tmp_path / "out").read_bytes().endswith(b'{"return": "now"}\r\n')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/a,,b", ("unix", "/a,b", "", "", True, False)),
        ("unix:/a,server,nowait", ("unix", "/a", "", "", True, False)),
        ("unix:/a,server=off,reconnect=3", ("unix", "/a", "", "", False, False)),
        ("tcp:[::1]:44", ("tcp", "", "::1", "44", True, False)),
        ("tcp::44,wait=on", ("tcp", "", "", "44", True, True)),
        ("stdio", ("stdio", "", "", "", True, False)),
        ("fd:7", ("fd", "", "", "", True, False)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[Any, ...]) -> None:
    it = parse_address(text)
    assert (it.kind, it.path, it.host, it.port, it.server, it.wait) == expected


@pytest.mark.parametrize(
    "text", ["", "unix:", "tcp:host", "fd:x", "pipe:x", "unix:/a,colour=red", "stdio:"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)
