"""Sockets that a client sends along and names: where the NBD server listens, where a disk is."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

from compat.daemon import DEADLINE, Both, Daemon, System
from compat.test_nbd_client_servers import qemu_nbd, running


def start(daemon: Daemon, name: str) -> Any:
    return daemon.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": name}}})


def keep(daemon: Daemon, name: str, number: int) -> None:
    daemon.execute("getfd", {"fdname": name}, fds=[number])


def add(daemon: Daemon, name: str) -> None:
    node = {"driver": "nbd", "server": {"type": "fd", "str": name}}
    daemon.execute("blockdev-add", node | {"node-name": "n"})
    daemon.execute("blockdev-add", {"driver": "raw", "node-name": "n", "file": node})


def test_only_sockets_that_have_a_name_are_taken(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        read, write = os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for name in ("absent", "5", "99", ""):
                start(daemon, name)
                add(daemon, name)
            for name in ("pipe", "pipe again", "pipe for a disk"):
                keep(daemon, name, read)
            start(daemon, "pipe")
            daemon.execute("closefd", {"fdname": "pipe"})
            add(daemon, "pipe for a disk")
            keep(daemon, "connected", ours.fileno())
            start(daemon, "connected")
            daemon.execute("nbd-server-stop")
        os.close(read)
        os.close(write)

    both(script, oracle=System)


def test_the_server_listens_on_a_socket_that_has_a_name(both: Both) -> None:
    heard: list[str] = []

    def script(daemon: Daemon) -> None:
        path = str(daemon.folder / "named.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            keep(daemon, "place", listener.fileno())
        start(daemon, "place")
        keep(daemon, "other", daemon.socket.fileno())
        start(daemon, "other")
        daemon.execute("closefd", {"fdname": "other"})
        daemon("blockdev-add", {"driver": "null-co", "node-name": "n", "size": 1 << 20})
        daemon("block-export-add", {"type": "nbd", "id": "e", "node-name": "n"})
        argv = ["nbdinfo", "--json", f"nbd+unix:///n?socket={path}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=True)
        heard.append(done.stdout.replace(path, "PATH"))
        daemon("nbd-server-stop")

    both(script, oracle=System)
    assert heard[0] == heard[1]


def test_a_disk_on_a_named_socket_shows_the_name_and_loses_it_once(both: Both) -> None:
    node = {"driver": "nbd", "server": {"type": "fd", "str": "line"}}

    def connect(daemon: Daemon) -> None:
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(daemon.folder / "s.sock"))
            keep(daemon, "line", connected.fileno())

    def script(daemon: Daemon) -> None:
        (daemon.folder / "disk").write_bytes(bytes(1 << 20))
        with running(daemon.folder, *qemu_nbd(daemon.folder, "-f", "raw")):
            connect(daemon)
            inner = node | {"tls-creds": "none"}
            daemon.execute("blockdev-add", {"driver": "raw", "node-name": "n", "file": inner})
            daemon.execute("blockdev-add", {"driver": "raw", "node-name": "n", "file": node})
            connect(daemon)
            daemon("blockdev-add", {"driver": "raw", "node-name": "n", "file": node})
            for each in daemon("query-named-block-nodes", flat=True):
                daemon.note(f"{each['drv']} {each['image']['filename']}")
            daemon("blockdev-del", {"node-name": "n"})
            daemon.execute("blockdev-add", {"driver": "raw", "node-name": "n", "file": node})

    both(script, oracle=System)
