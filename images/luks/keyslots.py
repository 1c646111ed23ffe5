"""Key slots: a passphrase opens one, which gives the volume's key.

The key is split, and the split material encrypted as sectors by a key that PBKDF2 makes of the
passphrase (LUKS On-Disk Format Specification 1.2, section 4).  All of this takes as long as the
header's iterations say; call it on a thread.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from blockemu.images.luks import errors
from blockemu.images.luks.afsplit import merge, split
from blockemu.images.luks.algorithms import DIGESTS, Spec
from blockemu.images.luks.header import DIGEST, ENABLED, SALT, LuksHeader, Slot
from blockemu.images.luks.sectors import MakeCipher, sector_cipher

Random = Callable[[int], bytes]
MOST_ITERATIONS: Final = (1 << 32) - 1  # that a header can tell
_MOST: Final = (1 << 31) - 1  # that OpenSSL can count
_TRUSTED: Final = 0.05  # seconds that a trial must take
_FIRST_TRIAL: Final = 1 << 14  # iterations


def pbkdf2(digest: str, secret: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """Return a key of ``size`` bytes (RFC 2898).

    Raises:
        FormatError: that would take hours, and OpenSSL does not count so far.

    """
    if iterations > _MOST:
        raise errors.TooManyIterations(iterations, _MOST)
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


def iterations_per_second(digest: str, clock: Callable[[], float]) -> int:
    """Measure how often PBKDF2 goes round in a second, for a key as long as a digest.

    As qcrypto_pbkdf2_count_iters does, but once for all keys of a volume and not for as long.
    ``clock`` tells seconds that this thread has had the processor.
    """
    iterations = _FIRST_TRIAL
    while True:
        start = clock()
        pbkdf2(digest, bytes(32), bytes(SALT), iterations, DIGESTS[digest])
        taken = max(clock() - start, 1e-6)
        if taken > _TRUSTED:
            return int(iterations / taken)
        iterations *= 4


def iterations_for(rate: int, digest: str, size: int, milliseconds: int) -> int:
    """Return how often to go round for a key of ``size`` bytes to take that long.

    ``rate`` is what ``iterations_per_second`` told.

    Raises:
        FormatError: that is more than can be written down.

    """
    blocks = -(-size // DIGESTS[digest])
    rate //= blocks
    if milliseconds < 0 or rate * milliseconds >> 64:
        raise errors.TooSlowToScale(rate)
    iterations = rate * milliseconds // 1000
    if iterations > MOST_ITERATIONS:
        raise errors.TooSlow(iterations, MOST_ITERATIONS)
    return iterations


def _digest(header: LuksHeader, spec: Spec, key: bytes) -> bytes:
    return pbkdf2(spec.hash, key, header.digest_salt, header.digest_iterations, DIGEST)
