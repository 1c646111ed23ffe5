"""What the command line of blockemu-nbd says: one export, or a wish for a list."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from blockemu.arguments import Option
from blockemu.cache_modes import CACHE_MODES, CacheMode
from blockemu.optlist import number
from blockemu.programs import nbd_refusals as refusals

MOST_NAME: Final = 4096  # bytes that the protocol lets through
_DISCARD: Final = {"ignore": False, "off": False, "unmap": True, "on": True}
_AIO: Final = ("threads", "native", "io_uring")
_DETECT: Final = ("off", "on", "unmap")
_SNAPSHOT_MARK: Final = "snapshot."
DEFAULT_HOST: Final = "0.0.0.0"
DEFAULT_PORT: Final = "10809"


class Settings:
    """All options, with what holds where none is given."""

    def __init__(self) -> None:
        self.host: str | None = None
        self.port: str | None = None
        self.socket: str | None = None
        self.shared = 1  # clients at once, 0: any number
        self.persistent = self.verbose = self.fork = self.list = False
        self.name: str | None = None
        self.description: str | None = None
        self.offset = 0
        self.allocation_depth = False
        self.bitmaps: list[str] = []
        self.objects: list[str] = []
        self.tls_creds: str | None = None
        self.tls_authz: str | None = None
        self.tls_hostname: str | None = None
        self.pid_file: str | None = None
        self.selinux_label: str | None = None
        self.device: str | None = None
        self.disconnect = False
        self.format: str | None = None
        self.read_only = self.snapshot = self.image_opts = False
        self.load_snapshot: str | None = None
        self.load_by: tuple[str | None, str | None] | None = None  # id and name of a snapshot
        self.cache: CacheMode | None = None
        self.aio: str | None = None
        self.unmap: bool | None = None
        self.detect_zeroes = "off"
        self.file = ""

    def take(self, option: Option) -> None:
        """Note an option.

        Raises:
            QmpError: it makes no sense, in qemu-nbd's words.

        """
        plain = _TEXTS.get(option.name)
        if plain is not None:
            setattr(self, plain, option.value)
        elif option.name in _FLAGS:
            setattr(self, _FLAGS[option.name], True)
        else:
            _TAKERS[option.name](self, option.value)

    def take_operands(self, words: Iterable[str]) -> None:
        """Note what is no option, and see whether all fits together."""
        operands = list(words)
        if self.list:
            self._check_list(operands)
        elif len(operands) != 1:
            raise refusals.WrongCount
        else:
            self.file = operands[0]

    def _check_list(self, operands: list[str]) -> None:
        if operands:
            raise refusals.ListWithFile
        if any(self._of_a_device()):
            raise refusals.ListWithSettings
        if self.fork:
            raise refusals.ListWithFork

    def _of_a_device(self) -> Iterator[Any]:
        """Yield what makes sense for an export only, as far as qemu-nbd minds."""
        given = (self.name, self.description, self.device, self.format, self.load_snapshot)
        yield from (value is not None for value in (*given, self.aio, self.unmap, self.cache))
        yield from (self.offset, self.disconnect, self.bitmaps, self.allocation_depth)

    def check_tls(self) -> None:
        """See whether the options about encryption fit together."""
        if self.tls_creds is None:
            if self.tls_authz is not None:
                raise refusals.AuthorizationWithoutTls
            if self.tls_hostname is not None:
                raise refusals.HostnameWithoutTls
        else:
            if self.device is not None:
                raise refusals.TlsWithDevice
            if self.tls_authz is not None and self.list:
                raise refusals.AuthorizationWithList
            if self.tls_hostname is not None and not self.list:
                raise refusals.HostnameWithoutList

    def check_activation(self, sockets: int) -> None:
        """See whether sockets that were handed over leave anything to say about addresses."""
        if not sockets:
            return
        for given, what in (
            (self.device, "NBD device can't be set"),
            (self.socket, "Unix socket can't be set"),
            (self.host, "The interface can't be set"),
            (self.port, "TCP port number can't be set"),
            (self.selinux_label, "SELinux label can't be set"),
        ):
            if given is not None:
                raise refusals.ActivationWith(what)
        if self.list:
            raise refusals.ListWithActivation
        if sockets > 1:
            raise refusals.SeveralSockets

    def address(self) -> dict[str, str]:
        """Return where to listen or to connect to, as a SocketAddress."""
        if self.socket is not None:
            return {"type": "unix", "path": self.socket}
        return {
            "type": "inet",
            "host": DEFAULT_HOST if self.host is None else self.host,
            "port": DEFAULT_PORT if self.port is None else self.port,
        }

    @property
    def write_through(self) -> bool:
        """Whether each write is durable before it is done."""
        return self.cache is not None and self.cache.write_through

    def node_defaults(self) -> dict[str, Any]:
        """Return the options that the image's node has unless it is told otherwise."""
        cache = self.cache or CACHE_MODES["writeback"]
        return {
            "read-only": self.read_only,
            "auto-read-only": False,
            "discard": "unmap" if self.unmap else "ignore",
            "cache": {"direct": cache.direct, "no-flush": cache.no_flush},
        }

    # Options that are more than a text

    def _cache(self, mode: str) -> None:
        if self.cache is not None:
            raise refusals.CacheTwice
        if mode not in CACHE_MODES:
            raise refusals.BadCache(mode)
        self.cache = CACHE_MODES[mode]

    def _nocache(self, _: str) -> None:
        self._cache("none")

    def _aio(self, mode: str) -> None:
        if self.aio is not None:
            raise refusals.AioTwice
        if mode not in _AIO:
            raise refusals.BadAio(mode)
        self.aio = mode

    def _discard(self, mode: str) -> None:
        if self.unmap is not None:
            raise refusals.DiscardTwice
        if mode not in _DISCARD:
            raise refusals.BadDiscard(mode)
        self.unmap = _DISCARD[mode]

    def _detect_zeroes(self, mode: str) -> None:
        if mode not in _DETECT:
            raise refusals.BadDetectZeroes(mode)
        if mode == "unmap" and not self.unmap:
            raise refusals.UnmapWithoutDiscard
        self.detect_zeroes = mode

    def _offset(self, text: str) -> None:
        value = number(text)
        if value is None or not -(1 << 64) < value < 1 << 64:
            raise refusals.BadOffset(text)
        self.offset = value % (1 << 64)

    def _shared(self, text: str) -> None:
        value = number(text)
        if value is None or not 0 <= value < 1 << 31:
            raise refusals.BadShared(text)
        self.shared = value

    def _socket(self, path: str) -> None:
        if not path.startswith("/"):
            raise refusals.RelativeSocket
        self.socket = path

    def _export_name(self, name: str) -> None:
        if _too_long(name):
            raise refusals.NameTooLong(name)
        self.name = name

    def _description(self, text: str) -> None:
        if _too_long(text):
            raise refusals.DescriptionTooLong(text)
        self.description = text

    def _load_snapshot(self, text: str) -> None:
        if text.startswith(_SNAPSHOT_MARK):
            self.load_by = _snapshot_options(text)
        self.load_snapshot = text
        self.read_only = True

    def _bitmap(self, name: str) -> None:
        self.bitmaps.insert(0, name)

    def _object(self, text: str) -> None:
        self.objects.append(text)

    def _nothing(self, _: str) -> None:
        """Take an option that makes no difference here."""


def _snapshot_options(text: str) -> tuple[str | None, str | None]:
    """Return id and name out of ``snapshot.id=ID,snapshot.name=NAME``."""
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in ("snapshot.id", "snapshot.name") or not equals:
            raise refusals.BadSnapshot(text)
        given[key] = value
    return given.get("snapshot.id"), given.get("snapshot.name")


def _too_long(text: str) -> bool:
    return len(text.encode("utf-8", "surrogateescape")) > MOST_NAME


_TEXTS: Final = {
    "bind": "host",
    "port": "port",
    "connect": "device",
    "format": "format",
    "tls-creds": "tls_creds",
    "tls-hostname": "tls_hostname",
    "tls-authz": "tls_authz",
    "pid-file": "pid_file",
    "selinux-label": "selinux_label",
}
_FLAGS: Final = {
    "read-only": "read_only",
    "allocation-depth": "allocation_depth",
    "disconnect": "disconnect",
    "list": "list",
    "snapshot": "snapshot",
    "persistent": "persistent",
    "verbose": "verbose",
    "image-opts": "image_opts",
    "fork": "fork",
}
_TAKERS: Final = {
    "socket": Settings._socket,
    "offset": Settings._offset,
    "bitmap": Settings._bitmap,
    "load-snapshot": Settings._load_snapshot,
    "nocache": Settings._nocache,
    "cache": Settings._cache,
    "aio": Settings._aio,
    "discard": Settings._discard,
    "detect-zeroes": Settings._detect_zeroes,
    "shared": Settings._shared,
    "export-name": Settings._export_name,
    "description": Settings._description,
    "object": Settings._object,
    "trace": Settings._nothing,
}
