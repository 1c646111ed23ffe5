"""Encrypted volumes, made without a program."""

from __future__ import annotations

import random

from blockemu.ciphers import make_cipher
from blockemu.images.luks.algorithms import Spec
from blockemu.images.luks.header import SALT, SECTOR, new_header
from blockemu.images.luks.keyslots import fill_slot, set_digest
from blockemu.images.luks.sectors import sector_cipher


def luks_volume(content: bytes | bytearray) -> bytes:
    """Return a volume whose passphrase is "pass"."""
    rng, spec, rounds = random.Random(4), Spec(), 1000
    key = rng.randbytes(spec.key_bytes)
    header = new_header(spec, "", bytes(SALT))
    set_digest(header, spec, key, rounds)
    slot, material = fill_slot(
        spec, header.slots[0], b"pass", key, rounds, bytes(SALT), make_cipher, rng.randbytes
    )
    header.slots[0] = slot
    volume = bytearray(header.payload_offset + len(content))
    for at, data in ((0, header.pack()), (slot.offset * SECTOR, material)):
        volume[at : at + len(data)] = data
    disk = memoryview(volume)[header.payload_offset :]
    sector_cipher(spec, key, make_cipher).encrypt(0, memoryview(content), disk)
    return bytes(volume)
