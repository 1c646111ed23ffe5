"""The command line's ``key=value,...`` syntax, and JSON in its place (after util/keyval.c)."""

import re
from typing import Any, Final

from blockemu.qmp_server.errors import ParseError, ProtocolError
from blockemu.qmp_server.jsonstream import Parser
from blockemu.qmp_server.order import in_order

_MOST_NAME: Final = 127
_INT_MAX: Final = (1 << 31) - 1
_NAME: Final = re.compile(r"(?:__[a-zA-Z0-9.-]*_)?[a-zA-Z][a-zA-Z0-9_-]*")
_INDEX: Final = re.compile(r"[0-9]+")
_KEY: Final = re.compile(r"[^=,]*")
_VALUE: Final = re.compile(r"(?:[^,]|,,)*")


class KeyvalError(ProtocolError):
    """The text is not what keyval wants."""


class BadKey(KeyvalError):
    """A key that no parameter can have."""

    template = "Invalid parameter '{}'"


class LongKey(KeyvalError):
    """A key, or a piece of a dotted key, is too long."""

    template = "Parameter{} '{}' is too long"


class NoValue(KeyvalError):
    """A key without a value."""

    template = "Expected '=' after parameter '{}'"


class Inconsistent(KeyvalError):
    """A key is used as a value and as a prefix of others, or as an index and as a name."""

    template = "Parameters '{}*' used inconsistently"


class MissingIndex(KeyvalError):
    """A list has a gap."""

    template = "Parameter '{}{}' missing"


class NoHelp(KeyvalError):
    """Help was asked for where there is none."""

    template = "Help is not available for this option"


class NotJson(KeyvalError):
    """The text is no JSON value, or more than one."""


def parse_keyval(
    text: str, implied: str | None = None, *, help_ok: bool = False
) -> tuple[dict[str, Any], bool]:
    """Return the tree that ``key=value,...`` describes, and whether help was asked for.

    ``implied`` is the key of a first value that stands alone.  Raises KeyvalError.
    """
    tree: dict[str, Any] = {}
    wants_help = False
    pos = 0
    while pos < len(text):
        pos, asked = _parse_one(tree, text, pos, implied)
        wants_help |= asked
        implied = None
    if wants_help and not help_ok:
        raise NoHelp
    listed = _listify(tree, "")
    assert isinstance(listed, dict)
    return listed, wants_help


def _parse_one(tree: dict[str, Any], text: str, pos: int, implied: str | None) -> tuple[int, bool]:
    match = _KEY.match(text, pos)
    assert match is not None
    key, end = match[0], match.end()
    alone = bool(key) and text[end : end + 1] != "="
    if alone and key in ("help", "?"):
        return end + (end < len(text)), True
    if alone and implied is not None:
        _put(tree, _fragments(implied), key, implied)
        return end + (end < len(text)), False
    path = _fragments(key)
    if text[end : end + 1] != "=":
        raise NoValue(key)
    match = _VALUE.match(text, end + 1)
    assert match is not None
    _put(tree, path, match[0].replace(",,", ","), key)
    return match.end() + 1, False


def _fragments(key: str) -> list[str]:
    out: list[str] = []
    pos = 0
    while True:
        match = _INDEX.match(key, pos) if out else None
        match = match or _NAME.match(key, pos)
        if match is None or key[match.end() : match.end() + 1] not in ("", "."):
            raise BadKey(key)
        if len(match[0]) > _MOST_NAME:
            raise LongKey("" if match[0] == key else " fragment", match[0])
        out.append(match[0])
        pos = match.end() + 1
        if match.end() == len(key):
            return out


def _put(tree: dict[str, Any], path: list[str], value: str, key: str) -> None:
    at = 0
    for fragment in path[:-1]:
        at += len(fragment) + 1
        tree = tree.setdefault(fragment, {})
        if not isinstance(tree, dict):
            raise Inconsistent(key[:at])
    if isinstance(tree.get(path[-1]), dict):
        raise Inconsistent(f"{key}.")
    tree[path[-1]] = value


def _listify(tree: dict[str, Any], prefix: str) -> dict[str, Any] | list[Any]:
    """Make lists of the objects whose keys are all indices."""
    for key in in_order(tree):
        if isinstance(tree[key], dict):
            tree[key] = _listify(tree[key], f"{prefix}{key}.")
    indices = {min(int(key[:12]), _INT_MAX): tree[key] for key in tree if _INDEX.fullmatch(key)}
    if not indices:
        return tree
    if any(not _INDEX.fullmatch(key) for key in tree):
        raise Inconsistent(prefix)
    for i in range(len(indices)):
        if i not in indices:
            raise MissingIndex(prefix, i)
    return [indices[i] for i in range(len(indices))]


def parse_json(text: str) -> Any:
    """Return the one JSON value in ``text``; raise NotJson (QEMU's words)."""
    parser = Parser()
    items = parser.feed(text.encode("utf-8", "surrogateescape")) + parser.flush()
    first = items[0] if items else None
    if isinstance(first, ParseError):
        raise NotJson(str(first))
    if len(items) > 1:
        raise NotJson("Expecting at most one JSON value")
    if not items:
        raise NotJson("Expecting a JSON value")
    return first


def parse_option(text: str, implied: str | None = None) -> tuple[dict[str, Any], bool]:
    """Return an option's value as mapping, and whether it is keyval (not JSON).

    Text that begins with ``{`` is JSON.  A keyval mapping holds strings: visit it with
    ``keyval=True``.
    """
    if text.startswith("{"):
        value = parse_json(text)
        assert isinstance(value, dict)
        return value, False
    return parse_keyval(text, implied)[0], True
