"""Encrypting a connection: agree on keys, then look at who is there.

After qcrypto_tls_session_check_credentials, crypto/tlssession.c, with OpenSSL in place of GnuTLS.
"""

import re
import socket
import ssl
from functools import partial
from typing import Final, Protocol, TypeVar

from blockemu.errors import QmpError
from blockemu.objects.authz import is_allowed
from blockemu.tls.credentials import Find, TlsCreds, TlsCredsX509
from blockemu.tls.stream import Records, TlsStream
from blockemu.tls.words import INSECURE, NOT_TRUSTED, REVOKED, UNKNOWN_ISSUER

# What OpenSSL finds wrong with a certificate, by its number; all else makes it not trusted.
_UNKNOWN_ISSUER: Final = (2, 18, 19, 20, 21)
_VERDICTS: Final = {
    23: REVOKED,
    **dict.fromkeys((66, 67, 68), INSECURE),
}
_OTHER_HOST: Final = (62, 64)  # OpenSSL: the name, the address is another
ENDED: Final = "The TLS connection was non-properly terminated."
_FAULTS: Final = {
    "UNEXPECTED_EOF_WHILE_READING": ENDED,
    "WRONG_VERSION_NUMBER": "An unexpected TLS packet was received.",
    "HTTP_REQUEST": "An unexpected TLS packet was received.",
    "HTTPS_PROXY_REQUEST": "An unexpected TLS packet was received.",
    "UNEXPECTED_MESSAGE": "An unexpected TLS packet was received.",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "Decryption has failed.",
    "LENGTH_MISMATCH": "Error decoding the received TLS packet.",
    "BAD_LENGTH": "Error decoding the received TLS packet.",
    "NO_SHARED_CIPHER": "No supported cipher suites have been found.",
    "UNSUPPORTED_PROTOCOL": "A packet with illegal or unsupported version was received.",
    **dict.fromkeys(  # of keys that both sides should know: another key, an unknown name
        ("BINDER_DOES_NOT_VERIFY", "NO_SUITABLE_SIGNATURE_ALGORITHM", "PSK_IDENTITY_NOT_FOUND"),
        "An illegal parameter has been received.",
    ),
}
_VERSIONS: Final = {
    "VERS-TLS1.2": ssl.TLSVersion.TLSv1_2,
    "VERS-TLS1.3": ssl.TLSVersion.TLSv1_3,
}
_LEVELS: Final = frozenset(
    ("NORMAL", "PERFORMANCE", "PFS", "SECURE128", "SECURE192", "SECURE256", "LEGACY", "@SYSTEM")
)


S = TypeVar("S", bound=Records)
S_co = TypeVar("S_co", bound=Records, covariant=True)


class Make(Protocol[S_co]):
    """Puts one end of an encrypted connection on what carries it."""

    def __call__(
        self, context: ssl.SSLContext, *, hostname: str | None = None, server: bool = False
    ) -> S_co:
        """Return the end."""


class HandshakeFailed(QmpError):
    """(why): no keys were agreed on."""

    template = "TLS handshake failed: {}"


class BadCertificate(QmpError):
    """(why): the other side is not known to be who it says."""


class UnknownIssuer(BadCertificate):
    """Nobody who is trusted vouches for the other side."""

    template = UNKNOWN_ISSUER


class NoCertificate(QmpError):
    """The client shows none."""

    template = "Verify failed: No certificate was found."


class Denied(QmpError):
    """(name): known, and not wanted."""

    template = "TLS x509 authz check for {} is denied"


class OtherHost(QmpError):
    """(name): the certificate is somebody else's."""

    template = "Certificate does not match the hostname {}"


class NoHostname(QmpError):
    """Nobody said whose certificate it should be."""

    template = "No hostname for certificate validation"


class BadPriority(QmpError):
    """(priority): it cannot be understood, or names what cannot be chosen."""

    template = "Cannot set default TLS session priority {}: The request is invalid."


async def connect(sock: socket.socket, credentials: TlsCreds, hostname: str | None) -> TlsStream:
    """Encrypt a connection from now on, as its client; ``hostname`` is who should be there.

    Raises:
        QmpError: in QEMU's words, as far as they are not those of its library.

    """
    return await as_client(partial(TlsStream, sock), credentials, hostname)


async def as_client(make: Make[S], credentials: TlsCreds, hostname: str | None) -> S:
    """Do the same on what ``make`` makes of a context."""
    context = _prepare(credentials)
    verified = context.verify_mode != ssl.CERT_NONE
    context.check_hostname = verified and hostname is not None
    stream = make(context, hostname=hostname if context.check_hostname else None)
    await _handshake(stream, hostname)
    if verified and hostname is None:
        raise NoHostname
    return stream


async def accept(
    sock: socket.socket, credentials: TlsCreds, find: Find, authz: str | None = None
) -> TlsStream:
    """Encrypt a connection from now on, as its server; ``authz`` names who says who may come in.

    Raises:
        QmpError: as ``connect``.

    """
    return await as_server(partial(TlsStream, sock), credentials, find, authz)


async def as_server(
    make: Make[S], credentials: TlsCreds, find: Find, authz: str | None = None
) -> S:
    """Do the same on what ``make`` makes of a context."""
    context = _prepare(credentials)
    verified = context.verify_mode != ssl.CERT_NONE
    stream = make(context, server=True)
    try:
        await _handshake(stream, None)
    except UnknownIssuer as e:
        # QEMU's library says to clients whom it trusts, Python's does not; those that are told
        # show no certificate of others.
        raise NoCertificate from e
    if verified:
        assert isinstance(credentials, TlsCredsX509)
        _check_client(stream, credentials, find, authz)
    return stream


def _prepare(credentials: TlsCreds) -> ssl.SSLContext:
    """Return the context, as the properties are just now."""
    context = credentials.context
    assert context is not None
    anonymous = context.maximum_version == ssl.TLSVersion.TLSv1_2
    if credentials.priority is not None and not anonymous:
        least, most = _versions(credentials.priority)
        context.minimum_version, context.maximum_version = least, most
    if isinstance(credentials, TlsCredsX509) and credentials.verify_peer:
        # A client without certificate is refused after the handshake, as QEMU does it.
        context.verify_mode = ssl.CERT_OPTIONAL if credentials.serves else ssl.CERT_REQUIRED
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _versions(priority: str) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
    """Read a GnuTLS priority string as far as it is about versions.

    Raises:
        BadPriority: it chooses algorithms, which OpenSSL does not let us do one by one.

    """
    level, *changes = priority.split(":")
    wanted = dict.fromkeys(_VERSIONS, True)
    if level.partition(",")[0] not in _LEVELS:
        raise BadPriority(priority)
    for change in changes:
        sign, name = change[:1], change[1:]
        if sign == "%":
            continue
        if sign not in ("+", "-", "!"):
            raise BadPriority(priority)
        if name in ("VERS-ALL", "VERS-TLS-ALL"):
            wanted = dict.fromkeys(_VERSIONS, sign == "+")
        elif name in _VERSIONS:
            wanted[name] = sign == "+"
        elif not re.fullmatch(r"VERS-(TLS1\.[01]|SSL3\.0|DTLS.*)", name):
            raise BadPriority(priority)
    versions = [_VERSIONS[name] for name, chosen in wanted.items() if chosen]
    if not versions:
        raise BadPriority(priority)
    return versions[0], versions[-1]


async def _handshake(stream: Records, hostname: str | None) -> None:
    try:
        await stream.handshake()
    except ssl.SSLCertVerificationError as e:
        if e.verify_code in _OTHER_HOST:
            raise OtherHost(hostname) from e
        if e.verify_code in _UNKNOWN_ISSUER:
            raise UnknownIssuer from e
        raise BadCertificate(_VERDICTS.get(e.verify_code, NOT_TRUSTED)) from e
    except ssl.SSLEOFError as e:
        raise HandshakeFailed(ENDED) from e
    except ssl.SSLZeroReturnError as e:
        raise HandshakeFailed("Peer has terminated the connection") from e
    except ssl.SSLError as e:
        reason = e.reason or ""
        alert = "A TLS fatal alert has been received." if "ALERT" in reason else None
        raise HandshakeFailed(alert or _FAULTS.get(reason) or reason or e.strerror) from e
    except OSError as e:
        raise HandshakeFailed("Error in the pull function.") from e


def _check_client(
    stream: Records, credentials: TlsCredsX509, find: Find, authz: str | None
) -> None:
    der = stream.tls.getpeercert(True)
    if der is None:
        raise NoCertificate
    from cryptography.x509 import load_der_x509_certificate  # start-up: others need none

    from blockemu.tls.certificates import distinguished_name

    try:
        certificate = load_der_x509_certificate(der)
        name = distinguished_name(certificate)
    except ValueError as e:
        raise BadCertificate(NOT_TRUSTED) from e
    if credentials.revocations is not None and credentials.revocations.has(certificate):
        raise BadCertificate(REVOKED)
    if authz is not None and not is_allowed(find, authz, name):
        raise Denied(name)
