"""Numbers as blockemu-img's options take them."""

from collections.abc import Callable

from blockemu.programs.img.refusals import NotASize, SizeOutOfRange

MOST = 2**63 - 1


def number(
    what: str, text: str, warn: Callable[[str], None], least: int = 0, most: int = MOST
) -> int:
    """Read a number with an optional suffix (after cvtnum_full, qemu-img.c).

    Raises:
        NotASize: it is none.
        SizeOutOfRange: it is too small or too large.

    """
    from blockemu.qemu_io import refusals  # start-up: mostly no number is given
    from blockemu.qemu_io.sizes import parse_size

    try:
        value = parse_size(text, warn)
    except refusals.NotASize as e:
        raise NotASize(what) from e
    except refusals.SizeTooLarge as e:
        raise SizeOutOfRange(what, least, most) from e
    if not least <= value <= most:
        raise SizeOutOfRange(what, least, most)
    return value
