"""``dd``: copy some of an image into a new one, block by block."""

import errno
import os
from typing import ClassVar

from blockemu.creation import ImageCreator
from blockemu.errors import QmpError
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.creating import read_options
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.refusals import Failed, Refusal
from blockemu.records import field, record

SYNTAX = Syntax("hf:O:U", IMAGE | {"force-share": "U"})
LARGEST_BLOCK = 2**31 - 1


class UnknownOperand(Refusal):
    """(operand)."""

    template = "unrecognized operand {}"


class BothNeeded(Refusal):
    """One of the files is missing."""

    template = "Must specify both input and output files"


class UnknownFormat(Refusal):
    """The output's."""

    template = "Unknown file format"


class ReadFailed(Refusal):
    """(why)."""

    template = "error while reading from input image file: {}"


class WriteFailed(Refusal):
    """(why)."""

    template = "error while writing to output image file: {}"


@record
class Operands:
    """What is copied where; ``count`` and ``skip`` are blocks of ``block`` bytes."""

    KNOWN: ClassVar = ("bs", "count", "if", "of", "skip")
    files: dict[str, str] = field(default_factory=dict)
    block: int = 512
    count: int | None = None
    skip: int = 0

    def take(self, program: Program, word: str) -> None:
        """Read one, ``name=value``."""
        name, equals, value = word.partition("=")
        if not equals or name not in self.KNOWN:
            raise UnknownOperand(name if equals else word)
        match name:
            case "bs":
                self.block = number("bs", value, program.warn, 1, LARGEST_BLOCK)
            case "count":
                self.count = number("count", value, program.warn)
            case "skip":
                self.skip = number("skip", value, program.warn)
            case _:
                self.files[name] = value


async def run(program: Program, argv: list[str]) -> int:
    """Copy from the input's beginning, or from a block of it."""
    given: dict[str, str] = {}
    words = []
    for name, value in program.options(SYNTAX, argv):
        if name:
            given[name] = value
        else:
            words.append(value)
    operands = Operands()
    for word in words:
        operands.take(program, word)
    if len(operands.files) < 2:
        raise BothNeeded
    await _copy(program, operands, given)
    return 0


async def _copy(program: Program, operands: Operands, given: dict[str, str]) -> None:
    source_name, target_name = operands.files["if"], operands.files["of"]
    source = await program.open(
        source_name,
        given.get("f"),
        Mode(force_share="U" in given),
        image_opts="image-opts" in given,
    )
    fmt = given.get("O", "raw")
    if fmt not in program.emu.opener.drivers:
        raise UnknownFormat
    read_options(program, fmt, target_name, None)
    size, block = source.length, operands.block
    if operands.count is not None:
        size = min(size, operands.count * block)
    at = operands.skip * block
    texts = {"size": str(max(size - at, 0))}
    try:
        await ImageCreator(program.emu.opener).create_by_text(fmt, target_name, texts)
    except QmpError as e:
        what = f"{target_name}: error while creating output image"
        raise Failed(what, e, hint=e.hint) from e
    target = await program.open(target_name, fmt, Mode(write=True))
    if at > size:
        program.complain(f"{source_name}: cannot skip to specified offset")
    start = at
    buffer = memoryview(bytearray(min(block, max(size - at, 0))))
    for at in range(start, size, block):
        view = buffer[: min(block, size - at)]
        try:
            await source.pread(at, view)
        except OSError as e:
            raise ReadFailed(os.strerror(e.errno or errno.EIO)) from e
        try:
            await target.pwrite(at - start, view)
        except OSError as e:
            raise WriteFailed(os.strerror(e.errno or errno.EIO)) from e
