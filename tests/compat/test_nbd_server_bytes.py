"""What the NBD server answers to whatever a client sends: byte for byte what QEMU's does."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon, image

from blockemu.nbd import wire

SIZE, CLUSTER = 1 << 20, 1 << 16
BITMAPS = {"rw": "c", "ro": "d"}  # of each export
GREETING = 18  # bytes


class Client:
    """A client that says what it is told to, and keeps what it hears."""

    def __init__(self, daemon: Daemon, flags: int = 3) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(daemon.folder / "nbd.sock"))
        assert len(self.receive(GREETING)) == GREETING
        self.send(struct.pack(">I", flags))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # what it said before is still to be heard
            self.sock.sendall(data)

    def receive(self, count: int) -> bytes:
        """Receive so many bytes, or fewer if the server hangs up."""
        data = b""
        while len(data) < count:
            try:
                part = self.sock.recv(count - len(data))
            except ConnectionError:
                part = b""
            if not part:
                break
            data += part
        return data

    def rest(self) -> bytes:
        """Say no more; receive all there is to come."""
        self.sock.shutdown(socket.SHUT_WR)
        return self.receive(1 << 30)

    def enter(self, name: str, *, structured: bool, contexts: Iterable[str] = ()) -> None:
        """Go where requests are served."""
        if structured:
            self.send(option(wire.OPT_STRUCTURED_REPLY))
            self.receive(wire.OPTION_REPLY.size)
        if contexts:
            asked = queries(name.encode(), *(each.encode() for each in contexts))
            self.send(option(wire.OPT_SET_META_CONTEXT, asked))
            while self._option_reply() != wire.REP_ACK:
                pass
        self.send(option(wire.OPT_EXPORT_NAME, name.encode()))
        assert len(self.receive(10)) == 10

    def _option_reply(self) -> int:
        _, _, kind, length = wire.OPTION_REPLY.unpack(self.receive(wire.OPTION_REPLY.size))
        self.receive(length)
        return kind

    def ask(self, flags: int, kind: int, offset: int, length: int, data: bytes = b"") -> list[str]:
        """Make a request; return its replies, or what came before the server hung up."""
        self.send(wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, kind, 7, offset, length) + data)
        replies = []
        done = False
        while not done:
            head = self.receive(4)
            if head == struct.pack(">I", wire.SIMPLE_MAGIC):
                head += self.receive(wire.SIMPLE.size - 4)
                error = wire.SIMPLE.unpack(head)[1]
                payload = b"" if error or kind != wire.CMD_READ else self.receive(length)
                done = True
            elif head == struct.pack(">I", wire.CHUNK_MAGIC):
                head += self.receive(wire.CHUNK.size - 4)
                _, ends, _, _, size = wire.CHUNK.unpack(head)
                payload = self.receive(size)
                done = bool(ends & wire.CHUNK_DONE)
            else:
                replies.append("hung up")
                break
            replies.append(f"{head.hex()} {shown(payload)}")
        return replies


def shown(data: bytes) -> str:
    """Show data, long runs of one byte by their length."""
    parts = []
    for value, same in itertools.groupby(data):
        count = len(list(same))
        parts.append(f"{value:02x}" * count if count < 16 else f" {value:02x}*{count} ")
    return "".join(parts)


def option(number: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return wire.OPTION.pack(wire.OPTION_MAGIC, number, size) + data


def named(name: bytes, rest: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack(">I", len(name) if length is None else length) + name + rest


def queries(name: bytes, *texts: bytes, count: int | None = None) -> bytes:
    number = struct.pack(">I", len(texts) if count is None else count)
    return named(name, number + b"".join(named(text) for text in texts))


def infos(name: bytes, *kinds: int, count: int | None = None) -> bytes:
    number = len(kinds) if count is None else count
    return named(name, struct.pack(f">H{len(kinds)}H", number, *kinds))


def prepare(folder: Path) -> None:
    image("create", "-f", "qcow2", "disk.qcow2", str(SIZE), cwd=folder)
    commands = ["write -q -P 1 0 128k", "write -q -P 2 192k 64k", "write -q -z 512k 64k"]
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *words, "disk.qcow2"], cwd=folder, check=True, timeout=DEADLINE)
    image("bitmap", "--add", "disk.qcow2", "b", cwd=folder)
    for name in BITMAPS.values():
        image("bitmap", "--add", "--disable", "disk.qcow2", name, cwd=folder)


def serve(daemon: Daemon) -> None:
    path = str(daemon.folder / "nbd.sock")
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
    file = {"driver": "file", "filename": str(daemon.folder / "disk.qcow2")}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": file})
    for name, writable in (("rw", True), ("ro", False)):
        export = {"type": "nbd", "id": name, "node-name": "disk", "writable": writable}
        more = {"name": name, "allocation-depth": True, "bitmaps": [BITMAPS[name]]}
        if writable:
            more["description"] = "one to write to"
        daemon("block-export-add", export | more)


RW, RO = b"rw", b"ro"
LONG = b"x" * 4096
HANDSHAKES: dict[str, bytes] = {
    "nothing": b"",
    "half an option": option(wire.OPT_LIST)[:-1],
    "garbage": b"GET / HTTP/1.0\r\n\r\n",
    "list": option(wire.OPT_LIST),
    "list with data": option(wire.OPT_LIST, b"data"),
    "abort": option(wire.OPT_ABORT),
    "abort with data": option(wire.OPT_ABORT, b"data"),
    "tls": option(wire.OPT_STARTTLS),
    "tls with data": option(wire.OPT_STARTTLS, b"data"),
    "structured twice": option(wire.OPT_STRUCTURED_REPLY) * 2,
    "structured with data": option(wire.OPT_STRUCTURED_REPLY, b"x"),
    "unknown": option(99, b"data") + option(0) + option(4, b"x") + option(11) + option(1 << 31),
    "too long": option(99, length=(32 << 20) + 1),
    "as long as may be": option(99, bytes(32 << 20)) + option(wire.OPT_LIST),
    "name": option(wire.OPT_EXPORT_NAME, RW),
    "name of none": option(wire.OPT_EXPORT_NAME, b"nosuch"),
    "no name": option(wire.OPT_EXPORT_NAME),
    "name too long": option(wire.OPT_EXPORT_NAME, LONG + b"x"),
    "long name": option(wire.OPT_EXPORT_NAME, LONG),
    "name with nul": option(wire.OPT_EXPORT_NAME, b"rw\0"),
    "info": option(wire.OPT_INFO, infos(RW)) + option(wire.OPT_INFO, infos(RO)),
    "info, all of it": option(wire.OPT_INFO, infos(RW, 0, 1, 2, 3, 4, 99)),
    "info, structured": option(wire.OPT_STRUCTURED_REPLY) + option(wire.OPT_INFO, infos(RW, 3)),
    "info of none": option(wire.OPT_INFO, infos(b"nosuch")) + option(wire.OPT_INFO, infos(LONG)),
    "info, name too long": option(wire.OPT_INFO, infos(LONG + b"x")) + option(wire.OPT_LIST),
    "info, nul": option(wire.OPT_INFO, infos(b"r\0w")) + option(wire.OPT_LIST),
    "info, too few": option(wire.OPT_INFO, infos(RW, 1, count=2)) + option(wire.OPT_LIST),
    "info, too many": option(wire.OPT_INFO, infos(RW, 1, 3, count=1)) + option(wire.OPT_LIST),
    "info, too short": option(wire.OPT_INFO, b"abc") + option(wire.OPT_INFO),
    "info, lengths": option(wire.OPT_INFO, named(RW, b"\0\0", length=5)) + option(wire.OPT_LIST),
    "go": option(wire.OPT_GO, infos(RW, 3)),
    "go nowhere": option(wire.OPT_GO, infos(b"nosuch", 3)) + option(wire.OPT_GO, infos(RO)),
    "contexts unstructured": option(wire.OPT_SET_META_CONTEXT, queries(RW, b"base:allocation"))
    + option(wire.OPT_LIST_META_CONTEXT, queries(RW, b"base:allocation")),
    "contexts listed": option(wire.OPT_LIST_META_CONTEXT, queries(RW)),
    "context wildcards listed": b"".join(
        option(wire.OPT_LIST_META_CONTEXT, queries(RW, text))
        for text in (b"base:", b"qemu:", b"qemu:dirty-bitmap:", b"qemu:dirty", b"b", b"base", b"")
    ),
    "contexts set": option(wire.OPT_STRUCTURED_REPLY)
    + b"".join(
        option(wire.OPT_SET_META_CONTEXT, queries(RO, *texts))
        for texts in (
            [b"base:allocation"],
            [b"base:", b"qemu:", b"qemu:dirty-bitmap:"],
            [b"qemu:dirty-bitmap:c", b"base:allocation", b"qemu:allocation-depth", b"base:x"],
            [b"qemu:dirty-bitmap:b", b"qemu:dirty-bitmap:nosuch", b"x-other:thing"],
            [b"base:allocation\0"],
            [LONG, LONG + b"x", b"base:allocation"],
            [],
        )
    ),
    "contexts of none": option(wire.OPT_STRUCTURED_REPLY)
    + option(wire.OPT_SET_META_CONTEXT, queries(b"nosuch", b"base:allocation"))
    + option(wire.OPT_LIST_META_CONTEXT, queries(b"nosuch")),
    "contexts, lengths": option(wire.OPT_STRUCTURED_REPLY)
    + option(wire.OPT_SET_META_CONTEXT, queries(RW, b"base:allocation", count=2))
    + option(wire.OPT_SET_META_CONTEXT, queries(RW, b"base:allocation", count=0))
    + option(wire.OPT_SET_META_CONTEXT, named(RW))
    + option(wire.OPT_SET_META_CONTEXT, b"ab")
    + option(wire.OPT_SET_META_CONTEXT, queries(LONG + b"x", b"base:allocation"))
    + option(wire.OPT_LIST),
}


def agree(heard: Mapping[str, Mapping[str, object]]) -> None:
    """Fail with what the programs did not answer alike."""
    real, ours = heard.values()
    assert real.keys() == ours.keys()
    wrong = [key for key in real if ours[key] != real[key]]
    assert not wrong, "\n".join(f"{key}:\n {real[key]}\n {ours[key]}" for key in wrong)


def test_a_handshake_is_answered_as_by_qemu(both: Both) -> None:
    heard: dict[str, dict[str, str]] = {}

    def script(daemon: Daemon) -> None:
        serve(daemon)
        answers = heard.setdefault(daemon.kind, {})
        for flags, (name, data) in itertools.product((3, 1, 0, 2, 7, 1 << 31), HANDSHAKES.items()):
            if len(data) > SIZE and flags != 3:
                continue
            with Client(daemon, flags) as client:
                client.send(data)
                answers[f"{name}, {flags}"] = shown(client.rest())

    both(script, prepare=prepare)
    agree(heard)


FLAGS = (0, 1, 2, 4, 8, 16, 3, 5, 9, 17, 18, 24, 31, 32, 1 << 15)
WHERE = (  # offset and length
    (0, 0),
    (0, 1),
    (511, 2),
    (131071, 65538),
    (0, SIZE),
    (SIZE - 1, 1),
    (SIZE - 1, 2),
    (SIZE, 0),
    (SIZE, 1),
    ((1 << 64) - 1, 1),
    ((1 << 63) - 512, 512),
    (0, 32 << 20),
    (0, (32 << 20) + 1),
    (512, (1 << 32) - 1),
)
KINDS = (0, 3, 4, 5, 6, 7, 8, 99, 0xFFFF)
BASE, ALL = ("base:allocation",), ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:")


@pytest.mark.parametrize(
    ("structured", "spaces"),
    [(False, ()), (True, ()), (True, BASE), (True, ALL)],
    ids=["simple", "structured", "base", "all contexts"],
)
@pytest.mark.parametrize("name", ["rw", "ro"])
def test_requests_are_answered_as_by_qemu(
    both: Both, name: str, structured: bool, spaces: tuple[str, ...]
) -> None:
    contexts = [space + BITMAPS[name] if space.endswith("map:") else space for space in spaces]
    heard: dict[str, dict[str, list[str]]] = {}

    def script(daemon: Daemon) -> None:
        serve(daemon)
        answers = heard.setdefault(daemon.kind, {})
        questions = list(itertools.product(KINDS, FLAGS, WHERE))
        while questions:  # a new connection when the server has hung up
            with Client(daemon) as client:
                client.enter(name, structured=structured, contexts=contexts)
                said = [""]
                while questions and "hung up" not in said[-1]:
                    kind, flags, (offset, length) = questions.pop(0)
                    said = client.ask(flags, kind, offset, length)
                    answers[f"{kind} flags {flags} at {offset}+{length}"] = said
        with Client(daemon) as client:
            client.enter(name, structured=structured)
            for flags, (offset, length) in itertools.product(FLAGS, WHERE):
                if length <= SIZE:
                    said = client.ask(flags, wire.CMD_WRITE, offset, length, b"\7" * length)
                    answers[f"write flags {flags} at {offset}+{length}"] = said
            for at in range(0, SIZE, CLUSTER):  # where they lie in the image is another matter
                answers[f"cluster at {at}"] = client.ask(0, wire.CMD_READ, at, CLUSTER)
            answers["too much"] = client.ask(0, wire.CMD_WRITE, 0, (32 << 20) + 1)
            answers["the end"] = [shown(client.rest())]

    both(script, prepare=prepare)
    agree(heard)


def wrong(length: int, magic: int = wire.REQUEST_MAGIC, kind: int = wire.CMD_WRITE) -> bytes:
    return wire.REQUEST.pack(magic, 0, kind, 7, 0, length)


BREACHES = {
    "another magic": wrong(512, 0x12345678),
    "garbage": b"x" * wire.REQUEST.size,
    "a magic wrong in a goodbye": wrong(0, 1, wire.CMD_DISC),
    "too much to write": wrong((32 << 20) + 1),
    "half a header": wrong(512)[:10],
    "half a payload": wrong(512) + b"half",
    "no payload": wrong(512),
    "a goodbye": wrong(0, kind=wire.CMD_DISC),
    "nothing more": b"",
    "an unknown command": wrong(0, kind=99),
}


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_of_who_breaks_the_protocol_the_user_hears_what_qemu_tells(
    both: Both, structured: bool
) -> None:
    heard: dict[str, dict[str, str]] = {}

    def script(daemon: Daemon) -> None:
        serve(daemon)
        answers = heard.setdefault(daemon.kind, {})
        told = daemon.folder / "stderr.log"
        for name, data in BREACHES.items():
            before = told.stat().st_size
            with Client(daemon) as client:
                client.enter("rw", structured=structured)
                client.send(data)
                answers[name] = shown(client.rest())
            said = told.read_bytes()[before:].decode()
            answers[f"said of {name}"] = said.removeprefix("qemu-storage-daemon: ")
        assert "half a header" in answers

    both(script, prepare=prepare)
    agree(heard)
    ours = list(heard.values())[1]
    assert sum(bool(said) for name, said in ours.items() if name.startswith("said")) == 7
