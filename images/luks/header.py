"""The header of LUKS version 1 (LUKS On-Disk Format Specification 1.2, figures 1 and 2)."""

import struct
from typing import Final, Self

from blockemu.images.luks import errors
from blockemu.images.luks.algorithms import Spec, parse_spec
from blockemu.records import field, record, replace

MAGIC: Final = b"LUKS\xba\xbe"
VERSION: Final = 1
SECTOR: Final = 512
SLOTS: Final = 8
STRIPES: Final = 4000
SALT: Final = 32  # bytes
DIGEST: Final = 20  # bytes of the master key's digest
KEY_SLOT_OFFSET: Final = 4096  # bytes before the first slot's material
HEADER_SECTORS: Final = KEY_SLOT_OFFSET // SECTOR
ENABLED: Final = 0x00AC71F3
DISABLED: Final = 0x0000DEAD
MIN_SLOT_ITERATIONS: Final = 1000
MIN_DIGEST_ITERATIONS: Final = 1000
ERASE_ROUNDS: Final = 40
DEFAULT_ITER_TIME: Final = 2000  # milliseconds
_FRONT: Final = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT: Final = struct.Struct(">II32sII")
HEADER_BYTES: Final = _FRONT.size + SLOTS * _SLOT.size  # 592


@record(frozen=True)
class Slot:
    """A key slot.  ``offset`` counts sectors; ``state`` is ``ENABLED``, ``DISABLED`` or a lie."""

    state: int
    iterations: int
    salt: bytes
    offset: int
    stripes: int

    @property
    def active(self) -> bool:
        """Whether it holds the master key."""
        return self.state == ENABLED

    def erased(self) -> Self:
        """Return the slot without its key."""
        return replace(self, state=DISABLED, iterations=0, salt=bytes(SALT))


@record
class LuksHeader:
    """A header; texts are as on disk, with what follows their NUL.  ``payload`` counts sectors."""

    cipher_name: bytes
    cipher_mode: bytes
    hash_spec: bytes
    payload: int
    key_bytes: int
    digest: bytes
    digest_salt: bytes
    digest_iterations: int
    uuid: bytes
    slots: list[Slot] = field(default_factory=list)
    magic: bytes = MAGIC
    version: int = VERSION

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> Self:
        """Read ``HEADER_BYTES`` bytes, whatever they mean."""
        magic, version, name, mode, spec, payload, size, digest, salt, rounds, uuid = (
            _FRONT.unpack_from(raw)
        )
        slots = [Slot(*_SLOT.unpack_from(raw, _FRONT.size + i * _SLOT.size)) for i in range(SLOTS)]
        return cls(
            name, mode, spec, payload, size, digest, salt, rounds, uuid, slots, magic, version
        )

    def pack(self) -> bytes:
        """Return ``HEADER_BYTES`` bytes."""
        front = _FRONT.pack(
            self.magic,
            self.version,
            self.cipher_name,
            self.cipher_mode,
            self.hash_spec,
            self.payload,
            self.key_bytes,
            self.digest,
            self.digest_salt,
            self.digest_iterations,
            self.uuid,
        )
        slots = (_SLOT.pack(s.state, s.iterations, s.salt, s.offset, s.stripes) for s in self.slots)
        return front + b"".join(slots)

    @property
    def payload_offset(self) -> int:
        """Where the disk's bytes begin, in bytes."""
        return self.payload * SECTOR

    @property
    def uuid_text(self) -> str:
        """The volume's UUID, up to a NUL."""
        return _text(self.uuid)

    def active_slots(self) -> list[int]:
        """Return the slots that hold the master key."""
        return [i for i, slot in enumerate(self.slots) if slot.active]

    def spec(self) -> Spec:
        """Read how sectors are encrypted.

        Raises:
            FormatError: in QEMU's words.

        """
        name, mode, digest = map(_text, (self.cipher_name, self.cipher_mode, self.hash_spec))
        return parse_spec(name, mode, digest, self.key_bytes)


def has_magic(head: bytes) -> bool:
    """Tell whether a file begins as LUKS of our version does."""
    return len(head) >= 8 and head[:8] == MAGIC + VERSION.to_bytes(2, "big")


def check_header(header: LuksHeader) -> None:
    """Check what a header says, in the order of qcrypto_block_luks_check_header.

    Raises:
        FormatError: in QEMU's words.

    """
    if header.magic != MAGIC:
        raise errors.NotLuks
    if header.version != VERSION:
        raise errors.BadVersion(header.version)
    for raw, name in (
        (header.cipher_name, "cipher name"),
        (header.cipher_mode, "cipher mode"),
        (header.hash_spec, "hash spec"),
    ):
        if b"\0" not in raw:
            raise errors.NotTerminated(name)
    if header.payload < HEADER_SECTORS:
        raise errors.PayloadInHeader
    if header.digest_iterations == 0:
        raise errors.NoIterations
    spans = [_span(header.key_bytes, slot) for slot in header.slots]
    for i, slot in enumerate(header.slots):
        _check_slot(i, slot, spans[i], header.payload)
        for j in range(i + 1, SLOTS):
            (start, end), (other, other_end) = spans[i], spans[j]
            if end > other and other_end > start:
                raise errors.SlotsOverlap(i, j)


def _check_slot(i: int, slot: Slot, span: tuple[int, int], payload: int) -> None:
    if slot.stripes != STRIPES:
        raise errors.BadStripes(i, _signed(slot.stripes), STRIPES)
    if slot.state not in (ENABLED, DISABLED):
        raise errors.BadSlotState(i)
    if slot.active and slot.iterations == 0:
        raise errors.NoSlotIterations(i)
    if span[0] < HEADER_SECTORS:
        raise errors.SlotInHeader(i)
    if span[1] > payload:
        raise errors.SlotInPayload(i)


def split_sectors(key_bytes: int, stripes: int = STRIPES) -> int:
    """Return the sectors that a slot's material takes, as cryptsetup rounds them."""
    sectors = -(-key_bytes * stripes // SECTOR)
    return -(-sectors // HEADER_SECTORS) * HEADER_SECTORS


def new_header(spec: Spec, uuid: str, digest_salt: bytes) -> LuksHeader:
    """Return a header without keys.

    Raises:
        FormatError: a name does not fit; in QEMU's words.

    """
    if len(spec.mode_text) >= 32:
        raise errors.NameTooLong("Cipher mode", spec.mode_text)
    sectors = split_sectors(spec.key_bytes)
    slots = [
        Slot(DISABLED, 0, bytes(SALT), HEADER_SECTORS + i * sectors, STRIPES) for i in range(SLOTS)
    ]
    return LuksHeader(
        cipher_name=spec.family.encode(),
        cipher_mode=spec.mode_text.encode(),
        hash_spec=spec.hash.encode(),
        payload=HEADER_SECTORS + SLOTS * sectors,
        key_bytes=spec.key_bytes,
        digest=bytes(DIGEST),
        digest_salt=digest_salt,
        digest_iterations=0,
        uuid=uuid.encode(),
        slots=slots,
    )


def _span(key_bytes: int, slot: Slot) -> tuple[int, int]:
    """Return where a slot's material begins and ends, in sectors.

    QEMU counts in 32 bits; here nothing wraps, so that no lie can come out as true.
    """
    return slot.offset, slot.offset + split_sectors(key_bytes, slot.stripes)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")


def _signed(value: int) -> int:
    return value - (value >> 31 << 32)
