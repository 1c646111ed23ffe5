"""blockemu-nbd beside qemu-nbd: the same argument lists, the same text and status."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.nbd_fakes import FakeServer, Gone, Peer, block_sizes, info, meta
from compat.programs import PATIENCE, Pair, Ran

from blockemu.nbd import wire

SPEED = re.compile(r"\S+ sec \(.*\)|nbd\S*\?socket=\S+|\"uri\".*")


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Pair:
    """Give both programs, with an image of zeroes beside them."""
    pair = Pair.made(tmp_path, program("qemu-nbd"), "blockemu.programs.nbd_cli")
    for folder in pair.folders.values():
        (folder / "raw").write_bytes(bytes(1 << 20))
    return pair


REFUSED = [
    [],
    ["a", "b"],
    ["--nosuch", "raw"],
    ["-z", "raw"],
    ["--s", "raw"],
    ["--port"],
    ["-p"],
    ["--read-only=yes", "raw"],
    ["-n", "--cache=none", "raw"],
    ["--cache=nosuch", "raw"],
    ["--aio=threads", "--aio=native", "raw"],
    ["--aio=nosuch", "raw"],
    ["--discard=unmap", "--discard=unmap", "raw"],
    ["--discard=nosuch", "raw"],
    ["--detect-zeroes=nosuch", "raw"],
    ["--detect-zeroes=unmap", "raw"],
    ["--detect-zeroes=unmap", "--discard=unmap", "raw"],
    ["-o", "x", "raw"],
    ["-o", "1k", "raw"],
    ["-o", "18446744073709551616", "raw"],
    ["-k", "relative", "raw"],
    ["-e", "-1", "raw"],
    ["-e", "x", "raw"],
    ["-e", "2147483648", "raw"],
    ["-x", "x" * 4097, "raw"],
    ["-D", "x" * 4097, "raw"],
    ["--tls-authz=a", "raw"],
    ["--tls-hostname=a", "raw"],
    ["--tls-creds=nosuch", "raw"],
    ["--tls-creds=nosuch", "--tls-hostname=a", "raw"],
    ["--tls-creds=nosuch", "--tls-authz=a", "-L"],
    ["--tls-creds=nosuch", "-c", "/dev/nbd0", "raw"],
    ["--object", "throttle-group,id=g", "--tls-creds=g", "raw"],
    ["--object", "nosuch,id=g", "raw"],
    ["--object", "throttle-group", "raw"],
    ["-L", "raw"],
    ["-L", "-x", "name"],
    ["-L", "-D", "text"],
    ["-L", "-o", "1"],
    ["-L", "-o", "0", "-k", "/nosuch"],
    ["-L", "-f", "raw"],
    ["-L", "-l", "snapshot"],
    ["-L", "-B", "bitmap"],
    ["-L", "-A"],
    ["-L", "-n"],
    ["-L", "--cache=none"],
    ["-L", "--aio=native"],
    ["-L", "--discard=unmap"],
    ["-L", "-d"],
    ["-L", "-c", "/dev/nbd0"],
    ["-L", "--fork"],
    ["-L", "-r", "-s", "-t", "-v", "-e", "7", "-k", "/nosuch/socket"],
    ["-L", "-p", "nosuch"],
    ["-L", "-b", "127.0.0.1", "-p", "1"],
]


@pytest.mark.parametrize("argv", REFUSED, ids=lambda argv: " ".join(argv)[:40])
def test_what_makes_no_sense_is_refused_as_by_qemu_nbd(pair: Pair, argv: list[str]) -> None:
    assert pair.same(*argv).status != 0


def test_kernel_devices_are_refused(pair: Pair) -> None:
    for argv in (["-c", "/dev/nbd0", "raw"], ["-d", "/dev/nbd0"]):
        ran = pair.run("ours", *argv)
        assert ran == Ran(1, "", "qemu-nbd: Kernel /dev/nbdN support not available\n")


@pytest.mark.parametrize("option", ["--help", "-h", "--version", "-V"])
def test_help_and_version_end_well(pair: Pair, option: str) -> None:
    ran = pair.run("ours", option, "--nosuch")
    assert ran.status == 0
    assert "qemu-nbd" in ran.output
    assert not ran.errors


# Lists


def listing(*exports: tuple[bytes, bytes]) -> Callable[[Peer], None]:
    """Be a server with these exports, by name and description, of all kinds."""

    def behave(peer: Peer) -> None:
        peer.greet()
        described = 0
        while True:
            option, data = peer.option()
            if option == wire.OPT_ABORT:
                raise Gone
            ack = (wire.REP_ACK, b"")
            if option == wire.OPT_STRUCTURED_REPLY:
                peer.reply(option, ack)
            elif option == wire.OPT_LIST:
                entries = [struct.pack(">I", len(name)) + name + text for name, text in exports]
                peer.reply(option, *((wire.REP_SERVER, entry) for entry in entries), ack)
            elif option == wire.OPT_INFO:
                described += 1
                size = info(described * 1000, described * 0x113 & 0xFFFF | 1)
                sizes = [(wire.REP_INFO, block_sizes(1, 4096, 1 << 25))] * (described % 2)
                peer.reply(option, (wire.REP_INFO, size), *sizes, ack)
            elif b"qemu:" in data:
                peer.reply(option, (wire.REP_META_CONTEXT, meta(0, b"qemu:dirty-bitmap:b")), ack)
            else:
                peer.reply(option, (wire.REP_META_CONTEXT, meta(0, b"base:allocation")), ack)

    return behave


def no_info(peer: Peer) -> None:
    """Have a list, and nothing to say about what is on it."""
    peer.greet()
    while True:
        option, _ = peer.option()
        if option == wire.OPT_ABORT:
            raise Gone
        if option == wire.OPT_LIST:
            peer.reply(option, (wire.REP_SERVER, b"\0\0\0\1a"), (wire.REP_ACK, b""))
        else:
            peer.reply(option, (wire.REP_ERR_UNSUP, b""))


def old(peer: Peer) -> None:
    head = struct.pack(">QQQI", wire.INIT_MAGIC, wire.OLDSTYLE_MAGIC, 4096, 3)
    peer.send(head + bytes(124))
    peer.rest()


def not_fixed(peer: Peer) -> None:
    peer.greet(0)
    peer.rest()


def no_list(peer: Peer) -> None:
    peer.greet()
    while True:
        option, _ = peer.option()
        if option == wire.OPT_ABORT:
            raise Gone
        peer.reply(option, (wire.REP_ERR_UNSUP, b""))


def list_denied(peer: Peer) -> None:
    peer.greet()
    while True:
        option, _ = peer.option()
        if option == wire.OPT_ABORT:
            raise Gone
        peer.reply(option, (wire.REP_ERR_POLICY, b"these are secret"))


def tls_only(peer: Peer) -> None:
    peer.greet()
    while True:
        option, _ = peer.option()
        if option == wire.OPT_ABORT:
            raise Gone
        peer.reply(option, (wire.REP_ERR_TLS_REQD, b"encrypt, please"))


SERVERS: dict[str, Callable[[Peer], None]] = {
    "none": listing(),
    "one": listing((b"", b"")),
    "many": listing(
        (b"a", b"text"), (b"b c", b""), ("\N{SNOWMAN}".encode(), b"\xff"), (b"d", b"x")
    ),
    "no-info": no_info,
    "old": old,
    "not-fixed": not_fixed,
    "no-list": no_list,
    "list-denied": list_denied,
    "tls-only": tls_only,
    "garbage": lambda peer: peer.send(b"HTTP/1.0 400 Bad Request\r\n"),
    "nothing": lambda peer: None,
}


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    """Give a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="nbd", dir="/tmp") as folder:
        yield Path(folder) / "s"


@pytest.mark.parametrize("server", SERVERS)
def test_a_list_is_that_of_qemu_nbd(pair: Pair, socket_path: Path, server: str) -> None:
    told = []
    for who in ("real", "ours"):
        with FakeServer(socket_path, SERVERS[server]) as fake:
            ran = pair.run(who, "--list", "-k", str(socket_path))
        told.append((ran, fake.log))  # whole once the server is closed
        socket_path.unlink()
    assert told[0] == told[1]


# Serving

IMAGES = {
    "raw": [],
    "top.qcow2": ["create -q -f qcow2 -b raw -F raw top.qcow2", "bitmap --add top.qcow2 b0"],
    "snapped.qcow2": ["create -q -f qcow2 snapped.qcow2 1M", "snapshot -c one snapped.qcow2"],
}
SERVED = [
    ["-f", "raw", "raw"],
    ["raw"],
    ["-r", "-f", "raw", "raw"],
    ["-f", "raw", "-x", "name", "-D", "a disk", "raw"],
    ["-f", "raw", "-o", "4096", "raw"],
    ["-f", "raw", "-e", "3", "raw"],
    ["-f", "raw", "-e", "0", "raw"],
    ["-f", "raw", "--cache=writethrough", "--discard=unmap", "--detect-zeroes=unmap", "raw"],
    ["-f", "raw", "-n", "--aio=native", "raw"],
    ["-s", "-f", "raw", "raw"],
    ["top.qcow2"],
    ["-f", "qcow2", "-A", "-B", "b0", "top.qcow2"],
    ["-f", "raw", "top.qcow2"],
    ["--image-opts", "driver=qcow2,file.filename=top.qcow2"],
    ["-l", "one", "snapped.qcow2"],
    ["-l", "snapshot.name=one", "snapped.qcow2"],
    ["--object", "throttle-group,id=g", "--image-opts",
     "driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=raw"],
]  # fmt: skip
NOT_SERVED = [
    ["nosuch"],
    ["-f", "nosuch", "raw"],
    ["-f", "qcow2", "raw"],
    ["--image-opts", "-f", "raw", "driver=raw"],
    ["--image-opts", "driver=nosuch"],
    ["-f", "raw", "-o", "1048577", "raw"],
    ["-f", "raw", "-B", "b0", "raw"],
    ["-B", "nosuch", "top.qcow2"],
    ["-l", "nosuch", "snapped.qcow2"],
    ["-l", "one", "-f", "raw", "raw"],
    ["-l", "snapshot.name=nosuch", "snapped.qcow2"],
    ["-f", "raw", "--pid-file", "/nosuch/pid", "raw"],
    ["-f", "raw", "--aio=native", "raw"],
]


@pytest.fixture
def images(pair: Pair) -> Pair:
    """Make images beside both programs."""
    for folder in pair.folders.values():
        for commands in IMAGES.values():
            for command in commands:
                subprocess.run(["qemu-img", *command.split()], cwd=folder, check=True)
    return pair


def seen(pair: Pair, who: str, argv: list[str], path: Path) -> list[str]:
    """Serve in the background; return what clients see, and what is left when they are gone."""
    pid = pair.folders[who] / "pid"
    ran = pair.run(who, "--fork", "--pid-file", str(pid), "-k", str(path), "-t", *argv)
    heard = [str(ran)]
    name = argv[argv.index("-x") + 1] if "-x" in argv else ""
    uri = f"nbd+unix:///{name}?socket={path}"
    for client in (
        ["qemu-nbd", "-L", "-k", str(path)],
        ["nbdinfo", "--json", uri],
        ["qemu-io", "-f", "raw", "-c", "write -P 7 64k 4k", "-c", "flush", uri],
        ["qemu-io", "-r", "-f", "raw", "-c", "read -v 64k 64", "-c", "map", uri],
    ):
        done = subprocess.run(client, capture_output=True, text=True, timeout=PATIENCE, check=False)
        heard.append(SPEED.sub("", f"{done.returncode} {done.stdout} {done.stderr}"))
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    gone(number)
    heard.append(f"socket {path.exists()}, pid file {pid.exists()}")
    return heard


def gone(number: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{number}/exe").exists():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("argv", SERVED, ids=" ".join)
def test_clients_see_what_qemu_nbd_shows_them(
    images: Pair, socket_path: Path, argv: list[str]
) -> None:
    real, ours = (seen(images, who, argv, socket_path) for who in ("real", "ours"))
    assert ours == real


@pytest.mark.parametrize("fork", [[], ["--fork"]], ids=["foreground", "background"])
@pytest.mark.parametrize("argv", NOT_SERVED, ids=" ".join)
def test_what_cannot_be_served_is_refused_as_by_qemu_nbd(
    images: Pair, socket_path: Path, argv: list[str], fork: list[str]
) -> None:
    assert images.same("-k", str(socket_path), *fork, *argv).status == 1


@pytest.mark.parametrize("verbose", [[], ["-v"]], ids=["quiet", "verbose"])
def test_in_the_background_it_does_not_say_what_goes_wrong(
    images: Pair, socket_path: Path, verbose: list[str]
) -> None:
    said = []
    for who, folder in images.folders.items():
        pid, errors = folder / "pid", folder / "errors"
        argv = [images.programs[who], "--fork", *verbose, "--pid-file", pid, "-k", socket_path]
        with errors.open("w") as file:
            subprocess.run([*argv, "-f", "raw", "raw"], cwd=folder, check=True, stderr=file)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(socket_path))
            client.sendall(struct.pack(">I", 1 << 4))
            while client.recv(100):
                pass
        number = int(pid.read_text())
        os.kill(number, signal.SIGTERM)
        gone(number)
        said.append(errors.read_text())
    assert said == ["", ""]


def test_without_persistence_the_last_client_ends_it(images: Pair, socket_path: Path) -> None:
    uri = f"nbd+unix:///?socket={socket_path}"
    for who in ("real", "ours"):
        pid = images.folders[who] / "pid"
        arguments = ["-e", "2", "--fork", "--pid-file", str(pid), "-k", str(socket_path)]
        assert images.run(who, *arguments, "-f", "raw", "raw") == Ran(0, "", "")
        number = int(pid.read_text())
        subprocess.run(["qemu-nbd", "-L", "-k", str(socket_path)], check=True, capture_output=True)
        assert Path(f"/proc/{number}/exe").exists()  # that was no client of an export
        subprocess.run(["qemu-io", "-f", "raw", "-c", "read 0 512", uri], check=True,
                       capture_output=True)  # fmt: skip
        gone(number)
        assert not socket_path.exists()
