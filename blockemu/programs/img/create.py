"""``create``: make an image."""

from blockemu.creation import img_create
from blockemu.errors import QmpError
from blockemu.node import Flags
from blockemu.programs.img.arguments import COMMON, Syntax
from blockemu.programs.img.creating import joined, print_help, wants_help
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Program
from blockemu.programs.img.refusals import Failed, ImageExpected, UnexpectedArgument

SYNTAX = Syntax("F:b:f:ho:qu", COMMON)


async def run(program: Program, argv: list[str]) -> int:
    """Make an image, as large as said or as its backing file."""
    given: dict[str, str] = {}
    words = []
    options: str | None = None
    for name, value in program.options(SYNTAX, argv):
        match name:
            case "":
                words.append(value)
            case "o":
                options = joined(options, value)
            case _:
                given[name] = value
    fmt = given.get("f", "raw")
    if options is not None and wants_help(options):
        print_help(program, fmt, words[0] if words else None)
        return 0
    if not words:
        raise ImageExpected
    filename, *more = words
    size = number("image size", more.pop(0), program.warn) if more else None
    if more:
        raise UnexpectedArgument(more[0])
    try:
        await img_create(
            program.emu.opener,
            filename,
            fmt,
            base_filename=given.get("b"),
            base_fmt=given.get("F"),
            options_text=options,
            size=size,
            flags=Flags(no_backing="u" in given),
            quiet="q" in given,
        )
    except QmpError as e:
        raise Failed(filename, e, hint=e.hint) from e
    return 0
