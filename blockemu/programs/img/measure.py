"""``measure``: how large the file of an image would be."""

import sys

from blockemu.arguments import MissingArgument, UsageError
from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.measuring import Measured
from blockemu.optlist import HelpWanted, InvalidParameter
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.creating import check_format, joined, own_and_file_options
from blockemu.programs.img.info import pretty
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Mode, Program, is_json
from blockemu.programs.img.refusals import Misused, Refusal
from blockemu.programs.img.snapshots import SnapshotChoice
from blockemu.programs.img_cli import print_help

SYNTAX = Syntax("hf:O:o:l:U", IMAGE | {"output": ":", "size": ":", "force-share": "U"})


class OneNameAtMost(Refusal):
    """Sources are not added up."""

    template = "At most one filename argument is allowed."


class NameNeeded(Refusal):
    """These options are about a source."""

    template = "--image-opts, -f, and -l require a filename argument."


class SizeAndName(Refusal):
    """The source has a size."""

    template = "--size N cannot be used together with a filename."


class SizeOrName(Refusal):
    """There is nothing to measure."""

    template = "Either --size N or one filename must be specified."


class NoMeasuring(Refusal):
    """(format)."""

    template = "Block driver '{}' does not support size measurement"


class BadOptions(Refusal):
    """(format)."""

    template = "Invalid options for file format '{}'"


async def run(program: Program, argv: list[str]) -> int:
    """Measure an image of some size, or a copy of another."""
    try:
        return await _run(program, argv)
    except Misused as e:  # this command has getopt say so, and helps without being asked to
        why = e.__cause__
        assert isinstance(why, UsageError | MissingArgument)
        sys.stderr.write(f"measure: {why}\n")
        print_help(program.name)
        return 0


async def _run(program: Program, argv: list[str]) -> int:
    given: dict[str, str] = {}
    names = []
    options: str | None = None
    snapshot: SnapshotChoice | None = None
    size: int | None = None
    for name, value in program.options(SYNTAX, argv):
        match name:
            case "":
                names.append(value)
            case "o":
                options = joined(options, value)
            case "l":
                snapshot = SnapshotChoice.read(program, value)
            case "size":
                size = number("image size", value, program.warn)
            case _:
                given[name] = value
                is_json(given.get("output"))
    about_source = {"image-opts", "f"} & given.keys() or snapshot is not None
    for broken, refusal in (
        (len(names) > 1, OneNameAtMost),
        (not names and about_source, NameNeeded),
        (names and size is not None, SizeAndName),
        (not names and size is None, SizeOrName),
    ):
        if broken:
            raise refusal
    source = None
    if names:
        mode = Mode(force_share="U" in given)
        as_options = "image-opts" in given
        source = await program.open(names[0], given.get("f"), mode, image_opts=as_options)
        if snapshot is not None:
            await snapshot.load(source)
    measured = await _measure(program, given.get("O", "raw"), options, size, source)
    _tell(program, measured, as_json=is_json(given.get("output")))
    return 0


async def _measure(
    program: Program, fmt: str, options: str | None, size: int | None, source: Backend | None
) -> Measured:
    check_format(program, fmt)
    try:
        texts = own_and_file_options(program, fmt, options)
    except (QmpError, HelpWanted) as e:  # this command has none
        program.report(e if isinstance(e, QmpError) else InvalidParameter(*e.args))
        raise BadOptions(fmt) from e
    if size is not None:
        texts["size"] = str(size)
    try:
        return await program.emu.opener.drivers[fmt].measure(texts, source)
    except NotImplementedError as e:
        raise NoMeasuring(fmt) from e


def _tell(program: Program, measured: Measured, *, as_json: bool) -> None:
    found = {
        "required": measured.required,
        "fully-allocated": measured.fully_allocated,
        "bitmaps": measured.bitmaps,
    }
    if as_json:
        program.print(pretty({name: value for name, value in found.items() if value is not None}))
        return
    program.print(f"required size: {measured.required}\n")
    program.print(f"fully allocated size: {measured.fully_allocated}\n")
    if measured.bitmaps is not None:
        program.print(f"bitmaps size: {measured.bitmaps}\n")
