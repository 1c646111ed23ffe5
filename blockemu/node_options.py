"""The options that every node has: what they mean, and what children take from parents."""

from collections.abc import Mapping
from typing import Any

from blockemu.errors import QmpError
from blockemu.node import Flags
from blockemu.perm import Role
from blockemu.qmp_server.order import in_order
from blockemu.records import record

Options = dict[str, Any]
NO_CACHE_MODES: Options = {"direct": False, "no-flush": False}


class ForceShareWritable(QmpError):
    """Sharing everything is for readers only."""

    template = "force-share=on can only be used with read-only images"


class DetectZeroesUnmap(QmpError):
    """Zeroes cannot be dropped if nothing may be."""

    template = (
        "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"
    )


class NotAnArray(QmpError):
    """A list has gaps."""

    template = "Option {} is not a valid array"


@record(frozen=True)
class Parent:
    """What a child that is being opened takes from its parent-to-be."""

    flags: Flags
    options: Options
    is_format: bool
    is_protocol: bool = False


def merged(below: Options, above: Options) -> Options:
    """Return both options; where both say something ``above`` is right, member by member."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        nested = isinstance(value, dict) and isinstance(old, dict)
        out[key] = merged(old or {}, value) if nested else value
    return out


def without(options: Options, path: list[str | int]) -> Any:
    """Take what is at ``path`` out of nested options and return it; inner levels are copied."""
    at: Any = options
    for part in path[:-1]:
        at[part] = at[part].copy()
        at = at[part]
    return at.pop(path[-1])


def flatten(options: Mapping[str, Any]) -> Options:
    """Return nested options with dotted names; empty ones stay what they are (qdict_flatten).

    What was nested comes last, in the order in which QEMU walks objects.
    """
    flat = {key: value for key, value in options.items() if not _is_nested(value)}
    for key in in_order(options):
        if key not in flat:
            _flatten(options[key], key, flat)
    return flat


def _is_nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list)) and bool(value)


def _flatten(value: Any, name: str, into: Options) -> None:
    """Add what a value consists of, under names that begin with its own."""
    if not _is_nested(value):
        into[name] = value
    elif isinstance(value, list):
        for i, each in enumerate(value):
            _flatten(each, f"{name}.{i}", into)
    else:
        for key in in_order(value):
            _flatten(value[key], f"{name}.{key}", into)


def spread(
    options: Options, roles: dict[str, Role], lists: list[str]
) -> tuple[Options, dict[str, Role]]:
    """Give each child that a list defines its own name: ``NAME.0``, ``NAME.1``, ..."""
    options, roles = dict(options), dict(roles)
    for name in lists:
        role = roles.pop(name)
        for i, child in enumerate(options.pop(name, [])):
            options[f"{name}.{i}"] = child
            roles[f"{name}.{i}"] = role
    return options, roles


def stand_ins(name: str, children: object) -> list[str]:
    """Return a word for each child that a list defines.  Raises NotAnArray."""
    if not isinstance(children, list):
        raise NotAnArray(name)
    return ["child"] * len(children)


def inherit(role: Role, parent: Parent, options: Options) -> bool:
    """Fill in what a child takes from its parent; return whether it is a protocol by default.

    After bdrv_inherited_options, block.c.
    """
    theirs = parent.options
    cache = {k: v for k, v in theirs.get("cache", {}).items() if k in ("direct", "no-flush")}
    fill_cache(options, cache)
    _default(options, theirs, "force-share")
    if role & Role.COW:
        options.setdefault("read-only", True)
        options.setdefault("auto-read-only", False)
    else:
        _default(options, theirs, "read-only")
        _default(options, theirs, "auto-read-only")
    options.setdefault("discard", "unmap")  # the parent's own edge heeds what the parent was told
    below_format = parent.is_format and not role & Role.COW
    filtered = parent.is_protocol and role & Role.FILTERED
    return bool(below_format or role & Role.METADATA or filtered)


def fill_cache(options: Options, modes: Options) -> None:
    """Fill in the cache modes that are not said; ``{}`` stays, for no driver knows that option."""
    said = options.get("cache")
    if said != {} and (modes or said):
        options["cache"] = modes | (said or {})


def _default(options: Options, theirs: Options, key: str) -> None:
    if key not in options and key in theirs:
        options[key] = theirs[key]


def _on(value: Any) -> bool:
    """Read a bool that may have come by a command line or a json: name."""
    return value is True or value in ("on", "yes", "true", "y")


def set_flags(flags: Flags, options: Options) -> None:
    """Read the options that every node has (update_flags_from_options, block.c)."""
    cache = options.get("cache", {})
    flags.direct = _on(cache.get("direct"))
    flags.no_flush = _on(cache.get("no-flush"))
    flags.read_only = _on(options.get("read-only"))
    flags.auto_read_only = _on(options.get("auto-read-only"))
    flags.force_share = _on(options.get("force-share"))
    flags.unmap = options.get("discard") in ("unmap", "on")
    flags.detect_zeroes = options.get("detect-zeroes", "off")


def check_flags(flags: Flags) -> None:
    """Refuse options that contradict each other (bdrv_open_common, block.c)."""
    if flags.force_share and not flags.read_only:
        raise ForceShareWritable
    if flags.detect_zeroes == "unmap" and not flags.unmap:
        raise DetectZeroesUnmap
