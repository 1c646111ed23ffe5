"""NBD servers that answer as a test says, in a thread; they keep what the client sent."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from blockemu.nbd import wire

PATIENCE = 30.0  # seconds; a hang is a failure
FLAGS = wire.HAS_FLAGS | wire.SEND_TRIM | wire.SEND_WRITE_ZEROES | wire.SEND_FUA
SIZE = 1 << 20
Behaviour = Callable[["Peer"], None]


class Gone(Exception):
    """The client has hung up."""


class Peer:
    """One connection, seen from the server."""

    def __init__(self, sock: socket.socket, log: list[str], number: int) -> None:
        self.sock = sock
        self.log = log
        self.number = number  # how many connections came before
        sock.settimeout(PATIENCE)

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self.sock.recv(count - len(data))
            except OSError:
                part = b""
            if not part:
                raise Gone
            data += part
        return data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone from None

    def rest(self) -> None:
        """Wait until the client hangs up, noting what else it sends."""
        with suppress(Gone):
            while True:
                self.log.append(self.receive(1).hex())

    # Handshake

    def greet(self, flags: int = wire.FIXED_NEWSTYLE | wire.NO_ZEROES) -> None:
        self.send(struct.pack(">QQH", wire.INIT_MAGIC, wire.OPTION_MAGIC, flags))
        self.log.append(f"client flags {self.receive(4).hex()}")

    def option(self) -> tuple[int, bytes]:
        head = self.receive(wire.OPTION.size)
        magic, option, length = wire.OPTION.unpack(head)
        if magic != wire.OPTION_MAGIC:  # the client is content and makes requests
            self.log.append(f"no option {head.hex()}")
            self.rest()
            raise Gone
        data = self.receive(length)
        self.log.append(f"option {option} {data!r}")
        return option, data

    def reply(self, option: int, *replies: tuple[int, bytes], cut_off: int = 0) -> None:
        """Send replies of these kinds at once: the client may leave after the first.

        The last *cut_off* bytes are kept back.
        """
        data = b"".join(
            wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(data)) + data
            for kind, data in replies
        )
        self.send(data[: len(data) - cut_off])

    # Transmission

    def request(self) -> tuple[int, int, int, int, int]:
        """Return flags, command, cookie, offset and length; data of a write is received."""
        fields = wire.REQUEST.unpack(self.receive(wire.REQUEST.size))
        magic, flags, command, cookie, offset, length = fields
        assert magic == wire.REQUEST_MAGIC
        self.log.append(f"request {command} flags {flags} at {offset}+{length}")
        if command == wire.CMD_WRITE:
            self.receive(length)
        return flags, command, cookie, offset, length


def info(size: int = SIZE, flags: int = FLAGS) -> bytes:
    return struct.pack(">HQH", wire.INFO_EXPORT, size, flags)


def block_sizes(least: int, preferred: int, most: int) -> bytes:
    return struct.pack(">HIII", wire.INFO_BLOCK_SIZE, least, preferred, most)


def meta(number: int, name: bytes) -> bytes:
    return struct.pack(">I", number) + name


Answers = Mapping[int, Callable[[Peer], None]]


def shake_hands(peer: Peer, answers: Answers | None = None, **told: int) -> None:
    """Lead a good handshake, but for the options that *answers* deals with, up to GO's end."""
    peer.greet()
    while True:
        option, _ = peer.option()
        if answers and option in answers:
            answers[option](peer)
        elif option == wire.OPT_STRUCTURED_REPLY:
            peer.reply(option, (wire.REP_ACK, b""))
        elif option == wire.OPT_SET_META_CONTEXT:
            context = meta(7, b"base:allocation")
            peer.reply(option, (wire.REP_META_CONTEXT, context), (wire.REP_ACK, b""))
        elif option == wire.OPT_GO:
            peer.reply(option, (wire.REP_INFO, info(**told)), (wire.REP_ACK, b""))
            return
        elif option == wire.OPT_EXPORT_NAME:
            peer.send(info(**told)[2:])
            return
        elif option == wire.OPT_ABORT:
            raise Gone
        else:
            peer.reply(option, (wire.REP_ERR_UNSUP, b""))


def without_structured() -> Answers:
    """Return the answers of a server that has simple replies only."""
    option = wire.OPT_STRUCTURED_REPLY
    return {option: lambda peer: peer.reply(option, (wire.REP_ERR_UNSUP, b""))}


def behave_well(peer: Peer, **told: int) -> None:
    """Serve zeroes, and take what is written."""
    shake_hands(peer, **told)
    while True:
        _, command, cookie, offset, length = peer.request()
        if command == wire.CMD_DISC:
            return
        kind, body = wire.CHUNK_NONE, b""
        if command == wire.CMD_READ:
            kind, body = wire.CHUNK_OFFSET_HOLE, struct.pack(">QI", offset, length)
        elif command == wire.CMD_BLOCK_STATUS:
            kind, body = wire.CHUNK_BLOCK_STATUS, struct.pack(">III", 7, length, 0)
        peer.send(wire.CHUNK.pack(wire.CHUNK_MAGIC, 1, kind, cookie, len(body)) + body)


class FakeServer:
    """Listens on a local socket; every connection is treated alike."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self.log: list[str] = []
        self._behaviour = behaviour
        self._listener = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path may be too long
        os.close(folder)
        self._listener.listen(8)
        self._peers: list[Peer] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._workers: list[threading.Thread] = []
        self._thread.start()

    @property
    def connections(self) -> int:
        return len(self._peers)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(sock, self.log, len(self._peers))
            self._peers.append(peer)
            worker = threading.Thread(target=self._treat, args=(peer,), daemon=True)
            self._workers.append(worker)
            worker.start()

    def _treat(self, peer: Peer) -> None:
        with peer.sock, suppress(Gone):
            self._behaviour(peer)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for peer in self._peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for worker in self._workers:
            worker.join(PATIENCE)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
