"""reopen: new options for the nodes of an open image."""

import errno
from typing import TYPE_CHECKING, Any

from blockemu import filenames
from blockemu.backend import drained
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.permissions import want, wanted
from blockemu.qemu_io.options import Options, Warn
from blockemu.qemu_io.refusals import (
    BadCacheMode,
    CacheGivenTwice,
    OneModeOnly,
    ReadOnlyGivenTwice,
)
from blockemu.qemu_io.table import ANY, IoCommand
from blockemu.qmp_server.invalid import InvalidInput
from blockemu.reopen import Queue

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter

Cache = tuple[bool, dict[str, bool]]  # whether writes may be held back, options of the node
CACHE_MODES: dict[str, Cache] = {
    "none": (True, {"cache.direct": True, "cache.no-flush": False}),
    "off": (True, {"cache.direct": True, "cache.no-flush": False}),
    "directsync": (False, {"cache.direct": True, "cache.no-flush": False}),
    "writeback": (True, {"cache.direct": False, "cache.no-flush": False}),
    "writethrough": (False, {"cache.direct": False, "cache.no-flush": False}),
    "unsafe": (True, {"cache.direct": False, "cache.no-flush": True}),
}
FLAGS = frozenset({"read-only", "auto-read-only", "cache.direct", "cache.no-flush"})
TRUTH = {
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}


class CannotChangeWriteback(QmpError):
    """The guest knows how its disk works."""

    template = "Cannot change cache.writeback: Device attached"


def cache_mode(text: str, _warn: Warn) -> Cache:
    """Return what a cache mode stands for.

    Raises:
        BadCacheMode: there is no such mode.

    """
    if text not in CACHE_MODES:
        raise BadCacheMode(text)
    return CACHE_MODES[text]


def node_options(text: str, warn: Warn) -> dict[str, str]:
    """Split ``key=value,flag``; ``,,`` is a comma in a value."""
    options = {}
    for item in text.replace(",,", "\0").split(","):
        key, equals, value = item.replace("\0", ",").partition("=")
        if not equals:
            value = "on"
            warn(f"short-form boolean option '{key}' deprecated\nPlease use {key}=on instead")
        options[key] = value
    return options


async def reopen(io: "Interpreter", options: Options) -> int:
    """Reopen the image read-only or not, with another cache mode or other options."""
    node = io.image.inserted
    if node is None:
        return -errno.ENOMEDIUM  # QEMU crashes here
    if "r" in options and "w" in options:
        raise OneModeOnly
    read_only = node.flags.read_only if "w" not in options else False
    read_only = read_only or "r" in options
    flags = node.flags
    as_is = (io.image.write_cache, {"cache.direct": flags.direct, "cache.no-flush": flags.no_flush})
    write_cache, cache = options.get("c", as_is)
    if write_cache != io.image.write_cache and io.image.device:
        io.report_error(CannotChangeWriteback())
        return -errno.EBUSY
    new: dict[str, Any] = dict(options.get("o", {}))
    if "read-only" in new:
        if "r" in options or "w" in options:
            raise ReadOnlyGivenTwice
    else:
        new["read-only"] = read_only
    if "cache.direct" in new or "cache.no-flush" in new:
        if "c" in options:
            raise CacheGivenTwice
    else:
        new |= cache
    try:
        await _reopen(io, node, _typed(new), read_only=read_only)
    except InvalidInput as e:
        io.output.report(f"{e}\n")
    except QmpError as e:
        io.report_error(e)
    else:
        io.image.write_cache = write_cache
        return 0
    return -errno.EINVAL


async def _reopen(
    io: "Interpreter", node: Node[Any], new: dict[str, Any], *, read_only: bool
) -> None:
    backend, queue = io.image, Queue(io.graph)
    async with drained(*_subtree(node)):
        perm, shared = wanted(backend)
        if read_only and perm & Perm.WRITES:
            want(backend, perm & ~Perm.WRITES, shared)
        queue.add(node, new, keep=True)
        await queue.run()
    for each in list(io.graph):
        filenames.refresh(each)


def _typed(options: dict[str, Any]) -> dict[str, Any]:
    """Turn words into truth values where every node has one."""
    for key in FLAGS & options.keys():
        if isinstance(options[key], str):
            if options[key] not in TRUTH:
                raise InvalidParameterValue(key, "'on' or 'off'")
            options[key] = TRUTH[options[key]]
    return options


def _subtree(node: Node[Any]) -> list[Node[Any]]:
    found = {node: None}
    for edge in node.children.values():
        found |= dict.fromkeys(_subtree(edge.node))
    return list(found)


COMMANDS = (
    IoCommand(
        name="reopen",
        oneline="reopens an image with new options",
        run=reopen,
        most=ANY,
        arguments="[(-r|-w)] [-c cache] [-o options]",
        letters="c:o:rw",
        converters={"c": cache_mode, "o": node_options},
        operands=range(1),
    ),
)
