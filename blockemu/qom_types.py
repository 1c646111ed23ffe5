"""The types of objects by name, as ``qom-list-types`` shows them.

The order is that of QEMU's own table, which is a hash table of all its types, ours or not.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from blockemu.chardevs import (
    Chardev,
    FileChardev,
    MemoryChardev,
    NullChardev,
    PipeChardev,
    RingBuffer,
    SocketChardev,
    StdioChardev,
)
from blockemu.objects.authz import Authz, AuthzList, AuthzSimple
from blockemu.objects.keyring import SecretKeyring
from blockemu.objects.object_add import EventLoop, IoThread, Secret, SecretCommon
from blockemu.objects.qom import Container, Object
from blockemu.objects.user_object import UserObject
from blockemu.throttling.group import ThrottleGroup
from blockemu.tls.credentials import TlsCreds, TlsCredsAnon, TlsCredsPsk, TlsCredsX509


class Type(NamedTuple):
    """A type: its name, the class with its properties, its parent's name."""

    name: str
    cls: type[Object]
    parent: str = ""
    abstract: bool = False


_ROWS: Final = (
    Type("authz-simple", AuthzSimple, "authz"),
    Type("secret_common", SecretCommon, "object", abstract=True),
    Type("container", Container, "object"),
    Type("interface", Object, abstract=True),
    Type("tls-creds-anon", TlsCredsAnon, "tls-creds"),
    Type("iothread", IoThread, "event-loop-base"),
    Type("secret", Secret, "secret_common"),
    Type("authz", Authz, "object", abstract=True),
    Type("tls-creds-psk", TlsCredsPsk, "tls-creds"),
    Type("tls-creds", TlsCreds, "object", abstract=True),
    Type("chardev-pipe", PipeChardev, "chardev-fd"),
    Type("chardev-fd", Chardev, "chardev", abstract=True),
    Type("chardev-null", NullChardev, "chardev"),
    Type("chardev-ringbuf", RingBuffer, "chardev"),
    Type("event-loop-base", EventLoop, "object", abstract=True),
    Type("authz-list", AuthzList, "authz"),
    Type("chardev-stdio", StdioChardev, "chardev-fd"),
    Type("chardev", Chardev, "object", abstract=True),
    Type("user-creatable", UserObject, "interface", abstract=True),
    Type("chardev-socket", SocketChardev, "chardev"),
    Type("chardev-file", FileChardev, "chardev-fd"),
    Type("chardev-memory", MemoryChardev, "chardev-ringbuf"),
    Type("object", Object, abstract=True),
    Type("tls-creds-x509", TlsCredsX509, "tls-creds"),
    Type("secret_keyring", SecretKeyring, "secret_common"),
    Type("throttle-group", ThrottleGroup, "object"),
)
TYPES: Final = {row.name: row for row in _ROWS}


def is_a(type_: Type, name: str) -> bool:
    """Tell whether a type is, derives from or implements another."""
    if name == "user-creatable" and issubclass(type_.cls, UserObject):
        return True
    return any(each.name == name for each in _line(type_))


def _line(type_: Type) -> Iterator[Type]:
    yield type_
    while type_.parent:
        type_ = TYPES[type_.parent]
        yield type_
