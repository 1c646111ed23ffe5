"""Images with lies in their headers, and odd options: the real daemon's words, and not a byte changed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import StorageDaemon

from blockemu.blockdev_options import BlockdevOptions
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.images.qcow2 import new_image
from blockemu.qmp_server.qapi import InvalidInput, visit

Edit = tuple[int, str, int]
Case = tuple[bytes, dict[str, Any]]
V3, V2 = new_image(1 << 20), new_image(1 << 20, version=2)
SUBCLUSTERS = new_image(1 << 20, extended_l2=True, cluster_bits=14)
HEADER = 112
RAW = {"driver": "file", "filename": "data.raw"}
LUKS = {"format": "luks", "key-secret": "none"}
BITMAPS, DATA_FILE, CRYPTO = 0x23852875, 0x44415441, 0x0537BE77
FORMAT, NAMES = 0xE2792ACA, 0x6803F857


def edited(data: bytes, *edits: Edit) -> bytes:
    out = bytearray(data)
    for offset, code, value in edits:
        struct.pack_into(">" + code, out, offset, value)
    return bytes(out)


def extended(magic: int, body: bytes, *edits: Edit) -> bytes:
    out = bytearray(V3)
    piece = struct.pack(">II", magic, len(body)) + body + bytes(-len(body) % 8)
    out[HEADER : HEADER + len(piece)] = piece
    return edited(bytes(out), *edits)


def with_snapshot(entry: bytes, count: int = 1) -> bytes:
    return edited(V3 + entry, (60, "I", count), (64, "Q", len(V3)))


def snapshot(extra: int, id_size: int, name_size: int) -> bytes:
    return struct.pack(">QIHHIIQII", 0, 0, id_size, name_size, 0, 0, 0, 0, extra)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}

    def field(name: str, at: int, code: str, *values: int, base: bytes = V3) -> None:
        for value in values:
            found[f"{name}={value:#x}"] = edited(base, (at, code, value)), {}

    most = (1 << 32) - 1, (1 << 64) - 1
    found["empty"], found["short"] = (b"", {}), (V3[:50], {})
    field("magic", 0, "I", 5)
    field("version", 4, "I", 0, 1, 4, most[0])
    field("backing-offset", 8, "Q", 1, 72, 65536, 65537, 1 << 63)
    field("cluster-bits", 20, "I", 0, 8, 22, most[0])
    field("size", 24, "Q", 0, 511, 513, 1 << 29, 1 << 30, 1 << 50, 1 << 63, most[1], most[1] - 511)
    field("crypt", 32, "I", 1, 2, 3, most[0])
    field("l1-size", 36, "I", 0, 1, 129, 1 << 20, 4 << 20, most[0])
    field("l1-offset", 40, "Q", 1, 0, 1 << 63, most[1] - 65535, 1 << 40, (1 << 63) - 65536)
    field("reftable-offset", 48, "Q", 0, 1, 1 << 63, most[1] - 65535, 1 << 40)
    field("reftable-clusters", 56, "I", 0, 1, 128, 129, most[0])
    field("incompatible", 72, "Q", 1, 2, 3, 4, 6, 8, 16, 32, 1 << 63, 0xFF00)
    field("autoclear", 88, "Q", 1, 2, 4, 1 << 63)
    field("refcount-order", 96, "I", 0, 6, 7, most[0])
    field("header-length", 100, "I", 0, 72, 103, 105, 112, 200, 65536, 65537, most[0])
    field("compression", 104, "B", 1, 2, 255)
    field("subcluster-size", 20, "I", 13, base=SUBCLUSTERS)
    for at, size in ((65535, 1), (65535, 2), (60000, 1023), (60000, 1024), (64600, 1023)):
        found[f"backing-name={at},{size}"] = edited(V3, (8, "Q", at), (16, "I", size)), {}
    for kind in 1, 2:
        both = edited(V3, (104, "B", kind), (72, "Q", 8))
        found[f"compression-bit={kind}"] = both, {}
    for count in (1, 65536, 65537):
        for offset in (0, 1, 65536, 1 << 63, 1 << 40):
            data = edited(V3, (60, "I", count), (64, "Q", offset))
            found[f"snapshots={count},{offset:#x}"] = data, {}
    read_only = {"read-only": True}
    for bits in (1, 2, 3, 32):
        found[f"read-only,incompatible={bits}"] = edited(V3, (72, "Q", bits)), read_only
    found["snapshot"] = with_snapshot(snapshot(0, 1, 1) + b"1s"), {}
    found["snapshot-extra"] = with_snapshot(snapshot(1025, 1, 1)), {}
    found["snapshots-in-nothing"] = with_snapshot(b"", 3), {}
    return found | extensions() | options()


def extensions() -> dict[str, Case]:
    luks = (32, "I", 2)
    bitmaps = {
        "short": bytes(8),
        "zero": bytes(24),
        "reserved": struct.pack(">IIQQ", 1, 1, 1, 1),
        "many": struct.pack(">IIQQ", 65536, 0, 1, 1),
        "offset": struct.pack(">IIQQ", 1, 0, 1, 1),
        "size": struct.pack(">IIQQ", 1, 0, 1 << 40, 65536),
        "nothing": struct.pack(">IIQQ", 1, 0, 0, 65536),
        "no-bitmap": struct.pack(">IIQQ", 1, 0, 24, 65536),
    }
    rows = [(kind, bit, name.encode()) for kind, bit, name in ((0, 5, "five"), (0, 6, "x" * 46))]
    names = b"".join(struct.pack("BB46s", *row) for row in rows)
    need = (72, "Q", 4)
    return {
        **{f"bitmaps-{n}": (extended(BITMAPS, b, (88, "Q", 1)), {}) for n, b in bitmaps.items()},
        **{f"stale-bitmaps-{n}": (extended(BITMAPS, b), {}) for n, b in bitmaps.items()},
        "extension-too-long": (edited(V3, (HEADER, "I", 5), (HEADER + 4, "I", 65536 - HEADER)), {}),
        "format-name": (extended(FORMAT, b"a" * 15), {}),
        "format-name-too-long": (extended(FORMAT, b"a" * 16), {}),
        "feature-names": (extended(NAMES, names, (72, "Q", 0xE0)), {}),
        "crypto-not-expected": (extended(CRYPTO, bytes(16)), {}),
        "crypto-size": (extended(CRYPTO, bytes(8), luks), {"encrypt": LUKS}),
        "crypto-offset": (extended(CRYPTO, struct.pack(">QQ", 5, 5), luks), {"encrypt": LUKS}),
        "crypto-no-key": (extended(CRYPTO, struct.pack(">QQ", 65536, 5), luks), {}),
        "data-file-not-needed": (extended(DATA_FILE, b"data.raw"), {}),
        "data-file": (extended(DATA_FILE, b"data.raw", need), {}),
        "data-file-no-name": (edited(V3, need), {}),
        "data-file-json": (extended(DATA_FILE, b'json:{"driver":"null-co"}', need), {}),
        "data-file-protocol": (extended(DATA_FILE, b"nbd:localhost:1", need), {}),
        "data-file-prefix": (extended(DATA_FILE, b"file:data.raw", need), {}),
    }


def options() -> dict[str, Case]:
    sizes = {
        "cache-size": (0, 1, -1, 1 << 20, 1 << 62),
        "l2-cache-size": (0, 1, -1, 1 << 62),
        "refcount-cache-size": (0, -1, 1 << 60),
        "l2-cache-entry-size": (0, 1, 511, 512, 513, 4096, 65536, 131072, -1),
        "cache-clean-interval": (-1, 0, (1 << 32) - 1, 1 << 32),
    }
    found = {f"{k}={v}": (V3, {k: v}) for k, values in sizes.items() for v in values}
    mega = 1 << 20
    for name, caches in {
        "three-sizes": (mega, mega, 5),
        "l2-exceeds": (mega, 2 * mega, None),
        "refcounts-exceed": (mega, None, 2 * mega),
    }.items():
        keys = "cache-size", "l2-cache-size", "refcount-cache-size"
        given = {k: v for k, v in zip(keys, caches, strict=True) if v is not None}
        found[name] = V3, given
    for value in ("none", "all", "some", {"template": "all"}, {"template": "some"}, 5):
        found[f"overlap-check={value}"] = V3, {"overlap-check": value}
    return found | {
        "lazy-v2": (V2, {"lazy-refcounts": True}),
        "lazy": (V3, {"lazy-refcounts": True}),
        "encrypt": (V3, {"encrypt": {"format": "luks"}}),
        "encrypt-aes": (V3, {"encrypt": {"format": "aes", "key-secret": "x"}}),
        "encrypt-other": (
            edited(V3, (32, "I", 2)),
            {"encrypt": {"format": "aes", "key-secret": "x"}},
        ),
        "data-file-not-wanted": (V3, {"data-file": RAW}),
    }


async def verdict(emulator: Emulator, options: dict[str, Any]) -> str:
    try:
        visit(BlockdevOptions, options)
        node = await emulator.opener.open(options)
    except (InvalidInput, QmpError) as e:
        return str(e)
    node.holds = 0
    await emulator.graph.release(node)
    return "opened"


async def test_verdicts_on_headers_and_options_are_qemus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str], str]
) -> None:
    program(StorageDaemon.kind)
    monkeypatch.chdir(tmp_path)
    Path("data.raw").write_bytes(bytes(512))
    wrong = []
    emulator = Emulator()
    emulator.warnings = lambda text: None
    with StorageDaemon(tmp_path) as daemon:
        for name, (data, more) in cases().items():
            file = {"driver": "file", "filename": "image.qcow2"}
            arguments = {"driver": "qcow2", "node-name": "n", "file": file, **more}
            Path("image.qcow2").write_bytes(data)
            reply = daemon.execute("blockdev-add", arguments)
            real = reply.get("error", {}).get("desc", "opened")
            if real == "opened":
                daemon.execute("blockdev-del", {"node-name": "n"})
            left = Path("image.qcow2").read_bytes()
            Path("image.qcow2").write_bytes(data)
            ours = await verdict(emulator, arguments)
            now = Path("image.qcow2").read_bytes()
            if ours != real:
                wrong.append((name, real, ours))
            elif now not in (left, data):
                wrong.append((name, "other bytes were written"))
            elif real != "opened" and now != data:
                wrong.append((name, "bytes were written though it was refused"))
    await emulator.close()
    assert not wrong
