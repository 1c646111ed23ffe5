"""Encrypted volumes: where the luks driver and encrypted qcow2 images meet (crypto/block.c).

A volume is opened by the name of a secret; from then on it turns bytes into others.  What takes
long is done on a thread, by a context that no other thread has.
"""

import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from blockemu.buffers import new_buffer
from blockemu.ciphers import make_cipher
from blockemu.errors import QmpError
from blockemu.images.luks import errors
from blockemu.images.luks.algorithms import Spec, check_cipher
from blockemu.images.luks.header import (
    DEFAULT_ITER_TIME,
    DIGEST,
    HEADER_BYTES,
    MIN_DIGEST_ITERATIONS,
    MIN_SLOT_ITERATIONS,
    SALT,
    SECTOR,
    LuksHeader,
    check_header,
    new_header,
)
from blockemu.images.luks.keyslots import (
    fill_slot,
    iterations_for,
    iterations_per_second,
    open_slot,
    set_digest,
)
from blockemu.images.luks.sectors import SectorCipher, sector_cipher
from blockemu.objects.object_add import secret_text
from blockemu.route import NO_ROUTE, Leaf, LeafAbove, Route, Segments
from blockemu.schema.crypto import (
    QCryptoBlockCreateOptionsLUKS,
    QCryptoBlockInfoLUKS,
    QCryptoBlockInfoLUKSSlot,
    QCryptoCipherAlgorithm,
    QCryptoCipherMode,
    QCryptoHashAlgorithm,
    QCryptoIVGenAlgorithm,
)
from blockemu.services import Services

INLINE: Final = 1 << 20  # bytes that are worked on at once, half a millisecond: a hop costs as much
TOGETHER: Final = 64 << 10  # bytes of several requests that are worth putting together


class KeyMissing(QmpError):
    """(prefix of the option)."""

    template = "Parameter '{}key-secret' is required for cipher"


class HeaderStore(Protocol):
    """Where a volume's header is kept; both raise QmpError in QEMU's words."""

    async def read(self, offset: int, length: int) -> memoryview:
        """Read a part of it."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write a part of it."""


class Encryption:
    """Turns sectors into encrypted ones and back, many at a time."""

    def __init__(self, services: Services, make: Callable[[], SectorCipher]) -> None:
        self._pool = services.pool
        self._make = make
        self._free: list[SectorCipher] = [make()]

    def _take(self) -> SectorCipher:
        return self._free.pop() if self._free else self._make()

    def decrypt_now(self, offset: int, data: memoryview) -> None:
        """Decrypt in place, on this thread; ``offset`` is the disk's, both are whole sectors."""
        cipher = self._take()
        try:
            cipher.decrypt(offset // SECTOR, data, data)
        finally:
            self._free.append(cipher)

    def encrypt_now(self, offset: int, data: memoryview, into: memoryview) -> None:
        """Encrypt, on this thread; ``offset`` is the disk's, all are whole sectors."""
        cipher = self._take()
        try:
            cipher.encrypt(offset // SECTOR, data, into)
        finally:
            self._free.append(cipher)

    def together(
        self, pieces: list[tuple[int, memoryview]], *, encrypting: bool
    ) -> list[memoryview]:
        """Return what becomes of whole sectors at several of the disk's offsets."""
        cipher = self._take()
        try:
            return cipher.together(
                [(offset // SECTOR, data) for offset, data in pieces], encrypting=encrypting
            )
        finally:
            self._free.append(cipher)

    async def decrypt(self, offset: int, data: memoryview) -> None:
        """Decrypt in place."""
        if len(data) <= INLINE:
            self.decrypt_now(offset, data)
        else:
            await self._pool.run(self.decrypt_now, offset, data)

    async def encrypt(self, offset: int, data: memoryview) -> memoryview:
        """Return encrypted sectors."""
        into = new_buffer(len(data))
        if len(data) <= INLINE:
            self.encrypt_now(offset, data, into)
        else:
            await self._pool.run(self.encrypt_now, offset, data, into)
        return into


class EncryptedLeaf(LeafAbove):
    """What a leaf holds from ``start`` on, decrypted; requests are whole sectors.

    Saves small requests the way through coroutines, and all that came together are worked on in one
    go (``make bench``: LUKS, 4 KiB).
    """

    late = True

    __slots__ = ("_encryption", "_start")

    def __init__(self, below: Leaf, start: int, encryption: Encryption) -> None:
        super().__init__(below)
        self._start = start
        self._encryption = encryption

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Read what is in memory, and decrypt it."""
        if not self._below.read_now(self._start + offset, buf):
            return False
        self._encryption.decrypt_now(offset, buf)
        return True

    def read(self, offset: int, buf: memoryview) -> None:
        """Read, waiting if need be, and decrypt."""
        self._below.read(self._start + offset, buf)
        self._encryption.decrypt_now(offset, buf)

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Encrypt and write."""
        self.write_prepared(offset, self._encrypted(offset, buf))

    def read_late(self, offset: int, buf: memoryview) -> bool:
        """Read what is in memory, encrypted as it is."""
        return self._below.read_now(self._start + offset, buf)

    def finish(self, pieces: list[tuple[int, memoryview]]) -> None:
        """Decrypt in place."""
        if len(pieces) == 1:
            self._encryption.decrypt_now(*pieces[0])
            return
        done = self._encryption.together(pieces, encrypting=False)
        for (_, buf), data in zip(pieces, done, strict=True):
            buf[:] = data

    def prepare(self, pieces: list[tuple[int, memoryview]]) -> list[memoryview]:
        """Encrypt."""
        if len(pieces) > 1 and sum(len(data) for _, data in pieces) <= TOGETHER:
            return self._encryption.together(pieces, encrypting=True)
        return [self._encrypted(offset, data) for offset, data in pieces]

    def _encrypted(self, offset: int, data: memoryview) -> memoryview:
        into = new_buffer(len(data))
        self._encryption.encrypt_now(offset, data, into)
        return into

    def write_prepared(self, offset: int, buf: memoryview) -> None:
        """Write what is encrypted."""
        self._below.write_now(self._start + offset, buf)


def encrypted_route(below: Route, encryption: Encryption) -> Route:
    """Return the route to sectors that lie encrypted one after the other, from ``below`` on."""
    if below.linear is None:
        return NO_ROUTE
    leaf = EncryptedLeaf(*below.linear, encryption)

    def read(offset: int, length: int) -> Segments | None:
        if (offset | length) & (SECTOR - 1) or length > INLINE:
            return None
        return ((leaf, offset, length),)

    def write(offset: int, length: int) -> tuple[Segments, None] | None:
        found = read(offset, length)
        return None if found is None else (found, None)

    return Route(
        below.read and read, below.write and write, below.marks, bare=False, heights=below.heights
    )


def qcow_encryption(services: Services, key_secret: str | None, *, prefix: str) -> Encryption:
    """Return qcow2's first encryption: AES-128-CBC with the passphrase itself as key.

    After crypto/block-qcow.c.  It is broken by design and only there to read old images.

    Raises:
        QmpError: there is no such secret.

    """
    if key_secret is None:
        raise KeyMissing(prefix)
    key = secret_text(services.find_object(key_secret), key_secret)[:16].ljust(16, b"\0")
    spec = Spec("aes-128", "cbc", "plain64")
    return Encryption(services, lambda: sector_cipher(spec, key, make_cipher))


class LuksVolume:
    """A LUKS header, and the key in it if it was opened."""

    def __init__(
        self, services: Services, store: HeaderStore, header: LuksHeader, key_secret: str | None
    ) -> None:
        self.services = services
        self.store = store
        self.header = header
        self.spec = header.spec()
        self.key_secret = key_secret
        self.encryption: Encryption | None = None

    def unlock(self, key: bytes) -> None:
        """Be ready to encrypt and decrypt."""
        spec = self.spec
        self.encryption = Encryption(self.services, lambda: sector_cipher(spec, key, make_cipher))

    async def try_slot(self, i: int, passphrase: bytes) -> bytes | None:
        """Return the volume's key if a slot is in use and has this passphrase."""
        slot = self.header.slots[i]
        if not slot.active:
            return None
        size = self.header.key_bytes * slot.stripes
        material = await self.store.read(slot.offset * SECTOR, size)
        run = self.services.pool.run
        return await run(open_slot, self.header, self.spec, slot, passphrase, material, make_cipher)

    async def find_key(self, passphrase: bytes) -> bytes:
        """Return the volume's key.

        Raises:
            FormatError: no slot has this passphrase.

        """
        for i in range(len(self.header.slots)):
            key = await self.try_slot(i, passphrase)
            if key is not None:
                return key
        raise errors.WrongPassphrase

    async def store_key(
        self, i: int, passphrase: bytes, key: bytes, iter_time: int, rate: int | None = None
    ) -> None:
        """Fill a slot, material first, then the header (qcrypto_block_luks_store_key)."""
        run, digest = self.services.pool.run, self.spec.hash
        if rate is None:
            rate = await run(iterations_per_second, digest, time.thread_time)
        rounds = max(iterations_for(rate, digest, len(key), iter_time), MIN_SLOT_ITERATIONS)
        slot, material = await run(
            fill_slot,
            self.spec,
            self.header.slots[i],
            passphrase,
            key,
            rounds,
            os.urandom(SALT),
            make_cipher,
            os.urandom,
        )
        await self.store.write(slot.offset * SECTOR, material)
        self.header.slots[i] = slot
        await self.store.write(0, self.header.pack())

    def passphrase(self, name: str) -> bytes:
        """Look a secret up."""
        return secret_text(self.services.find_object(name), name)

    def info(self) -> QCryptoBlockInfoLUKS:
        """Describe the volume."""
        spec, header = self.spec, self.header
        essiv = spec.generator == "essiv"
        return QCryptoBlockInfoLUKS(
            cipher_alg=QCryptoCipherAlgorithm(spec.cipher),
            cipher_mode=QCryptoCipherMode(spec.mode),
            ivgen_alg=QCryptoIVGenAlgorithm(spec.generator),
            ivgen_hash_alg=QCryptoHashAlgorithm(spec.iv_hash) if essiv and spec.iv_hash else None,
            hash_alg=QCryptoHashAlgorithm(spec.hash),
            payload_offset=header.payload_offset,
            master_key_iters=header.digest_iterations,
            uuid=header.uuid_text,
            slots=[
                QCryptoBlockInfoLUKSSlot(
                    active=slot.active,
                    iters=slot.iterations if slot.active else None,
                    stripes=slot.stripes if slot.active else None,
                    key_offset=slot.offset * SECTOR,
                )
                for slot in header.slots
            ],
        )


async def open_luks(
    services: Services,
    store: HeaderStore,
    key_secret: str | None,
    *,
    prefix: str = "",
    no_io: bool = False,
) -> LuksVolume:
    """Open a volume; without I/O no key is needed (qcrypto_block_luks_open).

    Raises:
        QmpError: there is no such secret.
        FormatError: the header is damaged, or the passphrase is wrong.

    """
    passphrase = b""
    if not no_io:
        if key_secret is None:
            raise KeyMissing(prefix)
        passphrase = secret_text(services.find_object(key_secret), key_secret)
    header = LuksHeader.unpack(await store.read(0, HEADER_BYTES))
    check_header(header)
    volume = LuksVolume(services, store, header, key_secret)
    if not no_io:
        volume.unlock(await volume.find_key(passphrase))
    return volume


def spec_of(options: QCryptoBlockCreateOptionsLUKS) -> Spec:
    """Return what options and defaults say of a new volume.

    Raises:
        FormatError: they do not go together.

    """
    plain = {
        "cipher": options.cipher_alg,
        "mode": options.cipher_mode,
        "generator": options.ivgen_alg,
        "iv_hash": options.ivgen_hash_alg,
        "hash": options.hash_alg,
    }
    spec = Spec(**{name: value.value for name, value in plain.items() if value is not None})
    check_cipher(spec.cipher)
    if spec.generator == "essiv" and spec.iv_hash is None:
        spec = Spec(spec.cipher, spec.mode, spec.generator, "sha256", spec.hash)
    header = new_header(spec, "", bytes(SALT))
    _ = spec.essiv_cipher  # refused if there is none
    sector_cipher(spec, os.urandom(header.key_bytes), make_cipher)  # likewise
    return spec


def header_bytes(options: QCryptoBlockCreateOptionsLUKS, *, prefix: str = "") -> int:
    """Return how many bytes come before the disk in a volume made with some options.

    Raises:
        QmpError: no secret is named.
        FormatError: the options do not go together.

    """
    if options.key_secret is None:
        raise KeyMissing(prefix)
    return new_header(spec_of(options), "", bytes(SALT)).payload_offset


class NewVolume:
    """A volume that is about to be created: its header is there, but nowhere yet."""

    def __init__(
        self, services: Services, options: QCryptoBlockCreateOptionsLUKS, *, prefix: str = ""
    ) -> None:
        if options.key_secret is None:
            raise KeyMissing(prefix)
        self._passphrase = secret_text(services.find_object(options.key_secret), options.key_secret)
        self._services = services
        self._secret = options.key_secret
        self._spec = spec_of(options)
        given = options.iter_time
        self._iter_time = DEFAULT_ITER_TIME if given is None else given
        self.header = new_header(self._spec, str(uuid.uuid4()), os.urandom(SALT))

    async def create(self, init: Callable[[int], Awaitable[HeaderStore]]) -> LuksVolume:
        """Make the keys, have ``init`` make room for a header of so many bytes, and write it.

        Raises:
            FormatError: the time that keys shall take is out of reach.
            QmpError: what ``init`` or its store raises.

        """
        run, spec, header = self._services.pool.run, self._spec, self.header
        key = os.urandom(spec.key_bytes)
        rate = await run(iterations_per_second, spec.hash, time.thread_time)
        rounds = iterations_for(rate, spec.hash, DIGEST, self._iter_time) // 8
        await run(set_digest, header, spec, key, max(rounds, MIN_DIGEST_ITERATIONS))
        store = await init(header.payload_offset)
        volume = LuksVolume(self._services, store, header, self._secret)
        volume.unlock(key)
        await volume.store_key(0, self._passphrase, key, self._iter_time, rate)
        return volume
