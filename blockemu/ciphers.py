"""Block ciphers with a key, from OpenSSL; what ``images.luks`` is given to work with."""

from collections.abc import Callable
from typing import Any

from blockemu.images.luks.errors import CipherNotHere


class OpenSslCipher:
    """One key's contexts for ECB in both directions."""

    def __init__(self, algorithm: Any) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, modes  # start-up

        cipher: Any = Cipher(algorithm, modes.ECB())
        self.block_bytes: int = algorithm.block_size // 8
        self._encryptor, self._decryptor = cipher.encryptor(), cipher.decryptor()

    def encrypt(self, source: Any, into: Any) -> object:
        """Encrypt whole blocks; ``into`` is longer by a block."""
        return self._encryptor.update_into(_raw(source), _raw(into))

    def decrypt(self, source: Any, into: Any) -> object:
        """Decrypt whole blocks; ``into`` is longer by a block."""
        return self._decryptor.update_into(_raw(source), _raw(into))


def make_cipher(name: str, key: bytes) -> OpenSslCipher:
    """Return a cipher by QEMU's name of it.

    Raises:
        FormatError: LUKS has it, OpenSSL does not.

    """
    family = name.partition("-")[0]
    algorithm = _algorithm(family)
    if algorithm is None:
        raise CipherNotHere(name)
    return OpenSslCipher(algorithm(key))


def _algorithm(family: str) -> Callable[[bytes], Any] | None:
    if family == "aes":
        from cryptography.hazmat.primitives.ciphers.algorithms import AES  # start-up

        return AES
    if family == "cast5":
        from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5  # start-up

        return CAST5
    return None


def _raw(array: Any) -> memoryview:
    return array if getattr(array, "itemsize", 1) == 1 else memoryview(array).cast("B")
