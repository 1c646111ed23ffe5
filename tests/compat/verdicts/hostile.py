"""qcow2 images that lie: each is refused in QEMU's words, and no byte of them changes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from compat.daemon import image
from compat.verdicts.table import Group

# Offsets of header fields, from docs/interop/qcow2.txt
MAGIC, VERSION, BACKING, BACKING_SIZE, CLUSTER_BITS, SIZE, CRYPT = 0, 4, 8, 16, 20, 24, 32
L1_SIZE, L1, TABLE, TABLE_CLUSTERS, SNAPSHOTS_COUNT, SNAPSHOTS = 36, 40, 48, 56, 60, 64
INCOMPATIBLE, COMPATIBLE, AUTOCLEAR, ORDER, HEADER_LENGTH, COMPRESSION = 72, 80, 88, 96, 100, 104
_WIDE = {BACKING, SIZE, L1, TABLE, SNAPSHOTS, INCOMPATIBLE, COMPATIBLE, AUTOCLEAR}

Change = Callable[[bytearray], bytearray | None]


def put(offset: int, value: int) -> Change:
    """Overwrite one field of the header."""

    def change(data: bytearray) -> None:
        struct.pack_into(">Q" if offset in _WIDE else ">I", data, offset, value)

    return change


def both(*changes: Change) -> Change:
    """Apply several changes."""

    def change(data: bytearray) -> bytearray:
        for one in changes:
            data = one(data) or data
        return data

    return change


def cut(length: int) -> Change:
    """Keep the first bytes only."""
    return lambda data: data[:length]


def extension(kind: int, body: bytes, length: int | None = None) -> Change:
    """Put one header extension in the place of all."""

    def change(data: bytearray) -> None:
        start = struct.unpack_from(">I", data, HEADER_LENGTH)[0]
        data[start:4096] = bytes(4096 - start)
        struct.pack_into(">II", data, start, kind, len(body) if length is None else length)
        data[start + 8 : start + 8 + len(body)] = body

    return change


def backing_name(name: bytes, length: int | None = None, offset: int = 1024) -> Change:
    """Name a backing file, perhaps at an impossible place or length."""

    def change(data: bytearray) -> None:
        if offset < 4096:
            data[offset : offset + len(name)] = name
        put(BACKING, offset)(data)
        put(BACKING_SIZE, len(name) if length is None else length)(data)

    return change


_BITMAPS, _DATA_FILE, _CRYPTO, _FEATURES, _FORMAT = (
    0x23852875,
    0x44415441,
    0x0537BE77,
    0x6803F857,
    0xE2792ACA,
)

# What is said about a header, one image each
LIES: dict[str, Change] = {
    "nothing": cut(0),
    "magic-only": cut(4),
    "half-header": cut(60),
    "v2-header-only": cut(72),
    "v3-header-only": cut(104),
    "no-magic": put(MAGIC, 0x514649FA),
    "version-0": put(VERSION, 0),
    "version-1": put(VERSION, 1),
    "version-4": put(VERSION, 4),
    "cluster-bits-8": put(CLUSTER_BITS, 8),
    "cluster-bits-22": put(CLUSTER_BITS, 22),
    "cluster-bits-64": put(CLUSTER_BITS, 64),
    "cluster-bits-max": put(CLUSTER_BITS, 0xFFFFFFFF),
    "header-length-0": put(HEADER_LENGTH, 0),
    "header-length-103": put(HEADER_LENGTH, 103),
    "header-length-106": put(HEADER_LENGTH, 106),
    "header-length-giant": put(HEADER_LENGTH, 0x10001),
    "refcount-order-7": put(ORDER, 7),
    "refcount-order-giant": put(ORDER, 0xFFFFFFFF),
    "crypt-1": put(CRYPT, 1),
    "crypt-2": put(CRYPT, 2),
    "crypt-3": put(CRYPT, 3),
    "size-giant": put(SIZE, 1 << 62),
    "size-negative": put(SIZE, 0xFFFFFFFFFFFFFE00),
    "size-beyond-l1": put(SIZE, 1 << 40),
    "l1-none": put(L1_SIZE, 0),
    "l1-giant": put(L1_SIZE, 0x7FFFFFFF),
    "l1-32-mib-and-one": put(L1_SIZE, 0x400001),
    "l1-past-end": put(L1, 1 << 40),
    "l1-unaligned": put(L1, 0x30001),
    "l1-overflow": put(L1, 0x7FFFFFFFFFFF0000),
    "l1-beyond-56-bits": put(L1, 0xFFFFFFFFFFFF0000),
    "table-unaligned": put(TABLE, 0x10001),
    "table-zero": put(TABLE, 0),
    "table-none": put(TABLE_CLUSTERS, 0),
    "table-giant": put(TABLE_CLUSTERS, 0x7FFFFFFF),
    "table-8-mib-and-one": put(TABLE_CLUSTERS, 129),
    "table-past-end": put(TABLE, 1 << 40),
    "table-overflow": put(TABLE, 0x7FFFFFFFFFFF0000),
    "snapshots-giant": put(SNAPSHOTS_COUNT, 0x7FFFFFFF),
    "snapshots-65537": put(SNAPSHOTS_COUNT, 65537),
    "snapshots-unaligned": both(put(SNAPSHOTS_COUNT, 1), put(SNAPSHOTS, 12345)),
    "snapshots-past-end": both(put(SNAPSHOTS_COUNT, 1), put(SNAPSHOTS, 1 << 40)),
    "feature-unknown": put(INCOMPATIBLE, 1 << 40),
    "feature-named": both(
        put(INCOMPATIBLE, 1 << 7), extension(_FEATURES, bytes([0, 7]) + b"seventh".ljust(46, b"\0"))
    ),
    "features-two": put(INCOMPATIBLE, 3 << 62),
    "feature-corrupt": put(INCOMPATIBLE, 2),
    "compression-unmarked": put(COMPRESSION, 1 << 24),
    "compression-unknown": both(put(INCOMPATIBLE, 8), put(COMPRESSION, 9 << 24)),
    "compression-zlib-marked": put(INCOMPATIBLE, 8),
    "subclusters-without-mapping": both(put(INCOMPATIBLE, 16), put(CLUSTER_BITS, 9)),
    "data-file-nameless": put(INCOMPATIBLE, 4),
    "data-file-absent": both(put(INCOMPATIBLE, 4), extension(_DATA_FILE, b"absent.data")),
    "data-file-json": both(
        put(INCOMPATIBLE, 4), extension(_DATA_FILE, b'json:{"driver":"file","filename":"secret"}')
    ),
    "data-file-nbd": both(put(INCOMPATIBLE, 4), extension(_DATA_FILE, b"nbd://localhost:1/x")),
    "extension-too-long": extension(_FORMAT, b"raw", 0x7FFFFFFF),
    "extension-format-long": extension(_FORMAT, b"x" * 64),
    "extension-past-cluster": extension(0x12345678, b"", 0xFFF0),
    "bitmaps-short": both(put(AUTOCLEAR, 1), extension(_BITMAPS, bytes(16))),
    "bitmaps-none": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 0, 0, 64, 0x50000))
    ),
    "bitmaps-reserved": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 1, 1, 64, 0x50000))
    ),
    "bitmaps-giant": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 65536, 0, 64, 0x50000))
    ),
    "bitmaps-directory-giant": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 1, 0, 1 << 40, 0x50000))
    ),
    "bitmaps-unaligned": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 1, 0, 64, 0x50001))
    ),
    "bitmaps-garbage": both(
        put(AUTOCLEAR, 1), extension(_BITMAPS, struct.pack(">IIQQ", 1, 0, 64, 0x20000))
    ),
    "luks-short": both(put(CRYPT, 2), extension(_CRYPTO, bytes(8))),
    "luks-unaligned": both(put(CRYPT, 2), extension(_CRYPTO, struct.pack(">QQ", 12345, 512))),
    "backing-too-long": backing_name(b"", 1024),
    "backing-past-cluster": backing_name(b"abcdef", None, 65534),
    "backing-past-end": backing_name(b"abcdef", None, 1 << 40),
    "backing-empty-name": backing_name(b"", 0),
    "backing-absent": backing_name(b"absent"),
    "backing-directory": backing_name(b"/"),
    "backing-nul": backing_name(b"a\0b"),
    "backing-protocol": backing_name(b"zzz:absent"),
    "backing-json-broken": backing_name(b'json:{"driver"'),
    "backing-json-list": backing_name(b"json:[]"),
    "backing-json-unknown": backing_name(b'json:{"driver":"zzz"}'),
    "backing-json-nothing": backing_name(b"json:{}"),
    "backing-json-bogus": backing_name(b'json:{"driver":"null-co","bogus":1}'),
}
# These are opened all the same, as QEMU reads past the end as zeroes
ACCEPTED = {
    "v3-header-only",
    "header-length-106",
    "l1-past-end",
    "table-zero",
    "table-past-end",
    "snapshots-past-end",
    "backing-empty-name",
}


def lying_files(folder: Path) -> None:
    image("create", "-f", "qcow2", "honest", "1M", cwd=folder)
    (folder / "secret").write_bytes(b"s" * 1048576)
    honest = (folder / "honest").read_bytes()
    for name, change in LIES.items():
        data = bytearray(honest)
        (folder / name).write_bytes(change(data) or data if name != "nothing" else b"")


def _opens(read_only: bool) -> str:
    accepted = ACCEPTED | {"feature-corrupt"} if read_only else ACCEPTED
    tail = ', "read-only": true}' if read_only else "}"
    return "\n".join(
        f'{"+" if name in accepted else "-"} blockdev-add {{"driver": "qcow2", "node-name": "n{index}", '
        f'"file": {{"driver": "file", "filename": "{name}"}}{tail}'
        for index, name in enumerate(LIES)
    )


# Tables that lie, found out at the first request: one written cluster, its tables then changed
L2_AT, REFCOUNTS_AT = 0x40000, 0x20000
TRAPS: dict[str, tuple[int, int]] = {
    "l1-entry-unaligned": (0x30000, 0x8000000000040200),
    "l1-entry-reserved": (0x30000, 0xFF00000000040000 | 1 << 63),
    "l1-entry-past-end": (0x30000, 1 << 63 | 1 << 26),
    "l2-entry-unaligned": (L2_AT, 0x8000000000050200),
    "l2-entry-past-end": (L2_AT, 1 << 63 | 1 << 26),
    "l2-entry-on-header": (L2_AT, 1 << 63),
    "l2-entry-on-l1": (L2_AT, 1 << 63 | 0x30000),
    "l2-entry-compressed-past-end": (L2_AT, 1 << 62 | 1 << 26),
    "l2-entry-zero-unaligned": (L2_AT, 0x8000000000050201),
    "refcount-zero": (REFCOUNTS_AT + 8, 0x0001000000000000),
    "table-entry-unaligned": (0x10000, 0x20001),
    "table-entry-past-end": (0x10000, 1 << 26),
}


def trapped_files(folder: Path) -> None:
    image("create", "-f", "qcow2", "honest", "1M", cwd=folder)
    with (folder / "honest").open("r+b") as file:
        file.truncate(0x60000)
        file.seek(0x30000)
        file.write(struct.pack(">Q", 1 << 63 | L2_AT))
        file.seek(L2_AT)
        file.write(struct.pack(">Q", 1 << 63 | 0x50000))
        file.seek(REFCOUNTS_AT)
        file.write(struct.pack(">6H", *([1] * 6)))
    assert "No errors" in image("check", "honest", cwd=folder)
    honest = (folder / "honest").read_bytes()
    for name, (offset, value) in TRAPS.items():
        data = bytearray(honest)
        struct.pack_into(">Q", data, offset, value)
        (folder / name).write_bytes(data)


def _trap(name: str, io: str, options: str = "") -> str:
    return f"""
+ blockdev-add {{"driver": "qcow2", "node-name": "{name}", "file": {{"driver": "file", "filename": "{name}"}}{options}}}
. io {name} {io}
"""


_SEE = '+ query-named-block-nodes {"flat": true}\n'
HEADERS = Group("hostile-headers", _opens(False), files=lying_files, untouched=True)
HEADERS_READ = Group("hostile-headers-read-only", _opens(True), files=lying_files, untouched=True)
TRAPPED_READ = Group(
    "hostile-tables-read",
    "".join(_trap(name, "read 0 64k", ', "read-only": true') for name in TRAPS) + _SEE,
    files=trapped_files,
    untouched=True,
)
# With a refcount table that points nowhere all clusters look free; which one QEMU then takes for a
# write, and whether it is one in use, is chance (its search begins behind the last cluster).
CHANCE = {"table-entry-past-end"}
TRAPPED_WRITE = Group(
    "hostile-tables-write",
    "".join(_trap(name, "write -P 7 0 128k") for name in TRAPS if name not in CHANCE),
    files=trapped_files,
)

GROUPS = [HEADERS, HEADERS_READ, TRAPPED_READ, TRAPPED_WRITE]
