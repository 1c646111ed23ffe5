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
_FEW: Final = 32  # sectors whose numbers are written by one integer
SLACK: Final = 16  # bytes that OpenSSL wants behind its output
_POWERS: Final = tuple(np.array(n, np.uint64) for n in (1, 2, 7))  # of x, in XTS's polynomial
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
Piece = tuple[int, memoryview]  # first sector, whole sectors


class Vectors(ABC):
    """IVs of at most ``CHUNK`` sectors: a block for each, good until the next call."""

    @abstractmethod
    def of(self, numbers: Numbers) -> Bytes:
        """Return those of sectors by their numbers."""

    def of_run(self, first: int, count: int) -> Bytes | bytes:
        """Return those of sectors that follow each other."""
        return self.of(np.arange(first, first + count, dtype=np.uint64))


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
        data = np.frombuffer(b"".join(piece for _, piece in pieces), np.uint8)
        out = np.empty(len(data), np.uint8)
        counts = [len(piece) // SECTOR for _, piece in pieces]
        ends = np.cumsum(counts)
        lead = np.array([first for first, _ in pieces], np.int64) - (ends - counts)
        numbers = (np.repeat(lead, counts) + np.arange(ends[-1])).astype(np.uint64)
        for at in range(0, len(numbers), CHUNK):
            part = slice(at * SECTOR, (at + CHUNK) * SECTOR)
            vectors = self._vectors.of(numbers[at : at + CHUNK])
            self._chunk(vectors, data[part], out[part], encrypting)
        view = out.data
        return [
            view[(end - count) * SECTOR : end * SECTOR]
            for end, count in zip(ends.tolist(), counts, strict=True)
        ]

    def _run(self, sector: int, source: memoryview, into: memoryview, encrypting: bool) -> None:
        size, most = len(source), CHUNK * SECTOR
        if size > most:
            for at in range(0, size, most):
                part = slice(at, at + most)
                self._run(sector + at // SECTOR, source[part], into[part], encrypting)
        elif rest := size % SECTOR:  # nothing that follows a block has a part in it
            whole = size - rest
            self._run(sector, source[:whole], into[:whole], encrypting)
            last = bytearray(SECTOR)
            last[:rest] = source[whole:]
            self._run(sector + whole // SECTOR, memoryview(last), memoryview(last), encrypting)
            into[whole:] = last[:rest]
        elif size:
            data = np.frombuffer(source, np.uint8)
            out = data if into is source else np.frombuffer(into, np.uint8)
            vectors = self._vectors.of_run(sector, size // SECTOR)
            self._chunk(vectors, data, out, encrypting)

    @abstractmethod
    def _chunk(self, vectors: Bytes | bytes, data: Bytes, out: Bytes, encrypting: bool) -> None:
        """Work on at most ``CHUNK`` whole sectors; ``data`` and ``out`` may be the same.

        They need not lie as words do: numpy takes twice as long for words that are not aligned.
        """


class Xts(SectorCipher):
    """XTS (IEEE 1619-2007)."""

    def __init__(self, cipher: BlockCipher, tweak: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher, self._tweak = cipher, tweak
        self._rooms: dict[int, _Room] = {}
        self._largest = _Room.largest()

    def _chunk(self, vectors: Bytes | bytes, data: Bytes, out: Bytes, encrypting: bool) -> None:
        sectors = len(data) // SECTOR
        room = self._rooms.get(sectors)
        if room is None:
            room = self._rooms[sectors] = self._largest.part(sectors)
        self._tweak.encrypt(vectors, room.first_bytes)
        room.make_tweaks()
        np.bitwise_xor(data, room.tweaks, room.masked)
        step = self._cipher.encrypt if encrypting else self._cipher.decrypt
        step(room.masked_bytes, room.done_bytes)
        np.bitwise_xor(room.done, room.tweaks, out)


class _Room:
    """Where XTS works on so many sectors: views, made once, of room for ``CHUNK`` of them.

    To cut them anew for each request took half of the time of one of 4 KiB (``make bench``: LUKS,
    4 KiB).  ``tweaks``: the bytes of all; ``masked``: what goes into the cipher; ``done``: what
    comes out; ``*_bytes``: the same as OpenSSL wants them, with slack where it writes.
    """

    def __init__(self, sectors: int, arrays: Sequence[Words]) -> None:
        n = sectors * 32  # blocks
        first, shift, back, words, over, spare, tweaks, masked, done = self._arrays = arrays
        slack = SLACK // 8
        self.first_bytes = first[: 2 * sectors + slack].data.cast("B")
        self._first = first[: 2 * sectors].reshape(sectors, 2).T[:, :, None]
        self._shift, self._back = (part[: 2 * n].reshape(2, n) for part in (shift, back))
        self._words, self._over = (part[: 2 * n].reshape(2, n) for part in (words, over))
        self._spread = self._words.reshape(2, sectors, 32)
        self._fallen, self._carried = self._over[1], self._over[::-1]
        self._sum, self._term = spare[: 2 * n].reshape(2, n)
        self._pairs = tweaks[: 2 * n].reshape(n, 2).T
        self.tweaks, self.masked, self.done = (
            part[: 2 * n].view(np.uint8) for part in (tweaks, masked, done)
        )
        self.masked_bytes = self.masked.data
        self.done_bytes = done[: 2 * n + slack].data.cast("B")

    @classmethod
    def largest(cls) -> _Room:
        """Return room for ``CHUNK`` sectors."""
        n, slack = CHUNK * 32, SLACK // 8
        shift = np.arange(CHUNK * 64, dtype=np.uint64) & np.uint64(31)
        back = np.uint64(64) - shift  # a shift by 64 gives zero, as it should
        sizes = (2 * n, 2 * n, 2 * n, 2 * n, 2 * n, 2 * n + slack)
        rest = (np.empty(size, np.uint64) for size in sizes)
        first = np.empty(CHUNK * 2 + slack, np.uint64)
        return cls(CHUNK, (first, shift, back, *rest))

    def part(self, sectors: int) -> _Room:
        """Return room for fewer, in the same place."""
        return _Room(sectors, self._arrays)

    def make_tweaks(self) -> None:
        """Make each sector's 32 tweaks of its first, which is in ``first_bytes``.

        What falls off the high words is multiplied term by term: all terms in one call, and a
        reduction, take twice as long.
        """
        words, fallen, total, term = self._words, self._fallen, self._sum, self._term
        self._spread[:] = self._first
        np.right_shift(words, self._back, self._over)
        np.left_shift(words, self._shift, words)
        np.left_shift(fallen, _POWERS[0], total)
        for power in _POWERS[1:]:
            np.left_shift(fallen, power, term)
            np.bitwise_xor(total, term, total)
        np.bitwise_xor(fallen, total, fallen)
        np.bitwise_xor(words, self._carried, self._pairs)


class Cbc(SectorCipher):
    """CBC, a chain for each sector; the sectors' chains are worked on side by side."""

    def __init__(self, cipher: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher = cipher
        self._words = cipher.block_bytes // 8
        self._out = np.empty(CHUNK * 64 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes | bytes, data: Bytes, out: Bytes, encrypting: bool) -> None:
        shape = (len(data) // SECTOR, 64 // self._words, self._words)
        blocks, made = (part.view(np.uint64).reshape(shape) for part in (data, out))
        chain = np.frombuffer(vectors, np.uint64).reshape(shape[0], self._words)
        if encrypting:
            for j in range(shape[1]):  # of blocks in a sector, however many sectors there are
                chain = self._link(blocks[:, j] ^ chain)
                made[:, j] = chain
            return
        self._cipher.decrypt(data, self._out)
        plain = self._out[: data.size // 8].reshape(shape)
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

    def _chunk(self, vectors: Bytes | bytes, data: Bytes, out: Bytes, encrypting: bool) -> None:
        (self._cipher.encrypt if encrypting else self._cipher.decrypt)(data, self._out)
        out[:] = self._out.view(np.uint8)[: len(data)]


class Ctr(SectorCipher):
    """A counter from each sector's IV on, big-endian and as wide as a block."""

    def __init__(self, cipher: BlockCipher, vectors: Vectors) -> None:
        super().__init__(vectors)
        self._cipher = cipher
        self._words = cipher.block_bytes // 8
        self._out = np.empty(CHUNK * 64 + SLACK // 8, np.uint64)

    def _chunk(self, vectors: Bytes | bytes, data: Bytes, out: Bytes, encrypting: bool) -> None:
        first = np.frombuffer(vectors, ">u8").astype(np.uint64).reshape(-1, 1, self._words)
        count = 64 // self._words
        counters = np.repeat(first, count, axis=1)
        low = counters[:, :, -1]
        low += np.arange(count, dtype=np.uint64)
        if self._words == 2:
            counters[:, :, 0] += low < first[:, :, -1]  # the carry
        self._cipher.encrypt(np.ascontiguousarray(counters.astype(">u8")), self._out)
        np.bitwise_xor(data, self._out.view(np.uint8)[: len(data)], out=out)


# IV generators


class _Plain64(Vectors):
    """The sector's number, little-endian."""

    def __init__(self, block_bytes: int) -> None:
        rows = np.zeros((CHUNK, block_bytes // 8), np.uint64)
        self._low, self._made = rows[:, 0], rows.view(np.uint8)
        self._bytes = block_bytes
        places = [i * block_bytes * 8 for i in range(_FEW + 1)]
        self._ones = [sum(1 << at for at in places[:count]) for count in range(_FEW + 1)]
        self._ramps = [
            sum(i << at for i, at in enumerate(places[:count])) for count in range(_FEW + 1)
        ]

    def of(self, numbers: Numbers) -> Bytes:
        count = len(numbers)
        self._low[:count] = numbers
        return self._made[:count]

    def of_run(self, first: int, count: int) -> Bytes | bytes:
        """Count by one long integer where that takes a quarter of the time (LUKS, 4 KiB)."""
        if count > _FEW:
            return super().of_run(first, count)
        numbers = first * self._ones[count] + self._ramps[count]
        return numbers.to_bytes(count * self._bytes, "little")


class _Plain(Vectors):
    """The low 32 bits of the number only: they begin anew after 2 TiB."""

    def __init__(self, block_bytes: int) -> None:
        self._whole = _Plain64(block_bytes)

    def of(self, numbers: Numbers) -> Bytes:
        return self._whole.of(numbers & np.uint64(0xFFFFFFFF))


class _Essiv(Vectors):
    """The number encrypted by a key that is the volume key's hash."""

    def __init__(self, block_bytes: int, salted: BlockCipher) -> None:
        self._bytes, self._salted = block_bytes, salted
        self._plain = _Plain64(block_bytes)

    def of(self, numbers: Numbers) -> Bytes:
        size = len(numbers) * self._bytes
        out = np.empty(size + SLACK, np.uint8)
        self._salted.encrypt(self._plain.of(numbers), out)
        return out[:size]


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
        return _Essiv(block_bytes, make(name, hashlib.new(spec.iv_hash, key).digest()))
    return (_Plain64 if spec.generator == "plain64" else _Plain)(block_bytes)
