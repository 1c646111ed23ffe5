"""Bochs images are read and refused as by QEMU."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon

from blockemu.images.bochs import SECTOR, UNALLOCATED, Header
from blockemu.records import replace

GOOD = Header(
    magic=b"Bochs Virtual HD Image",
    type=b"Redolog",
    subtype=b"Growing",
    version=0x20000,
    header_size=512,
    catalog_entries=40,
    bitmap_size=16,
    extent_size=4096,
    word=0,
    low=37 * 4096 + 512,
    high=0,
)


def image(header: Header, rng: random.Random) -> bytes:
    """Return an image in which some extents are somewhere, and some of their sectors written."""
    count = min(header.catalog_entries, 40)
    places = rng.sample(range(count), count // 2)
    catalog = [UNALLOCATED] * count
    for place, extent in enumerate(rng.sample(range(count), len(places))):
        catalog[extent] = place
    sectors = header.extent_size // SECTOR
    extents = b""
    for _ in places:
        bits = rng.choice([0, (1 << sectors) - 1, rng.getrandbits(sectors)])
        extents += bits.to_bytes((sectors + 7) // 8, "little").ljust(header.bitmap_bytes, b"\0")
        extents += rng.randbytes(header.extent_size)
    return header.pack().ljust(512, b"\0") + struct.pack(f"<{count}I", *catalog) + extents


@pytest.mark.parametrize("version", [0x10000, 0x20000])
@pytest.mark.parametrize("extent", [512, 4096, 65536])
def test_what_it_holds_is_what_qemu_reads(
    extent: int, version: int, tmp_path: Path, program: Callable[[str], str]
) -> None:
    program("qemu-img")
    size = 37 * extent + 512
    low = (size, 0, 0) if version == 0x10000 else (0, size, 0)
    header = replace(
        GOOD, extent_size=extent, version=version, bitmap_size=extent // 4096 or 1,
        word=low[0], low=low[1], high=low[2],
    )  # fmt: skip
    (tmp_path / "x").write_bytes(image(header, random.Random(extent + version)))
    ours = str(Path(sys.executable).parent / "blockemu-img")
    for name, tool in (("theirs", "qemu-img"), ("ours", ours)):
        command = [tool, "convert", "-f", "bochs", "-O", "raw", "x", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    data = (tmp_path / "ours").read_bytes()
    assert data == (tmp_path / "theirs").read_bytes()
    assert len(data) == size
    assert any(data)


FIELDS = {
    "magic": [b"Bochs Virtual HD Imagf"],
    "type": [b"Undolog"],
    "subtype": [b"Volatile"],
    "version": [0, 0x30000],
    "catalog_entries": [0, 1, 37, 0x100000, 0x100001, 0xFFFFFFFF],
    "bitmap_size": [0, 1, 0xFFFFFFFF],
    "extent_size": [0, 511, 513, 3072, 0x800000, 0x1000000],
    "low": [0, 511, 41 * 4096],
    "high": [1, 0xFFFFFFFF],
    "header_size": [0, 0xFFFFFFFF],
}


def test_what_qemu_refuses_to_open_is_refused_in_its_words(both: Both) -> None:
    names = [f"{name}{i}" for name, values in FIELDS.items() for i in range(len(values))]

    def prepare(folder: Path) -> None:
        whole = image(GOOD, random.Random(1))
        for name, values in FIELDS.items():
            for i, value in enumerate(values):
                header = replace(GOOD, **{name: value})
                (folder / f"{name}{i}").write_bytes(header.pack().ljust(512, b"\0") + whole[512:])
        (folder / "good").write_bytes(whole)
        (folder / "short").write_bytes(whole[:100])
        (folder / "cut").write_bytes(whole[:600])

    def script(daemon: Daemon) -> None:
        for name in ("good", "short", "cut", *names):
            options = {"driver": "bochs", "node-name": "n", "read-only": True}
            file = {"driver": "file", "filename": name}
            daemon.execute("blockdev-add", options | {"file": file})
            daemon.execute("query-named-block-nodes")
            daemon.execute("blockdev-del", {"node-name": "n"})
        for more in ({}, {"auto-read-only": True}):
            file = {"driver": "file", "filename": "good"}
            daemon.execute(
                "blockdev-add", {"driver": "bochs", "node-name": "n", "file": file, **more}
            )
            daemon.execute("query-named-block-nodes")
            daemon.execute("blockdev-del", {"node-name": "n"})

    both(script, prepare=prepare)
