"""Credentials for TLS, and who may come in (qapi/crypto.json, qapi/authz.json)."""

from typing import Annotated

from blockemu.qmp_server.profile import Features
from blockemu.qmp_server.qapi import QEnum, Struct
from blockemu.schema.objects import ObjectProperties


class QCryptoTLSCredsEndpoint(QEnum):
    """Which side of a connection credentials are for."""

    CLIENT = "client"
    SERVER = "server"


Loaded = Annotated[bool | None, Features("deprecated")]


class TlsCredsAnonProperties(ObjectProperties, tag="tls-creds-anon"):
    """Encryption without knowing with whom.

    @loaded: cannot be set any more
    @verify-peer: means nothing here
    @dir: where parameters are
    @endpoint: which side they are for (default: client)
    @priority: which algorithms may be used
    """

    loaded: Loaded = None
    verify_peer: bool | None = None
    dir: str | None = None
    endpoint: QCryptoTLSCredsEndpoint | None = None
    priority: str | None = None


class TlsCredsPskProperties(ObjectProperties, tag="tls-creds-psk"):
    """Keys that both sides know.

    @loaded: cannot be set any more
    @username: whose key a client uses (default: qemu)
    @verify-peer: means nothing here
    @dir: where ``keys.psk`` is
    @endpoint: which side they are for (default: client)
    @priority: which algorithms may be used
    """

    loaded: Loaded = None
    username: str | None = None
    verify_peer: bool | None = None
    dir: str | None = None
    endpoint: QCryptoTLSCredsEndpoint | None = None
    priority: str | None = None


class TlsCredsX509Properties(ObjectProperties, tag="tls-creds-x509"):
    """Certificates.

    @loaded: cannot be set any more
    @sanity-check: whether to look at them first (default: true)
    @passwordid: the secret that protects the key
    @verify-peer: whether the other side's certificate is verified (default: true)
    @dir: where they are
    @endpoint: which side they are for (default: client)
    @priority: which algorithms may be used
    """

    loaded: Loaded = None
    sanity_check: bool | None = None
    passwordid: str | None = None
    verify_peer: bool | None = None
    dir: str | None = None
    endpoint: QCryptoTLSCredsEndpoint | None = None
    priority: str | None = None


class QAuthZListPolicy(QEnum):
    """What a rule says."""

    DENY = "deny"
    ALLOW = "allow"


class QAuthZListFormat(QEnum):
    """How a rule is compared."""

    EXACT = "exact"
    GLOB = "glob"


class QAuthZListRule(Struct):
    """A rule.

    @match: an identity, or a pattern
    @policy: what is true of those that match
    @format: how it is compared (default: exact)
    """

    match: str
    policy: QAuthZListPolicy
    format: QAuthZListFormat | None = None


class AuthZListProperties(ObjectProperties, tag="authz-list"):
    """Rules of which the first that matches decides.

    @policy: what is true of all others (default: deny)
    @rules: the rules
    """

    policy: QAuthZListPolicy | None = None
    rules: list[QAuthZListRule] | None = None


class AuthZListFileProperties(ObjectProperties, tag="authz-listfile"):
    """Rules in a file: a type that QEMU knows by another name and thus cannot make.

    @filename: the file
    @refresh: whether to watch it
    """

    filename: str
    refresh: bool | None = None


class AuthZPAMProperties(ObjectProperties, tag="authz-pam"):
    """Rules of the system, which the program we compare with is built without.

    @service: the name of the service
    """

    service: str


class AuthZSimpleProperties(ObjectProperties, tag="authz-simple"):
    """One who may come in.

    @identity: who; of a certificate, its distinguished name
    """

    identity: str
