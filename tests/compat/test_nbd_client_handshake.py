"""What opening an NBD node comes to, with servers good, old, broken and hostile: as in QEMU."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from compat.daemon import Both, Daemon
from compat.nbd_fakes import (
    SIZE,
    Behaviour,
    FakeServer,
    Gone,
    Peer,
    block_sizes,
    info,
    meta,
    shake_hands,
)

from blockemu.nbd import wire

Json = Any


def says(data: bytes) -> Behaviour:
    """Send these bytes and hang up."""
    return lambda peer: peer.send(data)


def answers(option: int, *replies: tuple[int, bytes], **told: int) -> Behaviour:
    """Answer an option so, all others well; then wait for the client to leave."""

    def answer(peer: Peer) -> None:
        peer.reply(option, *replies)

    return and_rest(partial(shake_hands, answers={option: answer}, **told))


def cut(option: int, *replies: tuple[int, bytes], cut_off: int = 0) -> Behaviour:
    """Hang up in the midst of the answer to an option."""

    def answer(peer: Peer) -> None:
        peer.reply(option, *replies, cut_off=cut_off)
        raise Gone

    return partial(shake_hands, answers={option: answer})


def raw_answer(option: int, data: bytes) -> Behaviour:
    return and_rest(partial(shake_hands, answers={option: lambda peer: peer.send(data)}))


def and_rest(shake: Callable[[Peer], None]) -> Behaviour:
    def behave(peer: Peer) -> None:
        shake(peer)
        peer.rest()

    return behave


def unsupported(*options: int, **told: int) -> Behaviour:
    refusals = {o: partial(_refuse, option=o) for o in options}
    return and_rest(partial(shake_hands, answers=refusals, **told))


def _refuse(peer: Peer, option: int) -> None:
    peer.reply(option, (wire.REP_ERR_UNSUP, b""))


def oldstyle(size: int, flags: int) -> bytes:
    return struct.pack(">QQQI", wire.INIT_MAGIC, wire.OLDSTYLE_MAGIC, size, flags) + bytes(124)


def not_fixed(peer: Peer) -> None:
    """Be newstyle, but know EXPORT_NAME only."""
    peer.greet(0)
    peer.option()
    peer.send(info()[2:] + bytes(124))
    peer.rest()


def not_fixed_cut(peer: Peer) -> None:
    peer.greet(0)
    peer.option()
    peer.send(info()[2:] + bytes(100))


def listed(*names: bytes) -> Behaviour:
    """Know neither GO nor INFO, but have a list."""
    entries = [(wire.REP_SERVER, struct.pack(">I", len(name)) + name) for name in names]
    return list_answers(*entries, (wire.REP_ACK, b""))


def list_answers(*replies: tuple[int, bytes]) -> Behaviour:
    def lists(peer: Peer) -> None:
        peer.reply(wire.OPT_LIST, *replies)

    dealt = {wire.OPT_GO: partial(_refuse, option=wire.OPT_GO), wire.OPT_LIST: lists}
    return and_rest(partial(shake_hands, answers=dealt))


GREETING = struct.pack(">QQH", wire.INIT_MAGIC, wire.OPTION_MAGIC, 3)
GO, META, STRUCTURED = wire.OPT_GO, wire.OPT_SET_META_CONTEXT, wire.OPT_STRUCTURED_REPLY
INFO, ACK = wire.REP_INFO, wire.REP_ACK
HEAD = wire.OPTION_REPLY

CASES: dict[str, Behaviour] = {
    "good": and_rest(shake_hands),
    "nothing": says(b""),
    "garbage": says(b"HTTP/1.0 400 Bad Request\r\n"),
    "half-magic": says(b"NBDM"),
    "no-second": says(b"NBDMAGIC"),
    "bad-second": says(b"NBDMAGICxxxxxxxx"),
    "no-flags": says(GREETING[:17]),
    **{f"cut-at-{option}": cut(option) for option in (STRUCTURED, META, GO)},
    "cut-after-info": cut(GO, (INFO, info())),
    "cut-in-info": cut(GO, (INFO, info()), cut_off=3),
    "cut-in-head": cut(GO, (INFO, info()), cut_off=20),
    "cut-in-error": cut(GO, (wire.REP_ERR_POLICY, b"because"), cut_off=3),
    "cut-in-meta": cut(META, (wire.REP_META_CONTEXT, meta(1, b"base:allocation")), cut_off=3),
    "oldstyle": and_rest(says(oldstyle(SIZE, 1))),
    "oldstyle-readonly": and_rest(says(oldstyle(SIZE, 3))),
    "oldstyle-flags": and_rest(says(oldstyle(SIZE, 0x10001))),
    "oldstyle-cut": says(oldstyle(SIZE, 1)[:20]),
    "oldstyle-cut-flags": says(oldstyle(SIZE, 1)[:26]),
    "oldstyle-cut-zeroes": says(oldstyle(SIZE, 1)[:90]),
    "not-fixed": not_fixed,
    "not-fixed-cut": not_fixed_cut,
    "no-structured": unsupported(STRUCTURED),
    "structured-denied": answers(STRUCTURED, (wire.REP_ERR_POLICY, b"no!")),
    "structured-other-reply": answers(STRUCTURED, (wire.REP_SERVER, b"")),
    "structured-long": answers(STRUCTURED, (ACK, b"1234")),
    "structured-bad-magic": raw_answer(STRUCTURED, HEAD.pack(1, STRUCTURED, ACK, 0)),
    "structured-other-option": raw_answer(STRUCTURED, HEAD.pack(wire.REPLY_MAGIC, 99, ACK, 0)),
    "structured-other-known": raw_answer(STRUCTURED, HEAD.pack(wire.REPLY_MAGIC, GO, ACK, 0)),
    "no-meta": unsupported(META),
    "meta-denied": answers(META, (wire.REP_ERR_POLICY, b"never")),
    "meta-empty": answers(META, (ACK, b"")),
    "meta-other": answers(META, (wire.REP_META_CONTEXT, meta(1, b"x:y")), (ACK, b"")),
    "meta-two": answers(
        META,
        (wire.REP_META_CONTEXT, meta(1, b"base:allocation")),
        (wire.REP_META_CONTEXT, meta(2, b"x:y")),
    ),
    "meta-short": answers(META, (wire.REP_META_CONTEXT, b"1234")),
    "meta-nul": answers(META, (wire.REP_META_CONTEXT, meta(1, b"base:allocation\0x")), (ACK, b"")),
    "meta-other-reply": answers(META, (INFO, b"")),
    "meta-ack-long": answers(META, (ACK, b"1")),
    "no-go": unsupported(GO),
    "no-go-old": unsupported(GO, STRUCTURED),
    "listed-empty": listed(),
    "listed-other": listed(b"a", b"b"),
    "listed-this": listed(b"a", b"exp"),
    "list-denied": list_answers((wire.REP_ERR_POLICY, b"")),
    "list-ack-long": list_answers((ACK, b"1")),
    "list-other-reply": list_answers((INFO, b"")),
    "list-short": list_answers((wire.REP_SERVER, b"123")),
    "list-name-too-long": list_answers((wire.REP_SERVER, struct.pack(">I", 9) + b"12345678")),
    "list-name-huge": list_answers((wire.REP_SERVER, struct.pack(">I", 4097) + bytes(4097))),
    "list-description-huge": list_answers((wire.REP_SERVER, struct.pack(">I", 0) + bytes(4097))),
    "list-description": list_answers(
        (wire.REP_SERVER, struct.pack(">I", 3) + b"expabc"), (ACK, b"")
    ),
    **{
        f"go-error-{code:x}": answers(GO, (wire.REP_ERROR | code, text))
        for code, text in [(2, b""), (3, b"why"), (4, b""), (5, b"tls"), (6, b"what?"), (7, b""),
                           (8, b""), (9, b"new"), (0x1234, b""), (1, b"unsupported")]
    },
    "go-error-long": raw_answer(
        GO, HEAD.pack(wire.REPLY_MAGIC, GO, wire.REP_ERR_POLICY, wire.MAX_PAYLOAD + 1)
    ),
    "go-ack-only": answers(GO, (ACK, b"")),
    "go-ack-long": answers(GO, (INFO, info()), (ACK, b"1")),
    "go-no-flags": answers(GO, (INFO, info(flags=0)), (ACK, b"")),
    "go-other-reply": answers(GO, (wire.REP_SERVER, b"")),
    "go-unknown-reply": answers(GO, (77, b"")),
    "go-info-short": answers(GO, (INFO, b"1")),
    "go-export-short": answers(GO, (INFO, info()[:-1])),
    "go-export-long": answers(GO, (INFO, info() + b"1")),
    "go-sizes-short": answers(GO, (INFO, block_sizes(1, 2, 3)[:-1])),
    "go-min-0": answers(GO, (INFO, block_sizes(0, 4096, 4096))),
    "go-min-odd": answers(GO, (INFO, block_sizes(3, 4096, 4096))),
    "go-preferred-odd": answers(GO, (INFO, block_sizes(512, 4097, 4097))),
    "go-preferred-small": answers(GO, (INFO, block_sizes(512, 256, 4096))),
    "go-max-small": answers(GO, (INFO, block_sizes(512, 512, 256))),
    "go-size-unaligned": answers(
        GO, (INFO, block_sizes(512, 4096, 4096)), (INFO, info(size=1000))
    ),
    "go-size-before": answers(
        GO, (INFO, info(size=1000)), (INFO, block_sizes(512, 4096, 4096)), (ACK, b"")
    ),
    "go-more-info": answers(
        GO, (INFO, b"\0\1name"), (INFO, b"\0\2text"), (INFO, b"\0\x63?"), (INFO, b"\0\x63"),
        (INFO, info()), (ACK, b""),
    ),
    "go-read-only": and_rest(partial(shake_hands, flags=wire.HAS_FLAGS | wire.READ_ONLY)),
    "odd-size": and_rest(partial(shake_hands, size=1000)),
    "empty": and_rest(partial(shake_hands, size=0)),
    "huge": and_rest(partial(shake_hands, size=1 << 63)),
    "huger": and_rest(partial(shake_hands, size=(1 << 64) - 1)),
    "largest": and_rest(partial(shake_hands, size=(1 << 63) - (1 << 31))),
}  # fmt: skip


def opening(*, export: str | None, **options: Json) -> Callable[[Daemon], None]:
    """Open a node on every server, look at it, and close it."""

    def script(daemon: Daemon) -> None:
        logs = daemon.nbd_logs = {}  # type: ignore[attr-defined]
        for name, behaviour in CASES.items():
            path = daemon.folder / f"{name}.sock"
            server = {"type": "unix", "path": path.name}
            node = {"driver": "nbd", "node-name": "n", "server": server, **options}
            with FakeServer(path, behaviour) as fake:
                answer = daemon.execute(
                    "blockdev-add", node | ({} if export is None else {"export": export})
                )
                if "return" in answer:
                    daemon.execute("query-named-block-nodes")
                    daemon.execute("blockdev-del", node_name="n")
            logs[name] = fake.log

    return script


def compare(both: Both, script: Callable[[Daemon], None]) -> None:
    real, ours = both(script)
    for name in CASES:
        theirs, mine = real.nbd_logs[name], ours.nbd_logs[name]  # type: ignore[attr-defined]
        assert mine == theirs, name


def test_every_handshake_ends_as_in_qemu(both: Both) -> None:
    compare(both, opening(export="exp"))


def test_every_handshake_without_an_export_name_ends_as_in_qemu(both: Both) -> None:
    compare(both, opening(export=None))


def test_read_only_nodes_take_servers_that_let_nobody_write(both: Both) -> None:
    compare(both, opening(export="exp", **{"read-only": True}))


def test_auto_read_only_falls_back(both: Both) -> None:
    compare(both, opening(export="exp", **{"auto-read-only": True}))


def test_a_bitmap_asked_for_must_be_there(both: Both) -> None:
    compare(both, opening(export="exp", **{"x-dirty-bitmap": "qemu:dirty-bitmap:b"}))
