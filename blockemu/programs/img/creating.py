"""Options of images to be made, as several commands take them by ``-o``."""

from blockemu.creation import all_text_options, is_known, option_help, text_options
from blockemu.optlist import parse_options
from blockemu.programs.img.program import Program
from blockemu.programs.img.refusals import BadOptionList, NoImageCreation, UnknownFormat


def joined(before: str | None, text: str) -> str:
    """Add what another ``-o`` says.

    Raises:
        BadOptionList: the text cannot be joined to others by a comma.

    """
    commas = len(text) - len(text.rstrip(","))
    if not text or text[0] == "," or commas % 2:
        raise BadOptionList(text)
    return text if before is None else f"{before},{text}"


def wants_help(text: str) -> bool:
    """Tell whether ``help`` is among some options (has_help_option)."""
    return any(item in ("help", "?") for item in text.replace(",,", "").split(","))


def print_help(program: Program, fmt: str, filename: str | None) -> None:
    """List the options of a format, and of the protocol if there is a name to tell it by."""
    options = all_text_options(program.emu.opener.drivers, fmt, filename)
    program.print("Supported options:\n" if filename else f"Supported {fmt} options:\n")
    program.print(option_help(options))
    if filename is None:
        program.print(
            "\nThe protocol level may support further options.\n"
            "Specify the target filename to include those options.\n"
        )


def check_format(program: Program, fmt: str) -> None:
    """See that there is a format and that it can create images."""
    drivers = program.emu.opener.drivers
    if fmt not in drivers:
        raise NoImageCreation(fmt) if is_known(fmt) else UnknownFormat(fmt)
    if text_options(drivers[fmt]) is None:
        raise NoImageCreation(fmt)


def read_options(
    program: Program, fmt: str, filename: str, text: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options in a text, and the kinds of all there are."""
    options = all_text_options(program.emu.opener.drivers, fmt, filename)
    kinds: dict[str, str] = {option.name: option.kind for option in options}
    return (parse_options(text, "", kinds) if text else {}), kinds


def own_and_file_options(program: Program, fmt: str, text: str | None) -> dict[str, str]:
    """Return the options in a text, those of files among them."""
    drivers = program.emu.opener.drivers
    own = {option.name: option for option in text_options(drivers[fmt]) or ()}
    for option in text_options(drivers["file"]) or ():
        own.setdefault(option.name, option)
    kinds: dict[str, str] = {name: option.kind for name, option in own.items()}
    return parse_options(text, "", kinds) if text else {}
