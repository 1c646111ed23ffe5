"""The human monitor's commands about objects, chardevs and descriptors."""

from collections.abc import Iterator, Mapping
from typing import Any

from blockemu.chardev_options import OPTIONS, check_chardev, make_chardev
from blockemu.commands.chardev import NoHotswap, NothingToChange, ringbuf_read, ringbuf_write
from blockemu.commands.context import Context
from blockemu.commands.fds import closefd, getfd
from blockemu.commands.hmp_line import Flag, HmpCommand, Number, Rest, Values, Word, Write
from blockemu.commands.objects import qom_list, qom_set
from blockemu.errors import QmpError
from blockemu.machine.device_errors import Expects
from blockemu.objects.qom import NoSuchObject, Object, Property
from blockemu.optlist import parse_options
from blockemu.qmp_server.dump import dump
from blockemu.qmp_server.errors import ProtocolError
from blockemu.qmp_server.keyval import parse_json
from blockemu.qmp_server.qdict import encode, prettify
from blockemu.qmp_server.scalars import parse_bool, parse_signed


async def list_properties(context: Context, write: Write, values: Values) -> None:
    """List an object's properties, or the root."""
    path = str(values["path"])
    if not path:
        write("/\n")
        return
    for each in qom_list(context, path=path):
        write(f"{each.name} ({each.type})\n")


async def get_property(context: Context, write: Write, values: Values) -> None:
    """Show a property's value."""
    found = context.emu.qom.resolve(str(values["path"]))
    write(f"{prettify(encode(dump(found.get(str(values['property'])))))}\n")


async def set_property(context: Context, write: Write, values: Values) -> None:
    """Set a property, to a text or to JSON."""
    path, name, text = (str(values[key]) for key in ("path", "property", "value"))
    writable = context.emu.qom.resolve(path).writable(name)
    fixed = writable.hint is Any  # refused, whatever the text says
    value = parse_json(text) if values["json"] else text if fixed else _read(writable, text)
    try:
        await qom_set(context, path=path, property=name, value=value)
    except ProtocolError as e:
        write(f"Error: {e}\n")


def _read(writable: Property, text: str) -> Any:
    """Return what a text stands for (qapi/string-input-visitor.c)."""
    name, kind = writable.name, writable.type
    if kind == "bool":
        try:
            return parse_bool(text)
        except ValueError:
            raise Expects(name, "'on' or 'off'") from None
    if kind.startswith(("int", "uint")):
        try:
            return parse_signed(text)
        except ValueError:
            raise Expects(name, "int64" if kind.startswith("int") else "uint64") from None
    return text


async def info_tree(context: Context, write: Write, values: Values) -> None:
    """Show the object tree, or what is below a path."""
    path = str(values["path"])
    try:
        found = context.emu.qom.resolve(path) if path else context.emu.qom.container("machine")
    except NoSuchObject:
        write(f"Path '{path}' could not be resolved.\n")
        return
    write("".join(f"{line}\n" for line in _show(found, 0)))


def _show(found: Object, indent: int) -> Iterator[str]:
    yield f"{'':{indent}}/{found.name} ({found.TYPE})"
    for child in sorted(found.children, key=lambda child: child.name):
        yield from _show(child, indent + 2)


class NotParsed(QmpError):
    """What is wrong was said before."""

    template = "Parsing chardev args failed"


def _parse_chardev(text: str, write: Write) -> tuple[str, str, Mapping[str, str]]:
    try:
        options = parse_options(text, "backend", OPTIONS, lambda text: None)
    except QmpError as e:
        write(f"{e}\n{e.hint}")
        raise NotParsed from e
    return check_chardev(options)


async def add_chardev(context: Context, write: Write, values: Values) -> None:
    """Add a chardev."""
    name, backend, options = _parse_chardev(str(values["args"]), write)
    context.chardevs.add(name, make_chardev(backend, options, lambda text: None))


async def change_chardev(context: Context, write: Write, values: Values) -> None:
    """Put another chardev in the place of one that nobody uses."""
    name = str(values["id"])
    text = f"{values['args']},id={name}"
    _, backend, options = _parse_chardev(text, write)
    old = context.chardevs.find(name)
    if old is None:
        raise NothingToChange(name)
    if old.taken:
        raise NoHotswap
    context.chardevs.remove(name)
    context.chardevs.add(name, make_chardev(backend, options, lambda text: None))


async def write_ring(context: Context, write: Write, values: Values) -> None:
    """Write to a ring buffer."""
    ringbuf_write(context, device=str(values["device"]), data=str(values["data"]))


async def read_ring(context: Context, write: Write, values: Values) -> None:
    """Take bytes out of a ring buffer, unprintable ones by their numbers."""
    data = ringbuf_read(context, device=str(values["device"]), size=int(values["size"]))
    for i, c in enumerate(data):
        if c == "\\":
            write("\\\\")
        elif (c < " " and c not in "\n\t") or c == "\x7f":
            write(f"\\u{ord(c):04X}")
        else:
            write(c)
        if c == "\n" and i == len(data) - 1:
            return
    write("\n")


async def keep_fd(context: Context, write: Write, values: Values) -> None:
    """Keep a descriptor; none comes along with a line."""
    getfd(context, fdname=str(values["fdname"]))


async def close_fd(context: Context, write: Write, values: Values) -> None:
    """Close a descriptor that was kept."""
    closefd(context, fdname=str(values["fdname"]))


INFO = (
    HmpCommand(
        "qom-tree", (Word("path", optional=True),), "[path]", "show QOM composition tree", info_tree
    ),
)
COMMANDS = (
    HmpCommand(
        "qom-list", (Word("path", optional=True),), "path", "list QOM properties", list_properties
    ),
    HmpCommand(
        "qom-get",
        (Word("path"), Word("property")),
        "path property",
        "print QOM property",
        get_property,
    ),
    HmpCommand(
        "qom-set",
        (Flag("json", "j"), Word("path"), Word("property"), Rest("value", optional=False)),
        "[-j] path property value",
        "set QOM property.\n\t\t\t-j: the value is specified in json format.",
        set_property,
    ),
    HmpCommand("chardev-add", (Word("args"),), "args", "add chardev", add_chardev),
    HmpCommand(
        "chardev-change", (Word("id"), Word("args")), "id args", "change chardev", change_chardev
    ),
    HmpCommand(
        "ringbuf_write",
        (Word("device"), Word("data")),
        "device data",
        "Write to a ring buffer character device",
        write_ring,
    ),
    HmpCommand(
        "ringbuf_read",
        (Word("device"), Number("size", narrow=True)),
        "device size",
        "Read from a ring buffer character device",
        read_ring,
    ),
    HmpCommand(
        "getfd",
        (Word("fdname"),),
        "getfd name",
        "receive a file descriptor via SCM rights and assign it a name",
        keep_fd,
    ),
    HmpCommand(
        "closefd",
        (Word("fdname"),),
        "closefd name",
        "close a file descriptor previously passed via SCM rights",
        close_fd,
    ),
)
