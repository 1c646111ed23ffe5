"""The objects that ``object-add`` makes: secrets, throttle groups, I/O threads."""

import base64
from importlib import import_module
from typing import Any, ClassVar, Final

from blockemu.clocks import Clock
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.host.glib_files import UnreadableFile, read_file
from blockemu.objects.qom import Object, Property, Tree, attribute
from blockemu.objects.user_object import Known, UserObject
from blockemu.optlist import IDENTIFIER_HINT, is_identifier
from blockemu.qmp_server.order import in_order
from blockemu.qmp_server.qapi import members
from blockemu.schema.objects import ObjectProperties, QCryptoSecretFormat
from blockemu.throttling.group import ThrottleGroup, ThrottleGroups

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n")


class ObjectNotFound(QmpError):
    """Nothing to delete."""

    template = "object '{}' not found"


class ObjectInUse(QmpError):
    """Somebody still uses it."""

    template = "object '{}' is in use, can not be deleted"


class NegativeValue(QmpError):
    """An event loop's parameter: (name, greatest value)."""

    template = "{} value must be in range [0, {}]"


class BadThreadPool(QmpError):
    """The least number of threads exceeds the greatest, or that is none."""

    template = "bad thread-pool-min/thread-pool-max values"


class NoSuchType(QmpError):
    """(type): it is in the schema, but this program cannot make it."""

    template = "invalid object type: {}"


class NoSecretData(QmpError):
    """A secret without content."""

    template = "Either 'file' or 'data' must be provided"


class TwoSecretSources(QmpError):
    """A secret with two."""

    template = "'file' and 'data' are mutually exclusive"


class UnreadableSecret(QmpError):
    """(file, why)."""

    template = "Unable to read {}: {}"


class BadBase64(QmpError):
    """Not base64 at all."""

    template = "Base64 data contains invalid characters"


class NoSuchSecret(QmpError):
    """No object has the name."""

    template = "No secret with id '{}'"


class NotASecret(QmpError):
    """Another kind of object has it."""

    template = "Object with id '{}' is not a secret"


class SecretNotText(QmpError):
    """(name): a passphrase must be."""

    template = "Data from secret {} is not valid UTF-8"


class SecretHasNoData(QmpError):
    """(name): it is asked for while it is being made."""

    template = "Secret with id '{}' has no data"


class BadKeyLength(QmpError):
    """The secret named as key is no AES-256 key."""

    template = "Key should be 32 bytes in length"


class NoVector(QmpError):
    """A key alone does not decrypt."""

    template = "IV is required to decrypt secret"


class BadVectorLength(QmpError):
    """Not the length of an AES block."""

    template = "IV should be 16 bytes in length not {}"


class BadCipherLength(QmpError):
    """Not whole AES blocks."""

    template = "Length {} must be a multiple of block size 16"


class BadPadding(QmpError):
    """The key is wrong, most likely."""

    template = "Incorrect number of padding bytes ({}) found on decrypted data"


# Secrets


def _format_name(self: "Secret") -> str:
    return str(self.format.value)


def _set_format(self: "Secret", value: QCryptoSecretFormat) -> None:
    self.format = value


class SecretCommon(UserObject):
    """What all kinds of secrets have."""

    TYPE = "secret_common"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (
        Property("loaded", "bool", bool, lambda self: self.content is not None),
        Property("format", "QCryptoSecretFormat", QCryptoSecretFormat, _format_name, _set_format),
        attribute("keyid", "string", str),
        attribute("iv", "string", str),
    )

    def __init__(self) -> None:
        super().__init__()
        self.format = QCryptoSecretFormat.RAW
        self.keyid = self.iv = ""
        self.content: bytes | None = None
        self.given: set[str] = set()

    def complete(self, objects: Known) -> None:
        """Read, decode and decrypt."""
        data = self.load()
        is_base64 = self.format == QCryptoSecretFormat.BASE64
        if "keyid" in self.given:
            key = objects.secret(self.keyid)
            data = _decrypt(data, key, self.iv if "iv" in self.given else None, is_base64)
        elif is_base64:
            data = decode_base64(data)
        self.content = data

    def load(self) -> bytes:
        """Return what is to be decoded; raises QmpError if it is not there."""
        raise NotImplementedError


class Secret(SecretCommon):
    """A password or key, given directly or in a file."""

    TYPE = "secret"
    PROPERTIES = (attribute("data", "string", str), attribute("file", "string", str))

    def __init__(self) -> None:
        super().__init__()
        self.data = self.file = ""

    def load(self) -> bytes:
        """Return what was given, or what is in the file."""
        if "file" in self.given:
            if "data" in self.given:
                raise TwoSecretSources
            return _read(self.file)
        if "data" not in self.given:
            raise NoSecretData
        return self.data.encode()


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except UnreadableFile as e:
        raise UnreadableSecret(path, e) from e


def decode_base64(data: bytes) -> bytes:
    """Decode as GLib does: newlines are skipped and an incomplete group at the end is dropped."""
    text = data.decode("latin-1")
    if not _BASE64.issuperset(text):
        raise BadBase64
    text = text.replace("\n", "")
    text = text[: len(text) // 4 * 4]
    end = text.rstrip("=")
    if "=" not in end and len(text) - len(end) <= 2:
        return base64.b64decode(text)
    groups = (text[at : at + 4] for at in range(0, len(text), 4))
    return b"".join(_decode_group(group) for group in groups)


def _decode_group(group: str) -> bytes:
    """Decode four characters; ``=`` is a zero, and in the last two places drops its byte."""
    value = base64.b64decode(group.replace("=", "A"))
    kept = (True, group[2] != "=", group[3] != "=")
    return bytes(byte for byte, keep in zip(value, kept, strict=True) if keep)


def _decrypt(data: bytes, key: bytes, iv: str | None, is_base64: bool) -> bytes:
    """Undo AES-256-CBC (after qcrypto_secret_decrypt, crypto/secret_common.c)."""
    if len(key) != 32:
        raise BadKeyLength
    if iv is None:
        raise NoVector
    vector = decode_base64(iv.encode())
    if len(vector) != 16:
        raise BadVectorLength(len(vector))
    if is_base64:
        data = decode_base64(data)
    if len(data) % 16:
        raise BadCipherLength(len(data))
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # start-up

    decryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).decryptor()
    plain = decryptor.update(data) + decryptor.finalize()
    padding = plain[-1] if plain else 0
    if padding > 16 or padding > len(plain):
        raise BadPadding(padding)
    return plain[: len(plain) - padding]


# I/O threads


def _loop_parameter(name: str) -> Property:
    key = name.replace("-", "_")

    def write(self: "EventLoop", value: int) -> None:
        if value < 0:
            raise NegativeValue(name, (1 << 63) - 1)
        setattr(self, key, value)
        if self.running:
            self.check()

    return Property(name, "int", int, lambda self: getattr(self, key), write)


class EventLoop(UserObject):
    """Parameters of an event loop.  They are kept and shown; the one loop we have needs none."""

    TYPE = "event-loop-base"
    PROPERTIES: ClassVar[tuple[Property, ...]] = tuple(
        _loop_parameter(name) for name in ("aio-max-batch", "thread-pool-min", "thread-pool-max")
    )

    def __init__(self) -> None:
        super().__init__()
        self.aio_max_batch = self.thread_pool_min = 0
        self.thread_pool_max = 64
        self.running = False

    def complete(self, objects: Known) -> None:
        """Check the parameters and run."""
        self.check()
        self.running = True

    def check(self) -> None:
        """Raise if the parameters do not go together."""
        if not self.thread_pool_max or self.thread_pool_min > self.thread_pool_max:
            raise BadThreadPool


class IoThread(EventLoop):
    """A thread for devices to be served in."""

    TYPE = "iothread"
    PROPERTIES = tuple(
        _loop_parameter(name) for name in ("poll-max-ns", "poll-grow", "poll-shrink")
    )

    def __init__(self) -> None:
        super().__init__()
        self.poll_max_ns = 32768
        self.poll_grow = self.poll_shrink = 0


# All of them


_CLASSES: Final[tuple[type[UserObject], ...]] = (Secret, IoThread, ThrottleGroup)
_LATE: Final = {  # type: module, class; start-up: few need them
    "secret_keyring": ("blockemu.objects.keyring", "SecretKeyring"),
    "tls-creds-anon": ("blockemu.tls.credentials", "TlsCredsAnon"),
    "tls-creds-psk": ("blockemu.tls.credentials", "TlsCredsPsk"),
    "tls-creds-x509": ("blockemu.tls.credentials", "TlsCredsX509"),
    "authz-simple": ("blockemu.objects.authz", "AuthzSimple"),
    "authz-list": ("blockemu.objects.authz", "AuthzList"),
}

_OF_MACHINES: Final = {  # what only a machine can do with
    "memory-backend-file": ("blockemu.objects.memory", "MemoryBackendFile"),
    "memory-backend-memfd": ("blockemu.objects.memory", "MemoryBackendMemfd"),
    "memory-backend-ram": ("blockemu.objects.memory", "MemoryBackendRam"),
    "rng-builtin": ("blockemu.objects.memory", "RngBuiltin"),
    "rng-random": ("blockemu.objects.memory", "RngRandom"),
}


class Objects:
    """The objects that were added, in ``/objects`` of a tree."""

    _types: ClassVar[dict[str, type[UserObject]]] = {cls.TYPE: cls for cls in _CLASSES}

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all types, in order."""
        return sorted((*cls._types, *_LATE))

    @classmethod
    def type_of(cls, name: str) -> type[UserObject] | None:
        """Return a type of objects by its name, if there is such a type."""
        place = _LATE.get(name) or _OF_MACHINES.get(name)
        if place is None:
            return cls._types.get(name)
        module, found = place
        kind: type[UserObject] = getattr(import_module(module), found)
        return kind

    def __init__(self, tree: Tree, clock: Clock) -> None:
        self.tree = tree
        self.throttle_groups = ThrottleGroups(clock)
        self.of_machine = False  # whether there is a machine that they are for

    def add(self, options: ObjectProperties) -> None:
        """Create an object (after user_creatable_add_type, qom/object_interfaces.c)."""
        if not is_identifier(options.id):
            raise InvalidParameterValue("id", "an identifier", hint=IDENTIFIER_HINT)
        assert options.tag is not None
        kind = self.type_of(options.tag)
        if kind is None or (options.tag in _OF_MACHINES and not self.of_machine):
            raise NoSuchType(options.tag)
        made = kind()
        given = _given(options)
        for name, value in given.items():
            made.writable(name).write(made, value)  # type: ignore[misc]  # writable has one
        if isinstance(made, SecretCommon):
            made.given = set(given)
        container = self.tree.container("objects")
        container.add_child(options.id, made)
        try:
            made.complete(self)
        except BaseException:
            container.remove_child(options.id, by_name=True)
            raise

    def delete(self, name: str) -> None:
        """Remove an object that nobody uses."""
        container = self.tree.container("objects")
        found = container.child(name)
        if found is None:
            raise ObjectNotFound(name)
        if isinstance(found, UserObject) and found.users:
            raise ObjectInUse(name)
        container.remove_child(name)
        if isinstance(found, UserObject):
            found.deleted()

    def find(self, name: str) -> Object | None:
        """Return the object of that name."""
        return self.tree.container("objects").child(name)

    def secret(self, name: str) -> bytes:
        """Return the content of a secret, for whoever was given its name."""
        return secret_bytes(self.find(name), name)


def secret_bytes(found: object | None, name: str) -> bytes:
    """Return the content of the object of that name, if it is a secret (qcrypto_secret_lookup)."""
    if found is None:
        raise NoSuchSecret(name)
    if not isinstance(found, SecretCommon):
        raise NotASecret(name)
    if found.content is None:
        raise SecretHasNoData(name)
    return found.content


def secret_text(found: object | None, name: str) -> bytes:
    """Return a passphrase: text, which ends at a NUL (qcrypto_secret_lookup_as_utf8)."""
    content = secret_bytes(found, name)
    try:
        content.decode()
    except UnicodeDecodeError:
        raise SecretNotText(name) from None
    return content.partition(b"\0")[0]


def _given(options: ObjectProperties) -> dict[str, Any]:
    """Return the properties in the order in which QEMU sets them."""
    given = {
        wire: value
        for wire, (member, _) in members(type(options)).items()
        if wire != "id" and (value := getattr(options, member.name)) is not None
    }
    return {wire: given[wire] for wire in in_order(given)}
