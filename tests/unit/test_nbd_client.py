"""The client's half of NBD on bytes: in pieces of any size, and whatever bytes there are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockemu.nbd import client, wire
from blockemu.nbd.client import ExportInfo, Receive, Send, StartTls, Wanted
from blockemu.nbd.client_errors import HandshakeError
from blockemu.nbd.lost import EndOfFile
from blockemu.nbd.transmission import Command, RemoteProtocolError, Transmission

INFO = ExportInfo("e", 1 << 20, wire.HAS_FLAGS, 1, 4096, 1 << 25, structured=True, context_id=7)


def answer(option: int, kind: int, data: bytes = b"") -> bytes:
    return wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(data)) + data


GREETING = struct.pack(">QQH", wire.INIT_MAGIC, wire.OPTION_MAGIC, 3)
GOOD = (
    GREETING
    + answer(wire.OPT_STRUCTURED_REPLY, wire.REP_ACK)
    + answer(wire.OPT_SET_META_CONTEXT, wire.REP_META_CONTEXT, b"\0\0\0\7base:allocation")
    + answer(wire.OPT_SET_META_CONTEXT, wire.REP_ACK)
    + answer(wire.OPT_GO, wire.REP_INFO, struct.pack(">HIII", 3, 1, 4096, 1 << 25))
    + answer(wire.OPT_GO, wire.REP_INFO, struct.pack(">HQH", 0, 1 << 20, 1))
    + answer(wire.OPT_GO, wire.REP_ACK)
)


def follow(steps: client.Handshake[object], incoming: bytes) -> tuple[object, bytes, bool]:
    """Lead a handshake with what a server sends; return result, what was sent, whether encrypted."""
    sent, encrypted = b"", False
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                sent += step.data
                step = steps.send(b"")
            elif isinstance(step, StartTls):
                encrypted = True
                step = steps.send(b"")
            elif isinstance(step, Receive) and len(incoming) >= step.size:
                data, incoming = incoming[: step.size], incoming[step.size :]
                step = steps.send(data)
            else:
                step = steps.throw(EndOfFile())
    except StopIteration as e:
        return e.value, sent, encrypted


def test_a_handshake_asks_for_what_there_is_to_know() -> None:
    info, sent, _ = follow(client.connect(Wanted("e")), GOOD)
    assert info == INFO
    assert sent.startswith(struct.pack(">I", 3))
    assert sent.count(b"IHAVEOPT") == 3


def test_a_handshake_goes_on_encrypted_once_the_server_agrees() -> None:
    agreed = GREETING + answer(wire.OPT_STARTTLS, wire.REP_ACK) + GOOD[len(GREETING) :]
    info, _, encrypted = follow(client.connect(Wanted("e", tls=True)), agreed)
    assert info == INFO
    assert encrypted


@pytest.mark.parametrize("cut", range(0, len(GOOD), 3))
def test_a_handshake_that_ends_early_is_an_error(cut: int) -> None:
    with pytest.raises(HandshakeError, match="Unexpected end-of-file"):
        follow(client.connect(Wanted("e")), GOOD[:cut])


LIST = (
    GREETING
    + answer(wire.OPT_STRUCTURED_REPLY, wire.REP_ACK)
    + answer(wire.OPT_LIST, wire.REP_SERVER, b"\0\0\0\1etext")
    + answer(wire.OPT_LIST, wire.REP_ACK)
    + answer(wire.OPT_INFO, wire.REP_INFO, struct.pack(">HQH", 0, 1 << 20, 1))
    + answer(wire.OPT_INFO, wire.REP_ACK)
    + answer(wire.OPT_LIST_META_CONTEXT, wire.REP_META_CONTEXT, b"\0\0\0\0base:allocation")
    + answer(wire.OPT_LIST_META_CONTEXT, wire.REP_ACK)
    + answer(wire.OPT_LIST_META_CONTEXT, wire.REP_META_CONTEXT, b"\0\0\0\0qemu:x")
    + answer(wire.OPT_LIST_META_CONTEXT, wire.REP_ACK)
)


def test_a_list_has_the_contexts_that_old_servers_name_only_when_asked() -> None:
    exports, sent, _ = follow(client.list_exports(), LIST)
    assert exports == [
        ExportInfo("e", 1 << 20, 1, structured=True, description="text",
                   contexts=("base:allocation", "qemu:x"))
    ]  # fmt: skip
    assert sent.endswith(struct.pack(">II", wire.OPT_ABORT, 0))


@given(st.binary(max_size=400), st.integers(0, 400), st.booleans())
def test_any_bytes_give_an_export_or_an_error_in_a_handshake(
    noise: bytes, at: int, listing: bool
) -> None:
    good = LIST if listing else GOOD
    data = good[:at] + noise + good[at + len(noise) :]
    steps = client.list_exports() if listing else client.connect(Wanted("e"))
    with suppress(HandshakeError):
        follow(steps, data)


# Replies


class Reader:
    """A connection with a read, a write and a block status request under way."""

    def __init__(self, info: ExportInfo = INFO) -> None:
        self.ended: list[Command] = []
        self.transmission = Transmission(info)
        self.buffer = bytearray(b"\xee" * 4096)
        view = memoryview(self.buffer)
        self.read = Command(wire.CMD_READ, 8192, 4096, self.ended.append, buf=view)
        self.write = Command(wire.CMD_WRITE, 0, 512, self.ended.append)
        self.status = Command(wire.CMD_BLOCK_STATUS, 0, 65536, self.ended.append)
        for command in (self.read, self.write, self.status):
            self.transmission.begin(command)

    def feed(self, data: bytes, size: int) -> None:
        while data:
            room = self.transmission.room()
            part = data[: min(size, len(room))]
            room[: len(part)] = part
            self.transmission.received(len(part))
            data = data[len(part) :]


def chunk(cookie: int, kind: int, body: bytes = b"", done: bool = True) -> bytes:
    return wire.CHUNK.pack(wire.CHUNK_MAGIC, int(done), kind, cookie, len(body)) + body


REPLIES = (
    chunk(3, wire.CHUNK_BLOCK_STATUS, struct.pack(">IIIII", 7, 4096, 0, 61440, 3))
    + chunk(1, wire.CHUNK_OFFSET_HOLE, struct.pack(">QI", 8192, 1024), done=False)
    + wire.SIMPLE.pack(wire.SIMPLE_MAGIC, wire.ENOSPC, 2)
    + chunk(1, wire.CHUNK_OFFSET_DATA, struct.pack(">Q", 9216) + b"d" * 3072)
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 19, 1000, 1 << 20])
def test_replies_mean_the_same_in_pieces_of_any_size(size: int) -> None:
    reader = Reader()
    reader.feed(REPLIES, size)
    assert reader.ended == [reader.status, reader.write, reader.read]
    assert [command.error for command in reader.ended] == [0, wire.ENOSPC, 0]
    assert reader.status.extents is not None
    assert reader.status.extents.tolist() == [[4096, 0], [61440, 3]]
    assert bytes(reader.buffer) == bytes(1024) + b"d" * 3072


def test_what_no_chunk_fills_is_zero() -> None:
    reader = Reader()
    body = struct.pack(">Q", 8192 + 100) + b"d" * 10
    reader.feed(chunk(1, wire.CHUNK_OFFSET_DATA, body, done=False) + chunk(1, 0), 5)
    assert bytes(reader.buffer) == bytes(100) + b"d" * 10 + bytes(4096 - 110)


def test_a_lost_connection_fails_all_that_is_under_way() -> None:
    reader = Reader()
    reader.transmission.fail(wire.EIO)
    assert [command.lost for command in reader.ended] == [wire.EIO] * 3


@given(st.binary(max_size=300), st.integers(0, len(REPLIES)), st.integers(1, 50))
def test_any_bytes_give_replies_or_a_protocol_error(noise: bytes, at: int, size: int) -> None:
    reader = Reader()
    try:
        reader.feed(REPLIES[:at] + noise + REPLIES[at:], size)
    except RemoteProtocolError:
        reader.transmission.fail(wire.EIO)
        assert len(reader.ended) == 3
    for command in reader.ended:
        assert reader.ended.count(command) == 1


def _mutations() -> Iterator[bytes]:
    for at in range(len(REPLIES) - 3072):
        yield REPLIES[:at] + bytes([REPLIES[at] ^ 0xFF]) + REPLIES[at + 1 :]


def test_no_single_wrong_byte_ends_a_request_twice_or_writes_beside_its_buffer() -> None:
    for data in _mutations():
        reader = Reader()
        try:
            reader.feed(data, 1 << 20)
        except RemoteProtocolError:
            reader.transmission.fail(wire.EIO)
        assert len(set(map(id, reader.ended))) == len(reader.ended)
        assert len(reader.buffer) == 4096
