"""``amend``: change options of an image that exists."""

import errno
import os
from typing import Any

from blockemu.cache_modes import CACHE_MODES
from blockemu.creation import is_known, option_help, text_options
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.optlist import parse_options
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.creating import joined, wants_help
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.refusals import BadCache, Misused, Refusal, UnknownFormat

SYNTAX = Syntax("ho:f:t:pq", IMAGE | {"force": ""})
CREATION_ONLY = "This option is only supported for image creation\n"


class OptionsMissing(Misused):
    """There is nothing to change."""

    template = "Must specify options (-o)"


class OneImage(Refusal):
    """There are none or several."""

    template = "Expecting one image file name"


class NoAmendment(Refusal):
    """(format)."""

    template = "Format driver '{}' does not support option amendment"


async def run(program: Program, argv: list[str]) -> int:
    """Change options."""
    given: dict[str, str] = {}
    names = []
    options: str | None = None
    for name, value in program.options(SYNTAX, argv):
        match name:
            case "":
                names.append(value)
            case "o":
                options = joined(options, value)
            case _:
                given[name] = value
    if options is None:
        raise OptionsMissing
    program.quiet = "q" in given
    bar = program.bar(1.0, shown="p" in given)
    try:
        await _run(program, names, given, options, bar)
    finally:
        bar.end()
    return 0


async def _run(
    program: Program, names: list[str], given: dict[str, str], options: str, bar: Bar
) -> None:
    fmt = given.get("f")
    if fmt is not None and wants_help(options):
        _print_help(program, fmt)
        return
    if len(names) != 1:
        raise OneImage
    cache = given.get("t", "writeback")
    if cache not in CACHE_MODES:
        raise BadCache(cache)
    mode = Mode(write=True, cache=CACHE_MODES[cache])
    image = await program.open(names[0], fmt, mode, image_opts="image-opts" in given)
    driver = image.node.driver
    if wants_help(options):
        _print_help(program, driver)
        return
    if type(image.node).amend_options is None:
        raise NoAmendment(driver)
    texts = _texts(program, type(image.node), options)
    bar.set(0)
    try:
        await image.node.amend(
            texts, lambda done, total: bar.set(100.0 * done / total), force="force" in given
        )
    except QmpError:
        raise
    except OSError as e:
        raise Refusal(os.strerror(e.errno or errno.EIO)) from e
    finally:
        bar.set(100)


def _print_help(program: Program, fmt: str) -> None:
    drivers = program.emu.opener.drivers
    if fmt not in drivers:
        raise NoAmendment(fmt) if is_known(fmt) else UnknownFormat(fmt)
    options = drivers[fmt].amend_options
    if options is None:
        raise NoAmendment(fmt)
    program.print(f"Amend options for '{fmt}':\n{option_help(list(options))}")


def _texts(program: Program, driver: type[Node[Any]], text: str) -> dict[str, str]:
    """Read the options; say of those that are known to creation only that they are."""
    kinds: dict[str, str] = {option.name: option.kind for option in driver.amend_options or ()}
    try:
        return parse_options(text, "", kinds)
    except QmpError as e:
        more: dict[str, str] = {o.name: o.kind for o in text_options(driver) or ()}
        try:
            parse_options(text, "", more | kinds)
        except QmpError:
            pass
        else:
            e.hint += CREATION_ONLY
        raise
