"""``resize``: give an image another size."""

import errno
import os

from blockemu.errors import QmpError
from blockemu.optlist import read_size
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.refusals import ImageAndSizeExpected, NotEnoughArguments, Refusal

SYNTAX = Syntax("f:hq", IMAGE | {"preallocation": ":", "shrink": ""})
PREALLOCATIONS = ("off", "metadata", "falloc", "full")


class BadPreallocation(Refusal):
    """(mode)."""

    template = "Invalid preallocation mode '{}'"


class NotPositive(Refusal):
    """A disk has some size."""

    template = "New image size must be positive"


class OnlyForGrowing(Refusal):
    """Nothing is to be allocated."""

    template = "Preallocation can only be used for growing images"


class ShrinkNotWanted(Refusal):
    """Data would be lost."""

    template = "Use the --shrink option to perform a shrink operation."
    further = (
        "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before "
        "performing such an operation, make sure there is no important data there.",
    )


async def run(program: Program, argv: list[str]) -> int:
    """Change the size, given last: absolute, or with a sign relative to what it is."""
    if len(argv) < 2:
        raise NotEnoughArguments
    *argv, size = argv
    given: dict[str, str] = {}
    names = []
    for name, value in program.options(SYNTAX, argv):
        if name == "preallocation" and value not in PREALLOCATIONS:
            raise BadPreallocation(value)
        if name:
            given[name] = value
        else:
            names.append(value)
    if len(names) != 1:
        raise ImageAndSizeExpected
    program.quiet = "q" in given
    sign = {"+": 1, "-": -1}.get(size[:1], 0)
    amount = read_size("size", size[1:] if sign else size)
    image = await program.open(
        names[0], given.get("f"), Mode(write=True, resize=True), image_opts="image-opts" in given
    )
    old = image.length
    new = old + sign * amount if sign else amount
    prealloc = given.get("preallocation", "off")
    new = (new + 2**63) % 2**64 - 2**63
    if new <= 0:
        raise NotPositive
    if new <= old and prealloc != "off":
        raise OnlyForGrowing
    if new < old and "shrink" not in given:
        raise ShrinkNotWanted
    try:
        await image.truncate(new, exact=True, prealloc=prealloc)
    except QmpError:
        raise
    except OSError as e:
        raise Refusal(os.strerror(e.errno or errno.EIO)) from e
    program.tell("Image resized.\n")
    return 0
