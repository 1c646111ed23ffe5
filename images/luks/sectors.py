"""Ciphers over sectors of 512 bytes, whole requests at a time.

The block cipher itself is passed in and only ever asked for ECB, over many blocks in one call;
modes are numpy's.  That is how XTS comes to gigabytes a second where a context per sector does not:
with ``T[s, j] = a^j * E2(iv[s])``, a sector's 32 tweaks are 32 shifts of its first one, since what
falls off at the top of ``lo, hi`` is multiplied by ``x^7 + x^2 + x + 1`` in a few more shifts (IEEE
1619-2007, 5.2).  All operands are contiguous, for 128 KiB of data at a time: they stay in the
cache.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import numpy as np

from blockemu.images.luks import errors
from blockemu.images.luks.algorithms import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECTOR: Final = 512
CHUNK: Final = 256  # sectors that are worked on at once
SLACK: Final = 16  # bytes that OpenSSL wants behind its output
Words: TypeAlias = "NDArray[np.uint64]"
Bytes: TypeAlias = "NDArray[np.uint8]"
Step = Callable[[Any, Any], object]  # (source, destination): over whole blocks


class BlockCipher(Protocol):
    """A block cipher with a key; not to be used by two threads at once."""

    block_bytes: int

    def encrypt(self, source: Any, into: Any) -> object:
        """Encrypt each block by itself; ``into`` has ``SLACK`` bytes more."""

    def decrypt(self, source: Any, into: Any) -> object:
        """Decrypt each block by itself."""


MakeCipher = Callable[[str, bytes], BlockCipher]  # (algorithm, key)
Numbers: TypeAlias = "NDArray[np.uint64]"
Vectors = Callable[[Numbers], Bytes]  # of sectors, by their numbers: rows of a block's bytes
Piece = tuple[int, memoryview]  # first sector, whole sectors


class SectorCipher(ABC):
    """Encrypts and decrypts sectors; not to be used by two threads at once."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def encrypt(self, sector: int, source: memoryview, into: memoryview) -> None:
        """Encrypt from ``sector`` on; the two may be the same, and may end within a sector."""
        self._run(sector, source, into, True)

    def decrypt(self, sector: int, source: memoryview, into: memoryview) -> None:
        """Decrypt from ``sector`` on, likewise."""
        self._run(sector, source, into, False)

    def together(self, pieces: Sequence[Piece], *, encrypting: bool) -> list[memoryview]:
        """Return what becomes of pieces from here and there, all worked on at once.

        Sixteen of 4 KiB take little longer than one.
        """
        data = np.frombuffer(b"".join(piece for _, piece in pieces), np.uint64)
        out = np.empty(len(data), np.uint64)
        counts = [len(piece) // SECTOR for _, piece in pieces]
        ends = np.cumsum(counts)
        lead = np.array([first for first, _ in pieces], np.int64) - (ends - counts)
        numbers = (np.repeat(lead, counts) + np.arange(ends[-1])).astype(np.uint64)
        for at in range(0, len(numbers), CHUNK):
            part = slice(at * 64, (at + CHUNK) * 64)
            vectors = self._vectors(numbers[at : at + CHUNK])
            self._chunk(vectors, data[part], out[part], encrypting)
        view = out.data.cast("B")
        return [
            view[(end - count) * SECTOR : end * SECTOR]
            for end, count in zip(ends.tolist(), counts, strict=True)
        ]

    def _run(self, sector: int, source: memoryview, into: memoryview, encrypting: bool) -> None:
        whole = len(source) // SECTOR * SECTOR
        step = CHUNK * SECTOR
        for at in range(0, whole, step):
            end = min(at + step, whole)
            data = np.frombuffer(source[at:end], np.uint64)
            out = np.frombuffer(into[at:end], np.uint64)
            first = sector + at // SECTOR
            numbers = np.arange(first, first + len(data) // 64, dtype=np.uint64)
            self._chunk(self._vectors(numbers), data, out, encrypting)
        if whole < len(source):  # nothing that follows a block has a part in it
            last = bytearray(SECTOR)
            last[: len(source) - whole] = source[whole:]
            self._run(sector + whole // SECTOR, memoryview(last), memoryview(last), encrypting)
            into[whole:] = last[: len(source) - whole]

    @abstractmethod
    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        """Work on at most ``CHUNK`` whole sectors; ``data`` and ``out`` are of 64 words each."""


class Xts(SectorCipher):
    """XTS (IEEE 1619-2007)."""

    def __init__(self, cipher: BlockCipher, tweak: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher, self._tweak = cipher, tweak
        n = CHUNK * 32
        self._by = np.tile(np.arange(32, dtype=np.uint64), CHUNK)
        self._back = np.uint64(64) - self._by  # a shift by 64 gives zero, as it should
        self._lo, self._hi, self._over, self._part = (np.empty(n, np.uint64) for _ in range(4))
        self._tweaks = np.empty((n, 2), np.uint64)
        self._first = np.empty(CHUNK * 2 + SLACK // 8, np.uint64)
        self._in = np.empty(n * 2, np.uint64)
        self._out = np.empty(n * 2 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        tweaks = self._make_tweaks(vectors)
        masked, done = self._in[: len(data)], self._out[: len(data)]
        np.bitwise_xor(data, tweaks, out=masked)
        step = self._cipher.encrypt if encrypting else self._cipher.decrypt
        step(masked, self._out)
        np.bitwise_xor(done, tweaks, out=out)

    def _make_tweaks(self, vectors: Bytes) -> Words:
        """Return two words for each block."""
        sectors = len(vectors)
        n = sectors * 32
        self._tweak.encrypt(vectors, self._first)
        first = self._first[: sectors * 2].reshape(sectors, 2)
        lo, hi, over, part = self._lo[:n], self._hi[:n], self._over[:n], self._part[:n]
        by, back = self._by[:n], self._back[:n]
        lo.reshape(sectors, 32)[:] = first[:, :1]
        hi.reshape(sectors, 32)[:] = first[:, 1:]
        tweaks = self._tweaks[:n]
        np.right_shift(hi, back, out=over)
        np.left_shift(hi, by, out=hi)
        np.right_shift(lo, back, out=part)
        np.bitwise_or(hi, part, out=tweaks[:, 1])
        np.left_shift(lo, by, out=lo)
        np.bitwise_xor(lo, over, out=lo)
        for power in (1, 2, 7):
            np.left_shift(over, np.uint64(power), out=part)
            np.bitwise_xor(lo, part, out=lo)
        tweaks[:, 0] = lo
        return tweaks.reshape(-1)


class Cbc(SectorCipher):
    """CBC, a chain for each sector; the sectors' chains are worked on side by side."""

    def __init__(self, cipher: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher = cipher
        self._words = cipher.block_bytes // 8
        self._out = np.empty(CHUNK * 64 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        shape = (len(vectors), 64 // self._words, self._words)
        blocks, made = data.reshape(shape), out.reshape(shape)
        chain = vectors.view(np.uint64).reshape(shape[0], self._words)
        if encrypting:
            for j in range(shape[1]):  # of blocks in a sector, however many sectors there are
                chain = self._link(blocks[:, j] ^ chain)
                made[:, j] = chain
            return
        self._cipher.decrypt(data, self._out)
        plain = self._out[: len(data)].reshape(shape)
        plain[:, 1:] ^= blocks[:, :-1]
        plain[:, 0] ^= chain
        made[:] = plain

    def _link(self, mixed: Words) -> Words:
        self._cipher.encrypt(np.ascontiguousarray(mixed), self._out)
        return self._out[: mixed.size].reshape(mixed.shape).copy()


class Ecb(SectorCipher):
    """Each block by itself."""

    def __init__(self, cipher: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher = cipher
        self._out = np.empty(CHUNK * 64 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        (self._cipher.encrypt if encrypting else self._cipher.decrypt)(data, self._out)
        out[:] = self._out[: len(data)]


class Ctr(SectorCipher):
    """A counter from each sector's IV on, big-endian and as wide as a block."""

    def __init__(self, cipher: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher = cipher
        self._words = cipher.block_bytes // 8
        self._out = np.empty(CHUNK * 64 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        first = vectors.view(">u8").astype(np.uint64).reshape(len(vectors), 1, self._words)
        count = 64 // self._words
        counters = np.repeat(first, count, axis=1)
        low = counters[:, :, -1]
        low += np.arange(count, dtype=np.uint64)
        if self._words == 2:
            counters[:, :, 0] += low < first[:, :, -1]  # the carry
        self._cipher.encrypt(np.ascontiguousarray(counters.astype(">u8")), self._out)
        np.bitwise_xor(data, self._out[: len(data)], out=out)


# IV generators


def _plain64(block_bytes: int) -> Vectors:
    """Return IVs that are the sector's number, little-endian."""

    def vectors(numbers: Numbers) -> Bytes:
        made = np.zeros((len(numbers), block_bytes // 8), np.uint64)
        made[:, 0] = numbers
        return made.view(np.uint8)

    return vectors


def _plain(block_bytes: int) -> Vectors:
    """Return the low 32 bits of the number only: they begin anew after 2 TiB."""

    def vectors(numbers: Numbers) -> Bytes:
        made = np.zeros((len(numbers), block_bytes // 8), np.uint64)
        made[:, 0] = numbers & np.uint64(0xFFFFFFFF)
        return made.view(np.uint8)

    return vectors


def _essiv(block_bytes: int, salted: BlockCipher) -> Vectors:
    """Return the number encrypted by a key that is the volume key's hash."""
    plain = _plain64(block_bytes)

    def vectors(numbers: Numbers) -> Bytes:
        size = len(numbers) * block_bytes
        out = np.empty(size + SLACK, np.uint8)
        salted.encrypt(plain(numbers), out)
        return out[:size].reshape(len(numbers), block_bytes)

    return vectors


def sector_cipher(spec: Spec, key: bytes, make: MakeCipher) -> SectorCipher:
    """Return a cipher for a volume.

    Raises:
        FormatError: the mode does not go with the cipher, or the cipher is not to be had.

    """
    if spec.mode == "xts":
        half = len(key) // 2
        cipher, tweak = make(spec.cipher, key[:half]), make(spec.cipher, key[half:])
        if cipher.block_bytes != 16:
            raise errors.BadCipherMode(spec.mode)
        return Xts(cipher, tweak, _vectors(spec, key, 16, make))
    cipher = make(spec.cipher, key)
    vectors = _vectors(spec, key, cipher.block_bytes, make)
    if spec.mode == "cbc":
        return Cbc(cipher, vectors)
    return Ecb(cipher, vectors) if spec.mode == "ecb" else Ctr(cipher, vectors)


def _vectors(spec: Spec, key: bytes, block_bytes: int, make: MakeCipher) -> Vectors:
    name = spec.essiv_cipher
    if name is not None:
        assert spec.iv_hash is not None
        return _essiv(block_bytes, make(name, hashlib.new(spec.iv_hash, key).digest()))
    return (_plain64 if spec.generator == "plain64" else _plain)(block_bytes)
