"""Names of images: what opens one, what shows one, and where its backing file lies.

Names are those of QEMU: a path, ``PROTOCOL:...``, or ``json:`` and options.  A node shows as the
plain name that would open it just so, or else as the ``json:`` name that would.
"""

from collections.abc import Mapping
from typing import Any

from blockemu.chain import cow_child, skip_filters
from blockemu.errors import QmpError, Wrapped
from blockemu.node import Node
from blockemu.paths import combine, has_protocol, is_absolute
from blockemu.probing import Drivers, of_protocol, probe, probe_device

__all__ = [
    "dirname",
    "find_backing_image",
    "find_protocol",
    "full_backing_filename",
    "nest",
    "parse_json",
    "probe",
    "refresh",
]

JSON = "json:"
LONGEST = 4095  # bytes of a name; QEMU cuts longer ones
Options = dict[str, Any]


class UnknownProtocol(QmpError):
    """(protocol): what stands before the colon is not known."""

    template = "Unknown protocol '{}'"


class NoBaseDirectory(QmpError):
    """(driver): a relative name has nothing to be relative to."""

    template = "Cannot generate a base directory for {} nodes"


class NotAnObject(QmpError):
    """Options are an object."""

    template = "Invalid JSON object given"


class OneValue(QmpError):
    """Something follows the options."""

    template = "Expecting at most one JSON value"


class SomeValue(QmpError):
    """Nothing follows the prefix."""

    template = "Expecting a JSON value"


class ReferenceAndOptions(QmpError):
    """A child is named and described at once."""

    template = "Cannot reference an existing block device with additional options or a new filename"


# What opens an image


def find_protocol(filename: str, drivers: Drivers, *, allow_prefix: bool = True) -> str:
    """Return the driver for a file name: by what it is on the host, or by its protocol.

    Without ``allow_prefix`` a colon is part of the path: so are names that come as the option
    ``filename``, or from an image.  After bdrv_find_protocol, block.c.

    Raises:
        UnknownProtocol: no driver has it.

    """
    device = probe_device(filename, drivers)
    if device is not None:
        return device
    if not allow_prefix or not has_protocol(filename):
        return "file"
    protocol = filename.partition(":")[0]
    tag = of_protocol(protocol, drivers)
    if tag is not None:
        return tag
    raise UnknownProtocol(protocol)


def parse_json(filename: str) -> Options:
    """Return the options that a ``json:`` name holds, nested; dotted keys nest like objects.

    Raises:
        QmpError: it is not JSON, or not an object.

    """
    try:
        value = _parse(filename.removeprefix(JSON))
    except QmpError as e:
        raise Wrapped("Could not parse the JSON options", e) from e
    if not isinstance(value, dict):
        raise NotAnObject
    return nest(value)


def _parse(text: str) -> Any:
    from blockemu.qmp_server.errors import ParseError  # late: few names are JSON
    from blockemu.qmp_server.jsonstream import Parser

    parser = Parser()
    values = [*parser.feed(text.encode()), *parser.flush()]
    for value in values:
        if isinstance(value, ParseError):
            raise QmpError(str(value))
    if len(values) != 1:
        raise OneValue if values else SomeValue
    return values[0]


def nest(options: Mapping[str, Any]) -> Options:
    """Split dotted keys: ``{"a.b": 1}`` is ``{"a": {"b": 1}}``; the first of two equals wins."""
    nested: Options = {}
    for key, value in options.items():
        *path, last = key.split(".")
        at = nested
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ReferenceAndOptions
        if isinstance(value, Mapping):
            inner = at.setdefault(last, {})
            if not isinstance(inner, dict):
                raise ReferenceAndOptions
            for name, item in nest(value).items():
                inner.setdefault(name, item)
        else:
            at.setdefault(last, value)
    return {key: _listed(value) for key, value in nested.items()}


def _listed(value: Any) -> Any:
    """Turn objects with the keys 0, 1, ... into lists, however deep they lie."""
    if not isinstance(value, dict):
        return value
    if value and set(value) == {str(i) for i in range(len(value))}:
        return [_listed(value[str(i)]) for i in range(len(value))]
    return {key: _listed(item) for key, item in value.items()}


# What shows a node


def refresh(node: Node[Any]) -> None:
    """Work out the names of a node, after those of all nodes below it.

    Sets ``full_options`` (what opens the same), ``exact_filename`` (a plain name that does, or
    nothing) and ``full_filename`` (that one, or the options as a ``json:`` name).  After
    bdrv_refresh_filename, block.c.
    """
    children = list(node.children.values())
    for edge in children:
        refresh(edge.node)
    if node.implicit:
        (child,) = (edge.node for edge in children)
        node.exact_filename, node.full_filename = child.exact_filename, child.full_filename
        node.full_options = child.full_options
        return
    overridden = _backing_overridden(node)
    strong = node.strong_options()
    node.full_options = _gather(node, strong, overridden=overridden)
    if type(node).gather_filename is not Node.gather_filename or node.primary is None:
        node.exact_filename = ""
        node.gather_filename()
    else:
        node.exact_filename = _plain(node, bool(strong) or overridden)
    node.full_filename = node.exact_filename or _json_name(node.full_options)


def _backing_overridden(node: Node[Any]) -> bool:
    """Tell whether the backing file is another than the image says (bdrv_backing_overridden)."""
    if node.flags.no_io:
        return False
    auto = node.auto_backing or ""
    return auto != (node.backing.node.full_filename if node.backing is not None else "")


def _gather(node: Node[Any], strong: Options, *, overridden: bool) -> Options:
    """Return the options that would open the same."""
    options: Options = {"driver": node.driver}
    if "filename" in node.effective:
        options["filename"] = node.effective["filename"]
    options |= strong
    options |= node.child_options(overridden=overridden)
    if overridden and node.backing is None:
        options["backing"] = None
    return options


def _plain(node: Node[Any], changed: bool) -> str:
    """Return the name of a format's file, if probing that would come to the same nodes."""
    primary = node.primary
    if primary is None or not primary.node.is_protocol or node.is_filter or changed:
        return ""
    return primary.node.exact_filename


def _json_name(options: Options) -> str:
    from blockemu.qmp_server.qdict import encode  # late: few nodes have such a name

    name = JSON + encode(options)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


# Where a backing file lies


def dirname(node: Node[Any]) -> str:
    """Return the folder of an image, with the slash at its end; empty for the current one.

    Raises:
        NoBaseDirectory: the node has no plain name.

    """
    if node.primary is not None and node.has_dirname:
        return dirname(node.primary.node)
    refresh(node)
    if not node.exact_filename:
        raise NoBaseDirectory(node.driver)
    return combine(node.exact_filename, "")


def full_backing_filename(node: Node[Any]) -> str:
    """Return the backing file's name as seen from here; empty if the image names none.

    Raises:
        NoBaseDirectory: it is relative, and the node has no plain name.

    """
    name = node.backing_file or ""
    if not name or has_protocol(name) or is_absolute(name):
        return name
    return dirname(node) + name


def find_backing_image(top: Node[Any], name: str) -> Node[Any] | None:
    """Return the image below ``top`` that a file name means (bdrv_find_backing_image).

    Names are compared as they are where a protocol is in one of them or the backing file is another
    than the header says; else as paths, seen from the image above.
    """
    at = skip_filters(top)
    while (below := cow_child(at)) is not None:
        image = skip_filters(below)
        if _is_named(at, image, name):
            return image
        at = image
    return None


def _is_named(overlay: Node[Any], image: Node[Any], name: str) -> bool:
    """Tell whether ``name`` means the image that ``overlay`` stands on."""
    refresh(image)
    if _backing_overridden(overlay):
        return name == image.full_filename
    header = overlay.backing_file or ""
    try:
        full = full_backing_filename(overlay)
        mine = name if is_absolute(name) else dirname(overlay) + name
    except QmpError:
        full, mine = "", ""
    if has_protocol(name) or has_protocol(header):
        return name in (header, full)
    try:
        from pathlib import Path  # start-up: a name is seldom asked for that closely

        return bool(mine and full) and Path(mine).samefile(full)
    except OSError:
        return False
