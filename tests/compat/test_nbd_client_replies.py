"""What becomes of requests when a server's replies are wrong, or the connection ends: as in QEMU."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

from compat.io_prompt import PROGRAMS, Session
from compat.nbd_fakes import PATIENCE, FakeServer, Gone, Peer, shake_hands, without_structured

from blockemu.nbd import wire

Reply = Callable[[int, int, int], bytes]  # cookie, offset, length
READ = "read -P 0 65536 4096"


def simple(
    error: int = 0, data: bytes = b"", cookie: int = 0, magic: int = wire.SIMPLE_MAGIC
) -> Reply:
    return lambda mine, offset, length: wire.SIMPLE.pack(magic, error, mine + cookie) + data


def chunk(kind: int, body: bytes, *, done: bool = True, cookie: int = 0) -> Reply:
    return lambda mine, offset, length: (
        wire.CHUNK.pack(wire.CHUNK_MAGIC, int(done), kind, mine + cookie, len(body)) + body
    )


def data(*, start: int = 0, size: int = 4096, done: bool = True, cut_off: int = 0) -> Reply:
    """Give zeroes from *start* bytes after the request's offset."""

    def reply(cookie: int, offset: int, length: int) -> bytes:
        body = struct.pack(">Q", (offset + start) % (1 << 64)) + bytes(size)
        head = wire.CHUNK.pack(
            wire.CHUNK_MAGIC, int(done), wire.CHUNK_OFFSET_DATA, cookie, len(body)
        )
        return (head + body)[: len(head) + len(body) - cut_off]

    return reply


def hole(*, start: int = 0, size: int = 4096, done: bool = True, extra: bytes = b"") -> Reply:
    def reply(cookie: int, offset: int, length: int) -> bytes:
        body = struct.pack(">QI", (offset + start) % (1 << 64), size) + extra
        head = wire.CHUNK.pack(
            wire.CHUNK_MAGIC, int(done), wire.CHUNK_OFFSET_HOLE, cookie, len(body)
        )
        return head + body

    return reply


def error(code: int, text: bytes = b"", *, said: int | None = None, done: bool = True) -> Reply:
    body = struct.pack(">IH", code, len(text) if said is None else said) + text
    return chunk(wire.CHUNK_ERROR, body, done=done)


def both_of(*replies: Reply) -> Reply:
    return lambda *request: b"".join(reply(*request) for reply in replies)


def nothing(cookie: int, offset: int, length: int) -> bytes:
    return b""


NONE = wire.CHUNK_NONE
# Replies to a read where structured replies were agreed on.
READS: dict[str, Reply] = {
    "data": data(),
    "hole": hole(),
    "parts": both_of(data(size=1024, done=False), hole(start=1024, size=3072, done=False),
                     chunk(NONE, b"")),
    "backwards": both_of(data(start=2048, size=2048, done=False), data(size=2048)),
    "error": error(wire.EIO),
    "error-text": error(wire.ENOSPC, b"full"),
    "error-perm": error(wire.EPERM),
    "error-nomem": error(wire.ENOMEM),
    "error-overflow": error(wire.EOVERFLOW),
    "error-notsup": error(wire.ENOTSUP),
    "error-shutdown": error(wire.ESHUTDOWN),
    "error-unknown": error(12345),
    "error-then-done": both_of(error(wire.ENOSPC, done=False), chunk(NONE, b"")),
    "error-then-data": both_of(error(wire.ENOSPC, done=False), data()),
    "data-then-error": both_of(data(done=False), error(wire.ENOSPC)),
    "two-errors": both_of(error(wire.ENOSPC, done=False), error(wire.EPERM)),
    "error-offset": chunk(wire.CHUNK_ERROR_OFFSET, struct.pack(">IHQ", wire.ENOSPC, 0, 65536)),
    "error-other": chunk(0x8077, struct.pack(">IH", wire.ENOSPC, 0)),
    "error-zero": error(0),
    "error-short": chunk(wire.CHUNK_ERROR, b"12345"),
    "error-text-short": error(wire.ENOSPC, b"full", said=5),
    "error-long": error(wire.ENOSPC, b"x" * 995),
    "error-longest": error(wire.ENOSPC, b"x" * 994),
    "none-long": chunk(NONE, b"1"),
    "none-not-last": chunk(NONE, b"", done=False),
    "simple": simple(0, bytes(4096)),
    "simple-error": simple(wire.ENOSPC),
    "data-before": data(start=-1),
    "data-behind": data(start=1),
    "data-more": data(size=4097),
    "data-none": data(size=0),
    "data-short": chunk(wire.CHUNK_OFFSET_DATA, b"1234567"),
    "data-cut": data(cut_off=100),
    "data-far": data(start=-70000),
    "hole-before": hole(start=-1),
    "hole-behind": hole(start=1),
    "hole-none": hole(size=0),
    "hole-long": hole(extra=b"1"),
    "hole-huge": hole(size=0xFFFFFFFF),
    "hole-short": chunk(wire.CHUNK_OFFSET_HOLE, b"1234"),
    "status": chunk(wire.CHUNK_BLOCK_STATUS, struct.pack(">III", 7, 4096, 0)),
    "unknown": chunk(99, b""),
    "unknown-body": chunk(99, b"123"),
    "unknown-long": chunk(99, bytes(1001)),
    "other-cookie": chunk(NONE, b"", cookie=1 << 20),
    "other-simple": simple(cookie=1 << 20),
    "bad-magic": simple(magic=0x12345678),
    "hang-up": nothing,
    "half-magic": lambda *_: b"\x66\x8e",
    "half-head": lambda *_: struct.pack(">IHH", wire.CHUNK_MAGIC, 1, 0),
}  # fmt: skip
# Replies to a read where they were not.
PLAIN_READS: dict[str, Reply] = {
    "simple": simple(0, bytes(4096)),
    "simple-error": simple(wire.ENOSPC),
    "simple-unknown": simple(12345),
    "simple-cut": simple(0, bytes(100)),
    "chunk": chunk(NONE, b""),
}
WRITES: dict[str, Reply] = {
    "simple": simple(),
    "simple-error": simple(wire.ENOSPC),
    "none": chunk(NONE, b""),
    "error": error(wire.ENOSPC),
    "data": chunk(wire.CHUNK_OFFSET_DATA, bytes(16)),
    "hole-empty": chunk(wire.CHUNK_OFFSET_HOLE, b""),
    "hole": hole(),
    "chunk-then-simple": both_of(chunk(99, b"", done=False), simple()),
    "hang-up": nothing,
    "half-magic": READS["half-magic"],
    "half-head": READS["half-head"],
    "other-cookie": simple(cookie=1 << 20),
}
# What ends a connection is worth nothing to a second reader only if the server is still there.
CUTS = ("cut", "hang-up", "half-magic", "half-head")


def server(reply: Reply, *, structured: bool = True) -> Callable[[Peer], None]:
    """Give the reply to the first request of the first connection, and good ones to all others."""

    def behave(peer: Peer) -> None:
        shake_hands(peer, None if structured else without_structured())
        bad = peer.number == 0
        good: Reply = data() if structured else simple(0, bytes(4096))
        while True:
            _, command, cookie, offset, length = peer.request()
            if command == wire.CMD_DISC:
                return
            if command not in (wire.CMD_READ, wire.CMD_WRITE):
                peer.send(simple()(cookie, offset, length))
                continue
            answer = reply if bad else good if command == wire.CMD_READ else simple()
            sent = answer(cookie, offset, length)
            peer.send(sent)
            whole = reply not in CUT_REPLIES
            if bad and not whole:
                raise Gone
            bad = False

    return behave


CUT_REPLIES = {READS[name] for name in READS if name.endswith(CUTS)} | {
    PLAIN_READS["simple-cut"], WRITES["hang-up"],
}  # fmt: skip


def outcome(
    session: Session, name: str, behaviour: Callable[[Peer], None], command: str, options: str
) -> list[str]:
    """Make a request that is answered wrongly, and more to see how the connection fares.

    After a failure the next request tells whether the same connection is used, none, or soon a new
    one; where servers are trusted again the last outcome is of the new connection.
    """
    path = session.folder / f"{name}.sock"
    with FakeServer(path, behaviour) as fake:
        opened = session.says(
            f"open -o driver=nbd,server.type=unix,server.path={path.name}{options}"
        )
        said = [opened, session.says(command)]
        if "failed" in said[1]:
            said.append(session.says(command))
            deadline = time.monotonic() + PATIENCE
            while name in MENDED and "failed" in (last := session.says(command)):
                assert time.monotonic() < deadline, last
            said.append(session.says(command))
        said.append(f"{fake.connections} connections")
        session.says("close")
    path.unlink()
    return said


def compare(
    tmp_path: Path,
    replies: dict[str, Reply],
    command: str,
    options: str = "",
    *,
    structured: bool = True,
) -> None:
    heard: list[dict[str, list[str]]] = []
    for program in PROGRAMS:
        session = Session(program, tmp_path)
        heard.append(
            {
                name: outcome(session, name, server(reply, structured=structured), command, options)
                for name, reply in replies.items()
            }
        )
        session.close()
    real, ours = heard
    for name in replies:
        assert ours[name] == real[name], name


MENDED = {name for name in READS | WRITES | PLAIN_READS if name.endswith(CUTS)}
CUT_READS = {name: reply for name, reply in READS.items() if name in MENDED}


def test_a_read_ends_as_in_qemu_whatever_is_replied(tmp_path: Path) -> None:
    compare(tmp_path, READS, READ)


def test_a_read_ends_as_in_qemu_where_replies_are_simple(tmp_path: Path) -> None:
    compare(tmp_path, PLAIN_READS, READ, structured=False)


def test_a_write_ends_as_in_qemu_whatever_is_replied(tmp_path: Path) -> None:
    compare(tmp_path, WRITES, "write -P 1 65536 4096")


def test_with_a_delay_reads_in_flight_are_made_again(tmp_path: Path) -> None:
    compare(tmp_path, CUT_READS, READ, ",reconnect-delay=10")


def test_with_a_delay_writes_in_flight_are_made_again(tmp_path: Path) -> None:
    compare(tmp_path, WRITES, "write -P 1 65536 4096", ",reconnect-delay=10")
