"""Compressed clusters: what zlib makes, or zlib-ng where it is installed, all can read."""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterator

import pytest

from blockemu.images.qcow2 import compression

RNG = random.Random(11)
FAR = RNG.randbytes(8192)
CLUSTERS = {
    "zeroes": bytes(65536),
    "words": b"a few words, and a number: 17; " * 2115,
    "half": RNG.randbytes(32768) + bytes(32768),
    "letters": bytes(RNG.choices(range(97, 105), k=65536)),
    "short": b"ab" * 256,
    "far": FAR + FAR + bytes(4096),  # it repeats too far back for the window
}


@pytest.fixture(params=["zlib", "zlib-ng"])
def packer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have clusters compressed by one of the two."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "zlib_ng", None)
    compression._packer.cache_clear()
    assert (compression._packer() is zlib.compressobj) is (request.param == "zlib")
    yield request.param
    compression._packer.cache_clear()


@pytest.mark.parametrize("kind", CLUSTERS)
def test_what_is_compressed_is_read_with_qemus_window(packer: str, kind: str) -> None:
    data = CLUSTERS[kind]
    packed = compression.deflate(memoryview(data))
    assert packed is not None
    assert len(packed) < len(data)
    reader = zlib.decompressobj(-12)  # as QEMU reads: no header, 4 KiB of window
    assert reader.decompress(packed) == data
    assert reader.eof
    assert not reader.unused_data
    assert compression.inflate(memoryview(packed + b"rest"), len(data)) == data
    theirs = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -12, 9)
    as_qemu = theirs.compress(data) + theirs.flush()
    assert packed == as_qemu or packer != "zlib"
    assert len(packed) <= len(as_qemu) * 1.05 + 256


def test_what_does_not_become_shorter_is_left(packer: str) -> None:
    assert compression.deflate(memoryview(RNG.randbytes(65536))) is None
