"""File names that mean an NBD server, and the name that an address gives (after block/nbd.c)."""

import urllib.parse
from typing import Any, Final

from blockemu.errors import QmpError
from blockemu.nbd import wire
from blockemu.schema.sockets import SocketAddress, SocketAddressInet, SocketAddressUnix

Options = dict[str, Any]
EXPORT_MARK: Final = ":exportname="
LONGEST: Final = 4095  # bytes of a name
_SAID_BY_NAME: Final = ("host", "port", "path", "export", "server")


class OptionWithName(QmpError):
    """(option): the name says that already."""

    template = "Option '{}' cannot be used with a file name"


class BadUrl(QmpError):
    """No URL of ours."""

    template = "No valid URL specified"


class NotNbd(QmpError):
    """Neither URL nor the older kind of name."""

    template = "File name string for NBD must start with 'nbd:'"


class BadInet(QmpError):
    """(text): no host and port."""

    template = "error parsing address '{}'"


class BadInetPort(QmpError):
    """(text): a port where a host should be."""

    template = "error parsing port in address '{}'"


class BadIpv6(QmpError):
    """(text): no address in brackets."""

    template = "error parsing IPv6 address '{}'"


class ServerTwice(QmpError):
    """The old options and the new."""

    template = "Cannot use 'server' and path/host/port at the same time"


class PathAndHost(QmpError):
    """Two servers."""

    template = "path and host may not be used at the same time"


class PortWithoutHost(QmpError):
    """A port of nothing."""

    template = "port may not be used without host"


class NoServer(QmpError):
    """No address at all."""

    template = "NBD server address missing"


def parse(filename: str, options: Options) -> None:
    """Put what a file name says into the options (nbd_parse_filename)."""
    for name in options:
        if name in _SAID_BY_NAME:
            shown = name if name != "server" else f"server.{next(iter(options[name]), '')}"
            raise OptionWithName(shown)
    if "://" in filename:
        _parse_uri(filename, options)
    else:
        _parse_legacy(filename, options)


def _parse_legacy(filename: str, options: Options) -> None:
    """Parse ``nbd:HOST:PORT:exportname=NAME`` or ``nbd:unix:PATH:exportname=NAME``."""
    where, mark, export = filename.partition(EXPORT_MARK)
    if mark and not export:
        return
    if mark:
        options["export"] = export
    if not where.startswith("nbd:"):
        raise NotNbd
    where = where.removeprefix("nbd:")
    if where.startswith("unix:"):
        options["server"] = {"type": "unix", "path": where.removeprefix("unix:")}
    elif where:
        host, port = _parse_inet(where)
        options["server"] = {"type": "inet", "host": host, "port": port}


def _parse_inet(text: str) -> tuple[str, str]:
    """Split host and port; options may follow, which nobody reads (inet_parse)."""
    if text.startswith(":"):
        host, port = "", text[1:].split(",")[0]
        if not port:
            raise BadInetPort(text)
        return host, port
    bracketed = text.startswith("[")
    host, _, rest = text[1:].partition("]:") if bracketed else text.partition(":")
    port = rest.split(",")[0]
    if not (host and port):
        raise (BadIpv6 if bracketed else BadInet)(text)
    return host, port


def _parse_uri(filename: str, options: Options) -> None:
    scheme, _, rest = filename.partition("://")
    if scheme not in ("nbd", "nbd+tcp", "nbd+unix"):
        raise BadUrl
    rest = rest.partition("#")[0]
    rest, mark, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    export = urllib.parse.unquote(path, errors="surrogateescape") if slash else ""
    parameters = [part for part in query.replace(";", "&").split("&") if part] if mark else []
    if export:
        options["export"] = export
    if scheme == "nbd+unix":
        if authority or len(parameters) != 1:
            raise BadUrl
        name, _, value = parameters[0].partition("=")
        if urllib.parse.unquote(name) != "socket":
            raise BadUrl
        path = urllib.parse.unquote(value, errors="surrogateescape")
        options["server"] = {"type": "unix", "path": path}
        return
    host, port = _split_authority(authority)
    if parameters or not host:
        raise BadUrl
    options["server"] = {"type": "inet", "host": host, "port": str(port or wire.DEFAULT_PORT)}


def _split_authority(authority: str) -> tuple[str, int]:
    """Return host, without its brackets, and port; 0 if there is none."""
    authority = authority.rpartition("@")[2]
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadUrl
        port = rest[1:]
    else:
        host, _, port = authority.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        raise BadUrl
    return urllib.parse.unquote(host, errors="surrogateescape"), int(port or 0)


def translate_legacy(options: Options) -> None:
    """Make ``server`` of ``path``, ``host`` and ``port`` (nbd_process_legacy_socket_options)."""
    path, host, port = (options.pop(name, None) for name in ("path", "host", "port"))
    if path is None and host is None and port is None:
        return
    if "server" in options:
        raise ServerTwice
    if path is not None and host is not None:
        raise PathAndHost
    if path is not None:
        if port is not None:
            raise PortWithoutHost
        options["server"] = {"type": "unix", "path": path}
    elif host is not None:
        port = str(wire.DEFAULT_PORT) if port is None else port
        options["server"] = {"type": "inet", "host": host, "port": port}


def plain_name(server: SocketAddress, export: str | None) -> str:
    """Return the URI of an export; empty if none can say it all (nbd_refresh_filename)."""
    if isinstance(server, SocketAddressUnix):
        where = "nbd+unix://" if export is None else f"nbd+unix:///{export}"
        name = f"{where}?socket={server.path}"
    elif isinstance(server, SocketAddressInet) and not _has_more(server):
        name = f"nbd://{server.host}:{server.port}"
        name += "" if export is None else f"/{export}"
    else:
        return ""
    return name if len(name.encode("utf-8", "surrogateescape")) <= LONGEST else ""


def _has_more(server: SocketAddressInet) -> bool:
    return any(value is not None for value in (server.ipv4, server.ipv6, server.to))
