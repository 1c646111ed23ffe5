"""Certificates for tests, in the folders that tls-creds-x509 reads."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = x509.NameOID
PURPOSE = x509.ExtendedKeyUsageOID
DAY = datetime.timedelta(days=1)
UNCHANGED = serialization.NoEncryption()
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@functools.cache
def key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Return a key; making one takes its time."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Wanted:
    """What a certificate says; None where it says nothing.

    ``days``: first and last, counted from now.  ``usage``, ``purposes``: what it is for, and
    whether that is critical.
    """

    names: dict[x509.ObjectIdentifier, str] = field(
        default_factory=lambda: {NAME.COMMON_NAME: "localhost"}
    )
    authority: bool | None = None
    usage: tuple[set[str], bool] | None = None
    purposes: tuple[list[x509.ObjectIdentifier], bool] | None = None
    days: tuple[float, float] = (-1, 1)
    hosts: tuple[str, ...] = ()
    key: int = 0


AUTHORITY = Wanted({NAME.COMMON_NAME: "Authority"}, True, ({"key_cert_sign", "crl_sign"}, True))
SERVER = Wanted(
    {NAME.COMMON_NAME: "server.example.org"},
    usage=({"digital_signature", "key_encipherment"}, True),
    purposes=([PURPOSE.SERVER_AUTH], False),
    hosts=("127.0.0.1", "localhost"),
)
CLIENT = Wanted(
    {NAME.COMMON_NAME: "client.example.org", NAME.ORGANIZATION_NAME: "People, and others"},
    usage=({"digital_signature", "key_encipherment"}, True),
    purposes=([PURPOSE.CLIENT_AUTH], False),
)


@dataclass
class Issued:
    """A certificate and who it speaks for."""

    certificate: x509.Certificate
    key: int

    @property
    def pem(self) -> bytes:
        """As text."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def issue(wanted: Wanted, issuer: Issued | None = None) -> Issued:
    """Make a certificate; without an issuer it signs itself."""
    with warnings.catch_warnings(action="ignore"):  # a name may be longer than it should
        subject = x509.Name(
            [x509.NameAttribute(oid, text, _validate=False) for oid, text in wanted.names.items()]
        )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key(wanted.key).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + wanted.days[0] * DAY)
        .not_valid_after(now + wanted.days[1] * DAY)
    )
    if wanted.authority is not None:
        constraint = x509.BasicConstraints(ca=wanted.authority, path_length=None)
        builder = builder.add_extension(constraint, critical=True)
    if wanted.usage is not None:
        allowed, critical = wanted.usage
        usage = x509.KeyUsage(**{name: name in allowed for name in USAGES})
        builder = builder.add_extension(usage, critical=critical)
    if wanted.purposes is not None:
        purposes, critical = wanted.purposes
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=critical)
    if wanted.hosts:
        names = x509.SubjectAlternativeName([_general(host) for host in wanted.hosts])
        builder = builder.add_extension(names, critical=False)
    signer = key(wanted.key if issuer is None else issuer.key)
    return Issued(builder.sign(signer, hashes.SHA256()), wanted.key)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def private(
    number: int = 0, protection: serialization.KeySerializationEncryption = UNCHANGED
) -> bytes:
    """Return a key as text."""
    form = serialization.PrivateFormat.PKCS8
    return key(number).private_bytes(serialization.Encoding.PEM, form, protection)


def folder(path: Path, role: str, certificate: Issued, *authorities: Issued) -> Path:
    """Fill the folder of a ``server`` or ``client``."""
    path.mkdir(parents=True)
    (path / "ca-cert.pem").write_bytes(b"".join(each.pem for each in authorities))
    (path / f"{role}-cert.pem").write_bytes(certificate.pem)
    (path / f"{role}-key.pem").write_bytes(private(certificate.key))
    return path


def revoked(authority: Issued, *certificates: Issued) -> bytes:
    """Return a list of revoked certificates, as text."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - DAY)
        .next_update(now + DAY)
    )
    for each in certificates:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(each.certificate.serial_number)
            .revocation_date(now - DAY)
            .build()
        )
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(key(authority.key), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)
