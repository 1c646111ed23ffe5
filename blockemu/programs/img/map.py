"""``map``: what lies where."""

import errno
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from blockemu import filenames
from blockemu.chain_map import Mapped, image_at, map_chain, storage
from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO
from blockemu.node import Node
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.numbers import number
from blockemu.programs.img.program import Mode, Program, is_json
from blockemu.programs.img.refusals import OneImageExpected, Refusal

SYNTAX = Syntax(
    "f:s:l:hU",
    IMAGE
    | {
        "format": "f",
        "output": ":",
        "force-share": "U",
        "start-offset": "s",
        "max-length": "l",
    },
)
_BOOL = ("false", "true")


class CouldNotReadMetadata(Refusal):
    """(why)."""

    template = "Could not read file metadata: {}"


class NotMappable(Refusal):
    """Some data lies nowhere that an offset could tell."""

    template = "File contains external, encrypted or compressed clusters."


async def run(program: Program, argv: list[str]) -> int:
    """List the runs of an image."""
    given: dict[str, str] = {}
    names = []
    start, most = 0, None
    for name, value in program.options(SYNTAX, argv):
        match name:
            case "":
                names.append(value)
            case "s":
                start = number("start offset", value, program.warn)
            case "l":
                most = number("max length", value, program.warn)
            case _:
                given[name] = value
    if len(names) != 1:
        raise OneImageExpected
    as_json = is_json(given.get("output"))
    mode = Mode(force_share="U" in given)
    image = await program.open(names[0], given.get("f"), mode, image_opts="image-opts" in given)
    printer = Json(program) if as_json else Human(program, image.node)
    end = image.length if most is None else min(start + most, image.length)
    try:
        await _print(image, start, end, printer)
    except OSError as e:
        raise CouldNotReadMetadata(os.strerror(e.errno or errno.EIO)) from e
    return 0


async def _print(image: Any, start: int, end: int, printer: "Json | Human") -> None:
    """Print merged runs as they are found; the last one waits for what may follow."""
    held: Mapped | None = None
    if start < end:
        async for batch in map_chain(image, start, end - start):
            runs = (batch if held is None else Mapped.concat([held, batch])).merged()
            whole, held = _split(runs)
            printer.runs(whole, more=True)
    printer.runs(held if held is not None else _nothing(start), more=False)


def _split(runs: Mapped) -> tuple[Mapped, Mapped]:
    """Cut the last run off."""
    return runs.rows(slice(-1), int(runs.start[-1])), runs.rows(slice(-1, None), runs.end)


def _nothing(at: int) -> Mapped:
    none = np.array([at], np.int64)
    nowhere = np.array([NOWHERE], np.int64)
    return Mapped(none, np.zeros(1, np.uint8), nowhere, np.zeros(1, np.int64), at)


def _rows(runs: Mapped) -> Iterator[tuple[int, int, int, int, int]]:
    columns = (runs.start, runs.length, runs.depth, runs.status, runs.host)
    return zip(*(c.tolist() for c in columns), strict=True)


class Json:
    """A list of objects, one a line."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._program.print("[")
        self._flags = [
            f'"present": {_BOOL[bool(s & ALLOCATED)]}, "zero": {_BOOL[bool(s & ZERO)]}, '
            f'"data": {_BOOL[bool(s & DATA)]}'
            for s in range(8)
        ]

    def runs(self, runs: Mapped, *, more: bool) -> None:
        """Print some runs; ``more``: others follow."""
        flags = self._flags
        lines = [
            f'{{ "start": {start}, "length": {length}, "depth": {depth}, {flags[status]}'
            + (f', "offset": {host}}}' if host != NOWHERE else "}")
            for start, length, depth, status, host in _rows(runs)
        ]
        text = ",\n".join(lines)
        self._program.print(f"{text},\n" if more and lines else f"{text}]\n" if not more else "")


class Human:
    """A table of what has data."""

    def __init__(self, program: Program, node: Node[Any]) -> None:
        self._program = program
        self._node = node
        self._names: dict[int, str] = {}
        self._program.print(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File\n")

    def runs(self, runs: Mapped, *, more: bool) -> None:
        """Print some runs.

        Raises:
            NotMappable: at the first one that has data but no place.

        """
        data = runs.status & (DATA | ZERO) == DATA
        lost = np.flatnonzero(data & (runs.host == NOWHERE))
        if len(lost):
            data[lost[0] :] = False
        length = runs.length
        self._program.print(
            "".join(
                f"{_hex(start):<16}{_hex(size):<16}{_hex(host):<16}{self._name(depth)}\n"
                for start, size, host, depth in zip(
                    runs.start[data].tolist(),
                    length[data].tolist(),
                    runs.host[data].tolist(),
                    runs.depth[data].tolist(),
                    strict=True,
                )
            )
        )
        if len(lost):
            raise NotMappable

    def _name(self, depth: int) -> str:
        name = self._names.get(depth)
        if name is None:
            node = storage(image_at(self._node, depth))
            if node is not None:
                filenames.refresh(node)
            name = self._names[depth] = node.full_filename if node is not None else ""
        return name


def _hex(value: int) -> str:
    """Return what C's ``%#x`` prints."""
    return f"{value:#x}" if value else "0"
