"""Encryption of disks (qapi/crypto.json)."""

from typing import Annotated, Final

from blockemu.qmp_server.qapi import QEnum, Since, Struct, Union, values
from blockemu.schema.images import SpecificInfo


class QCryptoHashAlgorithm(QEnum):
    """Hashes."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA224 = "sha224"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"
    RIPEMD160 = "ripemd160"


@values(since={"des": "6.1"}, removed={"des-rfb": "6.1"})
class QCryptoCipherAlgorithm(QEnum):
    """Block ciphers, with the bits of their keys."""

    AES_128 = "aes-128"
    AES_192 = "aes-192"
    AES_256 = "aes-256"
    DES = "des"
    DES_RFB = "des-rfb"
    TRIPLE_DES = "3des"
    CAST5_128 = "cast5-128"
    SERPENT_128 = "serpent-128"
    SERPENT_192 = "serpent-192"
    SERPENT_256 = "serpent-256"
    TWOFISH_128 = "twofish-128"
    TWOFISH_192 = "twofish-192"
    TWOFISH_256 = "twofish-256"


class QCryptoCipherMode(QEnum):
    """How a cipher is used on more than a block."""

    ECB = "ecb"
    CBC = "cbc"
    XTS = "xts"
    CTR = "ctr"


class QCryptoIVGenAlgorithm(QEnum):
    """What a sector's IV is made of."""

    PLAIN = "plain"
    PLAIN64 = "plain64"
    ESSIV = "essiv"


class QCryptoBlockCreateOptionsLUKS(Struct):
    """How to encrypt a new volume.

    @key-secret: the ID of the secret with the passphrase
    @cipher-alg: the cipher
    @cipher-mode: its mode
    @ivgen-alg: the IV generator
    @ivgen-hash-alg: its hash
    @hash-alg: the hash that keys are made by
    @iter-time: milliseconds that it shall take to open the volume
    """

    key_secret: str | None = None
    cipher_alg: QCryptoCipherAlgorithm | None = None
    cipher_mode: QCryptoCipherMode | None = None
    ivgen_alg: QCryptoIVGenAlgorithm | None = None
    ivgen_hash_alg: QCryptoHashAlgorithm | None = None
    hash_alg: QCryptoHashAlgorithm | None = None
    iter_time: Annotated[int | None, Since("2.8")] = None


CREATE_ENCRYPTED: Final = Union("QCryptoBlockCreateOptions", "format")
AMEND_ENCRYPTED: Final = Union("QCryptoBlockAmendOptions", "format")


class QCryptoBlockCreateOptions(Struct):
    """How to encrypt what is created."""

    union = CREATE_ENCRYPTED


class QCryptoBlockCreateOptionsQCow(QCryptoBlockCreateOptions, tag="qcow"):
    """By qcow2's first way.

    @key-secret: the ID of the secret with the key
    """

    key_secret: str | None = None


class QCryptoBlockCreateLuks(QCryptoBlockCreateOptions, QCryptoBlockCreateOptionsLUKS, tag="luks"):
    """By LUKS."""


class QCryptoBlockLUKSKeyslotState(QEnum):
    """Whether a key slot is in use."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class QCryptoBlockAmendOptionsLUKS(Struct):
    """What is to be changed about a volume's key slots.

    @state: whether to fill a slot or to erase some
    @new-secret: the ID of the secret with the new passphrase, to fill
    @old-secret: that of the passphrase whose slots are to be erased
    @keyslot: the slot; by default the first free one, or all with the old passphrase
    @iter-time: milliseconds that it shall take to open the slot
    @secret: the ID of the secret that opens the volume; by default the one that did
    """

    state: QCryptoBlockLUKSKeyslotState
    new_secret: str | None = None
    old_secret: str | None = None
    keyslot: int | None = None
    iter_time: int | None = None
    secret: str | None = None


class QCryptoBlockAmendOptions(Struct):
    """What is to be changed about an encryption."""

    union = AMEND_ENCRYPTED


class QCryptoBlockAmendQcow(QCryptoBlockAmendOptions, tag="qcow"):
    """Nothing can be."""


class QCryptoBlockAmendLuks(QCryptoBlockAmendOptions, QCryptoBlockAmendOptionsLUKS, tag="luks"):
    """Key slots."""


class QCryptoBlockInfoLUKSSlot(Struct):
    """A key slot.

    @active: whether it is in use
    @iters: iterations of its passphrase's PBKDF2
    @stripes: what its key is split into
    @key-offset: where it lies, in bytes
    """

    active: bool
    iters: int | None = None
    stripes: int | None = None
    key_offset: int


class QCryptoBlockInfoLUKS(Struct):
    """How a volume is encrypted.

    @cipher-alg: the cipher
    @cipher-mode: its mode
    @ivgen-alg: the IV generator
    @ivgen-hash-alg: its hash
    @hash-alg: the hash that keys are made by
    @payload-offset: where the disk begins, in bytes
    @master-key-iters: iterations of the master key's PBKDF2
    @uuid: the volume's identity
    @slots: the key slots
    """

    cipher_alg: QCryptoCipherAlgorithm
    cipher_mode: QCryptoCipherMode
    ivgen_alg: QCryptoIVGenAlgorithm
    ivgen_hash_alg: QCryptoHashAlgorithm | None = None
    hash_alg: QCryptoHashAlgorithm
    payload_offset: int
    master_key_iters: int
    uuid: str
    slots: list[QCryptoBlockInfoLUKSSlot]


class ImageInfoSpecificLUKSWrapper(SpecificInfo, tag="luks"):
    """What is special to a LUKS volume, as a case of ImageInfoSpecific.

    @data: that
    """

    data: QCryptoBlockInfoLUKS
