"""Key slots: a passphrase opens one, which gives the volume's key.

The key is split, and the split material encrypted as sectors by a key that PBKDF2 makes of the
passphrase (LUKS On-Disk Format Specification 1.2, section 4).  All of this takes as long as the
header's iterations say; call it on a thread.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from blockemu.images.luks.afsplit import merge, split
from blockemu.images.luks.algorithms import Spec
from blockemu.images.luks.header import DIGEST, ENABLED, SALT, LuksHeader, Slot
from blockemu.images.luks.sectors import MakeCipher, sector_cipher

Random = Callable[[int], bytes]
_HALF: Final = 0.5  # seconds that a trial must take to be trusted
_TENTH: Final = 0.1
_FIRST_TRIAL: Final = 1 << 15  # iterations


def pbkdf2(digest: str, secret: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """Return a key of ``size`` bytes (RFC 2898)."""
    return hashlib.pbkdf2_hmac(digest, secret, salt, iterations, size)


def open_slot(
    header: LuksHeader,
    spec: Spec,
    slot: Slot,
    passphrase: bytes,
    material: memoryview,
    make: MakeCipher,
) -> bytes | None:
    """Return the volume's key if the passphrase is the slot's, None if it is not.

    Raises:
        FormatError: the cipher is not to be had.

    """
    key = pbkdf2(spec.hash, passphrase, slot.salt, slot.iterations, header.key_bytes)
    plain = memoryview(bytearray(len(material)))
    sector_cipher(spec, key, make).decrypt(0, material, plain)
    found = merge(plain, slot.stripes, spec.hash)
    return found if hmac.compare_digest(_digest(header, spec, found), header.digest) else None


def set_digest(header: LuksHeader, spec: Spec, key: bytes, iterations: int) -> None:
    """Let the header know the volume's key again."""
    header.digest_iterations = iterations
    header.digest = _digest(header, spec, key)


def fill_slot(
    spec: Spec,
    slot: Slot,
    passphrase: bytes,
    key: bytes,
    iterations: int,
    salt: bytes,
    make: MakeCipher,
    random: Random,
) -> tuple[Slot, bytes]:
    """Return a slot that the passphrase opens, and its material.

    Raises:
        FormatError: the cipher is not to be had.

    """
    assert len(salt) == SALT
    slot_key = pbkdf2(spec.hash, passphrase, salt, iterations, len(key))
    cipher = sector_cipher(spec, slot_key, make)
    material = bytearray(split(key, slot.stripes, spec.hash, random))
    view = memoryview(material)
    cipher.encrypt(0, view, view)
    return Slot(ENABLED, iterations, salt, slot.offset, slot.stripes), bytes(material)


def iterations_per_second(
    digest: str, secret: bytes, salt: bytes, size: int, clock: Callable[[], float]
) -> int:
    """Measure how often PBKDF2 goes round in a second (after qcrypto_pbkdf2_count_iters).

    ``clock`` tells seconds that this thread has had the processor.
    """
    iterations = _FIRST_TRIAL
    while True:
        start = clock()
        pbkdf2(digest, secret, salt, iterations, size)
        taken = max(clock() - start, 1e-6)
        if taken > _HALF:
            return int(iterations / taken)
        iterations = iterations * 10 if taken < _TENTH else int(iterations / taken)


def _digest(header: LuksHeader, spec: Spec, key: bytes) -> bytes:
    return pbkdf2(spec.hash, key, header.digest_salt, header.digest_iterations, DIGEST)
