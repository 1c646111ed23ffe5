"""The program and its interface: versions, introspection, run state, the end."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from blockemu.chardev_options import OPTIONS
from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import QEnum, Struct, Wire
from blockemu.schema.introspection import AnySchemaInfo
from blockemu.schema.run_state import StatusInfo


class NoSuchOption(QmpError):
    """The command line has no option of that name."""

    template = "invalid option name: {}"


class VersionTriple(Struct):
    """A version.

    @major: first part
    @minor: second part
    @micro: third part
    """

    major: int
    minor: int
    micro: int


class VersionInfo(Struct):
    """Which QEMU's interface this is.

    @qemu: its version
    @package: what a distributor adds to it
    """

    qemu: VersionTriple
    package: str


class CommandInfo(Struct):
    """A command.

    @name: its name
    """

    name: str


class NameInfo(Struct):
    """The machine's name.

    @name: the name, if it has one
    """

    name: str | None = None


class UuidInfo(Struct):
    """The machine's UUID.

    @UUID: the UUID
    """

    uuid: Annotated[str, Wire("UUID")]


class CommandLineParameterType(QEnum):
    """How a parameter is written."""

    STRING = "string"
    BOOLEAN = "boolean"
    NUMBER = "number"
    SIZE = "size"


class CommandLineParameterInfo(Struct):
    """A parameter of a command line option.

    @name: its name
    @type: how it is written
    @help: what it is for
    @default: its value unless given
    """

    name: str
    type: CommandLineParameterType
    help: str | None = None
    default: str | None = None


class CommandLineOptionInfo(Struct):
    """A command line option.

    @option: its name
    @parameters: its parameters
    """

    option: str
    parameters: list[CommandLineParameterInfo]


@command(since="0.14")
def query_version(context: Context) -> VersionInfo:
    """Tell which version of the interface this is."""
    major, minor, micro = context.emu.profile.greeting_version
    return VersionInfo(qemu=VersionTriple(major=major, minor=minor, micro=micro), package="")


@command(since="0.14")
def query_commands(context: Context) -> list[CommandInfo]:
    """List the commands."""
    return [CommandInfo(name=name) for name in context.registry.names(context.emu.profile)]


@command(since="2.5", allow_preconfig=True)
def query_qmp_schema(context: Context) -> list[AnySchemaInfo]:
    """Describe all commands, events and types."""
    from blockemu.qmp_server.introspect import schema  # few clients ask

    entities: Any = schema(context.registry, context.emu.profile)
    return cast("list[AnySchemaInfo]", entities)  # as plain values


@command(since="0.14", allow_preconfig=True)
def quit(context: Context) -> None:
    """End the program."""
    context.shut_down("host-qmp-quit")


@command(since="0.14", allow_preconfig=True)
def query_status(context: Context) -> StatusInfo:
    """Tell whether the machine runs."""
    return context.emu.machine.status()


@command(since="0.14")
async def stop(context: Context) -> None:
    """Stop the machine."""
    await context.emu.pause_machine()


@command(since="0.14")
async def cont(context: Context) -> None:
    """Let the machine run."""
    await context.emu.continue_machine()


@command(since="0.14", allow_preconfig=True)
def query_name(context: Context) -> NameInfo:
    """Tell what the machine's user calls it."""
    return NameInfo(name=context.emu.machine.title)


@command(since="0.14", allow_preconfig=True)
def query_uuid(context: Context) -> UuidInfo:
    """Tell the machine's UUID, all zeroes if it has none."""
    return UuidInfo(uuid=context.emu.machine.uuid)


_TYPES = {
    "string": CommandLineParameterType.STRING,
    "bool": CommandLineParameterType.BOOLEAN,
    "number": CommandLineParameterType.NUMBER,
    "size": CommandLineParameterType.SIZE,
}
_COMMAND_LINE: Mapping[
    str, Mapping[str, str]
] = {  # those with their own syntax; the others are described by the schema
    "mon": {"mode": "string", "chardev": "string", "pretty": "bool"},
    "chardev": OPTIONS,
    "object": {},
}


@command(since="1.5", allow_preconfig=True)
def query_command_line_options(
    context: Context, *, option: str | None = None
) -> list[CommandLineOptionInfo]:
    """List the options of the command line that the schema does not describe."""
    if option is not None and option not in _COMMAND_LINE:
        raise NoSuchOption(option)
    return [
        CommandLineOptionInfo(option=name, parameters=_parameters(types))
        for name, types in _COMMAND_LINE.items()
        if option in (None, name)
    ]


def _parameters(types: Mapping[str, str]) -> list[CommandLineParameterInfo]:
    return [
        CommandLineParameterInfo(
            name=name, type=_TYPES[kind], default="on" if name == "tight" else None
        )
        for name, kind in reversed(list(types.items()))
    ]
