"""``info``: what an image is."""

from blockemu.image_info import describe_image, image_text
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.program import Mode, Program, is_json
from blockemu.programs.img.refusals import OneImageExpected, Refusal
from blockemu.qmp_server.qapi import dump
from blockemu.qmp_server.qdict import encode, prettify
from blockemu.schema.images import ImageInfo

SYNTAX = Syntax(
    "f:hU", IMAGE | {"format": "f", "output": ":", "backing-chain": "", "force-share": "U"}
)


class EndlessChain(Refusal):
    """(name): an image is below itself."""

    template = "Backing file '{}' creates an infinite loop."


class NoAbsoluteName(Refusal):
    """(name as in the image)."""

    template = "Could not determine absolute backing filename, but backing filename '{}' present"


async def run(program: Program, argv: list[str]) -> int:
    """Describe an image, and with ``--backing-chain`` those below it."""
    given, names = program.given(SYNTAX, argv)
    if len(names) != 1:
        raise OneImageExpected
    as_json = is_json(given.get("output"))
    chain = "backing-chain" in given
    images = await _describe(
        program,
        names[0],
        given.get("f"),
        chain=chain,
        image_opts="image-opts" in given,
        force_share="U" in given,
    )
    if not as_json:
        program.print("\n".join(map(image_text, images)))
    elif chain:
        program.print(pretty([dump(image) for image in images]))
    else:
        program.print(pretty(dump(images[0])))
    return 0


def pretty(value: object) -> str:
    """Return JSON over lines, as QEMU's programs print it."""
    return prettify(encode(value)).replace("\r\n", "\n") + "\n"


async def _describe(
    program: Program,
    top: str,
    fmt: str | None,
    *,
    chain: bool,
    image_opts: bool,
    force_share: bool,
) -> list[ImageInfo]:
    """Describe images, each opened by itself (after collect_image_info_list, qemu-img.c)."""
    mode = Mode(no_backing=True, no_io=True, force_share=force_share)
    images: dict[str, ImageInfo] = {}
    name: str | None = top
    while name is not None:
        if name in images:
            raise EndlessChain(name)
        backend = await program.open(name, fmt, mode, image_opts=image_opts)
        images[name] = image = describe_image(backend.node)
        await program.close(backend)
        name, fmt, image_opts = (_below(image) if chain else None), None, False
        if name is not None:
            fmt = image.backing_filename_format
    return list(images.values())


def _below(image: ImageInfo) -> str | None:
    if image.full_backing_filename is None and image.backing_filename is not None:
        raise NoAbsoluteName(image.backing_filename)
    return image.full_backing_filename
