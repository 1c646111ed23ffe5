"""The anti-forensic splitter: a key is blown up so that losing any part of it loses all.

LUKS On-Disk Format Specification 1.2, section 2.4; after AFsplit and AFmerge there.
"""

import hashlib
from collections.abc import Callable


def split(key: bytes, stripes: int, digest: str, random: Callable[[int], bytes]) -> bytes:
    """Return ``stripes`` times as many bytes, all of which it takes to get the key back."""
    noise = random(len(key) * (stripes - 1))
    return noise + _xor(_fold(noise, len(key), digest), key)


def merge(material: bytes | memoryview, stripes: int, digest: str) -> bytes:
    """Return the key that was split."""
    size = len(material) // stripes
    last = (stripes - 1) * size
    return _xor(_fold(material[:last], size, digest), material[last:])


def _fold(material: bytes | memoryview, size: int, digest: str) -> bytes:
    """Return what the key is XORed with: all stripes but the last, hashed into one another."""
    block = bytes(size)
    for at in range(0, len(material), size):
        block = _diffuse(_xor(material[at : at + size], block), digest)
    return block


def _diffuse(block: bytes, digest: str) -> bytes:
    """Hash a block's pieces, each with its number before it; the last is cut to fit."""
    new = hashlib.new
    step = new(digest).digest_size
    hashed = [
        new(digest, (at // step).to_bytes(4, "big") + block[at : at + step]).digest()
        for at in range(0, len(block), step)
    ]
    return b"".join(hashed)[: len(block)]


def _xor(a: bytes | memoryview, b: bytes | memoryview) -> bytes:
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")
