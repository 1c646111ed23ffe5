"""Python's ssl contexts, from files, with what goes wrong in the words of QEMU's library."""

import os
import re
import ssl
from typing import TYPE_CHECKING, Final

from blockemu.errors import QmpError
from blockemu.host.glib_files import UnreadableFile, read_file
from blockemu.tls.words import NO_HEADER, NOT_BASE64, NOT_DER, UNREADABLE

if TYPE_CHECKING:
    from cryptography import x509

_ANONYMOUS: Final = "ADH-AES256-GCM-SHA384:ADH-AES128-GCM-SHA256:ADH-AES256-SHA256:@SECLEVEL=0"
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----(.*?)-----END", re.DOTALL)
# What anonymous servers offer unless told otherwise: ffdhe2048 of RFC 7919, appendix A.1.
FFDHE2048: Final = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class BadAuthorities(QmpError):
    """(path, why)."""

    template = "Cannot load CA certificate '{}': {}"


class BadOwn(QmpError):
    """(certificate's path, key's path, why)."""

    template = "Cannot load certificate '{}' & key '{}': {}"


class BadParameters(QmpError):
    """(path, why)."""

    template = "Unable to load DH parameters from {}: {}"


def new_context(*, server: bool) -> ssl.SSLContext:
    """Return a context that verifies nothing yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if server:
        context.num_tickets = 0
    return context


def new_anonymous(*, server: bool, parameters: str | None) -> ssl.SSLContext:
    """Return a context for those who do not say who they are; TLS 1.3 does not know that."""
    context = new_context(server=server)
    context.set_ciphers(_ANONYMOUS)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if parameters is not None:
        load_parameters(context, parameters)
    elif server:
        number = os.memfd_create("dh-params")
        try:
            os.write(number, FFDHE2048)
            context.load_dh_params(f"/proc/self/fd/{number}")
        finally:
            os.close(number)
    return context


def trust(context: ssl.SSLContext, path: str) -> "list[x509.Certificate]":
    """Trust the authorities in a file, each for itself; return them."""
    from blockemu.tls.certificates import BadEncoding, parse  # others need no certificates

    try:
        found = parse(read_file(path))
    except UnreadableFile as e:
        raise BadAuthorities(path, UNREADABLE) from e
    except BadEncoding as e:
        raise BadAuthorities(path, e) from e
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if found:
        from cryptography.hazmat.primitives.serialization import Encoding

        context.load_verify_locations(
            cadata=b"".join(each.public_bytes(Encoding.DER) for each in found)
        )
    return found


def load_own(context: ssl.SSLContext, certificate: str, key: str, password: str | None) -> None:
    """Load the certificate to show and its key; without a password nobody is asked for it."""
    try:
        context.load_cert_chain(certificate, key, lambda: password or "")
    except (ssl.SSLError, OSError) as e:
        raise BadOwn(certificate, key, _own_fault(e, certificate, key)) from e


def _own_fault(error: OSError, certificate: str, key: str) -> str:
    """Return what is wrong; the key is looked at first."""
    from blockemu.tls.certificates import BadEncoding, parse  # others need no certificates

    try:
        secret, public = read_file(key), read_file(certificate)
    except UnreadableFile:
        return UNREADABLE
    found = _KEY.search(secret)
    if found is None:
        return "The requested data were not available."
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "The certificate and the given key do not match."
    try:
        if not parse(public):
            return NOT_BASE64
    except BadEncoding as e:
        return str(e)
    if found[1] == b"ENCRYPTED " or b"ENCRYPTED" in found[2]:
        return "Decryption has failed."
    return "ASN1 parser: Error in DER parsing." if found[1] == b"EC " else NOT_DER


def load_parameters(context: ssl.SSLContext, path: str) -> None:
    """Load a server's parameters for keys agreed on by exponentiation."""
    if b"-----BEGIN DH PARAMETERS-----" not in read_file(path):
        raise BadParameters(path, NO_HEADER)
    try:
        context.load_dh_params(path)
    except ssl.SSLError as e:
        raise BadParameters(path, NOT_DER) from e
