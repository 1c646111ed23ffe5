"""Buffers: filled with a pattern or from a file, and compared with a pattern."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blockemu.qemu_io.refusals import (
    MAX_REQUEST,
    ArgumentTooLarge,
    PatternFileEmpty,
    PatternFileError,
    TotalTooLarge,
)

if TYPE_CHECKING:
    from blockemu.qemu_io.interpreter import Interpreter

READ_FILL = 0xAB  # what a buffer holds before a read
WRITE_FILL = 0xCD  # what is written unless something else is wanted


def filled(length: int, byte: int) -> bytearray:
    """Return a buffer full of one byte."""
    return bytearray([byte]) * length


def from_file(name: str, length: int) -> bytes:
    """Return what a file begins with, again and again until there is enough.

    Raises:
        PatternFileError: it cannot be read.
        PatternFileEmpty: it has nothing to repeat.

    """
    try:
        with open(name, "rb") as file:  # noqa: PTH123 (pathlib is long to import)
            data = file.read(length)
    except OSError as e:
        raise PatternFileError(name, e.strerror) from None
    if not data:
        raise PatternFileEmpty(name)
    return (data * -(-length // len(data)))[:length]


def matches(buf: bytearray, byte: int, start: int, length: int) -> bool:
    """Tell whether a part of a buffer is full of one byte."""
    return buf.count(byte, start, start + length) == length


def total_length(io: "Interpreter", lengths: Sequence[str]) -> int:
    """Add up the lengths of a vectored request.

    Raises:
        Refusal: one of them, or all together, will not do.

    """
    total = 0
    for text in lengths:
        length = io.size(text)
        if length > MAX_REQUEST:
            raise ArgumentTooLarge(text)
        if total > MAX_REQUEST - length:
            raise TotalTooLarge
        total += length
    return total
