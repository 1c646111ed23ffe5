"""Keys that both sides know, as far as Python's ssl knows them (3.13)."""

import ssl
from binascii import Error, unhexlify
from typing import Any, Final

from blockemu.host.glib_files import UnreadableFile, read_file

SUPPORTED: Final = hasattr(ssl.SSLContext, "set_psk_server_callback")
NO_KEY: Final = b""  # then the handshake fails
_CIPHERS: Final = "kECDHEPSK:kDHEPSK:kPSK"  # of TLS 1.2; later versions need not be told


def serve(context: Any, path: str) -> None:
    """Look for a client's key in a file, each time one comes, as GnuTLS does."""
    context.set_ciphers(_CIPHERS)
    context.set_psk_server_callback(lambda identity: _look_up(path, identity))


def use(context: Any, name: str, key: bytes) -> None:
    """Be somebody, and know the key."""
    context.set_ciphers(_CIPHERS)
    context.set_psk_client_callback(lambda hint: (name, key))


def _look_up(path: str, identity: str | None) -> bytes:
    try:
        content = read_file(path)
    except UnreadableFile:
        return NO_KEY
    for line in content.split(b"\n"):
        name, colon, key = line.partition(b":")
        if colon and identity is not None and name == identity.encode():
            try:
                return unhexlify(key)
            except Error:
                return NO_KEY
    return NO_KEY
