"""What QEMU finds wrong with one's own certificates, before any connection.

After qcrypto_tls_creds_x509_sanity_check, crypto/tlscredsx509.c.
"""

import datetime
import os
import re
import warnings
from binascii import a2b_base64
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blockemu.errors import QmpError
from blockemu.host.glib_files import UnreadableFile, read_file
from blockemu.tls.words import (
    INSECURE,
    NO_HEADER,
    NOT_BASE64,
    NOT_DER,
    NOT_TRUSTED,
    UNKNOWN_ISSUER,
    UNREADABLE,
)

T = TypeVar("T", bound=x509.ExtensionType)
MOST_AUTHORITIES: Final = 16  # that are looked at
_BLOCK: Final = re.compile(
    rb"-----BEGIN ((?:X509 )?CERTIFICATE|X509 CRL)-----(.*?)-----END \1-----", re.DOTALL
)
_WEAK: Final = (hashes.MD5, hashes.SHA1)
_SHORT: Final = {
    NameOID.EMAIL_ADDRESS: "EMAIL",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.TITLE: "title",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.SURNAME: "surName",
}
_PURPOSES: Final = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


class Unreadable(QmpError):
    """(path, why)."""

    template = "Cannot load CA cert list {}: {}"


class CannotImport(QmpError):
    """(side, path, why)."""

    template = "Unable to import {} certificate {}: {}"


class CannotImportList(QmpError):
    """(path)."""

    template = "Unable to import CA certificate list {}"


class CannotLoadRevocations(QmpError):
    """(path, why)."""

    template = "Cannot load CRL '{}': {}"


class Expired(QmpError):
    """(whose, path)."""

    template = "The {} certificate {} has expired"


class NotYetActive(QmpError):
    """(whose, path)."""

    template = "The {} certificate {} is not yet active"


class IsAuthority(QmpError):
    """(path, side)."""

    template = "The certificate {} basic constraints show a CA, but we need one for a {}"


class IsNoAuthority(QmpError):
    """(path)."""

    template = "The certificate {} basic constraints do not show a CA"


class MayBeNoAuthority(QmpError):
    """(path): it does not say."""

    template = "The certificate {} is missing basic constraints for a CA"


class CannotSign(QmpError):
    """(path, what)."""

    template = "Certificate {} usage does not permit {}"


class WrongPurpose(QmpError):
    """(path, side)."""

    template = "Certificate {} purpose does not allow use with a TLS {}"


class OwnNotTrusted(QmpError):
    """(path, authorities' path, why)."""

    template = "Our own certificate {} failed validation against {}: {}"


class BadEncoding(Exception):
    """What a file holds is no certificate; the text says how far it is one."""


def parse(data: bytes) -> list[x509.Certificate]:
    """Return the certificates in a text.  Raises BadEncoding."""
    found = []
    for block in _BLOCK.finditer(data):
        if block[1] == b"X509 CRL":
            continue
        der = _decode(block[2])
        try:
            certificate = x509.load_der_x509_certificate(der)
            certificate.extensions  # noqa: B018  # parsed only now
        except ValueError as e:
            raise BadEncoding(NOT_DER) from e
        found.append(certificate)
    return found


def _decode(text: bytes) -> bytes:
    try:
        return a2b_base64(b"".join(text.split()), strict_mode=True)
    except ValueError as e:
        raise BadEncoding(NO_HEADER) from e


def check(authorities: str, own: str | None, side: str) -> None:
    """Look for what will not work.  Files that cannot be read are somebody else's business.

    Raises:
        QmpError: in QEMU's words.

    """
    certificate, trusted = None, []
    if own is not None and os.access(own, os.R_OK):
        certificate = _load(own, side)
    if os.access(authorities, os.R_OK):
        trusted = _load_list(authorities)
    if certificate is not None and own is not None:
        _check_times(certificate, own, side)
        _check_end(certificate, own, side)
    for each in trusted:
        _check_times(each, authorities, "CA")
        _check_authority(each, authorities)
    if certificate is not None and trusted:
        why = find_fault(certificate, trusted)
        if why is not None:
            raise OwnNotTrusted(own, authorities, why)


def _load(path: str, side: str) -> x509.Certificate:
    try:
        found = parse(_read(path))
    except BadEncoding as e:
        raise CannotImport(side, path, e) from e
    if not found:
        raise CannotImport(side, path, NO_HEADER)
    return found[0]


def _load_list(path: str) -> list[x509.Certificate]:
    try:
        found = parse(_read(path))
    except BadEncoding as e:
        raise CannotImportList(path) from e
    if not found:
        raise CannotImportList(path)
    return found[:MOST_AUTHORITIES]


def _read(path: str) -> bytes:
    """Return what a file holds, up to the first NUL: QEMU takes it for a string."""
    try:
        return read_file(path).partition(b"\0")[0]
    except UnreadableFile as e:
        raise Unreadable(path, e) from e


def _check_times(certificate: x509.Certificate, path: str, whose: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        raise Expired(whose, path)
    if certificate.not_valid_before_utc > now:
        raise NotYetActive(whose, path)


def _check_end(certificate: x509.Certificate, path: str, side: str) -> None:
    """Check that it may be shown by a server or client."""
    if _is_authority(certificate):
        raise IsAuthority(path, side)
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and usage.critical and not usage.value.digital_signature:
        raise CannotSign(path, "digital signature")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is None or not purposes.critical:
        return
    if not {_PURPOSES[side], ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes.value):
        raise WrongPurpose(path, side)


def _check_authority(certificate: x509.Certificate, path: str) -> None:
    """Check that it may vouch for others."""
    authority = _is_authority(certificate)
    if authority is None:
        raise MayBeNoAuthority(path)
    if not authority:
        raise IsNoAuthority(path)
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and usage.critical and not usage.value.key_cert_sign:
        raise CannotSign(path, "certificate signing")


def _is_authority(certificate: x509.Certificate) -> bool | None:
    found = _extension(certificate, x509.BasicConstraints)
    return None if found is None else found.value.ca


def find_fault(certificate: x509.Certificate, trusted: list[x509.Certificate]) -> str | None:
    """Return why none of those who are trusted vouches for a certificate, None if one does."""
    named = [each for each in trusted if _subject(each) == _issuer(certificate)]
    if not named:
        return UNKNOWN_ISSUER
    if not any(_vouches(each, certificate) for each in named):
        return NOT_TRUSTED
    if isinstance(certificate.signature_hash_algorithm, _WEAK):
        return INSECURE
    return None


def _vouches(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    usage = _extension(authority, x509.KeyUsage)
    if usage is not None and not usage.value.key_cert_sign:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[T]) -> x509.Extension[T] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


class Revocations:
    """Which certificates are not valid any more, as those say who issued them."""

    def __init__(self, lists: list[x509.CertificateRevocationList]) -> None:
        self._lists = lists

    def has(self, certificate: x509.Certificate) -> bool:
        """Tell whether a certificate was revoked."""
        return any(
            _issuer(each) == _issuer(certificate)
            and each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            for each in self._lists
        )


def read_revocations(path: str, trusted: list[x509.Certificate]) -> Revocations:
    """Read a file of lists; those that nobody trusted has signed do not count.

    Raises:
        CannotLoadRevocations: it holds none.

    """
    try:
        data = read_file(path)
    except UnreadableFile as e:
        raise CannotLoadRevocations(path, UNREADABLE) from e
    lists = []
    blocks = [block for block in _BLOCK.finditer(data) if block[1] == b"X509 CRL"]
    if not blocks:
        raise CannotLoadRevocations(path, NOT_BASE64)
    for block in blocks:
        try:
            lists.append(x509.load_der_x509_crl(_decode(block[2])))
        except BadEncoding as e:
            raise CannotLoadRevocations(path, NOT_BASE64) from e
        except ValueError as e:
            raise CannotLoadRevocations(path, NOT_DER) from e
    return Revocations([each for each in lists if any(_signed(each, ca) for ca in trusted)])


def _signed(revocations: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if _subject(authority) != _issuer(revocations):
        return False
    try:
        return revocations.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def distinguished_name(certificate: x509.Certificate) -> str:
    """Return whose a certificate is as GnuTLS writes it: RFC 4514, but in the order it is in."""
    return ",".join(part.rfc4514_string(_SHORT) for part in _subject(certificate).rdns)


def _subject(certificate: x509.Certificate) -> x509.Name:
    """Return whose a certificate is, even if cryptography finds a part of the name too long."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return certificate.subject


def _issuer(signed: x509.Certificate | x509.CertificateRevocationList) -> x509.Name:
    """Return who signed it, in the same way."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return signed.issuer
