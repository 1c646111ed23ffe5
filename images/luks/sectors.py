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
_POWERS: Final = np.array([[0], [1], [2], [7]], np.uint64)  # of x, in the polynomial of XTS
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
        self._rooms: dict[int, _Room] = {}
        self._largest = _Room.largest()

    def _chunk(self, vectors: Bytes, data: Words, out: Words, encrypting: bool) -> None:
        room = self._rooms.get(len(vectors))
        if room is None:
            room = self._rooms[len(vectors)] = self._largest.part(len(vectors))
        self._tweak.encrypt(vectors, room.first_bytes)
        tweaks = room.make_tweaks()
        np.bitwise_xor(data, tweaks, out=room.masked)
        step = self._cipher.encrypt if encrypting else self._cipher.decrypt
        step(room.masked_bytes, room.done_bytes)
        np.bitwise_xor(room.done, tweaks, out=out)


class _Room:
    """Where XTS works on so many sectors: views, made once, of room for ``CHUNK`` of them.

    To cut them anew for each request took half of the time of one of 4 KiB (``make bench``: LUKS,
    4 KiB).  ``first``: each sector's first tweak, low word first, from which come all 32; ``done``:
    what comes out of the cipher; ``*_bytes``: the same as bytes, with slack where it is written.
    """

    def __init__(self, sectors: int, arrays: Sequence[Words]) -> None:
        n = sectors * 32  # blocks
        first, shift, back, words, over, powers, tweaks, masked, done = self._arrays = arrays
        slack = SLACK // 8
        self.first_bytes = first[: 2 * sectors + slack].data.cast("B")
        self._first = first[: 2 * sectors].reshape(sectors, 2).T[:, :, None]
        self._shift, self._back = (part[: 2 * n].reshape(2, n) for part in (shift, back))
        self._words, self._over = (part[: 2 * n].reshape(2, n) for part in (words, over))
        (self._lo, self._hi), (self._lo_over, self._hi_over) = self._words, self._over
        self._spread = self._words.reshape(2, sectors, 32)
        self._powers = powers[: 4 * n].reshape(4, n)
        self._tweaks = tweaks[: 2 * n]
        self._low, self._high = self._tweaks[::2], self._tweaks[1::2]
        self.masked = masked[: 2 * n]
        self.masked_bytes = self.masked.data.cast("B")
        self.done = done[: 2 * n]
        self.done_bytes = done[: 2 * n + slack].data.cast("B")

    @classmethod
    def largest(cls) -> _Room:
        """Return room for ``CHUNK`` sectors."""
        n, slack = CHUNK * 32, SLACK // 8
        shift = np.arange(CHUNK * 64, dtype=np.uint64) & np.uint64(31)
        back = np.uint64(64) - shift  # a shift by 64 gives zero, as it should
        sizes = (2 * n, 2 * n, 4 * n, 2 * n, 2 * n, 2 * n + slack)
        rest = (np.empty(size, np.uint64) for size in sizes)
        first = np.empty(CHUNK * 2 + slack, np.uint64)
        return cls(CHUNK, (first, shift, back, *rest))

    def part(self, sectors: int) -> _Room:
        """Return room for fewer, in the same place."""
        return _Room(sectors, self._arrays)

    def make_tweaks(self) -> Words:
        """Return two words for each block."""
        words, powers, low_over = self._words, self._powers, self._lo_over
        self._spread[:] = self._first
        np.right_shift(words, self._back, out=self._over)
        np.left_shift(words, self._shift, out=words)
        np.bitwise_or(self._hi, low_over, out=self._high)
        np.left_shift(self._hi_over, _POWERS, out=powers)
        np.bitwise_xor.reduce(powers, axis=0, out=low_over)
        np.bitwise_xor(self._lo, low_over, out=self._low)
        return self._tweaks


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
