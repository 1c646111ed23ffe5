"""Names and options of NBD nodes: what they open, how nodes show, which are refused, as in QEMU."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Both, Daemon
from compat.io_prompt import PROGRAMS, Session
from compat.nbd_fakes import PATIENCE, FakeServer, Gone, Peer, behave_well

Json = Any


@contextmanager
def tcp_server() -> Iterator[int]:
    """Serve on a port of this host, one client after the other; give its number."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                try:
                    behave_well(Peer(sock, [], 0))
                except Gone:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


NAMES = [
    "nbd:unix:s.sock",
    "nbd:unix:s.sock:exportname=e",
    "nbd:unix:s.sock:exportname=",
    "nbd:unix:s.sock:exportname=a:exportname=b",
    "nbd:unix:",
    "nbd:unix",
    "nbd:",
    "nbd",
    "nbd:localhost",
    "nbd:localhost:",
    "nbd::PORT",
    "nbd::",
    "nbd:127.0.0.1:PORT",
    "nbd:127.0.0.1:PORT:exportname=e:f",
    "nbd:127.0.0.1:PORT,to=9",
    "nbd:[::1",
    "nbd:[::1]",
    "nbd:[]:10",
    "nbd:[::ffff:127.0.0.1]:PORT",
    "nbd+unix:///e?socket=s.sock",
    "nbd+unix://?socket=s.sock",
    "nbd+unix:///?socket=s.sock",
    "nbd+unix:////e?socket=s.sock",
    "nbd+unix:///e%20f?socket=s%2esock",
    "nbd+unix:///e?socket=s.sock&x=y",
    "nbd+unix:///e?socket=s.sock;x=y",
    "nbd+unix:///e?Socket=s.sock",
    "nbd+unix:///e?socket=",
    "nbd+unix:///e",
    "nbd+unix://h/e?socket=s.sock",
    "nbd+unix://h:1/e?socket=s.sock",
    "nbd+unix:///e?socket=s.sock#f",
    "nbd://127.0.0.1:PORT",
    "nbd://127.0.0.1:PORT/",
    "nbd://127.0.0.1:PORT/e",
    "nbd://127.0.0.1:PORT/e/f",
    "nbd+tcp://127.0.0.1:PORT/e",
    "nbd://user@127.0.0.1:PORT/e",
    "nbd://127.0.0.1:PORT/e?x=y",
    "nbd://127.0.0.1:0/e",
    "nbd://127.0.0.1:x/e",
    "nbd://[::ffff:127.0.0.1]:PORT/e",
    "nbd://[::1/e",
    "nbd:///e",
    "nbd://",
    "nbds://127.0.0.1:PORT/e",
    "nbd+x://127.0.0.1:PORT/e",
    "json:{'driver':'nbd','path':'s.sock'}",
    "json:{'driver':'nbd','path':'s.sock','export':'e'}",
    "json:{'driver':'nbd','host':'127.0.0.1','port':'PORT'}",
    "json:{'driver':'nbd','path':'s.sock','port':'PORT'}",
    "json:{'driver':'nbd','path':'s.sock','host':'h'}",
    "json:{'driver':'nbd','port':'PORT'}",
    "json:{'driver':'nbd','path':'s.sock','server.type':'unix'}",
    "json:{'driver':'nbd'}",
    "json:{'driver':'nbd','export':'e'}",
    "json:{'driver':'nbd','server.type':'unix'}",
    "json:{'driver':'nbd','server.type':'nosuch','server.path':'s.sock'}",
    "json:{'driver':'nbd','server.path':'s.sock'}",
    "json:{'driver':'nbd','server.type':'unix','server.path':'s.sock','bogus':1}",
    "json:{'driver':'nbd','server.type':'unix','server.path':'s.sock','server.bogus':1}",
    "json:{'driver':'nbd','server':{'type':'unix','path':'s.sock'},'reconnect-delay':'3'}",
    "json:{'driver':'nbd','server':{'type':'unix','path':'s.sock'},'reconnect-delay':'x'}",
    "json:{'driver':'nbd','server.type':'inet','server.host':'127.0.0.1','server.port':'PORT','server.ipv4':'on'}",
    "json:{'driver':'nbd','server.type':'unix','server.path':'s.sock','tls-creds':'nosuch'}",
]


def test_every_name_opens_or_is_refused_as_in_qemu(tmp_path: Path) -> None:
    heard: list[list[str]] = []
    with tcp_server() as port, FakeServer(tmp_path / "s.sock", behave_well):
        for program in PROGRAMS:
            session = Session(program, tmp_path)
            said = []
            for name in NAMES:
                how = "open " if name.startswith("json:") else "open -o driver=raw "
                opened = session.says(how + name.replace("PORT", str(port)))
                said.append(f"{name}: {opened.replace(str(port), 'PORT')}")
                if not opened:
                    session.says("close")
            session.close()
            heard.append([line.replace("blockemu-io", "qemu-io") for line in said])
    real, ours = heard
    assert ours == real


def node(**options: Json) -> Json:
    server = {"type": "unix", "path": "s.sock"}
    return {"driver": "nbd", "node-name": "n", "server": server} | {
        name.replace("_", "-"): value for name, value in options.items()
    }


NODES = [
    node(),
    node(export="e"),
    node(export="a b?c#d%e"),
    node(export="x" * 4096),
    node(export="x" * 4097),
    node(export="\N{SNOWMAN}"),
    node(x_dirty_bitmap="base:allocation"),
    node(x_dirty_bitmap="x" * 4097),
    node(reconnect_delay=1, open_timeout=1),
    node(reconnect_delay=-1),
    node(reconnect_delay=1 << 32),
    node(reconnect_delay="1"),
    node(tls_hostname="h"),
    node(tls_creds="nosuch"),
    node(tls_creds="group"),
    node(server={"type": "unix", "path": "nosuch.sock"}),
    node(server={"type": "unix", "path": ""}),
    node(server={"type": "unix", "path": "x" * 109}),
    node(server={"type": "unix", "path": "abs", "abstract": True}),
    node(server={"type": "unix"}),
    node(server={"type": "unix", "path": "s.sock", "bogus": 1}),
    node(server={"type": "nosuch"}),
    node(server={}),
    node(server="s.sock"),
    {"driver": "nbd", "node-name": "n"},
    {"driver": "nbd", "node-name": "n", "path": "s.sock"},
    {"driver": "nbd", "node-name": "n", "filename": "nbd:unix:s.sock"},
    node(server={"type": "inet", "host": "127.0.0.1"}),
    node(server={"type": "inet", "host": "127.0.0.1", "port": "1"}),
    node(server={"type": "inet", "host": "127.0.0.1", "port": "nosuch"}),
    node(server={"type": "inet", "host": "nosuch.invalid", "port": "1"}),
    node(server={"type": "inet", "host": "127.0.0.1", "port": "1", "ipv4": False}),
    node(server={"type": "inet", "host": "::1", "port": "1", "ipv6": False}),
    node(server={"type": "inet", "host": "127.0.0.1", "port": "1", "ipv4": False, "ipv6": False}),
    node(server={"type": "inet", "host": "127.0.0.1", "port": "1", "ipv4": True, "ipv6": True}),
    node(server={"type": "vsock", "cid": "x", "port": "1"}),
    node(server={"type": "vsock", "cid": "1", "port": "4294967296"}),
    {"driver": "raw", "node-name": "n", "file": {k: v for k, v in node(export="e").items() if k != "node-name"}},
    node(read_only=True, auto_read_only=True),
    node(discard="unmap", detect_zeroes="unmap", cache={"direct": True, "no-flush": True}),
]  # fmt: skip


def _add_all(daemon: Daemon) -> None:
    daemon("object-add", qom_type="throttle-group", id="group")
    with FakeServer(daemon.folder / "s.sock", behave_well):
        for options in NODES:
            if "return" in daemon.execute("blockdev-add", options):
                daemon.execute("query-named-block-nodes")
                daemon.execute("blockdev-del", node_name="n")


def test_every_node_is_added_or_refused_as_in_qemu(both: Both) -> None:
    both(_add_all)


def _reopen(daemon: Daemon) -> None:
    with (
        FakeServer(daemon.folder / "s.sock", behave_well),
        FakeServer(daemon.folder / "ro.sock", _read_only),
    ):
        daemon("blockdev-add", node(read_only=True))
        for options in (
            node(),
            node(read_only=True, export="other"),
            node(reconnect_delay=5),
            node(server={"type": "unix", "path": "other.sock"}),
            node(discard="unmap"),
            {k: v for k, v in node().items() if k != "server"},
        ):
            daemon.execute("blockdev-reopen", {"options": [options]})
            daemon.execute("query-named-block-nodes")
        daemon("blockdev-del", node_name="n")
        server = {"type": "unix", "path": "ro.sock"}
        daemon("blockdev-add", node(server=server, read_only=True))
        daemon.execute("blockdev-reopen", {"options": [node(server=server)]})
        daemon.execute("blockdev-reopen", {"options": [node(server=server, auto_read_only=True)]})
        daemon.execute("query-named-block-nodes")


def _read_only(peer: Peer) -> None:
    behave_well(peer, flags=3)


@pytest.mark.parametrize("script", [_reopen])
def test_a_node_is_reopened_as_in_qemu(both: Both, script: Any) -> None:
    both(script)


VSOCKS = [("x", "1"), ("1", "4294967296"), ("-1", "1"), ("4294967295", "12345")]


def _vsock_chardevs(daemon: Daemon) -> None:
    for cid, port in VSOCKS:
        address = {"type": "vsock", "data": {"cid": cid, "port": port}}
        data = {"addr": address, "server": True, "wait": False}
        daemon.execute("chardev-add", {"id": "v", "backend": {"type": "socket", "data": data}})
    daemon.execute("query-chardev")


def test_a_chardev_listens_for_virtual_machines_as_in_qemu(both: Both) -> None:
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        pytest.skip("this kernel has no such sockets")
    both(_vsock_chardevs)
