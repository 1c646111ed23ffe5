"""Where a monitor listens or connects: addresses as text."""

from typing import Final

_TRUE: Final = frozenset({"on", "yes", "true", "y"})
_FALSE: Final = frozenset({"off", "no", "false", "n"})


class AddressError(ValueError):
    """The text is no address."""


class Address:
    """``kind`` is unix, tcp, stdio or fd; ``reconnect`` is in seconds, 0 for never."""

    __slots__ = ("fd", "host", "kind", "path", "port", "reconnect", "server", "wait")

    def __init__(
        self,
        kind: str,
        *,
        path: str = "",
        host: str = "",
        port: str = "",
        fd: int = -1,
        server: bool = True,
        wait: bool = False,
        reconnect: int = 0,
    ) -> None:
        self.kind = kind
        self.path = path
        self.host = host
        self.port = port
        self.fd = fd
        self.server = server
        self.wait = wait
        self.reconnect = reconnect


def parse_address(text: str) -> Address:
    """Return the Address of ``unix:PATH``, ``tcp:HOST:PORT``, ``stdio`` or ``fd:N``.

    The first two may have ``,server=on,wait=off,reconnect=SECONDS``.  Raises AddressError.
    """
    kind, colon, rest = text.partition(":")
    if kind == "stdio" and not colon:
        return Address("stdio")
    if kind == "fd" and rest.isdecimal():
        return Address("fd", fd=int(rest))
    if kind not in ("unix", "tcp") or not rest:
        raise AddressError(f"'{text}' is no address: unix:PATH, tcp:HOST:PORT, stdio or fd:N")
    pieces = [piece.replace("\0", ",") for piece in rest.replace(",,", "\0").split(",")]
    if kind == "unix":
        address = Address(kind, path=pieces[0])
    else:
        host, colon, port = pieces[0].rpartition(":")
        if not colon or not port:
            raise AddressError(f"'{text}' has no port")
        address = Address(kind, host=host.strip("[]"), port=port)
    for piece in pieces[1:]:
        _set_option(address, piece)
    return address


def _set_option(address: Address, piece: str) -> None:
    key, equals, value = piece.partition("=")
    if not equals:
        key, value = (key[2:], "off") if key.startswith("no") else (key, "on")
    if key == "reconnect" and value.isdecimal():
        address.reconnect = int(value)
    elif key in ("server", "wait") and value in _TRUE | _FALSE:
        setattr(address, key, value in _TRUE)
    else:
        raise AddressError(f"unknown option '{piece}'")
