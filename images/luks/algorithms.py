"""The algorithms that LUKS headers name, by QEMU's names and by the headers' own.

After the tables in crypto/block-luks.c.
"""

from typing import Final

from blockemu.images.luks import errors
from blockemu.records import record

DIGESTS: Final = {
    "md5": 16,
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "ripemd160": 20,
}  # name: bytes of a digest
MODES: Final = ("ecb", "cbc", "xts", "ctr")
GENERATORS: Final = ("plain", "plain64", "essiv")
FAMILIES: Final = {
    "aes": {16: "aes-128", 24: "aes-192", 32: "aes-256"},
    "cast5": {16: "cast5-128"},
    "serpent": {16: "serpent-128", 24: "serpent-192", 32: "serpent-256"},
    "twofish": {16: "twofish-128", 24: "twofish-192", 32: "twofish-256"},
}  # name in headers: bytes of a key: name of the algorithm
_FAMILY_OF: Final = {name: family for family, sizes in FAMILIES.items() for name in sizes.values()}
_KEY_BYTES: Final = {name: n for sizes in FAMILIES.values() for n, name in sizes.items()}
_TITLES: Final = {"aes": "AES", "serpent": "Serpent", "twofish": "Twofish"}


@record(frozen=True)
class Spec:
    """How the sectors of a volume are encrypted, and its keys.

    ``cipher`` is QEMU's name, with the key's bits; ``essiv_cipher`` the one that makes ESSIV's IVs.
    ``iv_hash`` may be given with other IV generators, too, and is ignored then.
    """

    cipher: str = "aes-256"
    mode: str = "xts"
    generator: str = "plain64"
    iv_hash: str | None = None
    hash: str = "sha256"

    @property
    def family(self) -> str:
        """The cipher's name in headers."""
        return _FAMILY_OF[self.cipher]

    @property
    def key_bytes(self) -> int:
        """Bytes of a volume's key: XTS takes two."""
        return _KEY_BYTES[self.cipher] << (self.mode == "xts")

    @property
    def mode_text(self) -> str:
        """The header's cipher mode: ``xts-plain64``, ``cbc-essiv:sha256``."""
        text = f"{self.mode}-{self.generator}"
        return text if self.iv_hash is None else f"{text}:{self.iv_hash}"

    @property
    def essiv_cipher(self) -> str | None:
        """The cipher whose keys are as long as the IV hash is; None without ESSIV.

        Raises:
            FormatError: there is none (qcrypto_block_luks_essiv_cipher).

        """
        if self.generator != "essiv":
            return None
        assert self.iv_hash is not None
        size = DIGESTS[self.iv_hash]
        if size == _KEY_BYTES[self.cipher]:
            return self.cipher
        if self.family not in _TITLES:
            raise errors.NotForEssiv(self.cipher)
        if size not in FAMILIES[self.family]:
            raise errors.NoEssivCipher(_TITLES[self.family], size)
        return FAMILIES[self.family][size]


def check_cipher(name: str) -> None:
    """Refuse a cipher that LUKS does not have.

    Raises:
        FormatError: in QEMU's words.

    """
    if name not in _FAMILY_OF:
        raise errors.NoCipher(name)


def parse_spec(family: str, mode_text: str, hash_name: str, key_bytes: int) -> Spec:
    """Read a header's texts (qcrypto_block_luks_parse_header), in QEMU's order.

    Raises:
        FormatError: in QEMU's words.

    """
    mode, dash, rest = mode_text.partition("-")
    if not dash:
        raise errors.BadModeText(mode_text)
    generator, colon, iv_hash = rest.partition(":")
    if colon:
        _known(iv_hash, DIGESTS, "Hash algorithm")
    _known(mode, MODES, "Cipher mode")
    size = key_bytes // 2 if mode == "xts" else key_bytes
    cipher = FAMILIES.get(family, {}).get(size)
    if cipher is None:
        raise errors.BadKeySize(family, size)
    _known(hash_name, DIGESTS, "Hash algorithm")
    _known(generator, GENERATORS, "IV generator")
    if generator == "essiv" and not colon:
        raise errors.MissingIvHash
    spec = Spec(cipher, mode, generator, iv_hash if colon else None, hash_name)
    _ = spec.essiv_cipher  # refused if there is none
    return spec


def _known(name: str, names: dict[str, int] | tuple[str, ...], what: str) -> None:
    if name not in names:
        raise errors.UnknownName(what, name)
