"""Credentials as objects: what they are made of and which side they are for.

After crypto/tlscreds.c and its three kinds.  What is on disk is read once, when the object is
made; ``priority`` and ``verify-peer`` count when a connection begins.
"""

import os
from binascii import unhexlify
from collections.abc import Callable
from errno import ENOENT
from os import strerror
from typing import TYPE_CHECKING, ClassVar, Final

from blockemu.errors import QmpError
from blockemu.host.glib_files import UnreadableFile, read_file
from blockemu.objects.qom import Object, Property, attribute
from blockemu.objects.user_object import Known, UserObject
from blockemu.schema.tls import QCryptoTLSCredsEndpoint as Endpoint

if TYPE_CHECKING:
    import ssl

    from blockemu.tls.certificates import Revocations

Find = Callable[[str], object | None]
SHORTEST_KEY: Final = 4  # bytes


class NoCredentials(QmpError):
    """(id): there is no such object."""

    template = "No TLS credentials with id '{}'"


class NotCredentials(QmpError):
    """(id): it is something else."""

    template = "Object with id '{}' is not TLS credentials"


class WrongEndpoint(QmpError):
    """(side): the credentials are for the other side."""

    template = "Expected TLS credentials for a {} endpoint"


class NoFolder(QmpError):
    """Nobody said where the files are."""

    template = "Missing 'dir' property value"


class Inaccessible(QmpError):
    """(path, why)."""

    template = "Unable to access credentials {}: {}"


class NotUtf8(QmpError):
    """(secret): no password."""

    template = "Data from secret {} is not valid UTF-8"


class ServerHasUsername(QmpError):
    """It serves all that are in the file."""

    template = "username should not be set when endpoint=server"


class UnreadableKeys(QmpError):
    """(path, why)."""

    template = "Cannot read PSK file {}: {}"


class NoSuchUser(QmpError):
    """(user, path)."""

    template = "Username {} not found in PSK file {}"


class BadSharedKey(QmpError):
    """(why)."""

    template = "Cannot set PSK client credentials: {}"


class NoSharedKeys(QmpError):
    """Python's ssl learned of them in 3.13."""

    template = "TLS credentials of type tls-creds-psk need Python 3.13 or newer"


def _text(name: str) -> Property:
    """Return a property that reads as empty when it is not set."""
    key = name.replace("-", "_")

    def write(self: "TlsCreds", value: str) -> None:
        setattr(self, key, value)

    return Property(name, "string", str, lambda self: getattr(self, key) or "", write)


def _side(self: "TlsCreds") -> str:
    return str(self.endpoint.value)


def _set_side(self: "TlsCreds", value: Endpoint) -> None:
    self.endpoint = value


_LOADED = Property("loaded", "bool", bool, lambda self: self.context is not None)


class TlsCreds(Object):
    """What all credentials have; ``context`` holds what was read."""

    TYPE = "tls-creds"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (
        attribute("verify-peer", "bool", bool),
        _text("dir"),
        Property("endpoint", "QCryptoTLSCredsEndpoint", Endpoint, _side, _set_side),
        _text("priority"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.verify_peer = True
        self.dir: str | None = None
        self.endpoint: Endpoint = Endpoint.CLIENT
        self.priority: str | None = None
        self.context: ssl.SSLContext | None = None

    @property
    def serves(self) -> bool:
        """Whether they are for a server."""
        return self.endpoint == Endpoint.SERVER

    def find_file(self, name: str, *, required: bool = True) -> str | None:
        """Return the path of a file, None if it is missing and need not be there."""
        if self.dir is None:
            if required:
                raise NoFolder
            return None

        path = f"{self.dir}/{name}"
        try:
            os.stat(path)  # noqa: PTH116 (pathlib takes longer to import than this)
        except OSError as e:
            if e.errno == ENOENT and not required:
                return None
            raise Inaccessible(path, strerror(e.errno or 0)) from e
        return path

    def _required(self, name: str) -> str:
        path = self.find_file(name)
        assert path is not None
        return path


class TlsCredsX509(TlsCreds, UserObject):
    """Certificates."""

    TYPE = "tls-creds-x509"
    PROPERTIES = (_LOADED, attribute("sanity-check", "bool", bool), _text("passwordid"))

    def __init__(self) -> None:
        super().__init__()
        self.sanity_check = True
        self.passwordid: str | None = None
        self.revocations: Revocations | None = None

    def complete(self, objects: Known) -> None:
        """Read, check and load certificates (qcrypto_tls_creds_x509_load)."""
        side, optional = _side(self), not self.serves
        authorities = self._required("ca-cert.pem")
        lists = None if optional else self.find_file("ca-crl.pem", required=False)
        certificate = self.find_file(f"{side}-cert.pem", required=not optional)
        key = self.find_file(f"{side}-key.pem", required=not optional)
        parameters = None if optional else self.find_file("dh-params.pem", required=False)
        from blockemu.tls import certificates, contexts  # start-up: few need them

        if self.sanity_check:
            certificates.check(authorities, certificate, side)
        context = contexts.new_context(server=self.serves)
        trusted = contexts.trust(context, authorities)
        if certificate is not None and key is not None:
            password = self._password(objects)
            contexts.load_own(context, certificate, key, password)
        if lists is not None:
            self.revocations = certificates.read_revocations(lists, trusted)
        if parameters is not None:
            contexts.load_parameters(context, parameters)
        self.context = context

    def _password(self, objects: Known) -> str | None:
        if self.passwordid is None:
            return None
        try:
            return objects.secret(self.passwordid).decode()
        except UnicodeDecodeError as e:
            raise NotUtf8(self.passwordid) from e


class TlsCredsAnon(TlsCreds, UserObject):
    """Keys are agreed on with whoever is there."""

    TYPE = "tls-creds-anon"
    PROPERTIES = (_LOADED,)

    def complete(self, objects: Known) -> None:
        """Load the parameters of a server (qcrypto_tls_creds_anon_load)."""
        parameters = self.find_file("dh-params.pem", required=False) if self.serves else None
        from blockemu.tls import contexts  # start-up: few need them

        self.context = contexts.new_anonymous(server=self.serves, parameters=parameters)


class TlsCredsPsk(TlsCreds, UserObject):
    """Keys that both sides know."""

    TYPE = "tls-creds-psk"
    PROPERTIES = (_LOADED, _text("username"))

    def __init__(self) -> None:
        super().__init__()
        self.username: str | None = None

    def complete(self, objects: Known) -> None:
        """Find the keys (qcrypto_tls_creds_psk_load)."""
        parameters = None
        if self.serves:
            if self.username is not None:
                raise ServerHasUsername
            parameters = self.find_file("dh-params.pem", required=False)
        path = self._required("keys.psk")
        key = b"" if self.serves else self._key(path)
        from blockemu.tls import contexts, shared_keys  # start-up: few need them

        context = contexts.new_context(server=self.serves)
        if parameters is not None:
            contexts.load_parameters(context, parameters)
        if not shared_keys.SUPPORTED:
            raise NoSharedKeys
        if self.serves:
            shared_keys.serve(context, path)
        else:
            shared_keys.use(context, self._user, key)
        self.context = context

    @property
    def _user(self) -> str:
        return "qemu" if self.username is None else self.username

    def _key(self, path: str) -> bytes:
        try:
            content = read_file(path)
        except UnreadableFile as e:
            raise UnreadableKeys(path, e) from e
        start = self._user.encode() + b":"
        for line in content.partition(b"\0")[0].split(b"\n"):
            if line.startswith(start):
                return _unhex(line[len(start) :])
        raise NoSuchUser(self._user, path)


def _unhex(text: bytes) -> bytes:
    """Return a key; GnuTLS takes none shorter than four bytes."""
    try:
        key = unhexlify(text)
    except ValueError as e:
        raise BadSharedKey("Error in parsing.") from e
    if len(key) < SHORTEST_KEY:
        raise BadSharedKey("The request is invalid.")
    return key


def credentials(find: Find, name: str, endpoint: str) -> TlsCreds:
    """Return the credentials of a name, for the ``server`` or ``client`` end of a connection.

    Raises:
        QmpError: there are none, or they are for the other side.

    """
    found = find(name)
    if found is None:
        raise NoCredentials(name)
    if not isinstance(found, TlsCreds):
        raise NotCredentials(name)
    if found.endpoint.value != endpoint:
        raise WrongEndpoint(endpoint)
    return found
